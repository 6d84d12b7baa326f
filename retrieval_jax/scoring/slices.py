"""Parts of the queries that are scored by themselves: a mean hides that a model fails where products are rare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RELEVANT = ((1, 1), (2, 2), (3, 5), (6, 10), (11, None))  # numbers of relevant listings, both ends included
MOST = 50  # slices of a category level; the queries of further ones are "(other)"
OTHER, UNKNOWN = "(other)", "(unknown)"


def by_relevant(num_relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Cuts the queries that have relevant listings by how many: "1", "2", "3-5", "6-10", ">10".

    Args:
      num_relevant: int [Q].

    Returns:
      {name: bool [Q]} of those that have queries; together every query with a relevant listing once.
    """
    out = {}
    for low, high in RELEVANT:
        name = f">{low - 1}" if high is None else str(low) if low == high else f"{low}-{high}"
        chosen = (num_relevant >= low) & (num_relevant <= (np.inf if high is None else high))
        if chosen.any():
            out[name] = chosen
    return out


def by_category(codes: np.ndarray, names: Sequence[str], most: int = MOST) -> dict[str, np.ndarray]:
    """Cuts queries by one category level, the largest category first.

    Args:
      codes: int [Q], rows of `names`, below 0 where unknown.
      names: of the categories.
      most: slices of their own; smaller categories go to "(other)" together.

    Returns:
      {name: bool [Q]}; together every query once. Categories of equal name have their row behind it.
    """
    codes = np.asarray(codes)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = [code for code in np.argsort(-counts, kind="stable").tolist() if counts[code]]
    out = {}
    for code in order[:most]:
        name = names[code]
        out[f"{name} ({code})" if name in out or name in (OTHER, UNKNOWN) else name] = codes == code
    if rest := order[most:]:
        out[OTHER] = np.isin(codes, rest)
    if (codes < 0).any():
        out[UNKNOWN] = codes < 0
    return out
