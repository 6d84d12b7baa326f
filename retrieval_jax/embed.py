"""Embeds queries and gallery with every model of the config.

    python -m retrieval_jax.embed --config=configs/quickstart.py --workdir=runs/quickstart

Writes <workdir>/embeddings/<model>/<split>/ for the models "histogram", "colour" and "colour_and_edges", which have no
network, "pretrained" (public weights as they are, config.embed.pretrained), "appearance" (the signs of a middle stage
of the trained network, or of the public weights where nothing is trained, config.embed.appearance), "untrained" (the
network as training starts) and "trained" (the moving average of the last checkpoint), and the attributes that the
trained model predicts for the first val listings. "lexical" has no vectors: search reads the texts (`index.lexical`).

A predict function says which columns it reads: pictures, the labels of titles, any other column of the split.
config.embed.predict_fn is that of both splits; config.search.query_from and gallery_from give "trained" another predict
function, checkpoint or run on either side, and those embeddings then have a folder of their own (`workdir.sides`).

Two sides may be compared where meta["space"] is equal. It names the parameters (`checkpoints.space`) and the task's
space, not the predict function, views or size of pictures: the predict functions of a task share a space unless they
return one of their own. All of these are in meta["recipe"], and vectors of another recipe are never reused.

Where config.embed.regions names a run that finds products, pictures are cropped to them (`regions`).

Where the search has its steps chosen (config.search.steps), each network also embeds what they are chosen by: at most
`evidence.ROWS` train listings with titles and as many altered gallery pictures (`embeddings.evidence`).

Several processes (see `sharding.initialize`) write shards side by side, none holds more than one of them in memory, and
a killed run resumes. When listings came, went or changed, only what is new is embedded.

Longer than 400 lines: a verb's parts, each used once.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("embed")

import collections.abc
import copy
import dataclasses
import datetime
import importlib
import time

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from retrieval_jax import embeddings, inference, pairs, paths, plans, regions, tasks, views
from retrieval_jax import workdir as workdirs
from retrieval_jax.attributes import agreement
from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading, pipeline, saved_fields
from retrieval_jax.data.contents import Contents
from retrieval_jax.data.examples import Pictures
from retrieval_jax.data.pictures import hand_made, transforms
from retrieval_jax.data.pictures.altered import Altered
from retrieval_jax.embeddings import Ids, adapters, evidence, writer
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, remote
from retrieval_jax.models import pixels
from retrieval_jax.postprocess import binarise
from retrieval_jax.training import checkpoints, sharding, warm_start
from retrieval_jax.workdir import checks, preflight, sides

MODELS = (*hand_made.MODELS, *hand_made.NO_VECTORS, "pretrained", "appearance", "untrained", "trained")
SPLITS = sides.SPLITS
PREDICTED = 1 << 26  # probabilities of attributes in memory at once: listings times labels
RECIPE = 1  # raise it with every change of code that changes vectors: earlier ones are then not reused
_VAL_ROWS, _VAL_TOP = 200, 10  # listings and labels of the report's page of predicted attributes


def check(config, workdir) -> None:
    """Raises an InputError for what would stop embed, before the training: settings, splits, weights, memory, disk.

    Args:
      config: the whole config.
      workdir: the work directory, whose network need not be trained yet.
    """
    _check_settings(config, workdir)
    if preflight.catalogue(config, workdir, *SPLITS) is None:
        return
    if "pretrained" in config.embed.models or ("appearance" in config.embed.models and not config.get("train")):
        block = _public(config)
        importlib.import_module("retrieval_jax.models.pretrained").check(block.name, block.path, block.offline)
    own = {split: side for split, side in sides.of(config).items() if not side.run}
    networks = {"trained", "untrained"} & set(config.embed.models)
    functions = {split: side.predict_fn or config.embed.predict_fn for split, side in own.items() if networks}
    regions.check(config, workdir)
    plans.check_embedding(config, workdir, functions)


def _check_settings(config, workdir) -> None:
    """Raises an InputError for names and arguments of config.embed that do not exist."""
    checks.check(config)
    for name in config.embed.models:
        if name not in MODELS:
            raise InputError(f"config.embed.models: there is no model named {name!r}{pairs.near(name, MODELS)}")
    if "appearance" in config.embed.models and config.get("train"):
        stage, stages = config.embed.appearance.stage, config.train.model.kwargs.get("pool_stages", ())
        if stage not in stages:
            raise InputError(
                f"config.embed.appearance.stage is {stage}, which the network does not pool: give one of "
                f"config.train.model.kwargs.pool_stages ({', '.join(map(str, stages)) or 'not set'})"
            )
    embeddings.check_dtype(config.embed.dtype)
    views.host_size(config.embed.get("views", ()), (1, 1))
    if config.embed.transforms:
        transforms.compose(config.embed.transforms, (1, 1))
    file = workdirs.as_path(workdir) / "checkpoints" / "data_info.json"
    if {"trained", "untrained"} & set(config.embed.models) and file.exists():
        predict_fns = inference.make_task(config, info_lib.load(file)).predict_fns
        for side in sides.of(config).values():
            if not side.run:
                inference.named(predict_fns, side.predict_fn or config.embed.predict_fn)


def run(config, workdir):
    """Embeds query and gallery with every model of `config.embed.models`.

    Several processes share the shards of each split; a killed run resumes; vectors of listings that the same network
    embedded before, and that have not changed since, are reused (see `embeddings.writer`).

    Args:
      config: the whole config.
      workdir: the work directory; the same folder for all processes.

    Returns:
      A summary by model and split: rows, dim, the counts of `writer.finish`, and the listings per second that this
      process embedded (None where it embedded none).

    Raises:
      InputError: unknown model or predict function, a missing or empty split, a column that a split does not have, or
        nothing trained.
    """
    _check_settings(config, workdir)
    workdir = workdirs.as_path(workdir)
    chosen = sides.of(config)
    catalog = regions.cropped(config, loading.load(config.data), workdir)
    mesh = sharding.make_mesh(jax.local_devices())  # each process by itself: none waits for the shard of another
    for name in SPLITS:
        if not len(catalog.split(name)):
            raise InputError(f"catalogue {catalog.name}: the {name} split has no rows to embed")
    networks = _Networks(config, workdir, mesh)
    seen = {}  # several models read the same pictures: they are decoded once
    summary = {}
    for name in [name for name in config.embed.models if name not in hand_made.NO_VECTORS]:
        if name in hand_made.MODELS:
            of_split = _hand_made(config, hand_made.MODELS[name])
        elif name == "pretrained":
            of_split = _pretrained(config, mesh)
        elif name == "appearance":
            of_split = _appearance(config, workdir, mesh)
        else:
            of_split = networks.untrained if name == "untrained" else networks.trained
        summary[name] = {}
        for split_name in SPLITS:
            split = catalog.split(split_name)
            if name == sides.MODEL and chosen[split_name].adapter:
                summary[name][split_name] = _upgrade(chosen[split_name], split, config, workdir)
                continue
            embedder = of_split(split)
            meta = {
                "model": name,
                "split": split_name,
                "catalogue": catalog.name,
                "config": workdirs.stage_hash(config, "embed"),
                "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "vocabulary_hash": "",
                **embedder.meta,
            }
            ids, folder = Ids.of(split.ids), chosen[split_name].folder if name == sides.MODEL else name
            job = writer.Job(
                workdir / "embeddings" / folder / split_name,
                ids,
                embedder.recipe,
                config.embed.dtype,
                _shard_rows(config, len(ids)),
            )
            contents = Contents(embedder.columns, config.data.cache_bytes, seen)
            summary[name][split_name] = _embed_split(job, contents, embedder.predict, meta, workdir)
        if name in ("pretrained", sides.MODEL) and sides.wants_evidence(config):
            summary[name] |= _embed_evidence(config, workdir, catalog, name, of_split)
        here = any(not side.run for side in chosen.values())  # a network that was trained here
        if name == sides.MODEL and here and catalog.val is not None and jax.process_index() == 0:
            networks.save_attributes(catalog.val)
        if name == sides.MODEL and here and jax.process_index() == 0:
            networks.save_fields(catalog)
    _wait("embed")
    return {"embeddings": summary}


def _upgrade(side, split, config, workdir):
    """Writes what another run has embedded, through an adapter; the first process does it."""
    there = side.workdir(workdir)
    old = there / "embeddings" / sides.of(workdirs.read_config(there))["gallery"].folder / split.name
    folder, meta = workdir / "embeddings" / side.folder / split.name, {"config": workdirs.stage_hash(config, "embed")}
    if jax.process_index() == 0:
        counts = adapters.write_upgraded(side.adapter, old, Ids.of(split.ids), folder, config.embed.dtype, meta)
        print(f"embed: {split.name}: {counts['adapted']:,} listings of {there} adapted, {counts['renewed']:,} renewed")
    _wait(f"upgraded {folder}")
    return {"rows": len(split), "dim": embeddings.read_info(folder)["dim"], "rows_per_second": None}


def _embed_split(job, contents, predict, meta, workdir):
    """Makes this process's shards of a split and waits for the others; the first process then joins them."""
    first, here, processes = jax.process_index() == 0, jax.process_index(), jax.process_count()
    if first:
        writer.settle(job.folder)
    _wait(f"settled {job.folder}")
    title = f"embed: {meta['model']} {meta['split']}"
    earlier = writer.Earlier(job.folder, job.recipe, job.dtype)
    done, seconds = 0, 0.0

    def embed(rows, shard):
        nonlocal done, seconds
        start = time.monotonic()
        out = predict(contents.columns, rows, title + (f", shard {shard + 1} of {job.count}" if job.count > 1 else ""))
        done, seconds = done + len(rows), seconds + time.monotonic() - start
        return out

    own = range(here * job.count // processes, (here + 1) * job.count // processes)
    writer.write(job, earlier, contents, embed, own, lambda text: print(f"{title}: {text}", flush=True))
    below = job.folder.with_name(job.partial.name).relative_to(workdir).as_posix()
    remote.push(workdir, below=below)  # for machines that share a URL, not a disk
    _wait(f"written {job.folder}")
    if first and processes > 1:
        remote.pull(workdir, below=below)
    speed = {"rows_per_second": round(done / max(seconds, 1e-9), 1) if done else None}
    if not first:
        return speed
    counts = writer.finish(job, meta, earlier)
    if earlier.reason:
        print(f"{title}: {counts['now']:,} listings embedded, no vectors reused: {earlier.reason}", flush=True)
    else:
        damaged = f", {counts['damaged']:,} damaged on disk" if counts["damaged"] else ""
        print(
            f"{title}: {counts['now']:,} listings = {counts['kept']:,} kept + {counts['new']:,} new + "
            f"{counts['changed']:,} changed{damaged}; {counts['removed']:,} of the {counts['before']:,} before are "
            "gone",
            flush=True,
        )
    return {"rows": counts["now"], "dim": embeddings.read_info(job.folder)["dim"], **counts, **speed}


def _embed_evidence(config, workdir, catalog, model, of_split) -> dict:
    """Embeds what search steps are chosen by, where both sides are pictures and embedded alike; returns its summary."""
    folders = {side.folder for side in sides.of(config).values()}
    if model == sides.MODEL and len(folders) > 1:
        print("embed: no evidence to choose steps by, because the two sides are embedded differently", flush=True)
        return {}
    folder = workdir / "embeddings" / (folders.pop() if model == sides.MODEL else model) / evidence.FOLDER
    parts, train, summary = {}, catalog.train, {}
    if train is not None and train.titles is not None and len(train):
        leaves = None if train.categories is None else train.categories[:, -1]
        rows, indptr, agreeing = agreement.sample(train.titles, leaves, evidence.ROWS)
        parts["train"] = dataclasses.replace(train, name="gallery"), rows
    gallery = catalog.gallery
    rows = np.sort(np.random.default_rng(0).permutation(len(gallery))[: evidence.ROWS])
    parts["altered"] = gallery, rows
    for part, (split, rows) in parts.items():
        embedder = of_split(split)
        pictures = [column for column in embedder.columns.values() if isinstance(column, Pictures)]
        if part == "altered":
            if len(pictures) != 1 or len(embedder.columns) > 1 or pictures[0].per_example:
                continue  # not a network of single pictures: there is nothing to alter
            (name,) = embedder.columns
            altered = dataclasses.replace(
                pictures[0], source=Altered(gallery.images, rows, catalog.query.images), rows=None
            )
            columns = {name: altered}
        else:
            columns = {name: _some(column, rows) for name, column in embedder.columns.items()}
        ids = Ids.of([split.ids[row] for row in rows.tolist()])
        recipe = writer.recipe_name({"evidence": part, "of": embedder.recipe})
        job = writer.Job(folder / part, ids, recipe, config.embed.dtype, _shard_rows(config, len(ids)))
        meta = {"model": model, "split": part, "catalogue": catalog.name, "vocabulary_hash": "", **embedder.meta}
        contents = Contents(columns, config.data.cache_bytes)
        summary[part] = _embed_split(job, contents, embedder.predict, meta, workdir)
    if "train" in parts and jax.process_index() == 0:
        evidence.save_agreement(folder, indptr, agreeing)
    return summary


def _some(column, rows):
    """Returns some rows of a column."""
    if isinstance(column, Pictures):
        return dataclasses.replace(column, rows=rows if column.rows is None else column.rows[rows])
    return catalogs.take(column, rows)


def _shard_rows(config, rows):
    """Returns the rows of a shard: whole batches, and a shard for every process even where the split is small."""
    share = -(-rows // jax.process_count())
    batch = config.embed.batch_size
    return -(-min(config.embed.get("shard_rows", 16384), share) // batch) * batch


def _batch_size(config):
    """Returns this process's share of a batch: a device computes as many rows at once as if all worked together."""
    return -(-config.embed.batch_size // jax.process_count())


def _wait(name):
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@dataclasses.dataclass(frozen=True)
class _Embedder:
    """What turns the listings of a split into vectors.

    Attributes:
      columns: what it reads of the split, {name: column}.
      predict: (columns, rows, desc) -> (vectors, space).
      recipe: name of all that a vector depends on beside its listing.
      meta: provenance of its own.
    """

    columns: dict
    predict: collections.abc.Callable
    recipe: str
    meta: dict


def _hand_made(config, descriptor):
    """Embeds without a network, by a module of `hand_made.MODELS`."""
    arguments = inference.test_arguments(config) | {"batch_size": _batch_size(config)}

    def predict(columns, rows, desc):
        vectors, done = np.empty((len(rows), descriptor.DIM), np.float32), 0
        with tqdm.tqdm(total=len(rows), desc=desc, unit="row", mininterval=1, disable=jax.process_index() > 0) as bar:
            for batch in pipeline.eval_batches(columns, rows=rows, **arguments):
                count = int(batch["_mask"].sum())
                vectors[done : done + count] = descriptor.embed(batch["image"][:count])
                done += count
                bar.update(count)
        return vectors, descriptor.SPACE

    def of_split(split):
        columns = {"image": Pictures(split.images)}
        recipe = _recipe(config, columns, arguments, space=descriptor.SPACE)
        return _Embedder(columns, predict, recipe, {"checkpoint": None, **descriptor.META})

    return of_split


def _public(config):
    """Returns config.embed.pretrained, with a name."""
    block = config.embed.pretrained
    if not block.name:
        raise InputError(
            "config.embed.models has 'pretrained', and config.embed.pretrained.name is empty: give timm's "
            "name of public weights, such as 'convnext_tiny.fb_in22k'"
        )
    return block


def _pretrained(config, mesh):
    """Public weights as they are: no heads, no training."""
    block = _public(config)
    from retrieval_jax.models import pretrained  # not everyone needs a reader of weight files

    arguments = inference.test_arguments(config, block)
    info = pretrained.info(block.name, block.path or None)
    kwargs = {"img_size": arguments["image_size"], **block.kwargs}  # position tables depend on it
    module, params = pretrained.load(block.name, block.path or None, offline=block.offline, dtype=block.dtype, **kwargs)

    @tasks.Predict
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
    weights, params = (
        inference.checksum(params),
        jax.device_put(params, sharding.replicated(mesh)),
    )  # once for all shards

    def of_split(split):
        columns, views = {"image": Pictures(split.images)}, config.embed.get("views", ())
        recipe = _recipe(config, columns, arguments, views, space=block.name, weights=weights, settings=settings)
        predict = _predictor(predict_fn, params, mesh, arguments, views, f"{block.name}:{recipe}", _batch_size(config))
        return _Embedder(columns, predict, recipe, {"checkpoint": f"{block.name}/{recipe}", "licence": info.licence})

    return of_split


def _appearance(config, workdir, mesh):
    """The signs of a middle stage, of the trained network or, where nothing is trained, of public weights."""
    settings = copy.deepcopy(config)
    kwargs = {"pool_stages": (config.embed.appearance.stage,), "pool_bands": (tuple(config.embed.appearance.bands),)}
    with settings.unlocked():
        settings.embed.model_kwargs.update(kwargs)
        settings.embed.pretrained.kwargs.update(kwargs)
        settings.search.query_from = settings.search.gallery_from = type(config)()  # this run's own network
    inner = _Networks(settings, workdir, mesh).trained if config.get("train") else _pretrained(settings, mesh)

    def of_split(split):
        embedder = inner(split)

        def predict(columns, rows, desc):
            vectors, space = embedder.predict(columns, rows, desc)
            return binarise.signs(vectors), f"{space}:signs"

        return dataclasses.replace(embedder, predict=predict, recipe=writer.recipe_name({"signs of": embedder.recipe}))

    return of_split


class _Networks:
    """The trained networks that a config embeds with, each loaded once."""

    def __init__(self, config, workdir, mesh):
        self._config, self._workdir, self._mesh = config, workdir, mesh
        self._own, self._loaded = None, {}

    def trained(self, split) -> _Embedder:
        side = sides.of(self._config)[split.name]
        folder = side.workdir(self._workdir)
        key = (folder, side.step, side.which)
        if key not in self._loaded:
            self._loaded[key] = self._load(side, folder, f"config.search.{split.name}_from")
        return self._embedder(*self._loaded[key], side.predict_fn, split, folder)

    def untrained(self, split) -> _Embedder:
        config, workdir = self._config, self._workdir
        if "untrained" not in self._loaded:
            task, data_info = self._task()
            batch = info_lib.zero_batch(workdir / "checkpoints" / "batch.json")
            init_rng, _ = jax.random.split(jax.random.key(config.train.seed))  # as train: this is where training starts
            params = jax.jit(task.init)(init_rng, batch)
            params, _ = warm_start.put(params, task, workdirs.predecessor_folder(config, workdir), data_info)
            weights = inference.checksum(params)
            model = inference.Model(config, task, params, data_info, 0, self._mesh)
            model.space = f"{task.space}:untrained/{weights[:16]}"
            self._loaded["untrained"] = self._on_devices(model), weights, "untrained"
        side = sides.of(config)[split.name]
        return self._embedder(*self._loaded["untrained"], "" if side.run else side.predict_fn, split, workdir)

    def save_attributes(self, val) -> None:
        """Writes val_attributes.npz: rows [n] of the val split; label_ids, probabilities [n, 10], best first."""
        file, (task, info) = self._workdir / "embeddings" / sides.MODEL / "val_attributes.npz", self._task()
        if "attributes" not in task.predict_fns or info.fields:  # labels of fields are not mined words
            file.unlink(missing_ok=True)
            return
        key = (self._workdir, 0, "ema")
        if key not in self._loaded:
            self._loaded[key] = self._load(sides.Side(), self._workdir, "")
        model, predict_fn = self._loaded[key][0], inference.top_attributes(task.predict_fns["attributes"], _VAL_TOP)
        rows = np.arange(min(_VAL_ROWS, len(val)))
        out = inference.predict(
            predict_fn,
            model.params,
            inference.columns(predict_fn, val, self._config, self._workdir, "the predict function 'attributes'"),
            rows=rows,
            mesh=self._mesh,
            desc="embed: val attributes",
            **inference.test_arguments(self._config),
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_npz(file, rows=rows, label_ids=out["label_ids"], probabilities=out["probabilities"])

    def save_fields(self, catalog) -> None:
        """Writes the predicted attributes of val, query and gallery, where the network learned fields of them."""
        task, info = self._task()
        if not info.fields or "attributes" not in task.predict_fns:
            return
        key = (self._workdir, 0, "ema")
        if key not in self._loaded:
            self._loaded[key] = self._load(sides.Side(), self._workdir, "")
        for name in ("val", *SPLITS):
            split = getattr(catalog, name)
            if split is not None and len(split):
                file = self._workdir / "embeddings" / sides.MODEL / saved_fields.FOLDER / f"{name}.npz"
                blocks = self._predicted(split, self._loaded[key][0].params)
                saved_fields.save(file, blocks, Ids.of(split.ids).sha256())

    def _predicted(self, split, params):
        """Yields the chosen labels of a split and their probabilities, block after block."""
        task, info = self._task()
        function, step = task.predict_fns["attributes"], max(1, PREDICTED // len(info.label_names))
        columns = inference.columns(function, split, self._config, self._workdir, "the predict function 'attributes'")
        for start in range(0, len(split), step):
            out = inference.predict(
                function,
                params,
                columns,
                rows=np.arange(start, min(len(split), start + step)),
                mesh=self._mesh,
                desc=f"embed: {split.name} attributes",
                **inference.test_arguments(self._config),
            )
            yield out["chosen"], out["probabilities"]

    def _task(self):
        if self._own is None:  # one task: compiled once for "untrained" and "trained"
            data_info = info_lib.load(self._workdir / "checkpoints" / "data_info.json")
            self._own = inference.make_task(self._config, data_info), data_info
        return self._own

    def _load(self, side, folder, setting):
        """Returns (model, checksum of its weights, step)."""
        if side.run:
            if not checkpoints.steps(folder / "checkpoints"):
                how = (
                    paths.command("run", f"--config={side.run}", f"--workdir={folder}")
                    if side.config
                    else paths.command("run")
                )
                raise InputError(f"{setting}: nothing is trained in {folder}: run `{how}` first")
            model = inference.load(folder, side.which, side.step or None)
        else:
            task, data_info = self._task()
            params, meta, step = checkpoints.load_params(folder / "checkpoints", side.step or None, side.which)
            info_lib.check_vocabulary(meta, folder)
            model = inference.Model(self._config, task, params, data_info, step, self._mesh)
            model.space = inference.space(self._config, task, meta, step, side.which)
        return self._on_devices(model), inference.checksum(model.params), model.step

    def _on_devices(self, model):
        params = jax.device_put(model.params, sharding.replicated(self._mesh))  # once for all shards
        return dataclasses.replace(model, params=params, mesh=self._mesh)

    def _embedder(self, model, weights, step, predict_fn, split, folder) -> _Embedder:
        config, name = model.config, predict_fn or model.config.embed.predict_fn
        function = inference.named(model.task.predict_fns, name)
        columns = inference.columns(function, split, config, folder, f"the predict function {name!r}")
        arguments, views = inference.test_arguments(config), config.embed.get("views", ())
        settings = {
            "predict_fn": name,
            "reads": list(function.reads),
            "train": workdirs.plain(config.train.model),
            "dtype": config.train.get("dtype", "float32"),
            "model_kwargs": workdirs.plain(config.embed.get("model_kwargs", {})),
        }
        depends = {"space": model.space, "weights": weights, "settings": settings}
        recipe = _recipe(self._config, columns, arguments, views, **depends)
        size = _batch_size(self._config)
        predict = _predictor(function, model.params, self._mesh, arguments, views, model.space, size)
        meta = {
            "checkpoint": f"{workdirs.stage_hash(config, 'train')}/{step}",
            "predict_fn": name,
            "vocabulary_hash": model.data_info.vocabulary_hash,
        }
        return _Embedder(columns, predict, recipe, meta)


def _predictor(predict_fn, params, mesh, arguments, views, space, batch_size):
    """Returns the function of (columns, rows, desc) -> (vectors, space) of a network."""

    def predict(columns, rows, desc):
        out = inference.predict(
            predict_fn,
            params,
            columns,
            rows=rows,
            mesh=mesh,
            desc=desc,
            views=views,
            **arguments | {"batch_size": batch_size},
        )
        if "embedding" not in out:
            raise InputError(f"{desc}: the predict function returns {', '.join(sorted(out))}, not an embedding")
        return out["embedding"], out.get("space", space)

    return predict


def _recipe(config, columns, arguments, views=(), **depends):
    """Returns the name of all that vectors depend on beside the listings: `depends`, and how pictures are prepared."""
    pictures = [column for _, column in sorted(columns.items()) if isinstance(column, Pictures)]
    if pictures:
        depends |= {
            "views": workdirs.plain(views),
            "transform": workdirs.plain(arguments["transform"]),
            "image_size": list(arguments["image_size"]),
            "own": [workdirs.plain([one.transforms, one.image_size]) for one in pictures],
            "decode_at_least": config.data.kwargs.get("decode_at_least", None),
        }
    return writer.recipe_name({"version": RECIPE, **depends})
