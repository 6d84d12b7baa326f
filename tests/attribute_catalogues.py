"""Random catalogues with attributes, random conditions, and searches by brute force to compare with."""

import numpy as np
from hypothesis import strategies as st

from retrieval_jax.index.attribute import Clause, Conditions, Field

DIM = 3
PARENTS = {"crimson": "red", "scarlet": "red", "red": "warm", "orange": "warm"}
COLOURS = ("blue", "crimson", "orange", "red", "scarlet", "warm")
BRANDS = ("Acme", "Bolt", "Çelik")

vectors = st.tuples(*[st.integers(-1, 1)] * DIM)  # few directions: many ties, and zero vectors
listing = st.fixed_dictionaries(
    {
        "vector": vectors,
        "colour": st.lists(st.sampled_from(COLOURS), max_size=3, unique=True),
        "brand": st.one_of(st.just([]), st.sampled_from(BRANDS).map(lambda name: [name])),
        "price": st.one_of(st.just(np.nan), st.integers(0, 5).map(float)),
    }
)


@st.composite
def clauses(draw):
    """A clause about one of the three fields."""
    unknown = draw(st.booleans())
    field = draw(st.sampled_from(("colour", "brand", "price")))
    if field == "price":
        low, high = sorted(draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))
        return Clause(field, (), draw(st.sampled_from((None, low))), high, unknown)
    values = st.lists(st.sampled_from(COLOURS if field == "colour" else BRANDS), min_size=1, max_size=2, unique=True)
    return Clause(field, tuple(draw(values)), None, None, unknown)


several = st.lists(clauses(), max_size=2).map(tuple)
conditions = st.builds(Conditions, several, several, st.lists(clauses(), max_size=1).map(tuple))


def fields(listings):
    """Returns the fields of listings, all values known to them."""
    return {
        "colour": with_all([one["colour"] for one in listings], COLOURS, PARENTS),
        "brand": with_all([one["brand"] for one in listings], BRANDS),
        "price": np.array([one["price"] for one in listings], np.float32),
    }


def with_all(rows, names, parents=None):
    """Returns a field whose values include names that no listing has."""
    made = Field.of([*rows, list(names)], parents)
    return Field(made.values, made.indptr[:-1], made.value_ids[: made.indptr[-2]], None, made.parents)


def lineage(value):
    """Returns a value and its ancestors."""
    return {value} | (lineage(PARENTS[value]) if value in PARENTS else set())


def meets(one, clause):
    """Returns whether a listing meets a clause."""
    if clause.field == "price":
        if np.isnan(one["price"]):
            return clause.unknown
        return (clause.low is None or clause.low <= one["price"]) and one["price"] <= clause.high
    if not one[clause.field]:
        return clause.unknown
    return any(set(clause.values) & lineage(value) for value in one[clause.field])


def cosine(one, other):
    """Returns the float32 cosine of two vectors of small integers, 0 for zero vectors."""
    one, other = np.array(one, float), np.array(other, float)
    scale = np.sqrt(one @ one) * np.sqrt(other @ other)
    return np.float32((one @ other) / scale + 0.0 if scale > 0 else 0.0)


def search(listings, query, k, given, own=None):
    """Returns [(id, cosine, clauses relaxed)] of the k best listings, and how many meet what is required.

    Args:
      listings: {id: listing}.
      query: vector.
      k: results.
      given: Conditions.
      own: id to leave out.
    """
    found = []
    for name, one in listings.items():
        if name == own or not all(meets(one, clause) for clause in given.required):
            continue
        if any(meets(one, clause) for clause in given.excluded):
            continue
        first = next((n for n, clause in enumerate(given.preferred) if not meets(one, clause)), len(given.preferred))
        found.append((len(given.preferred) - first, -cosine(query, one["vector"]), name.encode(), name))
    return [(name, -score, relaxed) for relaxed, score, _, name in sorted(found)[:k]], len(found)
