"""Picture transforms on the host: uint8 RGB in, uint8 RGB of the requested size out.

A config lists them in order as (name, keyword arguments) pairs:

    transforms = (
        ("random_resized_crop", {"scale": (0.2, 1.0)}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": 0.2}),
        ("erasing", {"p": 0.25}),
    )

Pictures stay uint8 (a quarter of the memory and of the transfer to the device); mean and standard deviation belong to
the model and are applied on the device. All random choices come from the generator that is passed in, so the result is
a pure function of (picture, spec, generator state).
"""

import math

import cv2
import numpy as np
from PIL import Image

from retrieval_jax import pairs
from retrieval_jax.data.pictures import augment, decoding
from retrieval_jax.errors import InputError

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of red, green, blue
_CROP_TRIES = 10
_SIZING = ("resize", "random_resized_crop", "center_crop")
_FIXED = ("resize", "center_crop")  # not random
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def compose(spec, image_size):
    """Builds one function from a list of transforms.

    Args:
      spec: (name, kwargs) pairs in order; one of them must set the size: "resize", "random_resized_crop" or
        "center_crop".
      image_size: (height, width) of the result in pixels.

    Returns:
      `apply(image, rng=None)`: uint8 [h, w, 3] -> uint8 [height, width, 3]. `rng` is a `np.random.Generator`, required
      if the spec contains a random transform. The input is never written to; the result may share its memory. The
      input may also be a `decoding.Encoded`; if the first transform is a random_resized_crop, only the crop is decoded.

    Raises:
      InputError: an unknown transform or argument, a bad value, or no transform that sets the size.
    """
    height, width = (int(n) for n in image_size)
    if height < 1 or width < 1:
        raise InputError(f"image_size {tuple(image_size)}: height and width must be at least 1 pixel")
    steps, random_names, sets_size, cuts_first = [], [], False, False
    for entry in spec:
        name, kwargs = pairs.split(entry, "transforms", "('flip', {})")
        known = {each: pairs.arguments(build) for each, build in sorted(_TRANSFORMS.items())}
        pairs.check(name, kwargs, known, "transforms", "transform")
        cuts_first = cuts_first or not steps and name == "random_resized_crop"
        steps.append(_TRANSFORMS[name]((height, width), **kwargs))
        if name not in _FIXED:
            random_names.append(name)
        sets_size = sets_size or name in _SIZING
    if not sets_size:
        raise InputError(
            "the transforms never set the picture's size: add ('resize', {}), ('center_crop', {}) or"
            " ('random_resized_crop', {})"
        )

    def apply(image, rng=None):
        if rng is None and random_names:
            raise InputError(
                f"random transforms ({', '.join(random_names)}) need a random generator; evaluation uses "
                "(('resize', {}),)"
            )
        if isinstance(image, decoding.Encoded) and not cuts_first:
            image = image.pixels()
        for step in steps:
            image = step(image, rng)
        return image

    return apply


def resize(size, interpolation="area"):
    """Resizes to the requested size and ignores the aspect ratio ("squash"), as published systems do at test time.

    Args:
      interpolation: "area" averages over areas when shrinking and is linear when enlarging; "bilinear" and "bicubic"
        are Pillow's, whose kernels widen when shrinking (no aliasing), as in the evaluation of public checkpoints;
        "halves", several times as fast, averages 2, 4, 8 or 16 neighbours as long as enough pixels remain, then
        shrinks linearly by less than a factor of 2.
    """
    _interpolation("resize", interpolation)
    return lambda image, rng: _resize(image, size, interpolation)


def center_crop(size, crop_pct=0.875, interpolation="bicubic", squash=False):
    """Resizes the picture to just cover size / crop_pct, keeping the aspect ratio, and crops the centre.

    Args:
      crop_pct: share of the side that is kept, 0.25 to 1; given with public checkpoints.
      interpolation: as in "resize".
      squash: resize to exactly size / crop_pct and ignore the aspect ratio, timm's crop_mode.

    Source: timm's transform for evaluation (torchvision's Resize of the shorter side, then CenterCrop).
    """
    _interpolation("center_crop", interpolation)
    if not isinstance(crop_pct, (int, float)) or not 0.25 <= crop_pct <= 1:
        raise InputError(f"transform 'center_crop': crop_pct must be a share, 0.25 to 1, not {crop_pct!r}")
    cover_h, cover_w = (math.floor(n / crop_pct) for n in size)
    whole = math.floor if size[0] == size[1] else round  # torchvision's longer side, and timm's for other sizes

    def apply(image, rng):
        h, w = image.shape[:2]
        if squash:
            inner = cover_h, cover_w
        elif h * cover_w <= w * cover_h:
            inner = cover_h, whole(w * cover_h / h)
        else:
            inner = whole(h * cover_w / w), cover_w
        y, x = (round((a - b) / 2) for a, b in zip(inner, size, strict=True))
        image = _resize(image, inner, interpolation)[y : y + size[0], x : x + size[1]]
        return np.ascontiguousarray(image)

    return apply


