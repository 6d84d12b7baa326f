"""A catalogue whose queries are edits, small enough to check by hand, for tests of scores and pages."""

import numpy as np

from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.scoring.ranking import Ranking, Truth

COLOURS, TYPES, PARTS = ["red", "blue", "green"], ["shirt", "skirt"], ["belt", "hood"]
FIELDS = ["colour", "parts", "sleeves"]
GALLERY = [f"g{row}" for row in range(8)]
COLOUR = np.array([0, 1, 2, 0, 1, -1, 0, 2])
TYPE = np.array([0, 0, 0, 1, 1, 0, -1, 0])
PART = [[0], [], [0, 1], [1], [], [0], [], [1]]
QUERIES = ["in blue", "not red", "without a belt", "shorter", "as a coat", "in beige", "in red"]
REFERENCE = ["g0", "g3", "g2", "g0", "g0", "g0", "sold"]
EDITED = ["colour", "colour", "parts", "", "sleeves", "colour", "colour"]
WANTED, UNWANTED = ["blue", "", "", "", "long", "beige", "red"], ["", "red", "belt", "", "", "", ""]
RANKED = [[1, 2, 4, 5], [0, 4, 5, 6], [1, 3, 7, -1], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 3, 6]]


def catalogue(**changes) -> Catalog:
    """Returns it; `changes` are further columns of the queries, or others in the place of those above."""
    columns = {"words": QUERIES, "reference": REFERENCE, "wanted": WANTED, "unwanted": UNWANTED}
    columns["edited"] = np.array([FIELDS.index(name) if name else -1 for name in EDITED])
    query = Split("query", [f"q{row}" for row in range(7)], None, None, None, columns=columns | changes)
    parts = Ragged(np.concatenate([[0], np.cumsum([len(part) for part in PART])]), np.array(sum(PART, []), np.int32))
    gallery = Split("gallery", GALLERY, None, TYPE[:, None], None, columns={"colour": COLOUR, "parts": parts})
    targets = [["g1"], ["g4"], ["g1", "g3"], ["g2"], ["g7"], ["g1"], ["g0"]]
    return Catalog(
        "edits",
        query=query,
        gallery=gallery,
        truth=Truth.from_lists(query.ids, GALLERY, targets),
        category_levels=("type",),
        category_names=(TYPES,),
        column_names={"colour": COLOURS, "parts": PARTS, **({} if "edited" in changes else {"edited": FIELDS})},
    )


def ranking(found: Catalog) -> Ranking:
    """Returns a ranking of it."""
    rows = np.array(RANKED)
    scores = np.where(rows >= 0, -np.arange(4.0), -np.inf)
    return Ranking(found.query.ids, rows, scores)
