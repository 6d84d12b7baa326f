"""What train and embed would build, as shapes: whether it can be built, and fits into memory and onto the disk.

Nothing is trained, allocated or kept. Shapes come from `jax.eval_shape`, which takes a second or two. Where mine has
not run, the titles' plain words are counted, in a temporary folder.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import inference, tasks, workdir
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.attributes import words
from retrieval_jax.data import loading, pipeline, text
from retrieval_jax.data.pictures import hand_made
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.embeddings import evidence
from retrieval_jax.errors import InputError
from retrieval_jax.models import pixels
from retrieval_jax.settings import sizes
from retrieval_jax.tasks.parts import classifiers, vectors
from retrieval_jax.training import checkpoints, memory, mixing, optim, sharding
from retrieval_jax.views import host_size, with_views
from retrieval_jax.workdir import preflight, provenance, sides
from retrieval_jax.workdir.preflight import size_text

_SURE = 0.8  # of the activations that tracing finds: XLA may need that much less
_SAMPLE = 4  # pictures of a split that are decoded to know their size


@dataclasses.dataclass(frozen=True)
class Plan:
    """What train would build, as shapes; nothing is allocated.

    Attributes:
      listings: {split: listings}.
      settings: the train block, with what follows the catalogue filled in.
      labels: mined attributes.
      task: the `tasks.Task`.
      num_steps: of training.
      batch: one row of a batch, `jax.ShapeDtypeStruct`s.
      state: parameters, moving average and optimiser state, with their shardings.
      mesh: the devices.
    """

    listings: dict[str, int]
    settings: Any
    labels: int
    task: Any
    num_steps: int
    batch: dict
    state: dict
    mesh: Any


def plan(config, folder) -> Plan:
    """Returns what a training would build.

    Args:
      config: the settings, with a train block.
      folder: its work directory; what mine wrote there is used, and not needed.

    Raises:
      InputError: the catalogue cannot be read, or a setting of the task, the network or the optimiser is wrong.
    """
    settings, catalog = config.train, loading.load(config.data)
    mined = (pathlib.Path(folder) / "attributes" / "vocabulary.json").exists()
    key = (id(catalog), json.dumps(workdir.plain(config), sort_keys=True), str(folder), mined)
    if key == _last.key:
        return _last.plan
    listings = {name: len(split) for name in ("train", "val", "query", "gallery") if (split := getattr(catalog, name))}
    module = tasks.get(settings.task)
    with _mined(config, catalog, pathlib.Path(folder)) as mined:
        examples, info = module.examples(config, catalog, mined)
    settings, _ = sizes.resolved(settings, len(examples), examples.batch_size)
    steps_per_epoch = len(examples) / settings.batch_size
    num_steps = max(1, round(settings.epochs * steps_per_epoch))
    task = module.make(settings, info)
    batch = rows_of(pipeline.zeros(examples, config.data.image_size), 1)

    def init():
        params = task.init(jax.random.key(0), jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), batch))
        optimizer, _ = optim.make(settings, params, num_steps, steps_per_epoch)
        return {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}

    mesh = sharding.make_mesh(**settings.mesh)
    state = jax.eval_shape(init)
    state = sharding.placed(state, sharding.state_sharding(state, mesh, settings.sharding_rules))
    found = Plan(listings, settings, len(info.label_names), task, num_steps, batch, state, mesh)
    _last.key, _last.catalog, _last.plan = key, catalog, found
    return found


@dataclasses.dataclass
class _Last:
    """The last plan that was made: the checks of train and embed ask for the same one."""

    key: tuple = ()
    catalog: Any = None  # kept, so that no other one gets its id
    plan: Plan | None = None


_last = _Last()


def rows_of(batch: dict, rows: int) -> dict:
    """Returns the shapes of a batch with another number of rows."""
    return {name: jax.ShapeDtypeStruct((rows, *np.shape(one)[1:]), one.dtype) for name, one in batch.items()}


def loss(found: Plan):
    """Returns the loss of a plan's task: (params, batch) -> scalar."""

    def loss(params, batch):
        rng, task = jax.random.key(0), found.task
        return task.loss_fn(params, batch, rng=rng, step=0, ema=params, constants=task.constants, train=True)[0]

    return loss


