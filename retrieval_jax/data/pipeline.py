"""Batches of examples: shuffled, augmented, cut for this process; the position in the data is the global step.

Everything is a function of the position: the order of rows of (seed, epoch), augmentation of (seed, position), a batch
of (step). A run that stops after step t resumes with `start_step=t + 1` and sees what it would have seen, whatever the
number of threads, worker processes, machines or devices: there is no iterator state to save. Row i of a step's global
batch is position step * batch_size + i of the stream; a process reads the places of the batch that it is given, and
what lies beyond the batch is padding.

Columns are those of `examples.Examples`; nothing here knows one by name.
"""

import signal
from collections.abc import Mapping

import grain
import numpy as np
from absl import flags

from retrieval_jax.data import sampling as samplings
from retrieval_jax.data import workers
from retrieval_jax.data.examples import Examples, Pictures, Ragged, RaggedRows
from retrieval_jax.data.pictures import decoding, transforms
from retrieval_jax.errors import InputError


def train_batches(
    examples,
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
    beside_places=None,
    sampling="shuffle",
    sampling_kwargs=(),
    crop_before_decoding=False,
):
    """Iterates over augmented batches, epoch after epoch, each example exactly once per epoch (or as `sampling` says).

    Batches cross the border of epochs (the last rows of one and the first of the next share a batch), so every batch
    is full. A column added after others, and examples beside, leave the rest of a batch as it is without them.

    Args:
      examples: `examples.Examples`.
      transform: (name, kwargs) pairs, see `transforms.compose`, for pictures without transforms of their own.
      image_size: (height, width) in pixels, for pictures without a size of their own.
      batch_size: rows of a global batch, over all processes, where `examples` gives none.
      seed: of shuffling and augmentation.
      num_steps: the run's length; the batches are those of steps start_step .. num_steps - 1.
      start_step: first step to read.
      num_threads: threads that decode and augment; each works on a whole batch.
      num_workers: further Python processes; 0 reads in this one.
      places: [b] ints, the rows of each global batch that this process takes (`sharding.local_places`), padding from
        batch_size on; None for all of the batch.
      beside_places: {name: places} of the examples beside; None for all of their batches.
      sampling: name of the order of the rows, see `sampling`; examples beside are shuffled.
      sampling_kwargs: its keyword arguments.
      crop_before_decoding: whether a random_resized_crop that comes first chooses its rectangle from the size in
        the header, so that no more of a JPEG is decoded than it needs (`decoding.Encoded`). Several times fewer
        pixels; the same ones unless the rectangle is more than twice as large as asked. For sources that hold
        encoded pictures; columns that share their pictures (views) share the decoded ones instead.

    Returns:
      An iterator of dicts, see `examples`: every column [b, ...], "row" int32 [b], "_mask" bool [b]. Padding has a
      False mask, row -1, black pictures, and zeros in all other columns.

    Raises:
      InputError: a batch size below 1, or sampling that does not fit.
    """
    settings = (transform, image_size, crop_before_decoding)
    batch_size = batch_size if examples.batch_size is None else examples.batch_size
    places = _places("batch_size", batch_size, places)
    order = samplings.rows(sampling, sampling_kwargs, examples.columns, len(examples), seed, batch_size)
    readers = [("", _reader(examples.columns, order, batch_size, places, *settings))]
    for number, (name, other) in enumerate(examples.beside.items(), 1):
        # A seed of its own: two sets of equal length would otherwise be shuffled alike.
        own_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)
        order = samplings.shuffle({}, len(other), own_seed, other.batch_size)
        own = _places(f"{name} batch_size", other.batch_size, (beside_places or {}).get(name))
        readers.append((name, _reader(other.columns, order, other.batch_size, own, *settings)))

    def read(step):
        return {beside(name, key): value for name, reader in readers for key, value in reader(step).items()}

    return iter(_iterate(grain.MapDataset.range(start_step, num_steps).map(read), num_threads, num_workers))


def beside(name: str, column: str) -> str:
    """Returns a column's name in a batch: its own, or with the name of the set beside that it belongs to in front."""
    return f"{name}_{column.lstrip('_')}" if name else column


def names_beside(examples: Examples, pictures_only: bool = False) -> list[str]:
    """Returns the names in a batch of what belongs to examples beside: all columns, or the pictures."""
    names = []
    for name, other in examples.beside.items():
        columns = other.pictures() if pictures_only else _filled(other.columns, _black(other.columns, (1, 1), 1), [-1])
        names += [beside(name, column) for column in columns]
    return names


def zeros(examples: Examples, image_size, rows: int = 1) -> dict[str, np.ndarray]:
    """Returns a batch of zeros with every column that the batches of examples have; its masks are True.

    Args:
      examples: as of `train_batches`.
      image_size: as of `train_batches`.
      rows: how many rows, of examples beside as well.
    """
    batch = {}
    for name, other in (("", examples), *examples.beside.items()):
        padding = _filled(other.columns, _black(other.columns, image_size, rows), [-1] * rows)
        for key, value in padding.items():
            batch[beside(name, key)] = np.ones_like(value) if value.dtype == bool else np.zeros_like(value)
    return batch


