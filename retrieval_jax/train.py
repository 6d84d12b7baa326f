"""Trains an embedder on a catalogue: the one loop, for every task.

Reads top to bottom: data, mesh, model, checkpoint, update step, loop. What is learned, and from which columns, is the
task's business (`retrieval_jax.tasks`); the loop knows no column by name. The position in the data is the global step,
so a killed run resumes from its last checkpoint and gives the numbers it would have given. On SIGTERM it saves and
exits with status 75; the same command resumes it.

    python -m retrieval_jax.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("train")

import collections
import contextlib
import io
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from retrieval_jax import errors, evaluators, inference, pairs, plans, tasks
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading, pipeline
from retrieval_jax.data.pictures import transforms
from retrieval_jax.errors import Preempted
from retrieval_jax.settings import sizes
from retrieval_jax.training import (
    checkpoints,
    flops,
    guards,
    memory,
    metric_writer,
    optim,
    preemption,
    sharding,
    telemetry,
    trackers,
    warm_start,
)
from retrieval_jax.training.update import make_update
from retrieval_jax.workdir import checks, preflight, provenance

IN_FLIGHT = 2  # steps dispatched before the numbers of the first are fetched


def check(config, workdir) -> None:
    """Raises an InputError for what would stop the training later: settings, data, memory, disk; writes nothing.

    Args:
      config: the whole config.
      workdir: the work directory; what mine wrote there is read, and not needed.
    """
    _check_settings(config)
    if preflight.catalogue(config, workdir, "train") is None:
        return
    with contextlib.redirect_stdout(io.StringIO()):  # train prints it when it starts
        plans.check_training(config, workdir)


def _check_settings(config) -> None:
    """Raises an InputError for names, arguments and values of config.train that cannot be."""
    checks.check(config)
    settings = config.train
    task = tasks.get(settings.task)
    pairs.check_arguments(settings.task, settings.task_kwargs, task.OPTIONS, "config.train.task_kwargs", "task")
    transforms.compose(settings.transforms, (1, 1))
    trackers.check(settings.get("trackers", ()))
    if settings.eval_every_epochs:
        evaluators.check(settings.evaluations)


def run(config, workdir) -> dict:
    """Trains, or resumes training, in a work directory that holds mined attributes.

    Args:
      config: the whole config; this verb's block is `train`.
      workdir: folder that receives checkpoints/, metrics.jsonl and tensorboard/.

    Returns:
      Summary: steps, epochs, images_per_second, parameters, final_loss ...

    Raises:
      InputError: the catalogue, the mined attributes or the config cannot be used.
      RunFailed: the loss is non-finite, or a checkpoint could not be written.
      Preempted: SIGTERM arrived; everything is saved.
    """
    with preemption.noticed() as stop, guards.Watch(config.train.hang_seconds) as watch:
        return _run(config, pathlib.Path(workdir), stop, watch)


def _run(config, workdir, stop, watch) -> dict:
    _check_settings(config)
    settings = config.train
    session = time.monotonic(), provenance.cpu_seconds()
    telemetry.keep_compiled()

    # ------------------------------------------------------------------------------------------------------------- data
    catalog = loading.load(config.data)
    module = tasks.get(settings.task)
    examples, info = inference.examples(config, catalog, workdir)
    settings, followed = sizes.resolved(settings, len(examples), examples.batch_size)
    batch_size = settings.batch_size
    steps_per_epoch = len(examples) / batch_size
    num_steps = max(1, round(settings.epochs * steps_per_epoch))
    pictures_beside, beside = pipeline.names_beside(examples, pictures_only=True), pipeline.names_beside(examples)

    # ------------------------------------------------------------------------------------------------------------- mesh
    mesh = sharding.make_mesh(**settings.mesh)
    by_batch, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)

    def places(size):
        return sharding.local_places(mesh, size, settings.accumulate_steps)

    # ------------------------------------------------------------------------------------------------------------ model
    task = module.make(settings, info)
    plans.check_batches(settings, task)
    zeros = pipeline.zeros(examples, config.data.image_size)
    constants = None if task.constants is None else jax.device_put(task.constants, replicated)
    init_rng, train_rng = jax.random.split(jax.random.key(settings.seed))

    def init():
        params = task.init(init_rng, zeros)
        optimizer, _ = optim.make(settings, params, num_steps, steps_per_epoch)
        return {"params": params, "ema": params, "opt_state": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}

    abstract = jax.eval_shape(init)
    optimizer, schedule = optim.make(settings, abstract["params"], num_steps, steps_per_epoch)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(abstract["params"]))
    by_state = sharding.state_sharding(abstract, mesh, settings.sharding_rules)
    memory.check(memory.state_bytes(sharding.placed(abstract, by_state)), memory.limit(mesh.local_devices[0]))

    # ------------------------------------------------------------------------------------------------------- checkpoint
    checkpoints.set_aside_damaged(workdir / "checkpoints")
    store = checkpoints.Checkpoints(workdir / "checkpoints", keep=settings.keep_checkpoints)
    meta = _first_meta(config, info, num_steps, train_rng)
    if store.latest_step() is None:
        state = jax.jit(init, out_shardings=by_state)()
        source = workdirs.predecessor_folder(config, workdir)
        if source is not None:
            plans.check_pixels(settings.model, source)
        if task.warm_start is not None or source is not None:
            params, meta["warm_start"] = warm_start.put(jax.device_put(state["params"], replicated), task, source, info)
            for name in ("params", "ema"):  # a buffer each: the step donates both
                state[name] = jax.device_put(params, by_state[name])
    else:
        guards.same_run(workdir / "checkpoints", checkpoints.meta(store.folder), meta)
        state, old = store.restore(sharding.placed(abstract, by_state))
        meta |= {name: old[name] for name in old if name not in ("config", "num_steps")}
        if "sessions" not in old:  # of an earlier version, which kept the time of the steps alone
            meta["sessions"] = {"number": 1, "seconds": old["seconds"], "cpu_seconds": 0.0}
        train_rng = jax.random.wrap_key_data(jnp.asarray(meta["rng"], jnp.uint32))
        print(f"train: resumes from step {int(state['step'])} of {num_steps}", flush=True)
    start_step = int(state["step"])
    if jax.process_index() == 0:
        info_lib.save(workdir / "checkpoints" / "data_info.json", info)
        info_lib.save_batch(workdir / "checkpoints" / "batch.json", zeros)
    first = jax.process_index() == 0
    writer = metric_writer.MetricWriter(
        workdir,
        resume_step=start_step or None,
        enabled=first,
        trackers=trackers.opened(
            settings.get("trackers", ()) if first else (), workdir, workdirs.plain(config), resumes=start_step > 0
        ),
    )

    # ------------------------------------------------------------------------------------------------------ update step
    update = make_update(
        task,
        optimizer,
        train_rng,
        settings.ema_decay,
        by_batch,
        by_state,
        pictures=(*examples.pictures(), *pictures_beside),
        beside=beside,
        batch_transforms=settings.batch_transforms,
        accumulate_steps=settings.accumulate_steps,
        non_finite=settings.non_finite,
        frozen=optim.is_frozen(settings, abstract["params"]),
        averaged=optim.is_averaged(settings, abstract["params"]),
    )

    # ------------------------------------------------------------------------------------------------------ evaluations
    evaluations = []
    if settings.eval_every_epochs:
        evaluations = evaluators.of_config(config, task, catalog, mesh=mesh, workdir=workdir)
    of = [each.of for each in evaluations if each.of]
    if of:
        print(f"train: scores while training are of {'; '.join(of)}: compare them with each other only", flush=True)
    num_evals = int(settings.epochs / settings.eval_every_epochs + 1e-9) if evaluations else 0
    eval_steps = {
        min(num_steps, round(i * settings.eval_every_epochs * steps_per_epoch)) for i in range(1, num_evals + 1)
    }

    # ------------------------------------------------------------------------------------------------------------- loop
    batches = pipeline.train_batches(
        examples,
        transform=settings.transforms,
        image_size=config.data.image_size,
        batch_size=batch_size,
        seed=settings.seed,
        start_step=start_step,
        num_steps=num_steps,
        num_threads=settings.num_threads,
        num_workers=settings.num_workers,
        places=places(batch_size),
        beside_places={name: places(other.batch_size) for name, other in examples.beside.items()},
        sampling=settings.sampling,
        sampling_kwargs=settings.sampling_kwargs,
        crop_before_decoding=settings.crop_before_decoding,
    )
    for sentence in followed:
        print(f"train: {sentence}")
    classes = len(info.label_names) or (len(info.category_names[-1]) if info.category_names else 0)
    warm = task.warm_start is not None or workdirs.predecessor_folder(config, workdir) is not None
    warning = sizes.too_few(num_steps, batch_size, classes, settings.epochs, warm=warm)
    if warning:
        print(f"train: warning: {warning}", flush=True)
    print(
        f"train: {len(examples)} examples, {num_params:,} parameters, {num_steps} steps of {batch_size} "
        f"on {mesh.size} x {jax.devices()[0].device_kind}",
        flush=True,
    )
    profile, compiled, step, in_flight = telemetry.Profile(workdir), None, start_step, collections.deque()
    began, speed, seconds_before = time.monotonic(), telemetry.Speed(watch.seconds, start_step), meta["seconds"]

    def fetch(most):
        """Fetches the numbers of dispatched steps, oldest first, until at most `most` are in flight."""
        while len(in_flight) > most:
            sent, values, rows = in_flight.popleft()
            with watch.stage("device"):
                values = {name: float(value) for name, value in jax.device_get(values).items()}
            if not values.pop("finite"):
                ids = [examples.ids[int(row)] if len(examples.ids) else f"row {row}" for row in rows if row >= 0]
                guards.non_finite(workdir, sent, values, ids, settings.non_finite == "skip")
                meta["skipped_steps"] += 1
            meta["loss"] = values["loss"]
            if sent % settings.log_every_steps == 0 or sent % settings.checkpoint_every_steps == 0 or sent == num_steps:
                values |= speed.since_last(sent, batch_size)
                rate = schedule(sent - 1 - meta["skipped_steps"])  # the optimiser does not count skipped steps
                values |= {"learning_rate": float(rate), "epoch": sent / steps_per_epoch}
                values |= {"skipped_steps": meta["skipped_steps"]} if settings.non_finite == "skip" else {}
                writer.write(sent, values)
                shown = {"loss": values["loss"], **meta["scores"]}
                progress.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)

    def go_on():
        watch.alive()
        if stop():
            raise Preempted("in an evaluation")

    def evaluate():
        if step not in eval_steps or meta["scored_step"] >= step:
            return
        try:
            with watch.stage("evaluation"):
                scores = stop.during(lambda: dict(score for each in evaluations for score in each(state["ema"], go_on)))
        except Preempted:  # the state is saved without scores, which the resumed run makes
            return
        meta.update(scores=scores, scored_step=step)
        first = next(iter(scores))
        if scores[first] > meta["best"].get(first, -np.inf):
            meta["best"] = {"step": step, **scores}
        writer.write(step, scores)

    def sessions():
        """Returns the number of sessions and their times: of the earlier ones up to what was restored, and of this."""
        spent = zip(("seconds", "cpu_seconds"), session, (time.monotonic(), provenance.cpu_seconds()), strict=True)
        spent = {name: meta["sessions"][name] + now - start for name, start, now in spent}
        return {"number": meta["sessions"]["number"] + 1, **spent}

    def stepping():
        """Returns the seconds of all steps, those of earlier sessions included, without evaluations and compiling."""
        return seconds_before + time.monotonic() - began - watch.seconds["evaluation"] - watch.seconds["compiler"]

    def save():
        with watch.stage("checkpoint"):
            store.save(step, state, {**meta, "seconds": stepping(), "sessions": sessions()})

    progress = tqdm.tqdm(
        desc="train",
        unit="step",
        initial=start_step,
        total=num_steps,
        mininterval=1.0,
        disable=jax.process_index() != 0,
    )
    try:
        evaluate()  # one that SIGTERM cut short
        while step < num_steps and not stop():
            with watch.stage("input"):
                batch = next(batches)
            rows, batch = batch["row"], sharding.shard_batch(batch, mesh)  # copied while the steps before it run
            if compiled is None:
                with watch.stage("compiler"):
                    compiled = update.lower(state, batch, constants).compile()
                needed = memory.check(memory.step_bytes(compiled, state, batch), memory.limit(mesh.local_devices[0]))
                print(f"train: {needed}", flush=True)
                speed.flops = flops.of(update, state, batch, constants) / mesh.size
            stop.hold()  # until here, SIGTERM ends the process at once: there is nothing to save
            profile.before(step + 1)
            with watch.stage("device"):
                state, values = compiled(state, batch, constants)  # returns at once, unless the queue is full
            step += 1
            in_flight.append((step, values, rows))
            saves = step % settings.checkpoint_every_steps == 0 or step == num_steps
            fetch(0 if saves or step in eval_steps or profile.ends(step) else IN_FLIGHT)
            if profile.ends(step):
                profile.close()
            evaluate()
            if saves:
                save()
            store.check()
            progress.update()
        fetch(0)
        if step > start_step:
            save()
        with watch.stage("checkpoint"):
            store.wait()
    except Exception as error:
        guards.leave_the_others(error, step)
        raise
    finally:  # also after Ctrl-C: a save under way is finished, or its error raised
        batches.close()
        profile.close()
        progress.close()
        store.close()
        writer.close()
    if stop():
        saved = ", which is saved" if step else ""
        preempted = Preempted(f"SIGTERM: stopped after step {step} of {num_steps}{saved}; the same command resumes it")
        if stop.left_behind:
            guards.leave(*errors.explain(preempted))
        raise preempted
    seconds = stepping()
    pictures_per_second = round(num_steps * batch_size / max(seconds, 1e-9), 1)
    counts = {"steps": num_steps, "epochs": settings.epochs, "batch_size": batch_size, "parameters": num_params}
    speeds = {"seconds_of_steps": round(seconds, 1), "images_per_second": pictures_per_second}
    found = {name: meta[name] for name in ("run", "best", "skipped_steps", "vocabulary_hash", "warm_start")}
    counts |= {"warning": warning} if warning else {}
    counts |= {"earlier_sessions": meta["sessions"]} if meta["sessions"]["number"] else {}
    counts |= {"in_training_of": of} if meta["scores"] else {}
    return {**counts, **speeds, **found, "final_loss": meta["loss"], "in_training_scores": meta["scores"]}


def _first_meta(config, info, num_steps: int, train_rng) -> dict:
    """Returns what a checkpoint holds beside the state, for a run that starts."""
    return {
        "run": checkpoints.new_run(),
        "config": workdirs.plain(config.train),
        "num_steps": num_steps,
        "vocabulary_hash": info.vocabulary_hash,
        "image_size": list(config.data.image_size),
        "warm_start": {},
        "rng": np.asarray(jax.random.key_data(train_rng)).tolist(),
        "seconds": 0.0,  # of steps
        "sessions": {"number": 0, "seconds": 0.0, "cpu_seconds": 0.0},
        "skipped_steps": 0,
        "loss": None,
        "scores": {},
        "scored_step": 0,
        "best": {},
    }