def step_bytes(found: Plan, rows: int | None = None) -> dict[str, int]:
    """Estimates the memory of a training step on one device, without compiling it.

    Args:
      found: from `plan`.
      rows: of a batch; by default the plan's.

    Returns:
      {name in words: bytes}, as `memory.step_bytes` has them once the step is compiled.
    """
    rows = rows or found.settings.batch_size
    here = max(1, -(-rows // found.mesh.size))
    part = max(1, here // found.settings.accumulate_steps)
    params = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), found.state["params"])
    counts = memory.state_bytes(found.state)
    counts["batch"] = memory.tree_bytes(rows_of(found.batch, here))
    counts["activations"] = memory.residual_bytes(loss(found), params, rows_of(found.batch, part))
    return counts


# --------------------------------------------------------------------------------------------- checks before a run


def check_training(config, folder) -> None:
    """Checks that a training can be built, and that it fits into memory and onto the disk.

    Args:
      config, folder: see `plan`.

    Raises:
      InputError: see `plan`; public weights that are not there; too little memory or disk.
    """
    settings = config.train
    if clusters_unknown(config, folder) or vectors_unknown(config, folder):
        return  # mine finds them; train makes them
    found = plan(config, folder)
    check_batches(settings, found.task)
    if found.task.warm_start is not None:
        weights = settings.model.pretrained
    if found.task.warm_start is not None and weights.name:  # a task with other weights has read about them in `make`
        importlib.import_module("retrieval_jax.models.pretrained").check(weights.name, weights.path, weights.offline)
    most = memory.limit(found.mesh.local_devices[0])
    counts = step_bytes(found)
    counts["activations"] = int(_SURE * counts["activations"])
    if sum(counts.values()) > most:
        memory.check(counts, most, _fitting(found, most))
    _check_cache(config, ("train",), settings.num_workers)
    state, there = memory.tree_bytes(found.state), preflight.written(workdir.as_path(folder) / "checkpoints")
    kept = max(state, state * (settings.keep_checkpoints + 1) - there)  # the next is written before one is removed
    preflight.disk(folder, {"checkpoints": kept}, "config.train.keep_checkpoints = 1 or a smaller network")


def _fitting(found: Plan, most: int) -> str:
    """Returns the largest batch that would fit, in words."""
    rows = found.settings.batch_size
    if rows < 2:
        return ""
    large, small = (sum(step_bytes(found, count).values()) for count in (rows, max(1, rows // 2)))
    each = (large - small) / (rows - max(1, rows // 2))
    fits = int((most - large) / each) + rows if each > 0 else 0
    return f"config.train.batch_size = {1 << (fits.bit_length() - 1)} would fit" if fits >= 1 else ""


def check_batches(settings, task) -> None:
    """Raises InputError where a batch would be worked on in parts, and the loss compares its rows; or where pictures
    would be mixed, and the loss does not read the labels of both.

    Args:
      settings: the train block.
      task: `tasks.Task`.
    """
    for name, *_ in settings.batch_transforms:
        if name in mixing.WAYS and not task.mixes:
            raise InputError(
                f"config.train.batch_transforms has {name!r}, and the task {settings.task!r} would learn a picture "
                "mixed from two as if it were the first alone: remove it"
            )
    if task.couples_rows and settings.accumulate_steps > 1:
        raise InputError(
            f"config.train.accumulate_steps={settings.accumulate_steps}: the loss of {task.couples_rows} compares the "
            "rows of a batch with each other, and in parts would only see those of a part: set it to 1, and "
            "model.kwargs.remat=True or a larger mesh.fsdp to save memory"
        )


def check_pixels(model, source) -> None:
    """Checks that a network sees pictures as the one that it starts from did.

    Args:
      model: the block config.train.model.
      source: work directory of the run that it starts from.

    Raises:
      InputError: they are normalised by other means and standard deviations; the message says how to mend it.
    """
    there = (checkpoints.meta(pathlib.Path(source) / "checkpoints").get("config") or {}).get("model") or {}
    ours, theirs = (_pixels(one) for one in (model, there))
    if ours != theirs:
        name = (there.get("pretrained") or {}).get("name") or ""
        raise InputError(
            f"config.train.init_from: the network of {source} has learned from pictures normalised by the mean "
            f"{theirs[0]} and the standard deviation {theirs[1]}, and this config gives it others, by {ours[0]} and "
            f"{ours[1]}: set config.train.model.pretrained as in that run, whose name there is {name!r}"
        )


def _pixels(model) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation that a network's pictures are normalised by."""
    public = model.get("pretrained") or {}
    if not public.get("name"):
        return pixels.MEAN, pixels.STD
    path = public.get("path") or ""
    known = importlib.import_module("retrieval_jax.models.pretrained")  # file readers, only where weights are public
    found = known.info(public["name"], path if path and os.path.exists(path) else None)
    return tuple(found.mean), tuple(found.std)


def check_embedding(config, folder, functions: dict) -> None:
    """Checks that embedding fits into memory and onto the disk, for networks that are not trained yet as well.

    Args:
      config, folder: see `plan`.
      functions: {split: name of the predict function} of the networks that this run trains.

    Raises:
      InputError: there is no such function, or it reads a column that no batch has; too little memory or disk.
    """
    catalog, found, dim = loading.load(config.data), None, 0
    unknown = config.get("train") is not None and (clusters_unknown(config, folder) or vectors_unknown(config, folder))
    if config.get("train") is not None and not unknown:
        with contextlib.redirect_stdout(io.StringIO()):
            found = plan(config, folder)
    params = found and jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), found.state["params"])
    for name in sorted(set(functions.values())) if found else ():
        predict = inference.named(found.task.predict_fns, name)
        if any(column not in found.batch for column in predict.reads):
            continue  # a column of a split that training does not have
        read = {*predict.reads, *(f"{column}_mask" for column in predict.reads)}
        batch = {column: one for column, one in found.batch.items() if column in read}
        arguments = inference.test_arguments(config)
        rows = -(-arguments["batch_size"] // jax.device_count())
        views, size = config.embed.get("views", ()), arguments["image_size"]
        batch = rows_of(batch, rows)
        if "image" in batch and len(batch["image"].shape) == 4:
            batch["image"] = jax.ShapeDtypeStruct((rows, *host_size(views, size), 3), batch["image"].dtype)
        forward = functools.partial(_embedding, with_views(predict, views, size).fn)
        counts = {
            "parameters": memory.tree_bytes(params),
            "batch": memory.tree_bytes(batch),
            "activations": int(_SURE * memory.forward_bytes(forward, params, batch)),
        }
        most = memory.limit(jax.local_devices()[0])
        if sum(counts.values()) > most:
            raise InputError(
                f"embedding would need about {size_text(sum(counts.values()))} of memory on each device, which has "
                f"{size_text(most)}: lower config.embed.batch_size (now {config.embed.batch_size}) or embed.image_size"
            )
        dim = max(dim, jax.eval_shape(functools.partial(_embedding, predict.fn), params, batch).shape[-1])
    _check_cache(config, ("query", "gallery"), 0)
    rows = sum(len(catalog.split(name)) for name in ("query", "gallery"))
    dim = max(dim, 256)
    beside = sum(sum(evidence_rows(config, name).values()) for name in ("pretrained", sides.MODEL))
    numbers = rows * hand_made.width(config.embed.models, dim) + beside * dim
    written = numbers * np.dtype(config.embed.dtype).itemsize
    preflight.disk(folder, {"embeddings": written}, "config.embed.dtype = 'float16' or fewer config.embed.models")


def _embedding(function, params, batch):
    """Returns the embedding that a predict function makes, without the name of its space, which is not an array."""
    return function(params, batch)["embedding"]


def evidence_rows(config, model: str) -> dict[str, int]:
    """Returns how many pictures embed makes of a model for choosing search steps: at most, {"train", "altered"}.

    Args:
      config: the whole config.
      model: such as "trained"; one that is not embedded has none.
    """
    alike = model != sides.MODEL or len({side.folder for side in sides.of(config).values()}) == 1
    if model not in config.embed.models or not alike or not sides.wants_evidence(config):
        return {"train": 0, "altered": 0}
    catalog = loading.load(config.data)
    train = catalog.train
    titled = 0 if train is None or train.titles is None else len(train)
    return {"train": min(evidence.ROWS, titled), "altered": min(evidence.ROWS, len(catalog.gallery))}


def clusters_unknown(config, folder) -> bool:
    clusters = pathlib.Path(folder) / "attributes" / "clusters.npz"
    return config.train.task_kwargs.get("category_labels") == "clusters" and not clusters.exists()


def vectors_unknown(config, folder) -> bool:
    """Returns whether a task learns from vectors of another run that train has not made yet."""
    module = tasks.get(config.train.task)
    run = getattr(module, "learns_from", lambda config: "")(config)
    return bool(run) and not (pathlib.Path(folder) / text.FOLDER / vectors.FILE).exists()


def _check_cache(config, splits, workers: int) -> None:
    """Raises InputError where the decoded pictures that will be kept do not fit into this machine's memory."""
    catalog, kept = loading.load(config.data), 0
    for name in splits:
        split = catalog.split(name)
        if config.data.cache_bytes and len(split) and not isinstance(split.images, NoPictures):
            rows = np.linspace(0, len(split) - 1, _SAMPLE).astype(int)
            each = np.mean([split.images[int(row)].nbytes for row in rows])
            kept += min(config.data.cache_bytes, each * len(split))
    kept, most = int(kept * max(1, workers)), provenance.memory_bytes()
    if kept > most:
        processes = f" in each of {workers} worker processes" if workers else ""
        raise InputError(
            f"config.data.cache_bytes is {config.data.cache_bytes:,}: the decoded pictures of {' and '.join(splits)} "
            f"would fill {size_text(kept)}{processes}; this machine has {size_text(most)}; lower it, to 0 for no cache"
        )


@contextlib.contextmanager
def _mined(config, catalog, folder: pathlib.Path):
    """Yields a temporary work directory that reads as the run's own, and where tasks may write: with what mine wrote,
    or else with the catalogue's plain words; and with the tokenizer of the run, or of the one that it starts from."""
    titles = [split.titles for split in (catalog.train, catalog.val) if split is not None and split.titles is not None]
    with tempfile.TemporaryDirectory() as temporary:
        here, start = pathlib.Path(temporary), workdir.predecessor_folder(config, folder)
        for source in (folder, *([] if start is None else [pathlib.Path(start)])):
            if (source / "text" / "tokenizer.json").exists() and not (here / "text").exists():
                (here / "text").mkdir()
                (here / "text" / "tokenizer.json").symlink_to((source / "text" / "tokenizer.json").absolute())
        for name in (vectors.FILE, classifiers.FILE):
            if (made := folder / text.FOLDER / name).exists():
                (here / text.FOLDER).mkdir(exist_ok=True)
                (here / text.FOLDER / name).symlink_to(made.absolute())
        mined = (folder / "attributes" / "vocabulary.json").exists()
        if (folder / "attributes").is_dir() and (mined or not titles):
            (here / "attributes").symlink_to((folder / "attributes").absolute())
        elif titles:
            _write_words(config, catalog, titles, here / "attributes")
        yield here


def _write_words(config, catalog, titles, attributes: pathlib.Path) -> None:
    """Writes what mine would write, of the titles' plain words."""
    from retrieval_jax.attributes import choosing, deciding, statistics  # with polars, which only mining needs

    rules = choosing.base_rules(config.mine)
    counted = statistics.count(titles, tokenize=functools.partial(words.of_titles, rules=rules), progress=False)
    threshold = config.mine.threshold
    if threshold is None:
        threshold, _ = sizes.threshold(counted.num_titles)
    vocabulary = vocabulary_lib.build(counted.tokens, counted.num_titles, threshold, rules)
    if not len(vocabulary) and deciding.switches(config.mine):  # which may keep rarer words
        vocabulary = vocabulary_lib.build(counted.tokens, counted.num_titles, 0, rules)
    attributes.mkdir()
    vocabulary.save(attributes / "vocabulary.json")
    encoded = vocabulary.encode(catalog.train.titles, progress=False)
    vocabulary_lib.save_targets(attributes / "train.npz", *encoded, vocabulary.hash)
