"""A colour histogram as an embedding: the baseline that needs no training."""

import cv2
import numpy as np

BINS = (8, 4, 4)  # hue, saturation, value
GRID = 2
SPACE = f"histogram:hsv{'x'.join(map(str, BINS))}:grid{GRID}"
DIM = GRID * GRID * BINS[0] * BINS[1] * BINS[2]
META: dict = {}  # of the embeddings, beside what embed writes


def embed(images):
    """Embeds pictures by the colour histograms of their quarters.

    The shares are square-rooted, so that the inner product of two vectors is the mean Bhattacharyya coefficient of
    their quarters' colours (Hellinger kernel).

    Args:
      images: uint8 [n, H, W, 3] RGB.

    Returns:
      float32 [n, 512], rows of unit length.

    Source: Swain and Ballard 1991, "Color Indexing", IJCV 7(1); square roots as Arandjelovic and Zisserman 2012,
    "Three things everyone should know to improve object retrieval".
    """
    images = np.asarray(images)
    height, width = images.shape[1:3]
    colors = BINS[0] * BINS[1] * BINS[2]
    rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
    cell = ((rows[:, None] * GRID + columns) * colors).astype(np.int32)
    out = np.empty((len(images), DIM), np.float32)
    for i, image in enumerate(images):
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))  # OpenCV counts hue in 0..179
        code = (_HUE[hue] + _SATURATION[saturation] + _VALUE[value]) + cell
        out[i] = np.bincount(code.ravel(), minlength=DIM)
    shares = out.reshape(len(out), GRID * GRID, colors)
    shares = np.sqrt(shares / np.maximum(shares.sum(-1, keepdims=True), 1)).reshape(len(out), DIM)
    return shares / np.linalg.norm(shares, axis=1, keepdims=True)


_HUE = (np.minimum(np.arange(256) * BINS[0] // 180, BINS[0] - 1) * BINS[1] * BINS[2]).astype(np.int32)
_SATURATION = (np.arange(256) * BINS[1] // 256 * BINS[2]).astype(np.int32)
_VALUE = (np.arange(256) * BINS[2] // 256).astype(np.int32)
