"""Edges and colours as an embedding: a strong baseline that needs no training, and a member worth joining to a network.

A picture becomes two vectors of unit length, one after the other, each times the square root of its weight: how strong
edges of each direction are in each cell of a grid, and which colours the whole picture, its quarters and four bands
have. A cosine is then the weighted mean of the two parts' cosines. Search half-whitens the parts, each for itself
(`postprocess.whitening_by_parts`), which takes the lengths of the parts from meta["parts"].
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError

CELLS, DIRECTIONS = (10, 8), 9  # rows and columns of cells; directions of edges over half a turn
COLOURS = (8, 4, 4)  # hue, saturation, value
BLOCKS = (4, 2)  # rows and columns; added up to the whole picture, its quarters and four bands
REGIONS = 1 + 4 + BLOCKS[0]
PARTS = {  # length and weight
    "edges": (CELLS[0] * CELLS[1] * DIRECTIONS, 0.55),
    "colours": (REGIONS * COLOURS[0] * COLOURS[1] * COLOURS[2], 0.45),
}
DIM = sum(length for length, _ in PARTS.values())
SPACE = f"colour_and_edges:edges{CELLS[0]}x{CELLS[1]}x{DIRECTIONS}:hsv{'x'.join(map(str, COLOURS))}"
META = {"parts": [[name, length, weight] for name, (length, weight) in PARTS.items()]}


def embed(images: np.ndarray) -> np.ndarray:
    """Embeds pictures by their edges and colours.

    Both parts are square roots of shares (Hellinger kernel), so no single strong edge or large area decides. Every
    picture is computed by itself, in float64 where sums depend on their order: its vector does not depend on the batch
    or the number of threads. A picture without edges (1 x 1, one colour) has colours alone.

    Args:
      images: uint8 [n, H, W, 3] RGB, of any size.

    Returns:
      float32 [n, 1872], rows of unit length.

    Raises:
      InputError: not such an array, or pictures without pixels.

    Source: Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005 (edges, without the
    normalisation by blocks, which made retrieval worse than square roots did); Swain and Ballard, "Color Indexing",
    IJCV 1991 (colours); Lazebnik et al., "Beyond Bags of Features", CVPR 2006 (regions within regions).
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not all(images.shape[1:]):
        raise InputError(
            f"colour_and_edges: pictures are uint8 [n, H, W, 3], RGB, got {images.dtype} {images.shape}: decode them "
            "with retrieval_jax.data.pictures.decoding, which also converts grey pictures and transparency"
        )
    arguments.memory(4 * DIM * len(images), f"the vectors of {len(images):,} pictures", "colour_and_edges", "batches")
    out = np.empty((len(images), DIM), np.float32)
    (split, edge_weight), (_, colour_weight) = PARTS.values()
    for vector, image in zip(out, images, strict=True):
        vector[:split] = edge_weight**0.5 * _unit(np.sqrt(edges(image)))
        vector[split:] = colour_weight**0.5 * _unit(np.sqrt(colours(image)))
    return out / np.linalg.norm(out, axis=1, keepdims=True)  # again: a picture without edges is shorter than 1


def edges(image: np.ndarray) -> np.ndarray:
    """Returns the strength of edges by cell and direction, float64 [720].

    A pixel's gradient is that of its strongest channel. It counts towards the two nearest directions and the four
    nearest cells, by their distance.

    Args:
      image: uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_REPLICATE).astype(np.int16)
    across = framed[1:-1, 2:] - framed[1:-1, :-2]
    down = framed[2:, 1:-1] - framed[:-2, 1:-1]
    strength = across.astype(np.int32) ** 2 + down.astype(np.int32) ** 2
    strongest = strength.argmax(2).ravel()
    pixels = np.arange(height * width)
    across, down = (side.reshape(-1, 3)[pixels, strongest].astype(np.float64) for side in (across, down))
    place = np.arctan2(down, across) * (DIRECTIONS / np.pi) - 0.5  # half turns are the same edge: modulo below
    lower = np.floor(place)
    share = place - lower
    length = np.sqrt(across * across + down * down)
    lower = lower.astype(np.int64) % DIRECTIONS
    by_direction = np.zeros((height * width, DIRECTIONS))
    by_direction[pixels, lower] = length * (1 - share)
    by_direction[pixels, (lower + 1) % DIRECTIONS] = length * share
    rows, columns = _nearest(height, CELLS[0]), _nearest(width, CELLS[1])
    by_row = (rows @ by_direction.reshape(height, width * DIRECTIONS)).reshape(CELLS[0], width, DIRECTIONS)
    return (columns @ by_row).ravel()


def colours(image: np.ndarray) -> np.ndarray:
    """Returns the shares of colours in the regions of a picture, float64 [1152]: all of it, its quarters, four bands.

    A pixel counts towards the two nearest bins of hue, of saturation and of value, by its distance: a colour near the
    border of two bins is alike on both of its sides.

    Args:
      image: uint8 [H, W, 3].
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # hue in 0..255
    tops, lefts = (np.arange(count + 1) * side // count for count, side in zip(BLOCKS, image.shape, strict=False))
    counts = np.zeros((*BLOCKS, COLOURS[0], COLOURS[1] * COLOURS[2]))
    for row, column in np.ndindex(BLOCKS):
        block = hsv[tops[row] : tops[row + 1], lefts[column] : lefts[column + 1]].reshape(-1, 3)
        hue, saturation, value = (table.take(block[:, i], 0) for i, table in enumerate(_BINS))
        shades = (saturation[:, :, None] * value[:, None]).reshape(len(block), COLOURS[1] * COLOURS[2])
        counts[row, column] = hue.T @ shades
    counts = counts.reshape(*BLOCKS, -1)
    quarters = counts.reshape(2, BLOCKS[0] // 2, BLOCKS[1], -1).sum(1)
    regions = [quarters.sum((0, 1))[None], quarters.reshape(4, -1), counts.sum(1)]
    found = np.concatenate(regions)
    return (found / np.maximum(found.sum(1, keepdims=True), 1)).ravel()


@functools.lru_cache(maxsize=64)
def _nearest(size: int, cells: int) -> np.ndarray:
    """Returns how much each of `size` pixels counts towards each cell, [cells, size]: the two nearest centres."""
    place = (np.arange(size) + 0.5) * cells / size - 0.5
    lower = np.floor(place).astype(np.int64)
    out = np.zeros((cells + 2, size))
    out[lower + 1, np.arange(size)] = 1 - (place - lower)
    out[lower + 2, np.arange(size)] += place - lower
    return out[1:-1]  # without the cells outside of the picture


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(np.linalg.norm(vector), 1e-12)


def _soft_bins(count: int, *, circular: bool) -> np.ndarray:
    """Returns how much each of 256 values counts towards each of `count` bins, float64 [256, count]."""
    place = (np.arange(256) + 0.5) / 256 * count - 0.5
    place = place if circular else np.clip(place, 0, count - 1)
    lower = np.floor(place).astype(np.int64)
    out = np.zeros((256, count))
    out[np.arange(256), lower % count] += 1 - (place - lower)
    out[np.arange(256), (lower + 1) % count] += place - lower
    return out


_BINS = tuple(_soft_bins(count, circular=number == 0) for number, count in enumerate(COLOURS))
