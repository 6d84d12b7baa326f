"""Estimates a run before it starts: steps, parameters, memory, rough time and disk. Trains nothing, keeps nothing.

    retrieval-jax run --config=quickstart --estimate

Counts are exact where mine has run; otherwise the titles' plain words are counted, in a temporary folder.
Shapes come from `jax.eval_shape`, floating-point operations from XLA's count for the gradient of the loss. Time is a
rule of thumb, operations over a rate:

    a CPU           70 GFLOP/s per core. The trainings of benchmarks/fashion.json and quickstart.json (2026-11-21, AMD
                    EPYC) reached 55 to 92 per CPU second, by the same count of operations
    an accelerator  40 % of the peak in training/telemetry.py: assumed, as for the published recipe, not measured

Reading pictures, compiling, evaluation during training, test-time views and search are not included.
"""

import contextlib
import dataclasses
import importlib
import io
import json
import math
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import inference, tasks, workdir
from retrieval_jax.attributes import deciding, statistics
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.data import loading, pipeline
from retrieval_jax.errors import InputError
from retrieval_jax.settings import sizes
from retrieval_jax.settings.sizes import CORE_FLOPS
from retrieval_jax.training import memory, optim, sharding, telemetry
from retrieval_jax.views import host_size, with_views
from retrieval_jax.workdir import preflight, provenance

