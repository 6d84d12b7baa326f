"""Batches of a split: shuffled, augmented, cut for this process; the position in the data is the global step.

Everything is a function of the position: row order of (seed, epoch), augmentation of (seed, position), batch of
(step). So a run that stops after step t goes on with `start_step=t + 1` and sees what it would have seen, whatever
the number of threads, worker processes, machines or devices: there is no iterator state to save. Row i of a step's
global batch is position step * batch_size + i of the stream; a process reads the places of the batch that it is told
to, and what lies beyond the batch is padding.
"""

import signal

import grain
import numpy as np
from absl import flags

from retrieval_jax.data import sampling as samplings
from retrieval_jax.data import workers
from retrieval_jax.data.pictures import decoding, transforms
from retrieval_jax.errors import InputError


def train_batches(
    columns,
    *,
    transform,
    image_size,
    batch_size,
    seed,
    num_steps,
    start_step=0,
    num_threads=2,
    num_workers=0,
    places=None,
    views=(),
    unlabelled=None,
    sampling="shuffle",
    sampling_kwargs=(),
    crop_before_decoding=False,
):
    """Iterates over augmented batches, epoch after epoch, each row exactly once an epoch (or as `sampling` says).

    Batches cross the border of epochs (the last rows of one and the first of the next share a batch), so every batch
    is full.

    Further views and unlabelled pictures leave everything else of a batch as it is without them.

    Args:
      columns: what a batch holds, each with one entry per row of the split:
        image: random access, image[row] -> uint8 [h, w, 3];
        label_ids: (indptr int64 [n + 1], ids [indptr[n]]), sparse rows, or None;
        any other name: an array [n, ...], or None.
      transform: (name, kwargs) pairs, see `transforms.compose`.
      image_size: (height, width) in pixels.
      batch_size: rows of a global batch, over all processes.
      seed: of shuffling and augmentation.
      num_steps: the run's length; the batches are those of steps start_step .. num_steps - 1.
      start_step: first step to read.
      num_threads: that decode and augment; each works on a whole batch.
      num_workers: further Python processes; 0 reads in this one.
      places: [b] ints, the rows of each global batch that this process takes (`sharding.local_places`), padding from
        batch_size on; None for all of the batch.
      views: further crops of the same pictures (multi-crop), each {"transforms": (name, kwargs) pairs, "image_size":
        (h, w), as `image_size` where it is left out}. A picture is read once for all of them.
      unlabelled: None, or a second source that is zipped to the first: {"image": random access, "batch_size": U
        pictures of a global batch, "transform": (name, kwargs) pairs, "image_size" and "places": as above}. It has
        an order and epochs of its own.
      sampling: name of the order of the rows, see `sampling`.
      sampling_kwargs: its keyword arguments.
      crop_before_decoding: whether a random_resized_crop that comes first chooses its rectangle from the size in
        the header, so that no more of a JPEG is decoded than it needs (`decoding.Encoded`). Several times fewer
        pixels; the same ones unless the rectangle is more than twice as large as asked. Of sources that hold
        encoded pictures, and without views, which share what is decoded once.

    Returns:
      An iterator of dicts: image uint8 [b, height, width, 3]; row int32 [b]; _mask bool [b]; label_ids int32 [b, L]
      (padded with 0) and label_mask bool [b, L], L the most labels any row has; other columns [b, ...]. With views
      also image_view1, image_view2, ... uint8 [b, h, w, 3]. With unlabelled pictures also unlabelled_image uint8 [u,
      h, w, 3], unlabelled_row int32 [u] and unlabelled_mask bool [u]. Padding has a false mask, row -1, black
      pictures, no labels, and zeros in other columns.

    Raises:
      InputError: no rows, columns of different lengths, a batch size below 1, or sampling that does not fit.
    """
    num_rows = _num_rows(columns)
    read_columns = _column_reader(columns)
    applies = {"image": (transforms.compose(transform, image_size), image_size)}
    for number, view in enumerate(views, 1):
        view = _settings(f"view {number}", view, "transforms", image_size=image_size)
        applies[f"image_view{number}"] = transforms.compose(view["transforms"], view["image_size"]), view["image_size"]
    places = _places("batch_size", batch_size, places)
    order = samplings.rows(sampling, sampling_kwargs, columns, num_rows, seed, batch_size)
    read = _shuffled(columns["image"], order, applies, batch_size, places, crop_before_decoding)
    steps = grain.MapDataset.range(start_step, num_steps)
    if unlabelled is None:
        return iter(_iterate(steps.map(lambda step: read_columns(read(step))), num_threads, num_workers))

    further = _settings(
        "unlabelled", unlabelled, "image", "batch_size", "transform", image_size=image_size, places=None
    )
    if not len(further["image"]):
        raise InputError("the unlabelled source has no pictures")
    apply = transforms.compose(further["transform"], further["image_size"])
    places = _places("unlabelled batch_size", further["batch_size"], further["places"])
    # A seed of its own: two sources of equal length would else be shuffled alike.
    own_seed = int(np.random.SeedSequence((seed, 1)).generate_state(1)[0] >> 1)
    order = samplings.shuffle({}, len(further["image"]), own_seed, further["batch_size"])
    read_other = _shuffled(
        further["image"],
        order,
        {"image": (apply, further["image_size"])},
        further["batch_size"],
        places,
        crop_before_decoding,
    )

    def read_both(step):
        other = read_other(step)
        return {
            **read_columns(read(step)),
            "unlabelled_image": other["image"],
            "unlabelled_row": other["row"],
            "unlabelled_mask": other["row"] >= 0,
        }

    return iter(_iterate(steps.map(read_both), num_threads, num_workers))


