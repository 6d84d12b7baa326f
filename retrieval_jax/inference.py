"""From examples to arrays with a trained model: the one bridge between the JAX world and the NumPy world.

model = inference.load("runs/quickstart")
vectors = model.embed(["shoe.jpg", "dress.png"])      # float32 [2, D]
model.predict_attributes(["shoe.jpg"], top=3)         # [[("black", 0.93), ("leather", 0.81), ("running", 0.44)]]

Longer than 400 lines: the bridge is one file: predicting over columns, and a model that is loaded.
"""

import collections
import collections.abc
import copy
import dataclasses
import functools
import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from retrieval_jax import embeddings, pairs, tasks, terms, workdir
from retrieval_jax.data import by_length, fields, pipeline, text, worded
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.data.info import DataInfo
from retrieval_jax.data.pictures import decoding
from retrieval_jax.errors import InputError, first_line
from retrieval_jax.tasks import parts
from retrieval_jax.tasks.parts import classifiers, vectors
from retrieval_jax.training import checkpoints, sharding
from retrieval_jax.views import host_size, with_views

_MOST_PICTURES, _MOST_TEXTS = 64, 1024  # of a batch that a loaded model embeds
_IN_FLIGHT = 3  # batches on the device while the next ones are read


def predict(
    predict_fn,
    params,
    columns,
    *,
    transform,
    image_size,
    batch_size,
    mesh=None,
    desc=None,
    rows=None,
    num_threads=2,
    views=(),
    on_batch=None,
):
    """Runs a model over examples, in order, on all devices.

    Args:
      predict_fn: `tasks.Predict`: a function of (params, batch) that returns a dict of arrays [B, ...] and optionally
        "space", a str; and the names of the columns that it reads.
      params: pytree of arrays.
      columns: {name: column}, equally long: `Pictures`, `Ragged`, an array [n, ...], or a source of pictures (uint8
        [n, h, w, 3], or anything else with len and source[row] -> uint8 [h, w, 3]). Columns that are not read may be
        there too.
      transform: (name, kwargs) pairs, nothing random; pictures with transforms of their own keep those.
      image_size: (height, width) in pixels, likewise.
      batch_size: rows of a global batch; rounded up to a multiple of the number of devices.
      mesh: of `sharding.make_mesh`; None makes one. The processes that own its devices work together; over the devices
        of a single process, that one reads and computes everything.
      desc: title of the progress bar; None shows none.
      rows: only these rows, in this order.
      num_threads: threads that read pictures.
      views: (name, kwargs) pairs; the embeddings of test-time views are averaged, see `views.with_views`.
      on_batch: called without arguments after each batch; an exception that it raises ends the prediction.

    Returns:
      The dict of `predict_fn` (with views only its embedding and space) with numpy arrays [n, ...] without padding,
      floating ones as float32; the same on every process.

    Raises:
      InputError: no rows, a column that is missing, or columns of different lengths.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    columns = _read(predict_fn, columns, desc or "prediction")
    total = len(next(iter(columns.values()))) if rows is None else len(rows)
    if not total:
        raise InputError(f"{desc or 'prediction'}: the split has no rows")
    batch_size = -(-batch_size // mesh.size) * mesh.size
    places = sharding.local_places(mesh, batch_size)
    columns, rows, order = by_length.ordered(columns, rows, whole=len(places) == batch_size)
    shown = with_views(predict_fn, views, image_size)
    run, space = _compiled(shown, mesh)
    params = sharding.put(params, mesh)
    batches = pipeline.eval_batches(
        columns,
        transform=transform,
        image_size=image_size if shown is predict_fn else host_size(views, image_size),
        batch_size=batch_size,
        num_threads=num_threads,
        rows=rows,
        places=places,
    )

    arrays, done, waiting = {}, 0, collections.deque()

    def collect():
        nonlocal done
        count = min(batch_size, total - done)  # padding is at the end of the last batch
        for name, value in waiting.popleft().items():
            value = np.asarray(value)[:count]
            if name not in arrays:
                flat = (total, int(np.prod(value.shape[1:])))
                floating = value.dtype == np.float32
                arrays[name] = (embeddings.allocate(flat) if floating else np.empty(flat, value.dtype)).reshape(
                    total, *value.shape[1:]
                )
            arrays[name][done : done + count] = value
        done += count
        bar.update(count)

    with tqdm.tqdm(
        total=total, desc=desc, unit="row", mininterval=1, disable=desc is None or jax.process_index() > 0
    ) as bar:
        for batch in batches:
            waiting.append(run(params, sharding.shard_batch(batch, mesh)))
            if len(waiting) == _IN_FLIGHT:
                collect()
            if on_batch is not None:
                on_batch()
        while waiting:
            collect()
    if order is not None:
        arrays = {name: by_length.undone(value, order) for name, value in arrays.items()}
    return {**arrays, **space}


def _read(predict_fn, columns, where):
    """Returns the columns that a predict function reads, sources of pictures as `Pictures`."""
    missing = [name for name in predict_fn.reads if name not in columns]
    if missing:
        raise InputError(
            f"{where}: the predict function reads the column {missing[0]!r}{pairs.near(missing[0], sorted(columns))}"
        )
    found = {}
    for name in predict_fn.reads:
        column = columns[name]
        plain = isinstance(column, np.ndarray) and not (column.dtype == np.uint8 and column.ndim == 4)
        found[name] = column if plain or isinstance(column, (Pictures, Ragged)) else Pictures(column)
    if len({len(column) for column in found.values()}) > 1:
        listed = ", ".join(f"{name} {len(column)}" for name, column in found.items())
        raise InputError(f"{where}: the columns have different numbers of rows: {listed}")
    return found


def columns(predict_fn, split, config, workdir=None, name="predict function"):
    """Makes the columns of a split that a predict function reads.

    Args:
      predict_fn: `tasks.Predict`.
      split: `data.catalog.Split`.
      config: the whole config of the run that the network is from; its task says which columns there are
        (`tasks.<name>.columns`, by default `tasks.parts.columns`). A task that learns into the space of another run's
        network may read "picture", the vectors of the split's pictures by that network.
      workdir: the work directory of that run; None where there is none.
      name: of the predict function, for messages.

    Returns:
      {name: `Pictures`, `Ragged` or array [n, ...]}, for `predict`.

    Raises:
      InputError: the split does not have a column that is read.
    """
    task = None if config.get("train") is None else tasks.get(config.train.task)
    there = getattr(task, "columns", parts.columns)(config, split, workdir)
    if (source := learned_from(config, workdir)) is not None:
        there["picture"] = lambda: _learned(source, split, workdir)
    for column in predict_fn.reads:
        if column not in there:
            raise InputError(
                f"{name} reads the column {column!r}, which the {split.name} split does not have"
                f"{pairs.near(column, sorted(there))}"
            )
    return {column: there[column]() for column in predict_fn.reads}


def learned_from(config, folder):
    """Returns the work directory of the run whose pictures' vectors a config's task learns with; None without one."""
    task = None if config.get("train") is None else tasks.get(config.train.task)
    run = getattr(task, "learns_from", lambda config: "")(config)
    return workdir.sides.Side(run=run).workdir(pathlib.Path(folder)) if run and folder is not None else None


def _pictures(source, split):
    """Predicts the vectors of a split's pictures by the network of a finished run, without views; with their space."""
    model = load(source)
    name = model.config.embed.predict_fn
    function = named(model.task.predict_fns, name)
    read, at = vectors.once(columns(function, split, model.config, source, f"the predict function {name!r}"))
    mesh, desc = sharding.make_mesh(jax.local_devices()), f"pictures of {split.name}"
    made = predict(function, model.params, read, mesh=mesh, desc=desc, **test_arguments(model.config))
    return {"space": made.get("space", model.space), "embedding": made["embedding"][at], "model": model}


