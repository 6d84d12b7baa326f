"""TrivialAugment and RandAugment: random chains of simple picture operations, on uint8 RGB of any size.

Both are transforms of `transforms.compose`. They move and recolour the picture but keep its size, so they come after
the transform that sets it:

    transforms = (("random_resized_crop", {}), ("flip", {}), ("trivial_augment", {}))

The operations are Pillow's, which both papers used, at OpenCV's speed: those that map single values (lookup tables)
give the same bytes; the others differ by rounding. If colour distinguishes products, restrict `ops` to geometric
operations: ("trivial_augment", {"ops": augment.GEOMETRIC}).
"""

import math

import cv2
import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.pairs import near

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of red, green, blue
_LEVELS = np.arange(256)
_SMOOTH = np.array(((1, 1, 1), (1, 5, 1), (1, 1, 1)), np.float32) / 13  # Pillow's ImageFilter.SMOOTH


def autocontrast(image):
    """Stretches each channel to the full range."""
    tables = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        low, high, _, _ = cv2.minMaxLoc(cv2.extractChannel(image, channel))
        scale = 255 / (high - low) if high > low else 1.0
        tables[0, :, channel] = np.clip(_LEVELS * scale - (low * scale if high > low else 0), 0, 255)
    return cv2.LUT(image, tables)