def _shuffled(source, order, applies, batch_size, places, crop_before_decoding):
    """Returns the function that reads a step's batch: rows of the stream `order`, pictures of (its seed, position).

    `applies` holds (function, (height, width)) for each name of a picture.
    """
    encoded = crop_before_decoding and len(applies) == 1 and hasattr(source, "read")

    def read(row, rng):
        picture = decoding.encoded(source, int(row)) if encoded else source[int(row)]
        # in order, from one generator: what comes first does not depend on what follows
        return {name: apply(picture, rng) for name, (apply, _) in applies.items()} | {"row": np.int32(row)}

    stream = order.random_map(read)

    def batch(step):
        out = {name: np.zeros((len(places), *size, 3), np.uint8) for name, (_, size) in applies.items()}
        out["row"] = np.full(len(places), -1, np.int32)
        for i, place in enumerate(places):
            if place < batch_size:
                for name, value in stream[int(step) * batch_size + place].items():
                    out[name][i] = value
        return out

    return batch


def _settings(what, given, *required, **optional):
    given = dict(given)
    for key in given:
        if key not in required and key not in optional:
            raise InputError(f"{what} has no setting {key!r}; it takes: {', '.join((*required, *optional))}")
    missing = [key for key in required if key not in given]
    if missing:
        raise InputError(f"{what} lacks {', '.join(missing)}; it takes: {', '.join((*required, *optional))}")
    return {**optional, **given}


def eval_batches(source, *, transform, image_size, batch_size, num_threads=2, rows=None, places=None):
    """Iterates over a split once, in order; the last batch is padded to full size.

    Args:
      source: random access, source[row] -> uint8 [h, w, 3].
      transform: (name, kwargs) pairs, nothing random.
      image_size: (height, width) in pixels.
      batch_size: rows of a global batch, over all processes.
      num_threads: that decode; each works on a whole batch.
      rows: only these rows, in this order.
      places: [b] ints, which rows of each global batch this process reads (`sharding.local_places`); None for all.

    Returns:
      An iterator of dicts: image uint8 [b, height, width, 3]; row int32 [b] (-1 for padding); _mask bool [b], false
      for padding (whose pictures are black).
    """
    apply = transforms.compose(transform, image_size)
    rows = np.arange(len(source)) if rows is None else np.asarray(rows)
    places = _places("batch_size", batch_size, places)

    def read(batch):
        images = np.zeros((len(places), *image_size, 3), np.uint8)
        row = np.full(len(places), -1, np.int32)
        for i, place in enumerate(places):
            if place < batch_size and batch * batch_size + place < len(rows):
                row[i] = rows[batch * batch_size + place]
                images[i] = apply(source[int(row[i])])
        return {"image": images, "row": row, "_mask": row >= 0}

    return iter(_iterate(grain.MapDataset.range(-(-len(rows) // batch_size)).map(read), num_threads, 0))


def _iterate(batches, num_threads, num_workers):
    # The buffer counts batches: enough to keep every thread busy, no more memory than that.
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    batches = batches.to_iter_dataset(options)
    if num_workers:
        if not flags.FLAGS.is_parsed():  # grain reads absl flags here; notebooks and tests never parse them
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2), worker_init_fn=_start
        )
    return batches


def _start(number, count):
    """Ties a worker process to the one that reads from it: it ends with that one, and not before."""
    del number, count
    # Slurm and terminals signal all processes at once, and batches are still read until the run has saved.
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    workers.end_with_parent()


def _places(name, batch_size, places):
    if batch_size < 1:
        raise InputError(f"{name} is {batch_size}: give 1 or more")
    return list(range(batch_size)) if places is None else [int(place) for place in places]


def _num_rows(columns):
    if columns.get("image") is None:
        raise InputError(f"a batch needs the column 'image'; given: {', '.join(sorted(columns)) or 'nothing'}")
    lengths = {
        name: len(column[0]) - 1 if name == "label_ids" else len(column)
        for name, column in columns.items()
        if column is not None
    }
    if len(set(lengths.values())) > 1:
        raise InputError(
            "the columns of a split have different numbers of rows: "
            + ", ".join(f"{name} {n}" for name, n in lengths.items())
        )
    if not lengths["image"]:
        raise InputError("the split to train on has no rows")
    return lengths["image"]


def _column_reader(columns):
    """Returns the function that looks up a batch's labels and other columns by its rows, all rows at once."""
    others = {
        name: np.asarray(column)
        for name, column in columns.items()
        if column is not None and name not in ("image", "label_ids")
    }
    labels = columns.get("label_ids")
    if labels is not None:
        indptr, ids = np.asarray(labels[0], np.int64), np.asarray(labels[1], np.int32)
        ids = np.append(ids, np.int32(0))  # what padding reads
        slots = np.arange(max(1, int(np.diff(indptr).max())))

    def read(batch):
        there, rows = batch["row"] >= 0, np.maximum(batch["row"], 0)
        batch = {**batch, "_mask": there}
        if labels is not None:
            starts = indptr[rows, None]
            mask = (slots < indptr[rows + 1, None] - starts) & there[:, None]
            batch["label_ids"] = ids[np.where(mask, starts + slots, len(ids) - 1)]
            batch["label_mask"] = mask
        for name, column in others.items():
            batch[name] = column[rows]
            batch[name][~there] = 0
        return batch

    return read