def _learned(source, split, folder):
    """Returns the vectors of a split's pictures by the network that the run in `folder` has learned with."""
    made = _pictures(source, split)
    check_learned(made["space"], folder)
    return made["embedding"]


def check_learned(space, folder):
    """Raises InputError unless a space, that of another run's network now, is the one that `folder` learned with."""
    info = info_lib.load(pathlib.Path(folder) / "checkpoints" / "data_info.json")
    if space != info.target_space:
        raise InputError(
            f"{folder} has learned with vectors in the space {info.target_space!r}, and that run now embeds into "
            f"{space!r}, trained again since: train {folder} again too, in a new work directory"
        )


def examples(config, catalog, folder):
    """Makes the examples of a config's task, after what they need of another run.

    A task that learns into the space of another run's network reads the vectors of the train pictures; they are made
    with that network once, and kept in <folder>/text.

    Args:
      config: the whole config.
      catalog: its `data.catalog.Catalog`.
      folder: the work directory.

    Returns:
      (`data.examples.Examples`, `data.info.DataInfo`).

    Raises:
      InputError: see `tasks.<name>.examples`; or the other run has no network that embeds pictures.
    """
    module, file = tasks.get(config.train.task), pathlib.Path(folder) / text.FOLDER / vectors.FILE
    if (source := learned_from(config, folder)) is not None:
        if not checkpoints.steps(source / "checkpoints"):
            raise InputError(
                f"config.train.task_kwargs.pictures is {module.learns_from(config)!r}, and nothing is trained in "
                f"{source}: run that first, or name it in config.search.gallery_from.run too, which runs it first"
            )
        if not file.exists() and jax.process_index() == 0:
            made = _pictures(source, catalog.split("train"))
            if getattr(module, "learns_under", lambda config: False)(config):
                classifiers.save(folder, made["model"])
            vectors.save(folder, made["embedding"], made["space"])
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("vectors of pictures")
    return module.examples(config, catalog, folder)


