"""What turns the listings of a split into vectors: one maker for each model of config.embed.models.

Each maker returns a function of a split that returns its `Embedder`.
"""

import collections.abc
import copy
import dataclasses

import jax
import numpy as np
import tqdm

from retrieval_jax import inference, paths, tasks
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import pipeline, saved_boxes, saved_fields
from retrieval_jax.data.examples import Pictures
from retrieval_jax.embeddings import Ids, writer
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.models import pixels
from retrieval_jax.postprocess import binarise
from retrieval_jax.training import checkpoints, sharding, warm_start
from retrieval_jax.workdir import sides

PREDICTED = 1 << 26  # probabilities of attributes in memory at once: listings times labels
RECIPE = 1  # raise it with every change of code that changes vectors: earlier ones are then not reused
_VAL_ROWS, _VAL_TOP = 200, 10  # listings and labels of the report's page of predicted attributes


@dataclasses.dataclass(frozen=True)
class Embedder:
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


def hand_made_features(config, descriptor):
    """Returns the maker that needs no network, by a module of `data.pictures.hand_made.MODELS`."""
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
        return Embedder(columns, predict, recipe, {"checkpoint": None, **descriptor.META})

    return of_split


def public(config):
    """Returns config.embed.pretrained, with a name."""
    block = config.embed.pretrained
    if not block.name:
        raise InputError(
            "config.embed.models has 'pretrained', and config.embed.pretrained.name is empty: give timm's "
            "name of public weights, such as 'convnext_tiny.fb_in22k'"
        )
    return block


def pretrained_network(config, mesh):
    """Returns the maker by public weights as they are: no heads, no training."""
    block = public(config)
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
        return Embedder(columns, predict, recipe, {"checkpoint": f"{block.name}/{recipe}", "licence": info.licence})

    return of_split


def appearance(config, workdir, mesh):
    """Returns the maker by the signs of a middle stage, of the trained network or of public weights."""
    settings = copy.deepcopy(config)
    kwargs = {"pool_stages": (config.embed.appearance.stage,), "pool_bands": (tuple(config.embed.appearance.bands),)}
    with settings.unlocked():
        settings.embed.model_kwargs.update(kwargs)
        settings.embed.pretrained.kwargs.update(kwargs)
        settings.search.query_from = settings.search.gallery_from = type(config)()  # this run's own network
    inner = Networks(settings, workdir, mesh).trained if config.get("train") else pretrained_network(settings, mesh)

    def of_split(split):
        embedder = inner(split)

        def predict(columns, rows, desc):
            vectors, space = embedder.predict(columns, rows, desc)
            return binarise.signs(vectors), f"{space}:signs"

        return dataclasses.replace(embedder, predict=predict, recipe=writer.recipe_name({"signs of": embedder.recipe}))

    return of_split


class Networks:
    """The trained networks that a config embeds with, each loaded once."""

    def __init__(self, config, workdir, mesh):
        self._config, self._workdir, self._mesh = config, workdir, mesh
        self._own, self._loaded = None, {}

    def trained(self, split) -> Embedder:
        side = sides.of(self._config)[split.name]
        found = self._side(side, f"config.search.{split.name}_from")
        return self._embedder(*found, side.predict_fn, split, side.workdir(self._workdir))

    def untrained(self, split) -> Embedder:
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
        model, predict_fn = self._trained(), inference.top_attributes(task.predict_fns["attributes"], _VAL_TOP)
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
        params = self._trained().params
        for name in ("val", *sides.SPLITS):
            split = getattr(catalog, name)
            if split is not None and len(split):
                file = self._workdir / "embeddings" / sides.MODEL / saved_fields.FOLDER / f"{name}.npz"
                blocks = self._predicted(split, params)
                saved_fields.save(file, blocks, Ids.of(split.ids).sha256())

    def save_boxes(self, queries) -> None:
        """Writes query_boxes.npz: where the network of the queries looks in their pictures, if it has learned to.

        Args:
          queries: the query split; None where this run does not embed by a trained network. An earlier file then goes.
        """
        file, side = self._workdir / "embeddings" / sides.MODEL / saved_boxes.FILE, sides.of(self._config)["query"]
        model = None if queries is None else self._side(side, "config.search.query_from")[0]
        if model is None or (side.predict_fn or model.config.embed.predict_fn) != "embed_image":
            function = None
        else:
            function = model.task.predict_fns.get("locate")
        if function is None:
            file.unlink(missing_ok=True)
            return
        columns, arguments = {"image": Pictures(queries.images)}, inference.test_arguments(model.config)
        out = inference.predict(
            function, model.params, columns, mesh=self._mesh, desc="embed: query boxes", **arguments
        )
        saved_boxes.save(file, out["boxes"], Ids.of(queries.ids).sha256())

    def _trained(self):
        """Returns the network that this run has trained, loaded once."""
        key = (self._workdir, 0, "ema")
        if key not in self._loaded:
            self._loaded[key] = self._load(sides.Side(), self._workdir, "")
        return self._loaded[key][0]

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

    def _side(self, side, setting):
        """Returns what `_load` does, once for each network."""
        folder = side.workdir(self._workdir)
        key = (folder, side.step, side.which)
        if key not in self._loaded:
            self._loaded[key] = self._load(side, folder, setting)
        return self._loaded[key]

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

    def _embedder(self, model, weights, step, predict_fn, split, folder) -> Embedder:
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
        return Embedder(columns, predict, recipe, meta)


def _batch_size(config):
    """Returns this process's share of a batch: a device computes as many rows at once as if all worked together."""
    return -(-config.embed.batch_size // jax.process_count())


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
