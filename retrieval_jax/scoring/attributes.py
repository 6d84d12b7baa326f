"""Scores of predicted attributes: precision, recall and F1 per field and of whole sets, calibration, combinations.

Labels are values of fields, field after field; `field_of` [V] gives the field of each. A field that is unknown for a
listing is not scored there, whatever is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.errors import InputError

BINS = 15


def counts(chosen: np.ndarray, true: np.ndarray, known: np.ndarray, field_of: np.ndarray) -> dict[str, np.ndarray]:
    """Counts per listing and field.

    Args:
      chosen: bool [n, V], predicted labels.
      true: bool [n, V].
      known: bool [n, fields].
      field_of: int [V], ascending.

    Returns:
      "hits", "chosen" and "true", int [n, fields], 0 where a field is unknown.

    Raises:
      InputError: shapes that do not fit each other.
    """
    chosen = arguments.array(chosen, "chosen", "attributes", ("n", "V"), kind="flags")
    true = arguments.array(true, "true", "attributes", chosen.shape, kind="flags")
    known = arguments.array(known, "known", "attributes", (len(chosen), "fields"), kind="flags")
    field_of = np.asarray(field_of)
    if field_of.shape != chosen.shape[1:] or (np.diff(field_of) < 0).any() or field_of.max() >= known.shape[1]:
        raise InputError(f"attributes: field_of has to give an ascending field for each of {chosen.shape[1]} labels")
    number = known.shape[1]

    def of_fields(flags):
        rows, labels = np.nonzero(flags)
        flat = np.bincount(rows * number + field_of[labels], minlength=len(flags) * number)
        return flat.reshape(len(flags), number) * known

    return {"hits": of_fields(chosen & true), "chosen": of_fields(chosen), "true": of_fields(true)}


def f1_of_sets(counted: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the F1 of each listing's set of labels, float64 [n]; 1 where both sets are empty.

    Args:
      counted: of `counts`.
    """
    hits, both = counted["hits"].sum(1), counted["chosen"].sum(1) + counted["true"].sum(1)
    return np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)


def per_listing(counted: dict[str, np.ndarray], known: np.ndarray) -> dict[str, np.ndarray]:
    """Scores every listing.

    Args:
      counted: of `counts`.
      known: bool [n, fields].

    Returns:
      "set_f1" [n], NaN where no field is known; "f1" [n, fields], NaN where the field is unknown. For a field with one
      value the F1 of a listing is whether the value is right, and its mean the accuracy.
    """
    hits, both = counted["hits"], counted["chosen"] + counted["true"]
    each = np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)
    return {
        "set_f1": np.where(known.any(1), f1_of_sets(counted), np.nan),
        "f1": np.where(known, each, np.nan),
    }


