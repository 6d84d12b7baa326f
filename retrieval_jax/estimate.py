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
import functools
import io
import math
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import inference, tasks, workdir
from retrieval_jax.attributes import choosing, statistics, words
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.data import loading, pipeline
from retrieval_jax.errors import InputError
from retrieval_jax.training import memory, optim, sharding, telemetry
from retrieval_jax.workdir import provenance

CORE_FLOPS = 70e9
UTILISATION = 0.4
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
    device_bytes: int
    train_flops: float | None
    embed_flops: float | None
    dim: int
    checkpoint_bytes: int
    embedding_bytes: int


def of(config, folder) -> Estimate:
    """Estimates one run with a training.

    Args:
      config: the settings.
      folder: its work directory, which may not exist; mined attributes there are used.

    Raises:
      InputError: the catalogue cannot be read, or a setting of the task, the network or the optimiser is wrong.
    """
    settings, catalog = config.train, loading.load(config.data)
    listings = {name: len(split) for name in ("train", "val", "query", "gallery") if (split := getattr(catalog, name))}
    module = tasks.get(settings.task)
    clusters = pathlib.Path(folder) / "attributes" / "clusters.npz"
    if settings.task_kwargs.get("category_labels") == "clusters" and not clusters.exists():
        raise InputError(
            "--estimate: how many pseudo-products there are is known after `retrieval-jax mine`: run it first"
        )
    with _mined(config, catalog, pathlib.Path(folder)) as mined:
        examples, info = module.examples(config, catalog, mined)
    batch_size = settings.batch_size if examples.batch_size is None else examples.batch_size
    steps_per_epoch = len(examples) / batch_size
    num_steps = max(1, round(settings.epochs * steps_per_epoch))
    task = module.make(settings, info)
    batch = pipeline.zeros(examples, config.data.image_size, _ROWS)

    def init():
        params = task.init(jax.random.key(0), batch)
        optimizer, _ = optim.make(settings, params, num_steps, steps_per_epoch)
        return {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}

    state = jax.eval_shape(init)
    mesh = sharding.make_mesh(**settings.mesh)
    placed = sharding.placed(state, sharding.state_sharding(state, mesh, settings.sharding_rules))

    def loss(params, batch, ema):
        rng = jax.random.key(0)
        return task.loss_fn(params, batch, rng=rng, step=0, ema=ema, constants=task.constants, train=True)[0]

    step_flops = _flops(jax.grad(loss), state["params"], batch, state["ema"])
    predict = inference.named(task.predict_fns, config.embed.predict_fn)
    shown = {name: batch[name] for name in batch if name in predict.reads}
    embeds = len(shown) == len(predict.reads)  # a column of a split that training does not have: size unknown
    out = jax.eval_shape(predict.fn, state["params"], shown).get("embedding") if embeds else None
    dim = out.shape[-1] if out is not None else 0
    sides = listings.get("query", 0) + listings.get("gallery", 0)
    embed_flops = _flops(predict.fn, state["params"], shown) if embeds else None
    models = len(config.embed.models)
    networks = sum(name in ("trained", "untrained") for name in config.embed.models)
    return Estimate(
        listings=listings,
        labels=len(info.label_names),
        steps=num_steps,
        batch_size=batch_size,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
        state_bytes=sum(memory.state_bytes(placed).values()),
        device_bytes=memory.limit(mesh.local_devices[0]),
        train_flops=step_flops and step_flops / _ROWS * batch_size * num_steps,
        embed_flops=embed_flops and embed_flops / _ROWS * sides * networks,
        dim=dim,
        checkpoint_bytes=_bytes(state) * settings.keep_checkpoints,
        embedding_bytes=sides * dim * np.dtype(config.embed.dtype).itemsize * models,
    )


@contextlib.contextmanager
def _mined(config, catalog, folder: pathlib.Path):
    """Yields a work directory with mined attributes: the run's own, or a temporary one with its plain words."""
    titles = [split.titles for split in (catalog.train, catalog.val) if split is not None and split.titles is not None]
    if (folder / "attributes" / "vocabulary.json").exists() or not titles:
        yield folder
        return
    rules = choosing.base_rules(config.mine)
    tokenize = functools.partial(words.of_titles, rules=rules)
    counted = statistics.count(titles, tokenize=tokenize, progress=False)
    vocabulary = vocabulary_lib.build(counted.tokens, counted.num_titles, int(config.mine.threshold), rules)
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
    fits = "" if found.state_bytes <= found.device_bytes else ": does not fit"
    times = [
        f"{verb} {_seconds(flops / per_second[0])}" if flops else f"{verb} unknown"
        for verb, flops in (("train", found.train_flops), ("embed", found.embed_flops))
    ]
    return "\n".join(
        [
            f"{name}: {found.steps:,} steps of {found.batch_size}, {found.parameters:,} parameters",
            f"  listings: {splits}; {found.labels:,} mined attributes",
            f"  memory: {_size(found.state_bytes)} per device and the activations; a device has "
            f"{_size(found.device_bytes)}{fits}",
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