def random_resized_crop(size, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3), interpolation="area"):
    """Crops a random rectangle and resizes it to the requested size.

    Args:
      scale: smallest and largest share of the picture's area.
      ratio: smallest and largest aspect ratio (width / height) of the rectangle relative to the requested size's,
        log-uniform: how much the crop is stretched. For a square size this is torchvision's RandomResizedCrop.
      interpolation: as in "resize", or "random" for "bilinear" or "bicubic" with equal probability.

    Source: Szegedy et al. 2015, "Going deeper with convolutions" (arXiv 1409.4842), section 6; conventions of
    torchvision.
    """
    low, high = _interval("random_resized_crop", "scale", scale, 0, 1)
    ratio_low, ratio_high = _interval("random_resized_crop", "ratio", ratio, 0, math.inf)
    _interpolation("random_resized_crop", interpolation, "random")
    aspect = size[1] / size[0]
    log_low, log_span = math.log(ratio_low), math.log(ratio_high) - math.log(ratio_low)

    def resized(image, y, x, crop_h, crop_w, rng):
        if isinstance(image, decoding.Encoded):
            image = image.cut(y, x, crop_h, crop_w, size)
        else:
            image = image[y : y + crop_h, x : x + crop_w]
        if interpolation == "random":
            return _resize(image, size, "bilinear" if rng.random() < 0.5 else "bicubic")
        return _resize(image, size, interpolation)

    def apply(image, rng):
        h, w = image.shape[:2]
        for _ in range(_CROP_TRIES):
            u, v, top, left = rng.random(4).tolist()
            area = h * w * (low + (high - low) * u)
            stretch = aspect * math.exp(log_low + log_span * v)
            crop_w, crop_h = round(math.sqrt(area * stretch)), round(math.sqrt(area / stretch))
            if 0 < crop_w <= w and 0 < crop_h <= h:
                y, x = int(top * (h - crop_h + 1)), int(left * (w - crop_w + 1))
                return resized(image, y, x, crop_h, crop_w, rng)
        # The largest central rectangle with an allowed aspect ratio.
        stretch = min(max(w / h, aspect * ratio_low), aspect * ratio_high)
        crop_w, crop_h = max(1, min(w, round(h * stretch))), max(1, min(h, round(w / stretch)))
        y, x = (h - crop_h) // 2, (w - crop_w) // 2
        return resized(image, y, x, crop_h, crop_w, rng)

    return apply


def flip(size, p=0.5):
    """Mirrors left and right with probability p."""
    del size
    _share("flip", "p", p)
    return lambda image, rng: cv2.flip(image, 1) if rng.random() < p else image


