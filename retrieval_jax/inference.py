"""From pictures to arrays with a trained model: the one bridge between the JAX world and the NumPy world.

model = inference.load("runs/quickstart")
vectors = model.embed(["shoe.jpg", "dress.png"])      # float32 [2, D]
model.predict_attributes(["shoe.jpg"], top=3)         # [[("black", 0.93), ("leather", 0.81), ("running", 0.44)]]
"""

import collections
import copy
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import tqdm

from retrieval_jax import embeddings, tasks, workdir
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import pipeline
from retrieval_jax.data.info import DataInfo
from retrieval_jax.data.pictures import decoding
from retrieval_jax.errors import InputError
from retrieval_jax.training import checkpoints, sharding
from retrieval_jax.views import host_size, with_views

_IN_FLIGHT = 3  # batches on the device while the next ones are read


def predict(
    predict_fn,
    params,
    source,
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
    """Runs a model over pictures, in order, on all devices.

    Args:
      predict_fn: (params, batch) -> dict of arrays [B, ...] and optionally "space", a str.
      params: pytree of arrays.
      source: random access, source[row] -> uint8 [h, w, 3].
      transform: (name, kwargs) pairs, nothing random.
      image_size: (height, width) in pixels.
      batch_size: rows of a global batch; rounded up to a multiple of the devices.
      mesh: of `sharding.make_mesh`; None makes one. The processes whose devices it has work together; over the
        devices of one process alone, that one reads and computes everything.
      desc: title of the progress bar; None shows none.
      rows: only these rows, in this order.
      num_threads: that read pictures.
      views: (name, kwargs) pairs; the embeddings of test-time views are averaged, see `views.with_views`.
      on_batch: called without arguments after each batch; what it raises ends the prediction.

    Returns:
      The dict of `predict_fn` (with views, its embedding and space only) with numpy arrays [n, ...] without padding,
      floating ones as float32; the same on every process.

    Raises:
      InputError: there are no rows.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    total = len(source) if rows is None else len(rows)
    if not total:
        raise InputError(f"{desc or 'prediction'}: the split has no rows")
    batch_size = -(-batch_size // mesh.size) * mesh.size
    run, space = _compiled(with_views(predict_fn, views, image_size), mesh)
    params = sharding.put(params, mesh)
    batches = pipeline.eval_batches(
        source,
        transform=transform,
        image_size=host_size(views, image_size),
        batch_size=batch_size,
        num_threads=num_threads,
        rows=rows,
        places=sharding.local_places(mesh, batch_size),
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
        total=total, desc=desc, unit="picture", mininterval=1, disable=desc is None or jax.process_index() > 0
    ) as bar:
        for batch in batches:
            waiting.append(run(params, sharding.shard_batch(batch, mesh)))
            if len(waiting) == _IN_FLIGHT:
                collect()
            if on_batch is not None:
                on_batch()
        while waiting:
            collect()
    return {**arrays, **space}


def test_arguments(config, weights=None):
    """Says how pictures reach a network at test time.

    Args:
      config: the whole config: embed.transforms, () for as the public weights say (without such: resize), and
        embed.image_size, () for data.image_size.
      weights: {"name", "path"} of public weights that are used as they are, whose image size is the default then;
        None for a network of this config, which may have been trained from such.

    Returns:
      transform, image_size and batch_size, for `predict`.
    """
    own = None if config.get("train") is None else config.train.get("model", {}).get("pretrained")
    named_weights, info = weights or own, None
    if named_weights and named_weights["name"]:
        from retrieval_jax.models import pretrained  # reads weight files: only who asks for such needs it

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
    """Compiles a predict function once for all splits; the name of the space is no array, so tracing notes it."""
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
      predict_fn: of (params, batch); returns a dict with probabilities [B, L].
      top: how many labels; L where there are fewer.

    Returns:
      Function of (params, batch) that returns label_ids int32 [B, top] and probabilities [B, top], best first.
    """

    def predict_top(params, batch):
        probabilities = predict_fn(params, batch)["probabilities"]
        values, ids = jax.lax.top_k(probabilities, min(top, probabilities.shape[-1]))
        return {"label_ids": ids.astype(jnp.int32), "probabilities": values}

    return predict_top


@dataclasses.dataclass
class Model:
    """A trained model, ready for pictures.

    Attributes:
      config: the run's whole config.
      task: of `tasks`.
      params: of the checkpoint.
      data_info: what the task was made with.
      step: of the checkpoint.
      mesh: devices it runs on.
    """

    config: ml_collections.ConfigDict
    task: tasks.Task
    params: dict
    data_info: DataInfo
    step: int
    mesh: jax.sharding.Mesh

    def embed(self, images):
        """Embeds pictures.

        Args:
          images: list of uint8 [h, w, 3] RGB arrays or paths of picture files.

        Returns:
          float32 [n, D].

        Raises:
          InputError: something else than a picture, named by its place in the list.
        """
        predict_fn = named(self.task.predict_fns, self.config.embed.predict_fn)
        return self._predict(predict_fn, images, views=self.config.embed.get("views", ()))["embedding"]

    def predict_attributes(self, images, top=10):
        """Names the most probable attributes of pictures.

        Args:
          images: as for `embed`.
          top: how many.

        Returns:
          For each picture the list of (token, probability), most probable first.

        Raises:
          InputError: the task predicts no attributes, or something is not a picture.
        """
        out = self._predict(top_attributes(named(self.task.predict_fns, "attributes"), top), images)
        names = self.data_info.label_names
        return [
            [(names[i], float(p)) for i, p in zip(ids, values, strict=True)]
            for ids, values in zip(out["label_ids"], out["probabilities"], strict=True)
        ]

    def _predict(self, predict_fn, images, **kwargs):
        images = [decoding.picture(number, image) for number, image in enumerate(images)]
        # few batch sizes, few compilations
        batch_size = min(64, 1 << max(0, len(images) - 1).bit_length())
        arguments = {**test_arguments(self.config), "batch_size": batch_size}
        return predict(predict_fn, self.params, images, mesh=self.mesh, **arguments, **kwargs)


def load(folder, which="ema", step=None):
    """Loads the model of a work directory; the catalogue it was trained on is not needed.

    Args:
      folder: the work directory.
      which: "ema" or "params".
      step: of the checkpoint; None for the latest.

    Returns:
      The `Model`.

    Raises:
      InputError: the folder is no work directory, or nothing was trained in it.
    """
    folder = pathlib.Path(folder)
    config = ml_collections.ConfigDict(workdir.read_config(folder))
    if config.get("train") is None:
        raise InputError(
            f"{folder} holds no trained network: its config is of an ensemble or of public weights, which "
            "retrieval_jax.models.pretrained.load loads"
        )
    params, meta, step = checkpoints.load_params(folder / "checkpoints", step, which)
    data_info = info_lib.load(folder / "checkpoints" / "data_info.json")
    info_lib.check_vocabulary(meta, folder)
    task = make_task(config, data_info)
    return Model(config, task, params, data_info, step, sharding.make_mesh())


def make_task(config, data_info):
    """Makes the task of a trained run for prediction.

    Args:
      config: the whole config; `embed.model_kwargs` go before `train.model.kwargs`: what a backbone may do otherwise
        when it embeds, such as pool_bands.
      data_info: what the task was trained with.

    Returns:
      The `tasks.Task`.
    """
    settings = copy.deepcopy(config.train)
    with settings.unlocked():
        settings.model.kwargs.update(config.embed.get("model_kwargs", {}))
    return tasks.get(settings.task).make(settings, data_info)


def named(predict_fns, name):
    """Returns a task's predict function; raises InputError, listing what the task has, when it is missing."""
    if name not in predict_fns:
        raise InputError(f"the task has no predict function {name!r}; it has {', '.join(sorted(predict_fns))}")
    return predict_fns[name]
