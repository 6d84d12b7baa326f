"""Boxes of predicted regions: overlapping ones dropped, those that contradict what is known dropped, and their score.

A box is ymin, xmin, ymax, xmax, as shares of height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError

WHOLE = (0.0, 0.0, 1.0, 1.0)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boxes [n, 4] and others [m, 4], float64 [n, m]."""
    boxes, others = (np.asarray(one, np.float64).reshape(-1, 4) for one in (boxes, others))
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inner = np.maximum(high - low, 0).prod(2)
    areas = [np.maximum(one[:, 2:] - one[:, :2], 0).prod(1) for one in (boxes, others)]
    return inner / np.maximum(areas[0][:, None] + areas[1] - inner, 1e-12)


def suppress(boxes: np.ndarray, scores: np.ndarray, types: np.ndarray, *, most_iou: float = 0.5) -> np.ndarray:
    """Drops boxes that overlap a better one of the same type (non-maximum suppression).

    Args:
      boxes: [n, 4], of one picture.
      scores: [n].
      types: int [n].
      most_iou: overlap that is allowed.

    Returns:
      int [kept], the boxes that stay, best first.
    """
    order, kept = np.argsort(-scores, kind="stable"), []
    overlap = iou(boxes, boxes)
    for row in order.tolist():
        if not any(types[row] == types[other] and overlap[row, other] > most_iou for other in kept):
            kept.append(row)
    return np.asarray(kept, np.int64)


def regions(
    found: dict[str, np.ndarray],
    *,
    given: Sequence[Sequence[int]] | None = None,
    least_score: float = 0.0,
    most_iou: float = 0.5,
) -> list[dict[str, np.ndarray]]:
    """Returns the regions of each picture.

    Args:
      found: "boxes" [n, K, 4], "scores" [n, K], "types" [n, K], of `models.roi.best`.
      given: per picture the types that are known to be in it: boxes of other types are dropped. None or an empty list
        for no guidance.
      least_score: boxes below it are dropped.
      most_iou: see `suppress`.

    Returns:
      Per picture {"boxes" [m, 4], "scores" [m], "types" [m]}, best first; m may be 0.

    Raises:
      InputError: arrays that do not match, or guidance of another number of pictures.
    """
    boxes = arguments.array(found["boxes"], "boxes", "regions", ("n", "K", 4))
    scores = arguments.array(found["scores"], "scores", "regions", boxes.shape[:2])
    types = np.asarray(found["types"])
    if types.shape != scores.shape or (given is not None and len(given) != len(boxes)):
        raise InputError(
            f"regions: {len(boxes)} pictures with types of shape {types.shape}, and as many lists of types"
        )
    out = []
    for row in range(len(boxes)):
        fits = scores[row] >= least_score
        if given is not None and len(given[row]):
            fits &= np.isin(types[row], given[row])
        kept = np.flatnonzero(fits)
        kept = kept[suppress(boxes[row, kept], scores[row, kept], types[row, kept], most_iou=most_iou)]
        out.append({"boxes": boxes[row, kept], "scores": scores[row, kept], "types": types[row, kept]})
    return out


def main_box(found: Sequence[dict[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best box of every picture.

    Args:
      found: of `regions`.

    Returns:
      float32 [n, 4], the whole picture where there is no box, and bool [n], whether there is one.
    """
    there = np.array([len(one["boxes"]) > 0 for one in found], bool)
    boxes = np.tile(np.asarray(WHOLE, np.float32), (len(found), 1))
    for row in np.flatnonzero(there):
        boxes[row] = found[row]["boxes"][0]
    return boxes, there


def average_precision(
    found: Sequence[dict[str, np.ndarray]], true: Sequence[dict[str, np.ndarray]], *, least_iou: float = 0.5
) -> dict[str, float | dict[int, float]]:
    """Scores regions: the mean over types of the area under precision over recall.

    A box is right if it overlaps a true box of its type that no better box has taken.

    Args:
      found: of `regions`, one per picture.
      true: per picture {"boxes" [m, 4], "types" [m]}.
      least_iou: overlap from which a box is right.

    Returns:
      "map" and "per_type" {type: average precision}, of the types with a true box; 0 for one that is never found.

    Raises:
      InputError: not as many of both, or no true box at all.

    Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010; area under all points of the
    curve, precision made non-increasing, as from VOC 2010.
    """
    if len(found) != len(true):
        raise InputError(f"average_precision: {len(found)} pictures have boxes and {len(true)} have true ones")
    kinds = sorted({int(kind) for one in true for kind in one["types"]})
    if not kinds:
        raise InputError("average_precision: there is no true box")
    out = {}
    for kind in kinds:
        scores, right, total = [], [], 0
        for ours, theirs in zip(found, true, strict=True):
            targets, own = theirs["boxes"][theirs["types"] == kind], np.flatnonzero(ours["types"] == kind)
            total += len(targets)
            overlap, taken = iou(ours["boxes"][own], targets), np.zeros(len(targets), bool)
            for row in np.argsort(-ours["scores"][own], kind="stable"):
                free = np.where(taken, -1.0, overlap[row]) if len(targets) else np.zeros(0)
                hit = len(free) > 0 and free.max() >= least_iou
                if hit:
                    taken[free.argmax()] = True
                scores.append(ours["scores"][own][row])
                right.append(hit)
        order = np.argsort(-np.asarray(scores), kind="stable")
        hits = np.cumsum(np.asarray(right, float)[order])
        precision = hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        gained = np.diff(np.concatenate([[0], hits])) / total
        out[kind] = float((precision * gained).sum())
    return {"map": float(np.mean(list(out.values()))), "per_type": out}
