"""Pictures to embeddings: every model of the config over queries and gallery.

    python -m retrieval_jax.embed --config=configs/quickstart.py --workdir=runs/quickstart

Writes <workdir>/embeddings/<model>/<split>/ for the models "histogram" (colours, no training), "pretrained" (public
weights as they are, config.embed.pretrained), "untrained" (the network as training starts) and "trained" (the moving
average of the last checkpoint), and the attributes that the trained model sees in the first listings of the val split.

Several processes (see `sharding.initialize`) write shards side by side, none holds more than one of them in memory, and
a killed run goes on. When listings came, went or changed their pictures, `--again` embeds only what is new.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("embed")

import datetime
import hashlib
import os
import time

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from retrieval_jax import embeddings, inference
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading, pipeline
from retrieval_jax.data.pictures import histogram, sources
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.embeddings import Ids
from retrieval_jax.embeddings import writer as shard_writer
from retrieval_jax.errors import InputError
from retrieval_jax.files import remote
from retrieval_jax.models import pixels
from retrieval_jax.training import checkpoints, sharding, warm_start

MODELS = ("histogram", "pretrained", "untrained", "trained")
SPLITS = ("query", "gallery")
RECIPE = 1  # raise it with every change of code that changes vectors: earlier ones are then not taken over any more
_VAL_ROWS, _VAL_TOP = 200, 10  # listings and labels of the report's page of predicted attributes


def run(config, workdir):
    """Embeds query and gallery with every model of `config.embed.models`.

    Several processes share the shards of each split; a run that was killed goes on; vectors of pictures that the same
    network has embedded before, and that did not change since, are taken over (see `shard_writer`).

    Args:
      config: the whole config.
      workdir: the work directory; the same folder for all processes.

    Returns:
      A summary by model and split: rows, dim, the counts of `shard_writer.finish`, and pictures a second that this
      process embedded (None where it embedded none).

    Raises:
      InputError: unknown model or predict function, a missing or empty split, or nothing trained.
    """
    workdir = workdirs.as_path(workdir)
    unknown = [name for name in config.embed.models if name not in MODELS]
    if unknown:
        raise InputError(f"config.embed.models: there is no {unknown[0]!r}; there are: {', '.join(MODELS)}")
    embeddings.check_dtype(config.embed.dtype)
    catalog = loading.load(config.data)
    mesh = sharding.make_mesh(jax.local_devices())  # each process by itself: nobody waits for another one's shard
    for name in SPLITS:
        if not len(catalog.split(name)):
            raise InputError(f"catalogue {catalog.name}: the {name} split has no rows to embed")
    pictures = {name: Noted(catalog.split(name).images) for name in SPLITS}
    # Several models read the same pictures: they are decoded once.
    images = {name: sources.Cached(pictures[name], config.data.cache_bytes) for name in SPLITS}
    learns = set(config.embed.models) & {"untrained", "trained"}
    task, vocabulary_hash = _task(config, workdir) if learns else (None, "")  # one task: compiled once for both
    summary = {}
    for name in config.embed.models:
        if name in learns:
            params, checkpoint = _params(config, workdir, name, task)
            predict, recipe, provenance = _network(config, task, params, checkpoint, mesh)
        else:
            predict, recipe, provenance = _histogram(config) if name == "histogram" else _pretrained(config, mesh)
        summary[name] = {}
        for split_name in SPLITS:
            meta = {
                "model": name,
                "split": split_name,
                "catalogue": catalog.name,
                "config": workdirs.stage_hash(config, "embed"),
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "vocabulary_hash": vocabulary_hash if name in learns else "",
                **provenance,
            }
            ids = Ids.of(catalog.split(split_name).ids)
            job = shard_writer.Job(
                workdir / "embeddings" / name / split_name,
                ids,
                recipe,
                config.embed.dtype,
                _shard_rows(config, len(ids)),
            )
            summary[name][split_name] = _embed_split(
                job, pictures[split_name], images[split_name], predict, meta, workdir
            )
        if name == "trained" and catalog.val is not None and jax.process_index() == 0:
            _save_attributes(config, workdir, task, params, catalog.val, mesh)
    _wait("embed")  # nobody reads what the first process still writes
    return {"embeddings": summary}


def _embed_split(job, pictures, images, predict, meta, workdir):
    """Makes this process's shards of a split, waits for the others, has the first process join them."""
    first, here, processes = jax.process_index() == 0, jax.process_index(), jax.process_count()
    if first:
        shard_writer.settle(job.folder)
    _wait(f"settled {job.folder}")
    title = f"embed: {meta['model']} {meta['split']}"
    earlier = shard_writer.Earlier(job.folder, job.recipe, job.dtype)
    done, seconds = 0, 0.0

    def embed(rows, shard):
        nonlocal done, seconds
        start = time.monotonic()
        out = predict(images, rows, title + (f", shard {shard + 1} of {job.count}" if job.count > 1 else ""))
        done, seconds = done + len(rows), seconds + time.monotonic() - start
        return out

    own = range(here * job.count // processes, (here + 1) * job.count // processes)
    shard_writer.write(job, earlier, pictures, embed, own, lambda text: print(f"{title}: {text}", flush=True))
    below = job.partial.relative_to(workdir).as_posix()
    remote.push(workdir, below=below)  # where machines share a URL, not a disk
    _wait(f"written {job.folder}")
    if first and processes > 1:
        remote.pull(workdir, below=below)
    speed = {"pictures_per_second": round(done / max(seconds, 1e-9), 1) if done else None}
    if not first:
        return speed
    counts = shard_writer.finish(job, meta, earlier)
    if earlier.reason:
        print(f"{title}: {counts['now']:,} listings, all embedded: {earlier.reason}", flush=True)
    else:
        damaged = f", {counts['damaged']:,} damaged on disk" if counts["damaged"] else ""
        print(
            f"{title}: {counts['now']:,} listings = {counts['kept']:,} kept + {counts['new']:,} new + "
            f"{counts['changed']:,} changed{damaged}; {counts['removed']:,} of the {counts['before']:,} before are "
            "gone",
            flush=True,
        )
    return {"rows": counts["now"], "dim": embeddings.read_info(job.folder)["dim"], **counts, **speed}


def _shard_rows(config, rows):
    """Returns the rows of a shard: whole batches, and a shard for every process even where the split is small."""
    share = -(-rows // jax.process_count())
    batch = config.embed.batch_size
    return -(-min(config.embed.get("shard_rows", 16384), share) // batch) * batch


def _batch_size(config):
    """This process's share of a batch, so that a device computes as many pictures at once as if all worked together."""
    return -(-config.embed.batch_size // jax.process_count())


def _wait(name):
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _histogram(config):
    arguments = inference.test_arguments(config) | {"batch_size": _batch_size(config)}
    recipe = shard_writer.recipe_name({"space": histogram.SPACE, **_pictures_recipe(config, arguments)})

    def predict(source, rows, desc):
        vectors, done = np.empty((len(rows), histogram.DIM), np.float32), 0
        with tqdm.tqdm(
            total=len(rows), desc=desc, unit="picture", mininterval=1, disable=jax.process_index() > 0
        ) as bar:
            for batch in pipeline.eval_batches(source, rows=rows, **arguments):
                count = int(batch["_mask"].sum())
                vectors[done : done + count] = histogram.embed(batch["image"][:count])
                done += count
                bar.update(count)
        return vectors, f"{histogram.SPACE}:{recipe}"

    return predict, recipe, {"checkpoint": None}


def _task(config, workdir):
    data_info = info_lib.load(workdir / "checkpoints" / "data_info.json")
    return inference.make_task(config, data_info), data_info.vocabulary_hash


def _pretrained(config, mesh):
    """Public weights as they are: no heads, no training."""
    block = config.embed.pretrained
    if not block.name:
        raise InputError(
            "config.embed.models has 'pretrained', and config.embed.pretrained.name is empty: give timm's "
            "name of public weights, such as 'convnext_tiny.fb_in22k'"
        )
    from retrieval_jax.models import pretrained  # reads weight files: only who asks for such needs it

    arguments = inference.test_arguments(config, block)
    info = pretrained.info(block.name, block.path or None)
    kwargs = {"img_size": arguments["image_size"], **block.kwargs}  # tables of positions follow it
    module, params = pretrained.load(block.name, block.path or None, offline=block.offline, dtype=block.dtype, **kwargs)

    def predict_fn(params, batch):
        images = pixels.normalize(batch["image"], module.dtype, info.mean, info.std)
        return {"embedding": module.apply({"params": params}, images)["embedding"]}

    settings = {
        "name": block.name,
        "dtype": block.dtype,
        "mean": info.mean,
        "std": info.std,
        "kwargs": workdirs.plain(kwargs),
    }
    predict, recipe = _predictor(config, predict_fn, params, mesh, arguments, block.name, settings)
    return predict, recipe, {"checkpoint": f"{block.name}/{recipe}", "licence": info.licence}


def _network(config, task, params, checkpoint, mesh):
    predict_fn = inference.named(task.predict_fns, config.embed.predict_fn)
    settings = {
        "predict_fn": config.embed.predict_fn,
        "train": workdirs.plain(config.train.model),
        "dtype": config.train.get("dtype", "float32"),
        "model_kwargs": workdirs.plain(config.embed.get("model_kwargs", {})),
    }
    space = f"{task.space}:{checkpoint}"
    predict, recipe = _predictor(config, predict_fn, params, mesh, inference.test_arguments(config), space, settings)
    return predict, recipe, {"checkpoint": checkpoint}


def _predictor(config, predict_fn, params, mesh, arguments, space, settings):
    """Returns a function of (source, rows, desc) -> (vectors, space), and the name of its recipe.

    The recipe holds the weights themselves, by checksum: a training that was repeated under the same settings, or a
    file of weights that was replaced, gives other vectors. Vectors of two recipes are not comparable, unless the task
    says so by naming the space itself.
    """
    views = config.embed.get("views", ())
    recipe = shard_writer.recipe_name(
        {
            "space": space,
            "weights": _checksum(params),
            "settings": settings,
            "views": workdirs.plain(views),
            **_pictures_recipe(config, arguments),
        }
    )
    params = jax.device_put(params, sharding.replicated(mesh))  # once for all shards

    def predict(source, rows, desc):
        out = inference.predict(
            predict_fn,
            params,
            source,
            rows=rows,
            mesh=mesh,
            desc=desc,
            views=views,
            **arguments | {"batch_size": _batch_size(config)},
        )
        return out["embedding"], out.get("space", f"{space}:{recipe}")

    return predict, recipe


def _pictures_recipe(config, arguments):
    """What the vector of a picture depends on before any network sees it."""
    return {
        "version": RECIPE,
        "transform": workdirs.plain(arguments["transform"]),
        "image_size": list(arguments["image_size"]),
        "decode_at_least": config.data.kwargs.get("decode_at_least", None),
    }


def _checksum(params):
    """Returns a checksum of all weights, with their places and types."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _params(config, workdir, name, task):
    """Returns the parameters of "trained" or "untrained", and words for where they come from."""
    trained_with = workdirs.stage_hash(config, "train")
    if name == "trained":
        params, meta, step = checkpoints.load_params(workdir / "checkpoints")
        info_lib.check_vocabulary(meta, workdir)
        return params, f"{trained_with}/{step}"
    image = np.zeros((1, *config.data.image_size, 3), np.uint8)
    init_rng, _ = jax.random.split(jax.random.key(config.train.seed))  # as train: this is where training starts
    params = jax.jit(task.init)(init_rng, {"image": image})
    data_info = info_lib.load(workdir / "checkpoints" / "data_info.json")
    params, _ = warm_start.put(params, task, workdirs.predecessor_folder(config, workdir), data_info)
    return params, f"{trained_with}/untrained"


def _save_attributes(config, workdir, task, params, val, mesh):
    """Writes val_attributes.npz: rows [n] of the val split; label_ids, probabilities [n, 10], most probable first."""
    file = workdir / "embeddings" / "trained" / "val_attributes.npz"
    if "attributes" not in task.predict_fns:
        file.unlink(missing_ok=True)
        return
    rows = np.arange(min(_VAL_ROWS, len(val)))
    out = inference.predict(
        inference.top_attributes(task.predict_fns["attributes"], _VAL_TOP),
        params,
        val.images,
        rows=rows,
        mesh=mesh,
        desc="embed: val attributes",
        **inference.test_arguments(config),
    )
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with beside.open("wb") as stream:
        np.savez(stream, rows=rows, label_ids=out["label_ids"], probabilities=out["probabilities"])
    beside.replace(file)
