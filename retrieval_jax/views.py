"""Test-time views: one vector from several views of each picture.

    views = (("flip", {}), ("multi_scale", {"scales": (1.0, 1.25)}))

Every entry multiplies the views: this is two scales, each as it is and mirrored, so four views. "flip" with
"five_crops" gives the classic ten crops. The vector of each view is L2-normalised, then they are averaged; the average
is not normalised again (it is shorter where the views disagree), which does not matter to cosine similarity.

Views larger than the picture are cut from a picture that is read larger (`host_size`), so they show detail that the
plain size lacks; smaller ones are resized on the device with antialiasing. Views are made of the column "image"; a
predict function that does not read it, such as one of text, has none.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from retrieval_jax import pairs
from retrieval_jax.errors import InputError

_SETTING = "config.embed.views"
# name -> arguments and their defaults
_VIEWS = {
    "flip": {},  # as it is, and mirrored left to right
    "multi_scale": {"scales": (1.0, 1.25)},  # relative to the plain size
    "five_crops": {"enlarge": 8 / 7},  # the picture enlarged by this factor, cropped at its corners and its centre
}


def host_size(views, image_size):
    """Returns the (height, width) to read pictures at so that no view has to be enlarged.

    Args:
      views: (name, kwargs) pairs.
      image_size: (height, width) of the plain picture.

    Raises:
      InputError: an unknown view or argument, or a value out of range.
    """
    settings = _parsed(views)
    largest = max(max(settings["scales"]) * settings["enlarge"], 1.0)
    return _scaled(image_size, largest)


def with_views(predict_fn, views, image_size=None):
    """Makes a predict function that averages the vectors of several views.

    Args:
      predict_fn: `tasks.Predict` that returns a dict with embedding [B, D] and optionally "space".
      views: (name, kwargs) pairs; the names are "flip" {}, "multi_scale" {scales} and "five_crops" {enlarge}, each
        at most once.
      image_size: (height, width) of the plain picture; None where the batch's pictures have that size. Pictures of
        `host_size` lose nothing.

    Returns:
      `predict_fn` itself without views, or where it does not read "image"; else a `tasks.Predict` that returns
      {"embedding": [B, D] float32, and "space" if there is one}. The network is compiled once per scale, whatever the
      number of views. Equal arguments give an equal function.

    Raises:
      InputError: an unknown view or argument, or a value out of range; while tracing, a network that does not accept
        pictures of another size than it was trained on (learned positions).

    Source: ten crops as in Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
    section 4.1; scales as in Simonyan and Zisserman 2014 (arXiv 1409.1556), section 3.2.
    """
    settings = _parsed(views)
    if not len(views) or "image" not in predict_fn.reads:
        return predict_fn
    function = _with_views(
        predict_fn,
        settings["flip"],
        settings["scales"],
        settings["enlarge"],
        settings["crops"],
        None if image_size is None else tuple(int(n) for n in image_size),
    )
    return dataclasses.replace(predict_fn, fn=function)


@functools.lru_cache(maxsize=8)
def _with_views(predict_fn, flip, scales, enlarge, crops, image_size):
    def predict(params, batch):
        images = batch["image"]
        if images.ndim != 4:
            raise InputError("config.embed.views: views are of one picture per example, not of several; set it to ()")
        plain = image_size or images.shape[1:3]
        total, space = 0.0, {}
        for scale in scales:
            size = _scaled(plain, scale)
            larger = _scaled(plain, scale * enlarge)
            picture = _resize(images, larger)
            spare = larger[0] - size[0], larger[1] - size[1]
            places = [(0, 0)]
            if crops:
                places += [(0, spare[1]), (spare[0], 0), spare, (spare[0] // 2, spare[1] // 2)]
            looks = jnp.asarray([(*place, mirror) for place in places for mirror in ((0, 1) if flip else (0,))])

            def add(sum_so_far, look, picture=picture, size=size):
                view = jax.lax.dynamic_slice(picture, (0, look[0], look[1], 0), (picture.shape[0], *size, 3))
                view = jnp.where(look[2] == 1, view[:, :, ::-1], view)
                vectors = _vectors(predict_fn, params, {**batch, "image": view}, plain, space)
                return sum_so_far + vectors, None

            dim = jax.eval_shape(
                lambda view: _vectors(predict_fn, params, {**batch, "image": view}, plain, space),
                jax.ShapeDtypeStruct((picture.shape[0], *size, 3), picture.dtype),
            ).shape
            total += jax.lax.scan(add, jnp.zeros(dim), looks)[0] / (len(looks) * len(scales))
        return {"embedding": total, **space}

    return predict


def _vectors(predict_fn, params, batch, plain, space):
    """Returns L2-normalised vectors; stores the name of the space, which is not an array, in `space`."""
    size = batch["image"].shape[1:3]
    try:
        out = predict_fn(params, batch)
    except Exception as error:
        if size == plain:
            raise
        raise InputError(
            f"config.embed.views: the network does not accept pictures of {size[0]} x {size[1]} instead of "
            f"{plain[0]} x {plain[1]}, as is usual with learned positions: leave 'multi_scale' out "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error
    if "embedding" not in out:
        raise InputError(f"config.embed.views: the predict function returns {', '.join(sorted(out))}, not an embedding")
    if "space" in out:
        space["space"] = out["space"]
    vectors = out["embedding"].astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(-1, keepdims=True), 1e-12))


def _resize(images, size):
    if images.shape[1:3] == size:
        return images
    return jax.image.resize(images.astype(jnp.float32), (images.shape[0], *size, 3), "linear", antialias=True)


def _scaled(size, factor):
    return tuple(max(1, round(int(n) * factor)) for n in size)


def _parsed(views):
    settings = {"flip": False, "scales": (1.0,), "enlarge": 1.0, "crops": False}
    seen = set()
    for entry in views:
        name, kwargs = pairs.split(entry, _SETTING, "('flip', {})")
        pairs.check(name, kwargs, _VIEWS, _SETTING, "view")
        if name in seen:
            raise InputError(f"{_SETTING}: the view {name!r} is given twice")
        seen.add(name)
        kwargs = {**_VIEWS[name], **kwargs}
        if name == "flip":
            settings["flip"] = True
        elif name == "multi_scale":
            settings["scales"] = _scales(kwargs["scales"])
        else:
            settings["crops"], settings["enlarge"] = True, kwargs["enlarge"]
            if not isinstance(settings["enlarge"], (int, float)) or not 1 < settings["enlarge"] <= 4:
                raise InputError(
                    f"{_SETTING}: enlarge of 'five_crops' is {settings['enlarge']!r}: give more than 1 and at most 4"
                )
    return settings


def _scales(scales):
    try:
        scales = tuple(float(scale) for scale in scales)
    except (TypeError, ValueError):
        raise InputError(f"{_SETTING}: scales of 'multi_scale' is {scales!r}: give numbers") from None
    if not scales or not all(0 < scale <= 4 for scale in scales):
        raise InputError(f"{_SETTING}: scales of 'multi_scale' is {scales!r}: give numbers above 0 and at most 4")
    return scales
