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
import io

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import inference, plans, workdir
from retrieval_jax.data.pictures import hand_made
from retrieval_jax.errors import InputError
from retrieval_jax.settings.sizes import CORE_FLOPS
from retrieval_jax.training import flops as flops_lib
from retrieval_jax.training import memory, telemetry
from retrieval_jax.workdir import provenance
from retrieval_jax.workdir.preflight import size_text

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
      activation_bytes: of a batch and its activations, on one device.
      device_bytes: that one device can hold.
      train_flops: floating-point operations of the training's products and convolutions; None for none.
      evidence: {"train", "altered"}: pictures that are embedded to choose search steps by, at most.
      embed_flops: likewise of the embeddings of queries, gallery and evidence.
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
    evidence: dict[str, int]
    embed_flops: float | None
    dim: int
    checkpoint_bytes: int
    embedding_bytes: int


def of(config, folder) -> Estimate:
    """Estimates a run.

    Args:
      config, folder: see `plans.plan`.

    Raises:
      InputError: see `plans.plan`.
    """
    if plans.clusters_unknown(config, folder):
        raise InputError(
            "--estimate: how many pseudo-products there are is known after `retrieval-jax mine`: run it first"
        )
    if plans.vectors_unknown(config, folder):
        raise InputError(
            "--estimate: the vectors of pictures that words are learned beside are made by `retrieval-jax train`: how "
            "long they are is known afterwards"
        )
    found = plans.plan(config, folder)
    settings, task, state = found.settings, found.task, found.state
    batch = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), plans.rows_of(found.batch, _ROWS))
    step_flops = _flops(jax.grad(plans.loss(found)), state["params"], batch)
    predict = inference.named(task.predict_fns, config.embed.predict_fn)
    shown = {name: batch[name] for name in batch if name.removesuffix("_mask") in predict.reads}
    embeds = len(shown) == len(predict.reads)  # a column of a split that training does not have: size unknown
    out = jax.eval_shape(predict.fn, state["params"], shown).get("embedding") if embeds else None
    dim = out.shape[-1] if out is not None else 0
    evidence = plans.evidence_rows(config, "trained")
    beside = sum(evidence.values())
    sides = found.listings.get("query", 0) + found.listings.get("gallery", 0)
    embed_flops = _flops(predict.fn, state["params"], shown) if embeds else None
    width = hand_made.width(config.embed.models, dim)
    networks = sum(name in ("trained", "untrained") for name in config.embed.models)
    counts = plans.step_bytes(found)
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
        evidence=evidence,
        embed_flops=embed_flops and embed_flops / _ROWS * (sides * networks + beside),
        dim=dim,
        checkpoint_bytes=memory.tree_bytes(state) * settings.keep_checkpoints,
        embedding_bytes=(sides * width + beside * dim) * np.dtype(config.embed.dtype).itemsize,
    )


def _flops(function, *arguments) -> float | None:
    return flops_lib.of(function, *arguments) or None


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
        print(f"together: {_seconds(flops / per_second[0])}, {size_text(disk)} on disk")
    print(f"Time is rough, at {per_second[1]}; reading pictures, compiling, evaluation, views and search come on top.")


def text(name: str, found: Estimate, per_second: tuple[float, str]) -> str:
    """Returns an estimate in words, some lines."""
    splits = ", ".join(f"{split} {rows:,}" for split, rows in found.listings.items())
    needed, batch = found.state_bytes + found.activation_bytes, found.activation_bytes
    fits = "" if needed <= found.device_bytes else ": does not fit"
    beside = f"\n  to choose search steps by: {', '.join(f'{rows:,} {part}' for part, rows in found.evidence.items())}"
    times = [
        f"{verb} {_seconds(flops / per_second[0])}" if flops else f"{verb} unknown"
        for verb, flops in (("train", found.train_flops), ("embed", found.embed_flops))
    ]
    return "\n".join(
        [
            f"{name}: {found.steps:,} steps of {found.batch_size}, {found.parameters:,} parameters",
            f"  listings: {splits}; {found.labels:,} mined attributes"
            + (beside if any(found.evidence.values()) else ""),
            f"  memory: about {size_text(needed)} per device, {size_text(batch)} of it for a batch and "
            f"its activations; a device has {size_text(found.device_bytes)}{fits}",
            f"  time: {', '.join(times)}",
            f"  disk: checkpoints {size_text(found.checkpoint_bytes)}, embeddings of {found.dim} dimensions "
            f"{size_text(found.embedding_bytes)}",
        ]
    )


def _seconds(seconds: float) -> str:
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * unit:
            return f"about {seconds / unit:.2g} {name}"
    return f"about {max(1.0, seconds):.2g} s"