def test_arguments(config, weights=None):
    """Returns how pictures are prepared for a network at test time.

    Args:
      config: the whole config: embed.transforms, where () means the transform of the public weights, or a plain resize
        without such weights; and embed.image_size, where () means data.image_size.
      weights: {"name", "path"} of public weights that are used as they are; their image size is then the default. None
        for a network of this config, which may have been trained from public weights.

    Returns:
      transform, image_size and batch_size, for `predict`.
    """
    own = None if config.get("train") is None else config.train.get("model", {}).get("pretrained")
    named_weights, info = weights or own, None
    if named_weights and named_weights["name"]:
        from retrieval_jax.models import pretrained  # not everyone needs a reader of weight files

        info = pretrained.info(named_weights["name"], named_weights["path"] or None)
    transform = config.embed.transforms
    if not transform:
        crop = info and {"crop_pct": info.crop_pct, "interpolation": info.interpolation}
        if info and info.crop_mode == "squash":
            crop["squash"] = True
        transform = (("center_crop", crop),) if info else (("resize", {}),)
    image_size = config.embed.get("image_size") or (info.input_size if weights else config.data.image_size)
    return {"transform": transform, "image_size": tuple(image_size), "batch_size": config.embed.batch_size}


@functools.lru_cache(maxsize=8)
def _compiled(predict_fn, mesh):
    """Compiles a predict function once for all splits; the name of the space is not an array, so tracing stores it."""
    space = {}

    def run(params, batch):
        out = dict(predict_fn(params, batch))
        if "space" in out:
            space["space"] = out.pop("space")
        return jax.tree.map(lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, out)

    return jax.jit(run, out_shardings=sharding.replicated(mesh)), space


@functools.lru_cache(maxsize=8)
def top_attributes(predict_fn, top):
    """Makes the predict function of the most probable labels.

    Args:
      predict_fn: `tasks.Predict` that returns a dict with probabilities [B, L].
      top: number of labels, at most L.

    Returns:
      `tasks.Predict` that returns label_ids int32 [B, top] and probabilities [B, top], most probable first.
    """

    def predict_top(params, batch):
        probabilities = predict_fn(params, batch)["probabilities"]
        values, ids = jax.lax.top_k(probabilities, min(top, probabilities.shape[-1]))
        return {"label_ids": ids.astype(jnp.int32), "probabilities": values}

    return dataclasses.replace(predict_fn, fn=predict_top)