UTILISATION = 0.4
_SURE = 0.8  # of the activations that tracing finds: XLA may need that much less
_SAMPLE = 4  # pictures of a split that are decoded to know their size
_ROWS = 2  # of the batch whose operations are counted; some losses compare rows


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a training and its embeddings will take.

    Attributes:
      listings: {split: listings}.
      labels: mined attributes.
      steps: of training.
      batch_size: of a step.
      parameters: of the network with its heads.
      state_bytes: of parameters, moving average, optimiser and gradients, on one device.
      activation_bytes: of a batch and its activations, on one device.
      device_bytes: that one device can hold.
      train_flops: floating-point operations of the training; None where XLA does not count them.
      embed_flops: likewise of the embeddings of queries and gallery.
      dim: of an embedding.
      checkpoint_bytes: on disk, of all checkpoints that are kept.
      embedding_bytes: on disk, of all models' embeddings.
    """

    listings: dict[str, int]
    labels: int
    steps: int
    batch_size: int
    parameters: int
    state_bytes: int
    activation_bytes: int
    device_bytes: int
    train_flops: float | None
    embed_flops: float | None
    dim: int
    checkpoint_bytes: int
    embedding_bytes: int


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
    batch = _rows(pipeline.zeros(examples, config.data.image_size), 1)

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


def _rows(batch: dict, rows: int) -> dict:
    """Returns the shapes of a batch with another number of rows."""
    return {name: jax.ShapeDtypeStruct((rows, *np.shape(one)[1:]), one.dtype) for name, one in batch.items()}


def _loss(found: Plan):
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
    counts["batch"] = _bytes(_rows(found.batch, here))
    counts["activations"] = memory.residual_bytes(_loss(found), params, _rows(found.batch, part))
    return counts


def of(config, folder) -> Estimate:
    """Estimates a run.

    Args:
      config, folder: see `plan`.

    Raises:
      InputError: see `plan`.
    """
    _refuse_clusters(config, folder)
    found = plan(config, folder)
    settings, task, state = found.settings, found.task, found.state
    batch = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), _rows(found.batch, _ROWS))
    step_flops = _flops(jax.grad(_loss(found)), state["params"], batch)
    predict = inference.named(task.predict_fns, config.embed.predict_fn)
    shown = {name: batch[name] for name in batch if name in predict.reads}
    embeds = len(shown) == len(predict.reads)  # a column of a split that training does not have: size unknown
    out = jax.eval_shape(predict.fn, state["params"], shown).get("embedding") if embeds else None
    dim = out.shape[-1] if out is not None else 0
    sides = found.listings.get("query", 0) + found.listings.get("gallery", 0)
    embed_flops = _flops(predict.fn, state["params"], shown) if embeds else None
    models = len(config.embed.models)
    networks = sum(name in ("trained", "untrained") for name in config.embed.models)
    counts = step_bytes(found)
    return Estimate(
        listings=found.listings,
        labels=found.labels,
        steps=found.num_steps,
        batch_size=settings.batch_size,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
        state_bytes=sum(memory.state_bytes(state).values()),
        activation_bytes=counts["batch"] + counts["activations"],
        device_bytes=memory.limit(found.mesh.local_devices[0]),
        train_flops=step_flops and step_flops / _ROWS * settings.batch_size * found.num_steps,
        embed_flops=embed_flops and embed_flops / _ROWS * sides * networks,
        dim=dim,
        checkpoint_bytes=_bytes(state) * settings.keep_checkpoints,
        embedding_bytes=sides * dim * np.dtype(config.embed.dtype).itemsize * models,
    )


def _refuse_clusters(config, folder) -> None:
    if _clusters_unknown(config, folder):
        raise InputError(
            "--estimate: how many pseudo-products there are is known after `retrieval-jax mine`: run it first"
        )


# --------------------------------------------------------------------------------------------- checks before a run


def check_training(config, folder) -> None:
    """Checks that a training can be built, and that it fits into memory and onto the disk.

    Args:
      config, folder: see `plan`.

    Raises:
      InputError: see `plan`; public weights that are not there; too little memory or disk.
    """
    settings = config.train
    if _clusters_unknown(config, folder):
        return  # mine finds them
    found = plan(config, folder)
    check_coupled(settings, found.task)
    if found.task.warm_start is not None:
        weights = settings.model.pretrained
        importlib.import_module("retrieval_jax.models.pretrained").check(weights.name, weights.path, weights.offline)
    most = memory.limit(found.mesh.local_devices[0])
    counts = step_bytes(found)
    counts["activations"] = int(_SURE * counts["activations"])
    if sum(counts.values()) > most:
        memory.check(counts, most, _fitting(found, counts, most))
    _check_cache(config, ("train",), settings.num_workers)
    kept = _bytes(found.state) * (settings.keep_checkpoints + 1)
    preflight.disk(folder, {"checkpoints": kept}, "config.train.keep_checkpoints = 1 or a smaller network")


def _fitting(found: Plan, counts: dict[str, int], most: int) -> str:
    """Returns the largest batch that would fit, in words."""
    rows, fixed = found.settings.batch_size, counts["batch"] + counts["activations"]
    spare = most - (sum(counts.values()) - fixed)
    fits = int(rows * spare / fixed) if fixed else 0
    return f"config.train.batch_size = {1 << (fits.bit_length() - 1)} would fit" if fits >= 1 else ""


def check_coupled(settings, task) -> None:
    """Raises InputError where a batch would be worked on in parts, and the loss compares its rows.

    Args:
      settings: the train block.
      task: `tasks.Task`.
    """
    if task.couples_rows and settings.accumulate_steps > 1:
        raise InputError(
            f"config.train.accumulate_steps={settings.accumulate_steps}: the loss of {task.couples_rows} compares the "
            "rows of a batch with each other, and in parts would only see those of a part: set it to 1, and "
            "model.kwargs.remat=True or a larger mesh.fsdp to save memory"
        )


def check_embedding(config, folder, functions: dict) -> None:
    """Checks that embedding fits into memory and onto the disk, for networks that are not trained yet as well.

    Args:
      config, folder: see `plan`.
      functions: {split: name of the predict function} of the networks that this run trains.

    Raises:
      InputError: there is no such function, or it reads a column that no batch has; too little memory or disk.
    """
    catalog, found, dim = loading.load(config.data), None, 0
    if config.get("train") is not None and not _clusters_unknown(config, folder):
        with contextlib.redirect_stdout(io.StringIO()):
            found = plan(config, folder)
    params = found and jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), found.state["params"])
    for name in sorted(set(functions.values())) if found else ():
        predict = inference.named(found.task.predict_fns, name)
        batch = {column: found.batch[column] for column in predict.reads if column in found.batch}
        if len(batch) < len(predict.reads):
            continue  # a column of a split that training does not have
        arguments = inference.test_arguments(config)
        rows = -(-arguments["batch_size"] // jax.device_count())
        views, size = config.embed.get("views", ()), arguments["image_size"]
        batch = _rows(batch, rows)
        if "image" in batch and len(batch["image"].shape) == 4:
            batch["image"] = jax.ShapeDtypeStruct((rows, *host_size(views, size), 3), batch["image"].dtype)
        counts = {
            "parameters": _bytes(params),
            "batch": _bytes(batch),
            "activations": int(_SURE * memory.forward_bytes(with_views(predict, views, size).fn, params, batch)),
        }
        most = memory.limit(jax.local_devices()[0])
        if sum(counts.values()) > most:
            raise InputError(
                f"embedding would need about {_size(sum(counts.values()))} of memory on each device, which has "
                f"{_size(most)}: lower config.embed.batch_size (now {config.embed.batch_size}) or embed.image_size"
            )
        dim = max(dim, jax.eval_shape(predict.fn, params, batch)["embedding"].shape[-1])
    _check_cache(config, ("query", "gallery"), 0)
    rows = sum(len(catalog.split(name)) for name in ("query", "gallery"))
    written = rows * max(dim, 256) * np.dtype(config.embed.dtype).itemsize * len(config.embed.models)
    preflight.disk(folder, {"embeddings": written}, "config.embed.dtype = 'float16' or fewer config.embed.models")


def _clusters_unknown(config, folder) -> bool:
    clusters = pathlib.Path(folder) / "attributes" / "clusters.npz"
    return config.train.task_kwargs.get("category_labels") == "clusters" and not clusters.exists()


def _check_cache(config, splits, workers: int) -> None:
    """Raises InputError where the decoded pictures that will be kept do not fit into this machine's memory."""
    catalog, kept = loading.load(config.data), 0
    for name in splits:
        split = catalog.split(name)
        if config.data.cache_bytes and len(split):
            rows = np.linspace(0, len(split) - 1, _SAMPLE).astype(int)
            each = np.mean([split.images[int(row)].nbytes for row in rows])
            kept += min(config.data.cache_bytes, each * len(split))
    kept, most = int(kept * max(1, workers)), provenance.memory_bytes()
    if kept > most:
        processes = f" in each of {workers} worker processes" if workers else ""
        raise InputError(
            f"config.data.cache_bytes is {config.data.cache_bytes:,}: the decoded pictures of {' and '.join(splits)} "
            f"would fill {_size(kept)}{processes}, and this machine has {_size(most)}; lower it, to 0 for no cache"
        )