def equalize(image):
    """Equalises the histogram of each channel."""
    tables = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables[0, :, channel] = np.minimum((below + step // 2) // step, 255) if step else _LEVELS
    return cv2.LUT(image, tables)


def invert(image):
    """Replaces each value v by 255 - v."""
    return cv2.bitwise_not(image)


def posterize(image, bits):
    """Keeps the `bits` highest bits of each value."""
    return cv2.LUT(image, (_LEVELS & ~(2 ** (8 - bits) - 1)).astype(np.uint8))


def solarize(image, threshold):
    """Inverts the values at or above `threshold`."""
    return cv2.LUT(image, np.where(_LEVELS < threshold, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def solarize_add(image, addition):
    """Adds to the values below 128."""
    return cv2.LUT(image, np.where(_LEVELS < 128, np.minimum(_LEVELS + addition, 255), _LEVELS).astype(np.uint8))


def brightness(image, factor):
    """Blends with black: 0 is black, 1 the picture, more is brighter."""
    return cv2.LUT(image, np.clip(np.float32(factor) * _LEVELS.astype(np.float32), 0, 255).astype(np.uint8))


def contrast(image, factor):
    """Blends with the mean grey: 0 is grey, 1 the picture, more has more contrast."""
    grey = np.float32(int(np.dot(_GREY, cv2.mean(image)[:3]) + 0.5))
    return cv2.LUT(image, np.clip(grey + np.float32(factor) * (_LEVELS - grey), 0, 255).astype(np.uint8))


def color(image, factor):
    """Blends with the picture's own greys: 0 is grey, 1 the picture, more is more colourful."""
    matrix = factor * np.eye(3) + (1 - factor) * np.array([_GREY] * 3)
    return cv2.transform(image, matrix.astype(np.float32))


def sharpness(image, factor):
    """Blends with a smoothed picture: 0 is smooth, 1 the picture, more is sharper; border pixels stay."""
    kernel = (1 - factor) * _SMOOTH
    kernel[1, 1] += factor
    out = cv2.filter2D(image, -1, kernel)
    out[[0, -1]], out[:, [0, -1]] = image[[0, -1]], image[:, [0, -1]]
    return out


def shear_x(image, factor, fill=(128, 128, 128)):
    """Moves each row to the left by `factor` times its distance from the upper edge."""
    return _affine(image, (1, factor, 0, 0, 1, 0), fill)


def shear_y(image, factor, fill=(128, 128, 128)):
    """Moves each column up by `factor` times its distance from the left edge."""
    return _affine(image, (1, 0, 0, factor, 1, 0), fill)


def translate_x(image, pixels, fill=(128, 128, 128)):
    """Moves the picture to the left by whole pixels."""
    return _shift(image, round(pixels), 0, fill)


def translate_y(image, pixels, fill=(128, 128, 128)):
    """Moves the picture up by whole pixels."""
    return _shift(image, 0, round(pixels), fill)


def rotate(image, degrees, fill=(128, 128, 128)):
    """Rotates the picture anticlockwise around its centre."""
    y, x = image.shape[0] / 2, image.shape[1] / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _affine(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), fill)


def _shift(image, left, up, fill):
    height, width = image.shape[:2]
    if abs(left) >= width or abs(up) >= height:
        return np.full_like(image, fill)
    part = image[max(up, 0) : height + min(up, 0), max(left, 0) : width + min(left, 0)]
    return cv2.copyMakeBorder(
        part, max(-up, 0), max(up, 0), max(-left, 0), max(left, 0), cv2.BORDER_CONSTANT, value=fill
    )


def _affine(image, matrix, fill):
    """Samples (x, y) from (a x + b y + c, d x + e y + f), with pixel centres at halves, as in Pillow."""
    a, b, c, d, e, f = matrix
    matrix = np.array(((a, b, c + (a + b - 1) / 2), (d, e, f + (d + e - 1) / 2)))
    # With a fourth channel OpenCV computes the same pixels in less than half the time.
    image = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        matrix,
        (image.shape[1], image.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(*fill, 255),
    )
    return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)


GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_ENHANCE = {"brightness": brightness, "contrast": contrast, "color": color, "sharpness": sharpness}
_MOVE = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
}


def trivial_augment(size, ops=None, translate=32, fill=(128, 128, 128)):
    """Applies one random operation of random strength; there is nothing to tune.

    Args:
      ops: operations to choose from; None for all of the paper's: identity, autocontrast, equalize, posterize,
        solarize, brightness, contrast, color, sharpness, shear_x, shear_y, translate_x, translate_y, rotate.
      translate: largest shift in pixels.
      fill: colour of the area that moves in from outside.

    Strengths are those of the paper's "wide" space, in 31 steps: shear up to 0.99, rotation up to 135 degrees, factors
    0.01 to 1.99, at least 2 bits.
    Source: Mueller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation" (arXiv
    2103.10158).
    """
    del size
    fill = _colour("trivial_augment", fill)
    largest = {"shear_x": 0.99, "shear_y": 0.99, "translate_x": translate, "translate_y": translate, "rotate": 135}

    def apply_one(name, image, strength, sign):
        if name == "identity":
            return image
        if name == "autocontrast":
            return autocontrast(image)
        if name == "equalize":
            return equalize(image)
        if name == "posterize":
            return posterize(image, 8 - round(6 * strength))
        if name == "solarize":
            return solarize(image, 256 * (1 - strength))
        if name in _ENHANCE:
            return _ENHANCE[name](image, 1 + sign * 0.99 * strength)
        return _MOVE[name](image, sign * largest[name] * strength, fill)

    names = _chosen(
        "trivial_augment", ops, ("identity", "autocontrast", "equalize", "posterize", "solarize", *_ENHANCE, *_MOVE)
    )

    def apply(image, rng):
        which, strength, sign = rng.random(3).tolist()
        return apply_one(names[int(which * len(names))], image, int(strength * 31) / 30, 1 if sign < 0.5 else -1)

    return apply


def rand_augment(size, num_ops=2, magnitude=9.0, magnitude_std=0.5, p=0.5, ops=None, fill=(128, 128, 128)):
    """Applies `num_ops` random operations of similar strength.

    Args:
      num_ops: number of operations, drawn with replacement.
      magnitude: strength from 0 to 10.
      magnitude_std: standard deviation of the strength, which is drawn per operation and clipped to 0..10.
      p: probability of applying each operation; 1 in the paper.
      ops: operations to choose from; None for all: autocontrast, equalize, invert, posterize, solarize,
        solarize_add, brightness, contrast, color, sharpness, shear_x, shear_y, translate_x, translate_y, rotate.
      fill: colour of the area that moves in from outside.

    The defaults are those that ConvNeXt and Swin were trained with, timm's "rand-m9-mstd0.5-inc1": all operations get
    stronger with the magnitude; shear up to 0.3, shifts up to 0.45 of the side, rotation up to 30 degrees, factors 0.1
    to 1.9. timm resamples with a bilinear or bicubic kernel at random; here it is always bilinear, and shifts are whole
    pixels.
    Source: Cubuk et al. 2019, "RandAugment: Practical automated data augmentation with a reduced search space" (arXiv
    1909.13719); scales of timm's auto_augment.
    """
    del size
    fill = _colour("rand_augment", fill)
    if not isinstance(num_ops, int) or num_ops < 1:
        raise InputError(f"transform 'rand_augment': num_ops must be a whole number, 1 or more, not {num_ops!r}")
    for key, value, most in (("magnitude", magnitude, 10), ("magnitude_std", magnitude_std, math.inf), ("p", p, 1)):
        if not isinstance(value, (int, float)) or not 0 <= value <= most:
            raise InputError(f"transform 'rand_augment': {key} must be a number from 0 to {most}, not {value!r}")

    def apply_one(name, image, strength, sign):
        if name == "autocontrast":
            return autocontrast(image)
        if name == "equalize":
            return equalize(image)
        if name == "invert":
            return invert(image)
        if name == "posterize":
            return posterize(image, 4 - int(4 * strength))
        if name == "solarize":
            return solarize(image, 256 - int(256 * strength))
        if name == "solarize_add":
            return solarize_add(image, int(110 * strength))
        if name in _ENHANCE:
            return _ENHANCE[name](image, max(0.1, 1 + sign * 0.9 * strength))
        if name.startswith("translate"):
            return _MOVE[name](image, sign * 0.45 * strength * image.shape[name == "translate_x"], fill)
        return _MOVE[name](image, sign * strength * (30 if name == "rotate" else 0.3), fill)

    names = _chosen(
        "rand_augment",
        ops,
        ("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add", *_ENHANCE, *_MOVE),
    )

    def apply(image, rng):
        for _ in range(num_ops):
            which, happens, sign = rng.random(3).tolist()
            noise = rng.standard_normal()
            if happens < p:
                strength = min(max(magnitude + magnitude_std * noise, 0), 10) / 10
                image = apply_one(names[int(which * len(names))], image, strength, 1 if sign < 0.5 else -1)
        return image

    return apply


def _chosen(transform, ops, known):
    if ops is None:
        return known
    ops = (ops,) if isinstance(ops, str) else tuple(ops)
    for name in ops:
        if name not in known:
            raise InputError(f"transform {transform!r}: there is no operation {name!r}{near(name, known)}")
    if not ops:
        raise InputError(f"transform {transform!r}: ops is empty; choose from {', '.join(known)}")
    return ops


def _colour(transform, fill):
    try:
        red, green, blue = (int(v) for v in fill)
    except (TypeError, ValueError):
        raise InputError(f"transform {transform!r}: fill must be (red, green, blue), not {fill!r}") from None
    return red, green, blue
