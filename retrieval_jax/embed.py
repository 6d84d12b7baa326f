"""Pictures to embeddings: every model of the config over queries and gallery.

    python -m retrieval_jax.embed --config=configs/quickstart.py --workdir=runs/quickstart

Writes <workdir>/embeddings/<model>/<split>/ for the models "histogram" (colours, no training), "pretrained" (public
weights as they are, config.embed.pretrained), "untrained" (the network as training starts) and "trained" (the moving
average of the last checkpoint), and the attributes that the trained model sees in the first listings of the val split.
"""

import datetime
import os
import time

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from retrieval_jax import checkpoints, command_line, inference, sharding, warm_start
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import histogram, pipeline, sources
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.models import embedder

MODELS = ("histogram", "pretrained", "untrained", "trained")
SPLITS = ("query", "gallery")
_VAL_ROWS, _VAL_TOP = 200, 10  # listings and labels of the report's page of predicted attributes


def run(config, workdir):
    """Embeds query and gallery with every model of `config.embed.models`.

    Args:
        config: the whole config.
        workdir: the work directory.

    Returns:
        A summary: rows, dim and pictures a second by model and split.

    Raises:
        InputError: unknown model or predict function, a missing split, or nothing trained.
    """
    workdir = workdirs.as_path(workdir)
    unknown = [name for name in config.embed.models if name not in MODELS]
    if unknown:
        raise InputError(f"config.embed.models: there is no {unknown[0]!r}; there are: {', '.join(MODELS)}")
    catalog = catalogs.load(config.data)
    mesh = sharding.make_mesh()
    # Several models read the same pictures: they are decoded once.
    images = {name: sources.Cached(catalog.split(name).images, config.data.cache_bytes) for name in SPLITS}
    learns = set(config.embed.models) & {"untrained", "trained"}
    task, vocabulary_hash = _task(config, workdir) if learns else (None, "")  # one task: compiled once for both
    summary = {}
    for name in config.embed.models:
        if name in learns:
            predict, provenance = _network(config, workdir, name, task, mesh)
        else:
            predict, provenance = _histogram(config) if name == "histogram" else _pretrained(config, mesh)
        summary[name] = {}
        for split_name in SPLITS:
            split, start = catalog.split(split_name), time.monotonic()
            vectors, space = predict(images[split_name], f"embed: {name} {split_name}")
            seconds = time.monotonic() - start
            meta = {"space": space, "model": name, "split": split_name, "dim": vectors.shape[1],
                    "catalogue": catalog.name, "config": workdirs.stage_hash(config, "embed"),
                    "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "vocabulary_hash": vocabulary_hash if name in learns else "", **provenance}
            if jax.process_index() == 0:
                folder = workdir / "embeddings" / name / split_name
                Embeddings(split.ids, vectors, meta).save(folder, dtype=config.embed.dtype)
            summary[name][split_name] = {"rows": len(vectors), "dim": vectors.shape[1],
                                         "pictures_per_second": round(len(vectors) / max(seconds, 1e-9), 1)}
        if name == "trained" and catalog.val is not None:
            _save_attributes(config, workdir, task, catalog.val, mesh)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("embed")  # nobody reads what the first process still writes
    return {"embeddings": summary}


def _histogram(config):
    def predict(source, desc):
        vectors, done = np.empty((len(source), histogram.DIM), np.float32), 0
        arguments = inference.test_arguments(config)
        with tqdm.tqdm(total=len(source), desc=desc, unit="picture", mininterval=1) as bar:
            for batch in pipeline.eval_batches(source, **arguments):
                count = int(batch["_mask"].sum())
                vectors[done:done + count] = histogram.embed(batch["image"][:count])
                done += count
                bar.update(count)
        return vectors, histogram.SPACE

    return predict, {"checkpoint": None}


def _task(config, workdir):
    data_info = inference.load_data_info(workdir / "checkpoints" / "data_info.json")
    return inference.make_task(config, data_info), data_info.vocabulary_hash


def _pretrained(config, mesh):
    """Public weights as they are: no heads, no training."""
    block = config.embed.pretrained
    if not block.name:
        raise InputError("config.embed.models has 'pretrained', and config.embed.pretrained.name is empty: give timm's "
                         "name of public weights, such as 'convnext_tiny.fb_in22k'")
    from retrieval_jax.models import pretrained  # reads weight files: only who asks for such needs it
    arguments = inference.test_arguments(config, block)
    info = pretrained.info(block.name, block.path or None)
    kwargs = {"img_size": arguments["image_size"], **block.kwargs}  # tables of positions follow it
    module, params = pretrained.load(block.name, block.path or None, offline=block.offline, dtype=block.dtype, **kwargs)

    def predict_fn(params, batch):
        images = embedder.normalize(batch["image"], module.dtype, info.mean, info.std)
        return {"embedding": module.apply({"params": params}, images)["embedding"]}

    checkpoint = f"{block.name}/{workdirs.stage_hash(config, 'embed')}"

    def predict(source, desc):
        out = inference.predict(predict_fn, params, source, mesh=mesh, desc=desc, views=config.embed.get("views", ()),
                                **arguments)
        return out["embedding"], checkpoint

    return predict, {"checkpoint": checkpoint, "licence": info.licence}


def _network(config, workdir, name, task, mesh):
    params, checkpoint = _params(config, workdir, name, task)
    predict_fn = inference.named(task.predict_fns, config.embed.predict_fn)
    # Vectors of two checkpoints are not comparable, unless the task says so by naming the space itself.
    own_space = ":".join([task.space, checkpoint, *(f"{key}={value}" for key, value in sorted(
        config.embed.get("model_kwargs", {}).items()))])

    def predict(source, desc):
        out = inference.predict(predict_fn, params, source, mesh=mesh, desc=desc, views=config.embed.get("views", ()),
                                **inference.test_arguments(config))
        return out["embedding"], out.get("space", own_space)

    return predict, {"checkpoint": checkpoint}


def _params(config, workdir, name, task):
    """Returns the parameters of "trained" or "untrained", and words for where they come from."""
    trained_with = workdirs.stage_hash(config, "train")
    if name == "trained":
        params, meta, step = checkpoints.load_params(workdir / "checkpoints")
        inference.check_vocabulary(meta, workdir)
        return params, f"{trained_with}/{step}"
    image = np.zeros((1, *config.data.image_size, 3), np.uint8)
    init_rng, _ = jax.random.split(jax.random.key(config.train.seed))  # as train: this is where training starts
    params = jax.jit(task.init)(init_rng, {"image": image})
    data_info = inference.load_data_info(workdir / "checkpoints" / "data_info.json")
    params, _ = warm_start.put(params, task, workdirs.predecessor_folder(config, workdir), data_info)
    return params, f"{trained_with}/untrained"


def _save_attributes(config, workdir, task, val, mesh):
    """Writes val_attributes.npz: rows [n] of the val split; label_ids, probabilities [n, 10], most probable first."""
    file = workdir / "embeddings" / "trained" / "val_attributes.npz"
    if "attributes" not in task.predict_fns:
        file.unlink(missing_ok=True)
        return
    params, _ = _params(config, workdir, "trained", task)
    rows = np.arange(min(_VAL_ROWS, len(val)))
    out = inference.predict(inference.top_attributes(task.predict_fns["attributes"], _VAL_TOP), params, val.images,
                            rows=rows, mesh=mesh, desc="embed: val attributes", **inference.test_arguments(config))
    if jax.process_index() == 0:
        beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        with beside.open("wb") as stream:
            np.savez(stream, rows=rows, label_ids=out["label_ids"], probabilities=out["probabilities"])
        beside.replace(file)


if __name__ == "__main__":
    sharding.initialize()
    command_line.main(run, "embed")
