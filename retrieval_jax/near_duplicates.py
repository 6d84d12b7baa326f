"""Pictures that are nearly the same in two splits: what makes scores look better than they are.

Two pictures are compared by their thumbnails (8 x 8 mean colours): the root mean square of the differences, as a share
of the first one's own contrast. That is invariant to size and recompression, and sees colour. Bits of a gradient hash
are not used: a tenth of the fashion catalogue's queries have a gallery picture with the same 64 bits (shop photos of
one pose), of which few are the same picture. Embeddings are not used either: what is near depends on the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WARN_SHARE = 0.01
EXAMPLES = 5

_BLOCK, _WINDOW = 1024, 8192  # pictures of either side that are compared at once: 32 MiB


def find(first: np.ndarray, second: np.ndarray, max_difference: float = 0.05) -> tuple[np.ndarray, ...]:
    """Finds for every picture of one side its nearest near-duplicate on the other, exactly.

    Args:
      first: uint8 [n, D], thumbnails.
      second: uint8 [m, D], thumbnails.
      max_difference: largest root mean square difference, as a share of the first one's standard deviation.

    Returns:
      Rows of first, ascending, that have one; the row of second that is nearest (of equally near ones the lowest); the
      difference of the two, as a share.
    """
    dim = first.shape[1]
    sums = [side.sum(1, dtype=np.int64) for side in (first, second)]
    orders = [np.argsort(values, kind="stable") for values in sums]
    ordered = sums[1][orders[1]]
    nearest, best = np.full(len(first), -1), np.full(len(first), np.iinfo(np.int64).max)
    contrasts = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        rows = orders[0][start : start + _BLOCK]
        block = first[rows].astype(np.float32)
        contrasts[rows] = first[rows].std(1)
        squares = np.square(first[rows], dtype=np.int64).sum(1)
        # the difference of the means is at most the root mean square difference: others need not be looked at
        margin = dim * max_difference * contrasts[rows].max()
        low = np.searchsorted(ordered, sums[0][rows[0]] - margin, side="left")
        high = np.searchsorted(ordered, sums[0][rows[-1]] + margin, side="right")
        for at in range(low, high, _WINDOW):
            others = orders[1][at : min(at + _WINDOW, high)]
            found = second[others]
            # whole numbers below 2^24 (D <= 258): float32 products are exact, whatever their order
            products = (block @ found.astype(np.float32).T).astype(np.int64)
            distance = squares[:, None] + np.square(found, dtype=np.int64).sum(1) - 2 * products
            least = distance.min(1)
            row = np.where(distance == least[:, None], others, len(second)).min(1)
            better = (least < best[rows]) | ((least == best[rows]) & (row < nearest[rows]))
            best[rows[better]], nearest[rows[better]] = least[better], row[better]
    differences = np.sqrt(best / dim)
    rows = np.flatnonzero((nearest >= 0) & (differences <= max_difference * contrasts))
    return rows, nearest[rows], differences[rows] / np.maximum(contrasts[rows], 1e-9)  # flat ones: 0 / 0 is 0


def of_queries(queries: np.ndarray, gallery: np.ndarray, truth, max_difference: float) -> tuple[dict, np.ndarray]:
    """Counts the queries that have a near-duplicate in the gallery; a query that is itself in the gallery is none.

    Args:
      queries: uint8 [Q, D], thumbnails.
      gallery: uint8 [G, D], thumbnails.
      truth: `ranking.Truth` of them.
      max_difference: see `find`.

    Returns:
      {"listings", "compared", "gallery": how many there are, "found": how many queries have one, "relevant": how many
      of these have it as a right answer, "examples": dicts}, and the rows of the queries found.
    """
    found = [
        (int(q), int(g), float(difference))
        for q, g, difference in zip(*find(queries, gallery, max_difference), strict=True)
        if truth.query_ids[int(q)] != truth.gallery_ids[int(g)]
    ]
    right = [g in truth.relevant(q) for q, g, _ in found]
    examples = [
        {
            "query": truth.query_ids[q],
            "gallery": truth.gallery_ids[g],
            "difference": round(difference, 4),
            "relevant": bool(good),
        }
        for (q, g, difference), good in list(zip(found, right, strict=True))[:EXAMPLES]
    ]
    counts = {"listings": len(queries), "compared": len(queries), "gallery": len(gallery), "found": len(found)}
    return {**counts, "relevant": sum(map(bool, right)), "examples": examples}, np.array([q for q, _, _ in found], int)


def of_train(
    train: np.ndarray, ids: Sequence[str], listings: int, gallery: np.ndarray, gallery_ids: Sequence[str], limit: float
) -> dict:
    """Counts the train listings that have a near-duplicate in the gallery.

    Args:
      train: uint8 [n, D], thumbnails of some of them.
      ids: theirs.
      listings: how many train has altogether.
      gallery: uint8 [G, D], thumbnails.
      gallery_ids: G ids.
      limit: `max_difference` of `find`.

    Returns:
      As `of_queries`, without "relevant".
    """
    found = list(zip(*find(train, gallery, limit), strict=True))
    examples = [
        {"train": ids[int(t)], "gallery": gallery_ids[int(g)], "difference": round(float(difference), 4)}
        for t, g, difference in found[:EXAMPLES]
    ]
    counts = {"listings": listings, "compared": len(train), "gallery": len(gallery), "found": len(found)}
    return {**counts, "examples": examples}


def sentence(name: str, entry: dict) -> str:
    """Says what `of_queries` ("query") or `of_train` ("train") found; begins with WARNING from one in a hundred on."""
    share = entry["found"] / max(1, entry["compared"])
    text = (
        f"{'WARNING: ' * (share >= WARN_SHARE)}{entry['found']:,} of {entry['compared']:,} {name} listings "
        f"({100 * share:.1f} %) have nearly the same picture in the gallery"
    )
    if entry["compared"] < entry["listings"]:
        text += f" (looked at {entry['compared']:,} of {entry['listings']:,})"
    if entry["found"] and "relevant" in entry:
        text += f": {entry['relevant']:,} as a right answer, {entry['found'] - entry['relevant']:,} as a wrong one"
    if entry["examples"]:
        pairs = (f"{example[name]} = {example['gallery']}" for example in entry["examples"][:2])
        text += f"; for instance {', '.join(pairs)}"
    return text