@dataclasses.dataclass
class Model:
    """A trained model, ready for use.

    Attributes:
      config: the run's whole config.
      task: the `tasks.Task`.
      params: parameters of the checkpoint.
      data_info: `data.info.DataInfo` that the task was made with.
      step: step of the checkpoint.
      mesh: devices it runs on.
      space: name of the space that it embeds into, see `space`.
      folder: the work directory; "" for a model that was not loaded from one.
    """

    config: ml_collections.ConfigDict
    task: tasks.Task
    params: dict
    data_info: DataInfo
    step: int
    mesh: jax.sharding.Mesh
    space: str = ""
    folder: str = ""
    _pictures: "Model | None" = dataclasses.field(default=None, repr=False)  # whose vectors it learned with

    def __repr__(self) -> str:
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return (
            f"inference.Model({', '.join(self.task.predict_fns)}; {size:,} parameters; step {self.step}; {self.space})"
        )

    def embed(self, inputs, predict_fn="", *, words=None, weight=1.0):
        """Embeds pictures, pictures with words ("the same, but in red"), or whatever the predict function reads.

        Args:
          inputs: list of uint8 [h, w, 3] RGB arrays or paths of picture files; or {column: such a list, `Ragged` or
            array [n, ...]} for a predict function that reads other columns than "image".
          predict_fn: name of the predict function; "" for config.embed.predict_fn.
          words: list of texts, one per picture, for a run of the task "edit"; "" for the picture alone.
          weight: how much words count: 0 gives the picture's own vector, 1 what the run searches by, 2 twice that.

        Returns:
          float32 [n, D]; of length 1 with words.

        Raises:
          InputError: something that is not a picture, with its position in the list; a column that is missing; or
            words for a run that does not compose them with pictures.
        """
        if words is not None:
            return self._edited(inputs, words, predict_fn, weight)
        function = named(self.task.predict_fns, predict_fn or self.config.embed.predict_fn)
        if "picture" in function.reads and not isinstance(inputs, collections.abc.Mapping):
            inputs = {"picture": self._vectors_of(inputs)}
        return self._predict(function, inputs, views=self.config.embed.get("views", ()))["embedding"]

    def embed_text(self, texts, predict_fn=""):
        """Embeds typed words, into the space of the gallery that they search.

        Args:
          texts: list of texts.
          predict_fn: name of the predict function, one that reads a single column of tokens; "" for that of queries:
            "embed_text" or "embed_query".

        Returns:
          float32 [n, D].

        Raises:
          InputError: the task reads no texts, or the run's tokenizer is missing.
        """
        known = [name for name in ("embed_text", "embed_query") if name in self.task.predict_fns]
        if not predict_fn and not known:
            raise InputError(
                f"the task {self.config.train.task!r} embeds no words; train 'text_query', 'text_picture' or 'edit'"
            )
        (column,) = (function := named(self.task.predict_fns, predict_fn or known[0])).reads
        return self._predict(function, {column: self._tokens(texts, text.LENGTHS.get(column, text.TYPED))})["embedding"]

    def _tokens(self, texts, length):
        texts = list(worded.listed(texts))
        texts = [terms.spoken(words) for words in texts] if length == text.TYPED else texts
        options = {**tasks.get(self.config.train.task).OPTIONS, **self.config.train.task_kwargs}
        return text.load(pathlib.Path(self.folder) / text.FOLDER).encode(texts, options[length])

    def _edited(self, pictures, words, predict_fn, weight):
        """Embeds pictures with words; see `embed`."""
        if "embed_edit" not in self.task.predict_fns or predict_fn:
            what = f"this one is of {self.config.train.task!r}, and predict_fn is {predict_fn!r}"
            raise InputError(f"words beside pictures need a run of the task 'edit', without predict_fn; {what}")
        pictures, words, weight = worded.given(pictures, words, weight)
        function, tokens = self.task.predict_fns["embed_edit"], self._tokens(words, text.TYPED)
        pictures = {"picture": self._vectors_of(pictures)} if "picture" in function.reads else {"image": pictures}
        return worded.mixed(self._predict(function, {**pictures, "words": tokens}), weight)

    def _vectors_of(self, pictures):
        """Returns the vectors of pictures by the network that this run learned with, without views."""
        self._pictures = model = self._pictures or load(learned_from(self.config, self.folder))
        made = model._predict(named(model.task.predict_fns, model.config.embed.predict_fn), pictures)
        check_learned(made.get("space", model.space), self.folder)
        return made["embedding"]

    def predict_attributes(self, inputs, top=10, predict_fn="attributes"):
        """Predicts the most probable attributes of pictures.

        Args:
          inputs: as for `embed`.
          top: number of attributes per picture.
          predict_fn: "attributes_whole" for pictures that somebody else has cropped (task "click_triplet").

        Returns:
          For each picture a list of (token, probability), most probable first.

        Raises:
          InputError: the task does not predict attributes, or something is not a picture.
        """
        out = self._predict(top_attributes(named(self.task.predict_fns, predict_fn), top), inputs)
        names = self.data_info.label_names
        return [
            [(names[i], float(p)) for i, p in zip(ids, values, strict=True)]
            for ids, values in zip(out["label_ids"], out["probabilities"], strict=True)
        ]

    def locate(self, inputs):
        """Finds the product in pictures, by the box that the network has learned to look at (task "click_triplet").

        Args:
          inputs: as for `embed`.

        Returns:
          float32 [n, 4]: ymin, xmin, ymax, xmax as shares of each picture's height and width.

        Raises:
          InputError: the network looks at whole pictures, or something is not a picture.
        """
        return self._predict(named(self.task.predict_fns, "locate"), inputs)["boxes"]

    def predict_fields(self, inputs, given=None):
        """Predicts the attributes of pictures field by field (task "attribute_sequence").

        Args:
          inputs: as for `embed`.
          given: per picture {field: value, or values of a many-valued field} that are known, {} for none; the others
            follow them. None for none at all.

        Returns:
          For each picture {field: [(value, probability), ...]}; fields without a value are left out.

        Raises:
          InputError: the task has no fields, an unknown field or value (with near names), or something is not a
            picture.
        """
        info = self.data_info
        if not info.fields:
            raise InputError("this run learned no fields of attributes: train with the task 'attribute_sequence'")
        name = "attributes"
        if given is not None:
            inputs = inputs if isinstance(inputs, collections.abc.Mapping) else {"image": inputs}
            name, inputs = "attributes_given", {**inputs, "attribute_given": fields.guides(given, info)}
        out = self._predict(named(self.task.predict_fns, name), inputs)
        found = fields.predicted(out["chosen"], out["probabilities"], info)
        return [
            {name: row for name, field in found.items() if (row := field.row(number))}
            for number in range(len(out["chosen"]))
        ]

    def _predict(self, predict_fn, inputs, **kwargs):
        inputs = inputs if isinstance(inputs, collections.abc.Mapping) else {"image": inputs}
        given = {
            name: [decoding.picture(number, image) for number, image in enumerate(column)]
            if isinstance(column, (list, tuple))
            else column
            for name, column in ((name, worded.listed(value)) for name, value in inputs.items())
        }
        rows = max(map(len, given.values()), default=0)
        texts = all(isinstance(given[name], Ragged) for name in predict_fn.reads if name in given)
        most = _MOST_TEXTS if texts else _MOST_PICTURES
        batch_size = min(most, 1 << max(0, rows - 1).bit_length())  # few batch sizes, few compilations
        arguments = {**test_arguments(self.config), "batch_size": batch_size}
        return predict(predict_fn, self.params, given, mesh=self.mesh, **arguments, **kwargs)


