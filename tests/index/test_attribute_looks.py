"""Completing looks: the nearest by sum of distances, under conditions, not all of one colour, nothing twice."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute
from retrieval_jax.index.attribute import looks as module
from retrieval_jax.index.attribute.looks import Looks

RNG = np.random.default_rng(0)
G, D = 60, 5
VECTORS = RNG.normal(size=(G, D)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
TYPES = np.array(["tops", "shoes", "bags"])[np.arange(G) % 3]
COLOURS = np.array(["red", "blue"])[(np.arange(G) // 3) % 2]
IDS = [f"item{row:02d}" for row in RNG.permutation(G)]
FIELD = attribute.Field(["red", "blue"], np.arange(G + 1), (COLOURS == "blue").astype(np.int32))


def looks(**kwargs):
    return Looks(Embeddings(IDS, VECTORS, {}), TYPES, **kwargs)


def sums(rows, start):
    return {row: sum(np.linalg.norm(VECTORS[row] - VECTORS[one]) for one in start) for row in rows}


def test_the_first_look_is_the_nearest_slot_after_slot():
    (found,) = looks().complete([IDS[0]], ["shoes", "bags"], 1)
    shoes = sums(np.flatnonzero(TYPES == "shoes"), [0])
    first = min(shoes, key=shoes.get)
    bags = sums(np.flatnonzero(TYPES == "bags"), [0, first])
    second = min(bags, key=bags.get)
    assert found.rows == {"shoes": first, "bags": second} and found.ids["bags"] == IDS[second]
    every = [np.linalg.norm(VECTORS[a] - VECTORS[b]) for a, b in ((0, first), (0, second), (first, second))]
    assert found.score == pytest.approx(1 - np.mean(every), rel=1e-6)
    (photo,) = looks().complete([], ["shoes", "bags"], 1, photos=VECTORS[:1])
    assert photo.rows == found.rows


def test_looks_share_no_listing_and_are_not_all_of_one_colour():
    found = looks(colours=COLOURS).complete([IDS[0]], ["shoes", "bags", "shoes"], 4)
    rows = [row for look in found for row in look.rows.values()]
    assert len(rows) == len(set(rows)) == 12 and set(found[0].rows) == {"shoes 1", "bags", "shoes 2"}
    for slot in found[0].rows:
        assert max(np.unique([COLOURS[look.rows[slot]] for look in found], return_counts=True)[1]) <= 2
    assert [look.score for look in found] == sorted((look.score for look in found), reverse=True)


def test_the_limit_on_a_colour_leaves_nothing_out_that_fits():
    table = attribute.build({"colour": FIELD}, G)
    one = {"required": [["colour", ["blue"]]]}
    found = looks(colours=COLOURS, table=table).complete([IDS[0]], ["shoes", "bags"], 4, conditions=one)
    assert len(found) == 4 and all(set(look.rows) == {"shoes", "bags"} for look in found)
    few = np.where((np.arange(G) // 3) % 10 == 0, "blue", "red")  # two of twenty
    found = looks(colours=few).complete([IDS[0]], ["shoes"], 8)
    assert sorted(few[look.rows["shoes"]] for look in found) == ["blue"] * 2 + ["red"] * 6
    again = looks().varied(list(few)).complete([IDS[0]], ["shoes"], 8)
    assert [look.rows for look in again] == [look.rows for look in found]
    with pytest.raises(InputError, match="colours of 3 listings for a gallery of 60"):
        looks().varied(["red"] * 3)


def test_directions_are_compared_whatever_the_lengths():
    shorter = VECTORS * RNG.uniform(0.6, 1.4, (G, 1)).astype(np.float32)  # as averages of several views are
    made = Looks(Embeddings(IDS, shorter, {}), TYPES)
    wanted = looks().complete([IDS[0]], ["shoes", "bags"], 5)
    for found in (
        made.complete([IDS[0]], ["shoes", "bags"], 5),
        made.complete([], ["shoes", "bags"], 5, photos=3 * VECTORS[:1]),
    ):
        assert [look.rows for look in found] == [look.rows for look in wanted]
        np.testing.assert_allclose([look.score for look in found], [look.score for look in wanted], rtol=1e-5)


def test_a_large_gallery_is_completed_as_if_every_listing_were_looked_at(monkeypatch):
    monkeypatch.setattr(module, "_FEW", 7)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(900, D))
    vectors[300:330] = vectors[300]  # equal sums, past the end of a block
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    types, ids = np.array(["tops", "shoes", "bags"])[np.arange(900) // 300], [f"{n:03d}" for n in rng.permutation(900)]
    made = Looks(Embeddings(ids, vectors.astype(np.float32), {}), types)
    exact = made._vectors(np.arange(900))
    for first in range(20):
        wanted, used = [], set()
        for _ in range(3):
            chosen = [first]
            for slot in ("shoes", "bags"):
                totals = {
                    row: sum(module._distances(exact[[row]], exact[[one]])[0, 0] for one in chosen)
                    for row in np.flatnonzero(types == slot).tolist()
                    if row not in used
                }
                chosen.append(min(totals, key=lambda row: (totals[row], ids[row])))
                used.add(chosen[-1])
            wanted.append(chosen[1:])
        found = made.complete([ids[first]], ["shoes", "bags"], 3)
        assert sorted(list(look.rows.values()) for look in found) == sorted(wanted)


def test_slots_have_names_of_their_own():
    assert module.slot_names(["shoes", "bags", "shoes"]) == ["shoes 1", "bags", "shoes 2"]
    assert module.slot_names(["shoes", "shoes", "shoes 1"]) == ["shoes 2", "shoes 3", "shoes 1"]


def test_one_product_is_in_a_look_once():
    products = np.arange(G) // 6  # of each type two
    for look in looks(products=products).complete([IDS[0]], ["shoes", "bags"], 4):
        assert len({0, *(products[row] for row in look.rows.values())}) == 3


def test_no_two_looks_show_one_product_as_the_same_type():
    products = np.arange(G) // 6
    found = looks(products=products).complete([IDS[0]], ["shoes", "bags"], 9)
    for slot in ("shoes", "bags"):
        shown = [products[look.rows[slot]] for look in found if slot in look.rows]
        assert len(shown) == len(set(shown)) >= 8  # of nine that are not the start's


def test_conditions_are_met_and_what_nothing_fits_is_left_out():
    table = attribute.build({"colour": FIELD}, G)
    found = looks(table=table).complete(
        [IDS[0]], ["shoes", "bags"], 30, conditions_of={"shoes": {"required": [["colour", ["blue"]]]}}
    )
    shoes = [look.rows["shoes"] for look in found if "shoes" in look.rows]
    assert len(shoes) == 10 and (COLOURS[shoes] == "blue").all()
    assert len(found) == 20 and "shoes" not in found[-1].rows  # twenty bags


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(listings=["item99"], slots=["shoes"]), "has no listing 'item99'"),
        (dict(listings=[], slots=["shoes"]), "nothing to start from"),
        (dict(listings=[IDS[0]], slots=["shoe"]), "shoes"),
        (dict(listings=[IDS[0]], slots=[]), "no slot to fill"),
        (dict(listings=[IDS[0]], slots=["shoes"], conditions={"required": [["c", ["red"]]]}), "need the attributes"),
        (dict(listings=[IDS[0]], slots=["shoes"], conditions={"preferred": [["c", ["red"]]]}), "no preferred ones"),
        (dict(listings=[IDS[0]], slots=["shoes"], conditions_of={"bags": {}}), "conditions_of has 'bags'"),
        (dict(photos=0 * VECTORS[:1], slots=["shoes"]), "vector 0 of photos has the length 0.000 and no direction"),
        (dict(photos=np.nan * VECTORS[:1], slots=["shoes"]), "photos"),
        (dict(listings=[["item00"]], slots=["shoes"]), "has no listing"),
    ],
)  # fmt: skip
def test_what_cannot_be_completed_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        looks().complete(**arguments)


def test_a_listing_of_a_type_that_no_outfit_taught_starts_no_look():
    made = Looks(Embeddings(IDS, VECTORS, {}), np.where(np.arange(G) == 0, "", TYPES))
    with pytest.raises(InputError, match="has no type, or one that no outfit of the train split has"):
        made.complete([IDS[0]], ["shoes"])


def test_equal_vectors_are_chosen_by_id_and_vectors_without_a_direction_are_refused():
    vectors = np.repeat(VECTORS[:4], 15, 0)
    made = Looks(Embeddings(IDS, vectors, {}), TYPES)
    (found,) = made.complete([IDS[0]], ["shoes"], 1)
    nearest = [row for row in range(15) if TYPES[row] == "shoes"]
    assert found.ids["shoes"] == min(IDS[row] for row in nearest)
    twice = made.complete([IDS[0], IDS[0]], ["shoes"], 1)
    assert twice[0].score == found.score
    with pytest.raises(InputError, match="vector 3 of the gallery has the length 0.000"):
        Looks(Embeddings(IDS, VECTORS * (np.arange(G) != 3)[:, None], {}), TYPES)