def color_jitter(size, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """Changes brightness, contrast, saturation and hue in a single affine map of the colours.

    Args:
      brightness, contrast, saturation: the factor is uniform in [1 - x, 1 + x]; 0 means no change.
      hue: largest rotation around the grey axis as a share of a full circle, at most 0.5.

    The four are applied in this order and clipped to 0..255 once at the end. Hue rotates RGB around the grey axis
    instead of going through HSV: the same for small angles, and a matrix. (torchvision clips and rounds after each
    step and shuffles the order.)
    Source: Haeberli 1993, "Matrix Operations for Image Processing" (Graphica Obscura).
    """
    del size
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        _share("color_jitter", name, value)
    _share("color_jitter", "hue", hue, most=0.5)
    r, g, b = _GREY

    def apply(image, rng):
        u = rng.random(4).tolist()
        bright, con = 1 + brightness * (2 * u[0] - 1), 1 + contrast * (2 * u[1] - 1)
        sat = 1 + saturation * (2 * u[2] - 1)
        angle = 2 * math.pi * hue * (2 * u[3] - 1)
        mean = cv2.mean(image)
        # Contrast mixes with the mean grey, saturation with each pixel's grey; like the rotation both keep greys grey.
        bias = (1 - con) * bright * (r * mean[0] + g * mean[1] + b * mean[2])
        third, sine = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
        same, before, after = math.cos(angle) + third, third - sine, third + sine
        gain, s, d = bright * con, sat, 1 - sat
        matrix = np.array(
            (
                (gain * (s * same + d * r), gain * (s * before + d * g), gain * (s * after + d * b), bias),
                (gain * (s * after + d * r), gain * (s * same + d * g), gain * (s * before + d * b), bias),
                (gain * (s * before + d * r), gain * (s * after + d * g), gain * (s * same + d * b), bias),
            ),
            np.float32,
        )
        return cv2.transform(image, matrix)

    return apply


def erasing(size, p=0.25, scale=(0.02, 1 / 3), ratio=(0.3, 3.3), fill="noise"):
    """Erases a random rectangle with probability p; put it last.

    Args:
      scale: smallest and largest share of the picture's area.
      ratio: smallest and largest aspect ratio (width / height), log-uniform.
      fill: "noise" (each value uniform in 0..255) or "mean" (the picture's mean colour).

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation" (arXiv 1708.04896).
    """
    del size
    _share("erasing", "p", p)
    low, high = _interval("erasing", "scale", scale, 0, 1)
    ratio_low, ratio_high = _interval("erasing", "ratio", ratio, 0, math.inf)
    log_low, log_span = math.log(ratio_low), math.log(ratio_high) - math.log(ratio_low)
    if fill not in ("noise", "mean"):
        raise InputError(f"transform 'erasing': fill must be 'noise' or 'mean', not {fill!r}")

    def apply(image, rng):
        if rng.random() >= p:
            return image
        h, w = image.shape[:2]
        for _ in range(_CROP_TRIES):
            u, v, top, left = rng.random(4).tolist()
            area, aspect = h * w * (low + (high - low) * u), math.exp(log_low + log_span * v)
            box_w, box_h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < box_w < w and 0 < box_h < h:
                y, x = int(top * (h - box_h + 1)), int(left * (w - box_w + 1))
                image = image.copy()  # the source may have returned its own cached row
                if fill == "noise":
                    image[y : y + box_h, x : x + box_w] = np.frombuffer(rng.bytes(box_h * box_w * 3), np.uint8).reshape(
                        box_h, box_w, 3
                    )
                else:
                    image[y : y + box_h, x : x + box_w] = [round(m) for m in cv2.mean(image)[:3]]
                return image
        return image

    return apply


_TRANSFORMS = {
    f.__name__: f
    for f in (
        resize,
        random_resized_crop,
        center_crop,
        flip,
        color_jitter,
        erasing,
        augment.trivial_augment,
        augment.rand_augment,
    )
}


def _resize(image, size, interpolation="area"):
    h, w = image.shape[:2]
    if (h, w) == size:
        return image if image.flags.c_contiguous else np.ascontiguousarray(image)
    if interpolation == "halves":
        down, across = (
            next((n for n in (16, 8, 4, 2) if have >= n * want), 1) for have, want in zip((h, w), size, strict=True)
        )
        if down > 1 or across > 1:
            image = cv2.resize(
                image[: h // down * down, : w // across * across],
                (w // across, h // down),
                interpolation=cv2.INTER_AREA,
            )
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    if interpolation != "area":  # OpenCV lacks these kernels
        return np.array(Image.fromarray(image).resize((size[1], size[0]), _FILTERS[interpolation]))
    shrinks = h >= size[0] and w >= size[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _interpolation(transform, name, *further):
    known = ("area", "halves", *_FILTERS, *further)
    if name not in known:
        raise InputError(f"transform {transform!r}: there is no interpolation {name!r}{pairs.near(name, known)}")


def _interval(transform, name, value, least, most):
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise InputError(f"transform {transform!r}: {name} must be a pair (smallest, largest), not {value!r}") from None
    if not least < low <= high <= most:
        raise InputError(
            f"transform {transform!r}: {name} {value!r} must satisfy {least} < smallest <= largest <= {most}"
        )
    return low, high


def _share(transform, name, value, most=1.0):
    if not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise InputError(f"transform {transform!r}: {name} must be a number from 0 to {most:g}, not {value!r}")