def load(folder, which="ema", step=None):
    """Loads the model of a work directory; the catalogue it was trained on is not needed.

    Args:
      folder: the work directory.
      which: "ema" or "params".
      step: step of the checkpoint; None for the latest.

    Returns:
      The `Model`.

    Raises:
      InputError: the folder is not a work directory, or nothing was trained in it.
    """
    folder = pathlib.Path(folder)
    config = ml_collections.ConfigDict(workdir.read_config(folder))
    if config.get("train") is None:
        raise InputError(
            f"{folder} holds no trained network: its config is of an ensemble or of public weights, which "
            "retrieval_jax.models.pretrained.load loads"
        )
    params, meta, step = checkpoints.load_params(folder / "checkpoints", step, which)
    config = ml_collections.ConfigDict(workdir.read_config(folder, meta))  # as this checkpoint was trained
    data_info = info_lib.load(folder / "checkpoints" / "data_info.json")
    info_lib.check_vocabulary(meta, folder)
    try:
        task = make_task(config, data_info)
        name = space(config, task, meta, step, which)
        test_arguments(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder}: the settings in config.json or of the checkpoint do not make a network "
            f"({type(error).__name__}: {first_line(error)}); restore the files, or train again"
        ) from error
    return Model(config, task, params, data_info, step, sharding.make_mesh(), name, str(folder))


def make_task(config, data_info):
    """Makes the task of a trained run for prediction.

    Args:
      config: the whole config; `embed.model_kwargs` override `train.model.kwargs`: what a backbone does differently
        when it embeds, such as pool_bands.
      data_info: `data.info.DataInfo` that the task was trained with.

    Returns:
      The `tasks.Task`.
    """
    settings = copy.deepcopy(config.train)
    with settings.unlocked():
        settings.model.kwargs.update(config.embed.get("model_kwargs", {}))
    return tasks.get(settings.task).make(settings, data_info)


def space(config, task, meta, step, which="ema"):
    """Returns the name of the space that a checkpoint embeds into; only vectors of one space may be compared.

    It is the same for all predict functions of a task (those that embed into a space of their own return "space"), for
    all views and for all sizes of pictures.

    Args:
      config: the whole config.
      task: `tasks.Task` of `make_task`.
      meta: of the checkpoint, with its step and which, see `checkpoints.space`.
    """
    kwargs = workdir.plain(config.embed.get("model_kwargs", {}))  # with these the network is another function
    tail = f"/{hashlib.sha256(json.dumps(kwargs, sort_keys=True).encode()).hexdigest()[:8]}" if kwargs else ""
    return f"{task.space}:{checkpoints.space(meta, step, which)}{tail}"


def checksum(params):
    """Returns a checksum of all parameters with their paths and dtypes, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def named(predict_fns, name):
    """Returns a task's predict function; raises InputError, listing those there are, if it is missing."""
    if name not in predict_fns:
        raise InputError(f"the task has no predict function {name!r}{pairs.near(name, sorted(predict_fns))}")
    return predict_fns[name]