def eval_batches(columns, *, transform, image_size, batch_size, num_threads=2, rows=None, places=None):
    """Iterates over columns once, in order; the last batch is padded to full size.

    Args:
      columns: {name: `examples.Pictures`, `examples.Ragged` or array [n, ...]}, equally long.
      transform: (name, kwargs) pairs, nothing random, for pictures without transforms of their own.
      image_size: (height, width) in pixels, for pictures without a size of their own.
      batch_size: rows of a global batch, over all processes.
      num_threads: threads that decode; each works on a whole batch.
      rows: only these rows, in this order.
      places: [b] ints, which rows of each global batch this process reads (`sharding.local_places`); None for all.

    Returns:
      An iterator of dicts as of `train_batches`; padding is at the end of the last batch.
    """
    reader = _Columns(columns, transform, image_size)
    total = len(next(iter(columns.values())))
    rows = np.arange(total) if rows is None else np.asarray(rows)
    places = np.asarray(_places("batch_size", batch_size, places))

    def read(number):
        at = number * batch_size + places
        there = (places < batch_size) & (at < len(rows))
        row = np.where(there, rows[np.where(there, at, 0)] if len(rows) else 0, -1)
        pictures = reader.black(len(places))
        for i in np.flatnonzero(there):
            for name, value in reader.pictures(int(row[i]), None).items():
                pictures[name][i] = value
        return _filled(columns, pictures, row)

    return iter(_iterate(grain.MapDataset.range(-(-len(rows) // batch_size)).map(read), num_threads, 0))


def _reader(columns, order, batch_size, places, transform, image_size, crop_before_decoding):
    """Returns the function that reads a step's batch: rows of the stream `order`, pictures of (its seed, position)."""
    reader = _Columns(columns, transform, image_size, crop_before_decoding)

    def augmented(row, rng):
        return int(row), reader.pictures(int(row), rng)

    stream = order.random_map(augmented)

    def read(step):
        pictures, rows = reader.black(len(places)), np.full(len(places), -1, np.int64)
        for i, place in enumerate(places):
            if place < batch_size:
                rows[i], found = stream[int(step) * batch_size + place]
                for name, value in found.items():
                    pictures[name][i] = value
        return _filled(columns, pictures, rows)

    return read


class _Columns:
    """Reads rows of columns: pictures one example at a time, all else for a whole batch at once."""

    def __init__(self, columns: Mapping, transform, image_size, crop_before_decoding=False):
        self.columns, self.image_size = dict(columns), tuple(image_size)
        self.sizes = {
            name: tuple(column.image_size or image_size)
            for name, column in self.columns.items()
            if isinstance(column, Pictures)
        }
        self.applies = {}
        for name, size in self.sizes.items():
            own = self.columns[name].transforms
            self.applies[name] = transforms.compose(transform if own is None else own, size)
        keys = [self._key(self.columns[name]) for name in self.sizes]
        # What is decoded once for several columns is decoded whole.
        self.encoded = {
            name
            for name, key in zip(self.sizes, keys, strict=True)
            if crop_before_decoding and keys.count(key) == 1 and hasattr(self.columns[name].source, "read")
        }

    @staticmethod
    def _key(column: Pictures) -> tuple[int, int]:
        return id(column.source), id(column.rows)

    def pictures(self, row: int, rng) -> dict[str, np.ndarray]:
        """Returns an example's pictures, transformed; `rng` draws for all of them, None where nothing is random."""
        decoded: dict[tuple[int, int], np.ndarray] = {}
        out = {}
        for name, apply in self.applies.items():  # from one generator, in order: a later column changes no earlier one
            rows = self.columns[name].rows
            rows = np.asarray(row if rows is None else rows[row])
            shown = []
            for one in rows.reshape(-1).tolist():
                if one < 0:
                    shown.append(np.zeros((*self.sizes[name], 3), np.uint8))
                else:
                    picture = self._picture(name, one, decoded)
                    shown.append(apply(picture) if rng is None else apply(picture, rng))
            out[name] = np.stack(shown) if rows.ndim else shown[0]
        return out

    def _picture(self, name: str, row: int, decoded: dict):
        source = self.columns[name].source
        if name in self.encoded:
            return decoding.encoded(source, row)
        key = (id(source), row)
        if key not in decoded:
            decoded[key] = source[row]
        return decoded[key]

    def black(self, count: int) -> dict[str, np.ndarray]:
        """Returns the pictures of a batch, black."""
        return _black(self.columns, self.image_size, count)


def _black(columns, image_size, count: int) -> dict[str, np.ndarray]:
    """Returns black pictures for a batch, by column."""
    out = {}
    for name, column in columns.items():
        if isinstance(column, Pictures):
            several = (column.per_example,) if column.per_example else ()
            out[name] = np.zeros((count, *several, *(column.image_size or image_size), 3), np.uint8)
    return out


def _filled(columns, pictures: dict[str, np.ndarray], rows) -> dict[str, np.ndarray]:
    """Returns a batch: its pictures with everything else of its rows; row -1 is padding."""
    rows = np.asarray(rows, np.int64)
    there, some = rows >= 0, np.maximum(rows, 0)
    batch = {**pictures, "row": rows.astype(np.int32), "_mask": there}
    for name, column in columns.items():
        if isinstance(column, Pictures):
            if column.rows is not None:
                shown = column.rows[some] >= 0
                batch[f"{name}_mask"] = shown & there.reshape(-1, *(1,) * (shown.ndim - 1))
        elif isinstance(column, Ragged | RaggedRows):
            batch[name], batch[f"{name}_mask"] = column.padded(rows)
        else:
            batch[name] = np.asarray(column)[some]
            batch[name][~there] = 0
    return batch


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
