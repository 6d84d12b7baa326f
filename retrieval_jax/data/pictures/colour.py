"""The colours of a region of a picture as an embedding: appearance is not in it, so the two can be weighed.

The histogram is that of `colour_and_edges`, of the box alone: what stands behind a product does not count.
"""

from __future__ import annotations

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.data.pictures import colour_and_edges
from retrieval_jax.errors import InputError

DIM = colour_and_edges.PARTS["colours"][0]
SPACE = f"colour:hsv{'x'.join(map(str, colour_and_edges.COLOURS))}:regions{colour_and_edges.REGIONS}"
META: dict = {}


def embed(images: np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
    """Embeds pictures by the colours in them, or in a box of each.

    Args:
      images: uint8 [n, H, W, 3] RGB.
      boxes: float [n, 4], ymin, xmin, ymax, xmax as shares of height and width; NaN for the whole picture. None for the
        whole of every picture.

    Returns:
      float32 [n, DIM], rows of unit length: square roots of shares, so a cosine is a Bhattacharyya coefficient.

    Raises:
      InputError: not such arrays.

    Source: HSV histogram of the region of interest: arXiv 1609.07859; regions and bins: `colour_and_edges`.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not all(images.shape[1:]):
        raise InputError(f"colour: pictures are uint8 [n, H, W, 3], RGB, got {images.dtype} {images.shape}")
    if boxes is not None:
        boxes = arguments.array(boxes, "boxes", "colour", (len(images), 4)).astype(np.float64)
    out = np.empty((len(images), DIM), np.float32)
    for number, image in enumerate(images):
        part = image if boxes is None else crop(image, boxes[number])
        vector = np.sqrt(colour_and_edges.colours(part))
        out[number] = vector / max(np.linalg.norm(vector), 1e-12)
    return out


def crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the part of a picture [H, W, C] in a box, at least one pixel; all of it where the box has a NaN.

    Args:
      image: uint8 [H, W, C].
      box: [4], ymin, xmin, ymax, xmax as shares.
    """
    if not np.isfinite(box).all():
        return image
    height, width = image.shape[:2]
    low = np.floor(np.clip(box[:2], 0, 1) * (height, width)).astype(int)
    low = np.minimum(low, (height - 1, width - 1))
    high = np.ceil(np.clip(box[2:], 0, 1) * (height, width)).astype(int)
    high = np.minimum(np.maximum(high, low + 1), (height, width))
    return image[low[0] : high[0], low[1] : high[1]]


class Cropped:
    """A source of pictures that shows a box of each.

    Args:
      source: random access, `source[row]` is uint8 [h, w, 3].
      boxes: float [len(source), 4], see `embed`.
      margin: share of the box's sides that is added on each side.
    """

    def __init__(self, source, boxes: np.ndarray, margin: float = 0.0):
        self.source = source
        boxes = arguments.array(boxes, "boxes", "Cropped", (len(source), 4)).astype(np.float64)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2) * (-margin, -margin, margin, margin)
        self.boxes = np.clip(boxes + sides, 0, 1)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> np.ndarray:
        return np.ascontiguousarray(crop(self.source[row], self.boxes[row]))
