"""Near-duplicate pictures across two splits, which make scores look better than they are.

Two pictures are compared by their thumbnails (8 x 8 mean colours): the root mean square difference, as a share of the
first one's contrast. This is invariant to size and recompression, and sensitive to colour. Gradient hashes are not
used: a tenth of the fashion catalogue's queries share all 64 bits with a gallery picture (shop photos in one pose), and
few of those are the same picture. Embeddings are not used either, since what counts as near depends on the network.
For a million pictures on either side use `hashes`, which compares only the pairs that hashes propose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WARN_SHARE = 0.01
EXAMPLES = 5

_BLOCK, _WINDOW = 1024, 8192  # pictures of either side compared at once: 32 MiB


def find(
    first: np.ndarray, second: np.ndarray, max_difference: float = 0.05, own: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Finds each picture's nearest near-duplicate on the other side, exactly.

    Args:
      first: uint8 [n, D], thumbnails.
      second: uint8 [m, D], thumbnails.
      max_difference: largest root mean square difference, as a share of the first one's standard deviation.
      own: [n] row of second to leave out for each of first, -1 for none; none by default.

    Returns:
      Rows of first, ascending, that have a near-duplicate; the nearest row of second (the lowest of equals); their
      difference, as a share.
    """
    dim = first.shape[1]
    sums = [side.sum(1, dtype=np.int64) for side in (first, second)]
    orders = [np.argsort(values, kind="stable") for values in sums]
    ordered, place = sums[1][orders[1]], np.empty(len(second) + 1, np.int64)
    place[orders[1]], place[-1] = np.arange(len(second)), -1  # each row of second's position in this order
    own_place = np.full(len(first), -1) if own is None else place[own]
    contrasts = np.empty(len(first))
    for at in range(0, len(first), _WINDOW):
        contrasts[at : at + _WINDOW] = first[at : at + _WINDOW].std(1)
    limits = dim * np.square(max_difference * contrasts)
    nearest, best = np.full(len(first), -1), np.full(len(first), np.inf)
    for start in range(0, len(first), _BLOCK):
        rows = orders[0][start : start + _BLOCK]
        block, squares = _centred(first[rows])
        # the difference of the means is at most the root mean square difference, so the rest can be skipped
        margin = dim * max_difference * contrasts[rows].max()
        low = np.searchsorted(ordered, sums[0][rows[0]] - margin, side="left")
        high = np.searchsorted(ordered, sums[0][rows[-1]] + margin, side="right")
        for at in range(low, high, _WINDOW):
            others = orders[1][at : min(at + _WINDOW, high)]
            found, lengths = _centred(second[others])
            distance = block @ (-2 * found.T)
            distance += lengths
            itself = np.flatnonzero((own_place[rows] >= at) & (own_place[rows] < at + len(others)))
            distance[itself, own_place[rows[itself]] - at] = np.inf
            least = distance.min(1) + squares
            for i in np.flatnonzero((least <= limits[rows]) & (least <= best[rows])).tolist():
                row = int(others[distance[i] + squares[i] == least[i]].min())
                if least[i] < best[rows[i]] or row < nearest[rows[i]]:
                    best[rows[i]], nearest[rows[i]] = least[i], row
    rows = np.flatnonzero(nearest >= 0)
    return rows, nearest[rows], np.sqrt(best[rows] / dim) / np.maximum(contrasts[rows], 1e-9)  # flat ones: 0 / 0 is 0


def _centred(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns thumbnails centred on 0, and their squared lengths, as float32.

    All sums of products are integers below 2^24 for up to 256 values per thumbnail, so they are exact in any order.
    """
    values = thumbnails.astype(np.float32) - 128
    return values, np.einsum("nd,nd->n", values, values)


def of_queries(queries: np.ndarray, gallery: np.ndarray, truth, max_difference: float) -> tuple[dict, np.ndarray]:
    """Counts the queries that have a near-duplicate in the gallery, other than the listing that they are about.

    Args:
      queries: uint8 [Q, D], thumbnails.
      gallery: uint8 [G, D], thumbnails.
      truth: their ground truth, a `ranking.Truth`.
      max_difference: see `find`.

    Returns:
      {"listings", "compared", "gallery": counts, "found": number of queries that have one, "relevant": number of those
      for which it is a right answer, "examples": dicts}, and the rows of the queries found.
    """
    row_of = {item: row for row, item in enumerate(truth.gallery_ids)}
    pairs = zip(truth.about, truth.query_ids, strict=True)  # the picture is of what it is about, if that is searched
    own = np.array([row_of.get(about, row_of.get(query, -1)) for about, query in pairs], np.int64)
    found = [
        (int(q), int(g), float(difference))
        for q, g, difference in zip(*find(queries, gallery, max_difference, own), strict=True)
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
    """Counts the train listings that have a near-duplicate in the gallery, other than the listing itself.

    Args:
      train: uint8 [n, D], thumbnails of a sample of them.
      ids: ids of the sample.
      listings: total number of train listings.
      gallery: uint8 [G, D], thumbnails.
      gallery_ids: G ids.
      limit: `max_difference` of `find`.

    Returns:
      The counts of `of_queries`, without "relevant".
    """
    places = {item: row for row, item in enumerate(ids)}
    own = np.full(len(train), -1)  # a train listing may itself be in the gallery
    for row, item in enumerate(gallery_ids):
        if item in places:
            own[places[item]] = row
    found = list(zip(*find(train, gallery, limit, own), strict=True))
    examples = [
        {"train": ids[int(t)], "gallery": gallery_ids[int(g)], "difference": round(float(difference), 4)}
        for t, g, difference in found[:EXAMPLES]
    ]
    counts = {"listings": listings, "compared": len(train), "gallery": len(gallery), "found": len(found)}
    return {**counts, "examples": examples}


def sentence(name: str, entry: dict) -> str:
    """Returns what `of_queries` ("query") or `of_train` ("train") found, as a sentence; a WARNING from 1 % on."""
    share = entry["found"] / max(1, entry["compared"])
    text = (
        f"{'WARNING: ' * (share >= WARN_SHARE)}{entry['found']:,} of {entry['compared']:,} {name} listings "
        f"({100 * share:.1f} %) have nearly the same picture in the gallery"
    )
    if entry["compared"] < entry["listings"]:
        text += f" (checked {entry['compared']:,} of {entry['listings']:,})"
    if entry["found"] and "relevant" in entry:
        text += f": {entry['relevant']:,} as a right answer, {entry['found'] - entry['relevant']:,} as a wrong one"
    if entry["examples"]:
        pairs = (f"{example[name]} = {example['gallery']}" for example in entry["examples"][:2])
        text += f"; for example {', '.join(pairs)}"
    return text