def summary(counted: dict[str, np.ndarray], known: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Averages counts.

    Args:
      counted: of `counts`.
      known: bool [n, fields].
      names: of the fields.

    Returns:
      "precision", "recall" and "f1" over all labels of all known fields; "set_f1", the mean over listings; and
      "<field>_precision", "<field>_recall", "<field>_f1" for every field that is known somewhere.
    """
    each = per_listing(counted, known)
    found = dict(zip(("precision", "recall", "f1"), _rates(*(counted[name].sum() for name in counted)), strict=True))
    if known.any():
        found["set_f1"] = float(np.nanmean(each["set_f1"]))
    for number, name in enumerate(names):
        if known[:, number].any():
            rates = _rates(*(counted[one][:, number].sum() for one in counted))
            found |= dict(zip((f"{name}_precision", f"{name}_recall", f"{name}_f1"), rates, strict=True))
    return found


def _rates(hits: int, chosen: int, true: int) -> tuple[float, float, float]:
    """Returns precision, recall and F1; 0 where there is nothing to divide by."""
    return float(hits / max(1, chosen)), float(hits / max(1, true)), float(2 * hits / max(1, chosen + true))


def calibration(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS, equal_counts: bool = False) -> dict:
    """Compares probabilities with how often they are right.

    Args:
      probabilities: [m], of labels that were predicted.
      right: bool [m].
      bins: of equal width from 0 to 1.
      equal_counts: whether bins hold equally many labels instead, equal probabilities together: for probabilities that
        are mostly small, as those of a softmax over a vocabulary.

    Returns:
      "ece", the expected calibration error: the mean distance of the bins' probability from their share of right ones,
      weighted by their labels; and per bin "count", "probability", "right" (None where empty).

    Raises:
      InputError: not as many of both, or probabilities that are not between 0 and 1.

    Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599; equal counts: Nixon et al.,
    "Measuring Calibration in Deep Learning", arXiv 1904.01685.
    """
    probabilities = arguments.array(probabilities, "probabilities", "calibration", ("m",)).astype(np.float64)
    right = arguments.array(right, "right", "calibration", probabilities.shape, kind="flags")
    if not len(right) or not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise InputError("calibration: give at least one probability, all of them from 0 to 1")
    if equal_counts:
        edges = np.sort(probabilities)[len(right) * np.arange(1, bins) // bins]
        place = np.searchsorted(edges, probabilities, side="right")
    else:
        place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, probabilities, bins) / count
        share = np.bincount(place, right.astype(np.float64), bins) / count
    gaps = np.where(count > 0, np.abs(mean - share), 0.0)
    return {
        "ece": float((gaps * count).sum() / count.sum()),
        "count": count.tolist(),
        "probability": [None if np.isnan(one) else one for one in mean.tolist()],
        "right": [None if np.isnan(one) else one for one in share.tolist()],
    }


def values(flags: np.ndarray, field_of: np.ndarray, field: int) -> np.ndarray:
    """Returns each listing's label of a field that has one value at most, int64 [n], -1 where it has none.

    Args:
      flags: bool [n, V].
      field_of: int [V], ascending.
      field: number of the field.
    """
    own = np.flatnonzero(field_of == field)
    part = flags[:, own]
    return np.where(part.any(1), own[0] + part.argmax(1), -1)


def majority(train: np.ndarray, true: np.ndarray, field_of: np.ndarray, field: int) -> float | None:
    """Returns how often the most frequent value of train is right; None where no listing's value is known.

    Args:
      train, true: bool [m, V] and [n, V], true labels.
      field_of: int [V], ascending.
      field: number of a field with one value.
    """
    known, there = (values(one, field_of, field) for one in (train, true))
    known, there = known[known >= 0], there[there >= 0]
    return float((there == np.bincount(known).argmax()).mean()) if len(known) and len(there) else None


def unseen(
    chosen: np.ndarray, seen: np.ndarray, field_of: np.ndarray, combinations: Sequence[Sequence[int]]
) -> np.ndarray:
    """Finds combinations of values that no training listing has: a skirt among the trousers, a tie for girls.

    Args:
      chosen: bool [n, V], predicted labels.
      seen: bool [m, V], true labels of the training listings.
      field_of: int [V], ascending.
      combinations: numbers of fields with one value each, such as ((0, 1), (0, 2, 3)).

    Returns:
      float64 [n, combinations]: 1 where no training listing has the predicted values, else 0; NaN where one of the
      fields has no predicted value. Training listings where one of the fields is unknown are left out.
    """
    out = np.full((len(chosen), len(combinations)), np.nan)
    for number, fields in enumerate(combinations):
        ours = np.stack([values(chosen, field_of, field) for field in fields], 1)
        there = np.stack([values(seen, field_of, field) for field in fields], 1)
        there = there[(there >= 0).all(1)]
        both, width = (ours >= 0).all(1), len(field_of)
        code = np.power(width, np.arange(len(fields)), dtype=object)  # no overflow, however many fields
        known = set((there.astype(object) @ code).tolist())
        out[both, number] = [one not in known for one in (ours[both].astype(object) @ code).tolist()]
    return out
