"""Trains an embedder on a catalogue: the one loop, for every task.

Reads top to bottom: data, mesh, model, checkpoint, update step, loop. What is learned is the task's business
(`retrieval_jax.tasks`), what a batch holds the pipeline's. The position in the data is the global step, so a run that
was killed resumes where its last checkpoint stands and gives the numbers it would have given. On SIGTERM it saves and
ends with status 75; the same command goes on.

    python -m retrieval_jax.train --config=configs/quickstart.py --workdir=runs/quickstart
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("train")

import collections
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from retrieval_jax import inference, tasks
from retrieval_jax import workdir as workdirs
from retrieval_jax.attributes import clusters
from retrieval_jax.attributes.vocabulary import Vocabulary, load_targets
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading, pipeline
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError, Preempted
from retrieval_jax.evaluators import retrieval
from retrieval_jax.training import (
    checkpoints,
    guards,
    memory,
    metric_writer,
    optim,
    preemption,
    sharding,
    telemetry,
    warm_start,
)
from retrieval_jax.training.update import make_update

IN_FLIGHT = 2  # steps that are sent before the numbers of the first are fetched


def run(config, workdir) -> dict:
    """Trains, or goes on training, in a work directory that holds mined attributes.

    Args:
      config: the whole config; the train block is this verb's.
      workdir: folder that receives checkpoints/, metrics.jsonl and tensorboard/.

    Returns:
      Summary: steps, epochs, images_per_second, parameters, final_loss ...

    Raises:
      InputError: the catalogue, the mined attributes or the config cannot be used.
      RunFailed: the loss is no longer a number, or a checkpoint could not be written.
      Preempted: SIGTERM came; all is saved.
    """
    with preemption.noticed() as stop, guards.Watch(config.train.hang_seconds) as watch:
        return _run(config, pathlib.Path(workdir), stop, watch)


def _run(config, workdir, stop, watch) -> dict:
    settings = config.train
    telemetry.keep_compiled()

    # ------------------------------------------------------------------------------------------------------------- data
    catalog = loading.load(config.data)
    split = catalog.split("train")
    vocabulary, label_rows = None, None
    if split.titles is not None:
        vocabulary, label_rows = _mined(workdir, len(split))
    info = info_lib.of_split(split, vocabulary)
    num_rows = len(split)
    steps_per_epoch = num_rows / settings.batch_size
    num_steps = max(1, round(settings.epochs * steps_per_epoch))
    categories = None if split.categories is None else split.categories[:, -1]
    if settings.task_kwargs.get("category_labels") == "clusters":
        categories, info = clusters.as_categories(workdir / "attributes" / "clusters.npz", len(split), info)
    columns = {
        "image": sources.kept(split.images, config.data.cache_bytes),
        "label_ids": label_rows,
        "category": categories,
        "source": split.sources,
    }
    unlabelled = None
    if settings.unlabelled.split:
        others = catalog.split(settings.unlabelled.split)
        unlabelled = {
            "image": sources.kept(others.images, config.data.cache_bytes),
            "batch_size": settings.unlabelled.batch_size,
            "transform": settings.unlabelled.transforms,
        }

    for name in ("log_every_steps", "checkpoint_every_steps", "accumulate_steps"):
        if settings[name] < 1:
            raise InputError(f"config.train.{name} is {settings[name]}: give 1 or more")
    if settings.non_finite not in ("stop", "skip"):
        raise InputError(f"config.train.non_finite is {settings.non_finite!r}: give stop or skip")

    # ------------------------------------------------------------------------------------------------------------- mesh
    mesh = sharding.make_mesh(**settings.mesh)
    by_batch, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    places = sharding.local_places(mesh, settings.batch_size, settings.accumulate_steps)
    if unlabelled is not None:
        unlabelled["places"] = sharding.local_places(mesh, unlabelled["batch_size"], settings.accumulate_steps)

    # ------------------------------------------------------------------------------------------------------------ model
    task = tasks.get(settings.task).make(settings, info)
    if task.compares and settings.accumulate_steps > 1:
        raise InputError(
            f"config.train.accumulate_steps={settings.accumulate_steps}: the loss of {task.compares} "
            "compares the rows of a batch with each other, and in parts would see those of a part alone: "
            "set it to 1, and model.kwargs.remat=True or a larger mesh.fsdp to save memory"
        )
    init_rng, train_rng = jax.random.split(jax.random.key(settings.seed))
    height, width = config.data.image_size
    first_images = {"image": np.zeros((1, height, width, 3), np.uint8)}

    def init():
        params = task.init(init_rng, first_images)
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
    meta = {
        "config": workdirs.plain(settings),
        "num_steps": num_steps,
        "vocabulary_hash": info.vocabulary_hash,
        "image_size": [height, width],
        "warm_start": {},
        "rng": np.asarray(jax.random.key_data(train_rng)).tolist(),
        "seconds": 0.0,
        "skipped_steps": 0,
        "loss": None,
        "scores": {},
        "scored_step": 0,
        "best": {},
    }
    if store.latest_step() is None:
        state = jax.jit(init, out_shardings=by_state)()
        source = workdirs.predecessor_folder(config, workdir)
        if task.warm_start is not None or source is not None:
            params, meta["warm_start"] = warm_start.put(jax.device_put(state["params"], replicated), task, source, info)
            for name in ("params", "ema"):  # a buffer each: the step gives both up
                state[name] = jax.device_put(params, by_state[name])
    else:
        guards.same_run(workdir / "checkpoints", checkpoints.meta(store.folder), meta)
        state, old = store.restore(sharding.placed(abstract, by_state))
        meta |= {name: old[name] for name in old if name not in ("config", "num_steps")}
        train_rng = jax.random.wrap_key_data(jnp.asarray(meta["rng"], jnp.uint32))
        print(f"train: resumes from step {int(state['step'])} of {num_steps}", flush=True)
    start_step = int(state["step"])
    if jax.process_index() == 0:
        info_lib.save(workdir / "checkpoints" / "data_info.json", info)
    writer = metric_writer.MetricWriter(workdir, resume_step=start_step or None, enabled=jax.process_index() == 0)

    # ------------------------------------------------------------------------------------------------------ update step
    update = make_update(
        task,
        optimizer,
        train_rng,
        settings.ema_decay,
        by_batch,
        by_state,
        batch_transforms=settings.batch_transforms,
        accumulate_steps=settings.accumulate_steps,
        non_finite=settings.non_finite,
        frozen=optim.is_frozen(settings, abstract["params"]),
        averaged=optim.is_averaged(settings, abstract["params"]),
    )

    # ------------------------------------------------------------------------------------------------------ evaluations
    evaluator = None
    if settings.eval_every_epochs and catalog.truth is not None:
        evaluator = retrieval.Evaluator(
            task.predict_fns["embed_image"],
            catalog=catalog,
            mesh=mesh,
            **inference.test_arguments(config),
            max_queries=dict(settings.evaluations).get("retrieval", {}).get("max_queries", 500),
            max_gallery=dict(settings.evaluations).get("retrieval", {}).get("max_gallery", 2000),
            selection_share=config.evaluate.selection_share,
            cache_bytes=config.data.cache_bytes,
        )
    num_evals = int(settings.epochs / settings.eval_every_epochs + 1e-9) if evaluator else 0
    eval_steps = {
        min(num_steps, round(i * settings.eval_every_epochs * steps_per_epoch)) for i in range(1, num_evals + 1)
    }

    # ------------------------------------------------------------------------------------------------------------- loop
    batches = pipeline.train_batches(
        columns,
        transform=settings.transforms,
        image_size=config.data.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_step=start_step,
        num_steps=num_steps,
        num_threads=settings.num_threads,
        num_workers=settings.num_workers,
        places=places,
        views=settings.views,
        unlabelled=unlabelled,
        sampling=settings.sampling,
        sampling_kwargs=settings.sampling_kwargs,
        crop_before_decoding=settings.crop_before_decoding,
    )
    print(
        f"train: {num_rows} listings, {num_params:,} parameters, {num_steps} steps of {settings.batch_size} "
        f"on {mesh.size} x {jax.devices()[0].device_kind}",
        flush=True,
    )
    profile, compiled, step, in_flight = telemetry.Profile(workdir), None, start_step, collections.deque()
    began, speed, seconds_before = time.monotonic(), telemetry.Speed(watch.seconds, start_step), meta["seconds"]

    def fetch(most):
        """Fetches the numbers of steps that are sent, the oldest first, until no more than `most` are on their way."""
        while len(in_flight) > most:
            sent, values, rows = in_flight.popleft()
            with watch.stage("device"):
                values = {name: float(value) for name, value in jax.device_get(values).items()}
            if not values.pop("finite"):
                guards.non_finite(
                    workdir,
                    sent,
                    values,
                    [split.ids[int(row)] for row in rows if row >= 0],
                    settings.non_finite == "skip",
                )
                meta["skipped_steps"] += 1
            meta["loss"] = values["loss"]
            if sent % settings.log_every_steps == 0 or sent % settings.checkpoint_every_steps == 0 or sent == num_steps:
                values |= speed.since_last(sent, settings.batch_size)
                rate = schedule(sent - 1 - meta["skipped_steps"])  # the optimiser counts the steps that it takes
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
                scores = dict(evaluator.run(state["ema"], on_batch=go_on))
        except Preempted:  # the state is saved without scores; they are made when the run goes on
            return
        meta.update(scores=scores, scored_step=step)
        first = next(iter(scores))
        if scores[first] > meta["best"].get(first, -np.inf):
            meta["best"] = {"step": step, **scores}
        writer.write(step, scores)

    def save():
        with watch.stage("checkpoint"):
            stepping = time.monotonic() - began - watch.seconds["evaluation"]
            store.save(step, state, {**meta, "seconds": seconds_before + stepping})

    progress = tqdm.tqdm(
        desc="train",
        unit="step",
        initial=start_step,
        total=num_steps,
        mininterval=1.0,
        disable=jax.process_index() != 0,
    )
    try:
        evaluate()  # what SIGTERM cut short
        while step < num_steps and not stop():
            with watch.stage("input"):
                batch = next(batches)
            rows, batch = batch["row"], sharding.shard_batch(batch, mesh)  # copied while the steps before it run
            if compiled is None:
                with watch.stage("compiler"):
                    compiled = update.lower(state, batch).compile()
                needed = memory.check(memory.step_bytes(compiled, state, batch), memory.limit(mesh.local_devices[0]))
                print(f"train: {needed}", flush=True)
                speed.flops = telemetry.flops(compiled)
            profile.before(step + 1)
            with watch.stage("device"):
                state, values = compiled(state, batch)  # returns at once, unless the device's queue is full
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
    finally:  # also after Ctrl-C: a save under way is finished, or its error is told
        batches.close()
        profile.close()
        progress.close()
        store.close()
        writer.close()
    if stop():
        raise Preempted(
            f"SIGTERM: stopped after step {step} of {num_steps}{', which is saved' if step else ''}; the "
            "same command goes on"
        )
    seconds = seconds_before + time.monotonic() - began - watch.seconds["evaluation"]
    return {
        "steps": num_steps,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "parameters": num_params,
        "seconds_of_steps": round(seconds, 1),
        "images_per_second": round(num_steps * settings.batch_size / max(seconds, 1e-9), 1),
        "final_loss": meta["loss"],
        "in_training_scores": meta["scores"],
        "best": meta["best"],
        "skipped_steps": meta["skipped_steps"],
        "vocabulary_hash": info.vocabulary_hash,
        "warm_start": meta["warm_start"],
    }


def _mined(workdir, num_rows: int):
    """Reads what mine left: (Vocabulary, (indptr, label_ids))."""
    folder = workdir / "attributes"
    if not (folder / "vocabulary.json").exists():
        raise InputError(
            f"{folder} holds no mined attributes: run python -m retrieval_jax.mine with the same --config "
            "and --workdir first"
        )
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    indptr, label_ids = load_targets(folder / "train.npz", vocabulary.hash)
    if len(indptr) != num_rows + 1:
        raise InputError(
            f"{folder}/train.npz has {len(indptr) - 1} rows, the train split {num_rows}: run mine again "
            "in another --workdir"
        )
    return vocabulary, (indptr, label_ids)
