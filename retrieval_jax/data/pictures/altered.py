"""Gallery pictures changed towards the queries: other crops, mirrored, another light, and as blurred as queries are.

A picture and its altered version show the same product, so searching for one with the other needs no label. What
changes follows from the row alone: the same picture comes out every time.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

_SAMPLE = 100  # pictures of each side that are compared
_SIDE = 64  # pixels of the copies that they are compared by
_LEAST_CROP = 0.6  # of the area
_LIGHT = 0.2  # strongest change of contrast and of each channel


class Altered:
    """A source of altered pictures: random access to uint8 [H, W, 3].

    Args:
      source: random access to the gallery's pictures.
      rows: int [n], which of them.
      queries: random access to the queries' pictures, whose brightness, contrast and sharpness are matched.
    """

    def __init__(self, source: Any, rows: np.ndarray, queries: Any):
        self._source, self._rows = source, np.asarray(rows)
        (own_mean, own_spread, own_edges), (mean, spread, edges) = _look(source), _look(queries)
        self._gain = np.clip(spread / np.maximum(own_spread, 1.0), 0.5, 2.0)
        self._own_mean, self._mean = own_mean, mean
        self._blur = float(np.clip(own_edges / max(edges, 1e-6) - 1.0, 0.0, 1.0))  # 0 where queries are as sharp

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> np.ndarray:
        source_row = int(self._rows[int(row)])
        image, random = np.asarray(self._source[source_row]), np.random.default_rng((source_row, 17))
        height, width = image.shape[:2]
        share = np.sqrt(random.uniform(_LEAST_CROP, 1.0))
        tall, wide = max(1, round(height * share)), max(1, round(width * share))
        top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
        image = cv2.resize(image[top : top + tall, left : left + wide], (width, height), interpolation=cv2.INTER_LINEAR)
        if random.random() < 0.5:
            image = image[:, ::-1]
        light = random.uniform(1 - _LIGHT, 1 + _LIGHT) * random.uniform(1 - _LIGHT, 1 + _LIGHT, 3)
        towards = random.uniform(0.0, 1.0)  # some of the way to the queries' light
        gain, mean = self._gain**towards, self._own_mean + towards * (self._mean - self._own_mean)
        out = (image.astype(np.float32) - self._own_mean) * gain * light + mean
        if self._blur > 0.05:
            sigma = max(1e-3, self._blur * random.uniform(0.2, 1.0) * max(height, width) / 100)
            out = cv2.GaussianBlur(np.ascontiguousarray(out, np.float32), (0, 0), sigma)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def _look(source: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns mean [3] and spread [3] of the channels and the strength of edges, over some evenly spaced pictures."""
    rows = np.unique(np.linspace(0, len(source) - 1, min(_SAMPLE, len(source))).astype(int))
    small = [cv2.resize(np.asarray(source[int(row)]), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for row in rows]
    wide = np.stack(small).astype(np.float32)
    edges = [cv2.Laplacian(np.ascontiguousarray(picture.mean(2)), cv2.CV_32F).std() for picture in wide]
    return wide.reshape(-1, 3).mean(0), wide.reshape(-1, 3).std(0), float(np.mean(edges))
