"""Embeds queries and gallery with every model of the config.

    python -m retrieval_jax.embed --config=configs/quickstart.py --workdir=runs/quickstart

Writes <workdir>/embeddings/<model>/<split>/ for the models "histogram", "colour" and "colour_and_edges", which have no
network, "pretrained" (public weights as they are, config.embed.pretrained), "appearance" (the signs of a middle stage
of the trained network, or of the public weights where nothing is trained, config.embed.appearance), "untrained" (the
network as training starts) and "trained" (the moving average of the last checkpoint), and the attributes that the
trained model predicts for the first val listings, and where it looks in query pictures (`data.saved_boxes`). "lexical"
has no vectors: search reads the texts (`index.lexical`).

A predict function says which columns it reads: pictures, the labels of titles, any other column of the split.
config.embed.predict_fn is that of both splits; config.search.query_from and gallery_from give "trained" another predict
function, checkpoint or run on either side, and those embeddings then have a folder of their own (`workdir.sides`).

Two sides may be compared where meta["space"] is equal. It names the parameters (`checkpoints.space`) and the task's
space, not the predict function, views or size of pictures: the predict functions of a task share a space unless they
return one of their own. All of these are in meta["recipe"], and vectors of another recipe are never reused.

Where config.embed.regions names a run that finds products, pictures are cropped to them (`regions`).

Where the search has its steps chosen (config.search.steps), each network also embeds what they are chosen by: at most
`evidence.ROWS` train listings with titles and as many altered gallery pictures (`embeddings.evidence`).

Where the search predicts categories (config.search.categories), val and some train listings are embedded as well.

Several processes (see `sharding.initialize`) write shards side by side, none holds more than one of them in memory, and
a killed run resumes. When listings came, went or changed, only what is new is embedded.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("embed")

import dataclasses
import datetime
import importlib
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from retrieval_jax import embedders, embeddings, inference, pairs, plans, regions, views
from retrieval_jax import workdir as workdirs
from retrieval_jax.attributes import agreement
from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import known_categories, loading
from retrieval_jax.data.contents import Contents
from retrieval_jax.data.examples import Pictures
from retrieval_jax.data.pictures import hand_made, transforms
from retrieval_jax.data.pictures.altered import Altered
from retrieval_jax.embeddings import Ids, adapters, evidence, writer
from retrieval_jax.errors import InputError
from retrieval_jax.files import remote
from retrieval_jax.training import sharding
from retrieval_jax.workdir import checks, preflight, sides

MODELS = (*hand_made.MODELS, *hand_made.NO_VECTORS, "pretrained", "appearance", "untrained", "trained")
SPLITS = sides.SPLITS


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
        block = embedders.public(config)
        importlib.import_module("retrieval_jax.models.pretrained").check(block.name, block.path, block.offline)
    own = {split: side for split, side in sides.of(config).items() if not side.run}
    networks = {"trained", "untrained"} & set(config.embed.models)
    functions = {split: side.predict_fn or config.embed.predict_fn for split, side in own.items() if networks}
    if sides.wants_categories(config):
        known_categories.rows(loading.load(config.data), config.search.categories.listings)
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
    networks = embedders.Networks(config, workdir, mesh)
    seen = {}  # several models read the same pictures: they are decoded once
    summary = {}
    for name in [name for name in config.embed.models if name not in hand_made.NO_VECTORS]:
        if name in hand_made.MODELS:
            of_split = embedders.hand_made_features(config, hand_made.MODELS[name])
        elif name == "pretrained":
            of_split = embedders.pretrained_network(config, mesh)
        elif name == "appearance":
            of_split = embedders.appearance(config, workdir, mesh)
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
        if sides.wants_categories(config) and name in (sides.MODEL, config.search.categories.vote):
            summary[name] |= _embed_known(config, workdir, catalog, name, of_split)
        here = any(not side.run for side in chosen.values())  # a network that was trained here
        if name == sides.MODEL and here and catalog.val is not None and jax.process_index() == 0:
            networks.save_attributes(catalog.val)
        if name == sides.MODEL and here and jax.process_index() == 0:
            networks.save_fields(catalog)
    if jax.process_index() == 0:
        networks.save_boxes(catalog.query if sides.MODEL in config.embed.models else None)
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
        embedder = dataclasses.replace(embedder, columns=columns, recipe=recipe)
        meta = {"model": model, "split": part, "catalogue": catalog.name}
        summary[part] = _embed_rows(config, workdir, folder / part, ids, embedder, meta)
    if "train" in parts and jax.process_index() == 0:
        evidence.save_agreement(folder, indptr, agreeing)
    return summary


def _embed_known(config, workdir, catalog, model, of_split) -> dict:
    """Embeds listings of known category as queries are embedded: some of train, all of val; returns its summary."""
    folder = sides.of(config)["query"].folder if model == sides.MODEL else model
    summary, folder = {}, workdir / "embeddings" / folder
    for name, rows in known_categories.rows(catalog, config.search.categories.listings).items():
        split = catalog.split(name)
        embedder = of_split(dataclasses.replace(split, name="query"))
        columns = {column: _some(values, rows) for column, values in embedder.columns.items()}
        embedder = dataclasses.replace(embedder, columns=columns)
        meta = {"model": model, "split": name, "catalogue": catalog.name}
        ids = Ids.of([split.ids[row] for row in rows.tolist()])
        summary[name] = _embed_rows(config, workdir, folder / name, ids, embedder, meta)
    return summary


def _embed_rows(config, workdir, folder, ids, embedder, meta) -> dict:
    """Embeds some listings of a split, whose columns the embedder has."""
    job = writer.Job(folder, ids, embedder.recipe, config.embed.dtype, _shard_rows(config, len(ids)))
    contents = Contents(embedder.columns, config.data.cache_bytes)
    return _embed_split(job, contents, embedder.predict, {**meta, "vocabulary_hash": "", **embedder.meta}, workdir)


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


def _wait(name):
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