@contextlib.contextmanager
def _mined(config, catalog, folder: pathlib.Path):
    """Yields a work directory with mined attributes: the run's own, or a temporary one with its plain words."""
    titles = [split.titles for split in (catalog.train, catalog.val) if split is not None and split.titles is not None]
    if (folder / "attributes" / "vocabulary.json").exists() or not titles:
        yield folder
        return
    counted = statistics.count(titles, progress=False)
    threshold = config.mine.threshold
    if threshold is None:
        threshold, _ = sizes.threshold(counted.num_titles)
    vocabulary = vocabulary_lib.build(counted.tokens, counted.num_titles, threshold)
    if not len(vocabulary) and deciding.switches(config.mine):  # which may keep rarer words
        vocabulary = vocabulary_lib.build(counted.tokens, counted.num_titles, 0)
    with tempfile.TemporaryDirectory() as temporary:
        attributes = pathlib.Path(temporary) / "attributes"
        attributes.mkdir()
        vocabulary.save(attributes / "vocabulary.json")
        vocabulary_lib.save_targets(attributes / "train.npz", *vocabulary.encode(catalog.train.titles), vocabulary.hash)
        yield pathlib.Path(temporary)


def _flops(function, *arguments) -> float | None:
    cost = jax.jit(function).lower(*arguments).cost_analysis()
    return (cost or {}).get("flops") or None


def _bytes(tree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def rate() -> tuple[float, str]:
    """Returns the operations per second to expect of all devices of this machine, and the rule in words."""
    devices, peak = jax.device_count(), telemetry.peak_flops()
    if peak:
        kind = jax.devices()[0].device_kind
        return devices * peak * UTILISATION, f"{UTILISATION:.0%} of the peak of {devices} x {kind}"
    return CORE_FLOPS * provenance.cores(), f"{CORE_FLOPS / 1e9:.0f} GFLOP/s per core, {provenance.cores()} cores"


def show(configs: dict, folders: dict) -> None:
    """Prints the estimates of the runs of an experiment, and their sum.

    Args:
      configs: {name: settings}, in the order in which they run.
      folders: {name: work directory}.
    """
    flops, disk, per_second = 0.0, 0, rate()
    for name, config in configs.items():
        if workdir.members(config) or config.get("train") is None:
            print(f"{name}: no training")
            continue
        with contextlib.redirect_stdout(io.StringIO()):  # of catalogues and tasks
            found = of(config, folders[name])
        flops += (found.train_flops or 0.0) + (found.embed_flops or 0.0)
        disk += found.checkpoint_bytes + found.embedding_bytes
        print(text(name, found, per_second))
    if len(configs) > 1:
        print(f"together: {_seconds(flops / per_second[0])}, {_size(disk)} on disk")
    print(f"Time is rough, at {per_second[1]}; reading pictures, compiling, evaluation, views and search come on top.")


def text(name: str, found: Estimate, per_second: tuple[float, str]) -> str:
    """Returns an estimate in words, some lines."""
    splits = ", ".join(f"{split} {rows:,}" for split, rows in found.listings.items())
    needed = found.state_bytes + found.activation_bytes
    fits = "" if needed <= found.device_bytes else ": does not fit"
    times = [
        f"{verb} {_seconds(flops / per_second[0])}" if flops else f"{verb} unknown"
        for verb, flops in (("train", found.train_flops), ("embed", found.embed_flops))
    ]
    return "\n".join(
        [
            f"{name}: {found.steps:,} steps of {found.batch_size}, {found.parameters:,} parameters",
            f"  listings: {splits}; {found.labels:,} mined attributes",
            f"  memory: about {_size(needed)} per device, {_size(found.activation_bytes)} of it for a batch and its "
            f"activations; a device has {_size(found.device_bytes)}{fits}",
            f"  time: {', '.join(times)}",
            f"  disk: checkpoints {_size(found.checkpoint_bytes)}, embeddings of {found.dim} dimensions "
            f"{_size(found.embedding_bytes)}",
        ]
    )


def _size(count: int) -> str:
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{count / unit:.1f} {name}"


def _seconds(seconds: float) -> str:
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * unit:
            return f"about {seconds / unit:.2g} {name}"
    return f"about {max(1.0, seconds):.2g} s"
