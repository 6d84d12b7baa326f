"""Edits as queries of the embedded catalogue: the truth is what a picture shows, and what is kept for scoring is in no
edit of train."""

import collections
import dataclasses
import re

import numpy as np
import pytest

from retrieval_jax.data import digest
from retrieval_jax.data.shop import edits, loading, synthetic, wording
from retrieval_jax.errors import InputError

SIZES = {"num_train": 900, "num_val": 60, "num_query": 80, "num_gallery": 1200, "num_edits": 120, "image_size": 16}
TABLES = {"colour": wording.COLOURS, "pattern": wording.PATTERNS, "material": wording.MATERIALS}


@pytest.fixture(scope="module")
def shop():
    return loading.load(queries="edits", **SIZES)


def fits(truth, reference, row, field, wanted, unwanted):
    """Returns whether a listing is what an edit asks for, by plain comparisons."""
    one, other = ({name: values[at] for name, values in truth.items()} for at in (reference, row))
    pattern = list(wording.PATTERNS)

    def shown(product):
        gradient = pattern[product["pattern"]] == "ombre"
        return {product["colour"], *([product["second"]] if gradient else [])}

    if one["category"] != other["category"]:
        return False
    kept = {"colour": bool(shown(one) & shown(other))}
    kept |= {name: one[name] == other[name] for name in ("pattern", "material")}
    if not all(same for name, same in kept.items() if name != field):
        return False
    if field == "parts":
        part = 1 + (wording.CATEGORIES[one["category"]][4:6].index(wanted or unwanted))
        return other[f"part{part}"] == bool(wanted) and one[f"part{part}"] == bool(unwanted)
    names = list(TABLES[field])
    if wanted:
        return names[other[field]] == wanted != names[one[field]]
    if field == "colour" and pattern[other["pattern"]] != "plain" and names[other["second"]] == unwanted:
        return False
    return names[other[field]] != unwanted == names[one[field]]


def test_queries_are_pictures_of_gallery_listings_and_the_truth_is_what_pictures_show(shop):
    query, gallery = shop.query, shop.gallery
    truth = synthetic.attributes(synthetic.make_shop(**SIZES), "gallery", np.arange(len(gallery)))
    row_of = {one: row for row, one in enumerate(gallery.ids)}
    assert len(set(query.ids)) == 80 and set(query.ids).isdisjoint(row_of) and query.titles is None
    for row in range(len(query)):
        reference = row_of[query.column("reference")[row]]
        field = query.column_names["edited"][query.column("edited")[row]]
        wanted, unwanted = query.column("wanted")[row], query.column("unwanted")[row]
        assert bool(wanted) != bool(unwanted) and (wanted or unwanted) in query.column_names[field]
        expected = [at for at in range(len(gallery)) if fits(truth, reference, at, field, wanted, unwanted)]
        assert shop.truth.relevant(row).tolist() == expected and expected and reference not in expected
        kind = query.column_names["kind"][query.column("kind")[row]]
        assert kind == ("negation" if unwanted else {"parts": "part"}.get(field, field))
        assert (query.categories[row] == gallery.categories[reference]).all()
    for row in (0, 41):
        reference = row_of[query.column("reference")[row]]
        np.testing.assert_array_equal(query.images[row], gallery.images[reference])
    asked = list(zip(query.column("reference"), query.column("words"), strict=True))
    assert len(set(asked)) == 80


def may_be_of(words, group):
    """Returns the wordings that may have made these words."""
    patterns = {one: re.sub(r"\\{\w+\\}", ".+", re.escape(one)) for one in wording.ASKED[group]}
    return {one for one, pattern in patterns.items() if re.fullmatch(pattern, words)}


def test_what_is_kept_for_scoring_is_in_no_edit_of_train(shop):
    made = synthetic.make_shop(**SIZES)
    found = edits.edits(made, 120, "train")
    table = shop.table("edits", "train")
    assert list(table.columns["words"]) == found.words and set(table.columns["kind"]) == set(edits.KINDS)
    assert not found.wordings.any() and not found.pairs.any()
    scored = edits.edits(made, 80, "gallery", scored=True)
    assert shop.query.column("words") == scored.words
    both = collections.Counter(zip(scored.wordings.tolist(), scored.pairs.tolist(), strict=True))
    assert both == {(0, 0): 40, (1, 0): 20, (0, 1): 20}
    for asked, split in ((found, "train"), (scored, "gallery")):
        category = synthetic.attributes(made, split, asked.references)["category"]
        for row, words in enumerate(asked.words):
            field = edits.FIELDS[asked.fields[row]]
            value = asked.wanted[row] or asked.unwanted[row]
            assert edits.unseen_pair(made, field, value, category[row]) == asked.pairs[row]
            group = field if asked.wanted[row] else f"no {field}"
            seen, unseen = edits.wordings(made.seed)[group]
            assert may_be_of(words, group) & set(unseen if asked.wordings[row] else seen)


def named_values(words, field):
    """Returns the true names of the values that words name, those of the longest matches."""
    table = {text: name for name, texts in TABLES[field].items() for text in texts}
    if field == "pattern":
        table |= {text: name for name, text in wording.PATTERN_NOUNS.items()}
    found, left = set(), words
    for text in sorted(table, key=len, reverse=True):
        pattern = rf"(?<![\w-]){re.escape(text)}(?![\w-])"
        if re.search(pattern, left):
            found.add(table[text])
            left = re.sub(pattern, "|", left)
    return found


def test_values_that_are_replaced_are_kept_for_scoring_as_well():
    made = synthetic.make_shop(**SIZES | {"num_train": 3000})
    for found, split in (
        (edits.edits(made, 400, "train"), "train"),
        (edits.edits(made, 80, "gallery", scored=True), "gallery"),
    ):
        category = synthetic.attributes(made, split, found.references)["category"]
        replaced = 0
        for row, words in enumerate(found.words):
            field = edits.FIELDS[found.fields[row]]
            if field == "part" or found.pairs[row]:
                continue
            value = found.wanted[row] or found.unwanted[row]
            named = named_values(words, field)
            assert value in named, words
            replaced += len(named) > 1
            assert not any(edits.unseen_pair(made, field, name, category[row]) for name in named), words
        assert replaced > len(found.words) / 20


@pytest.mark.parametrize("seed", range(5))
def test_every_group_has_wordings_of_both_sorts_and_none_is_seen_in_another_group(seed):
    found = edits.wordings(seed)
    plain = [set(), set()]
    for group, known in wording.ASKED.items():
        seen, unseen = found[group]
        assert sorted(seen + unseen) == sorted(known) and len(set(known)) == len(known)
        assert len(seen) >= 4 and len(unseen) >= 2
        for texts, names in zip((seen, unseen), plain, strict=True):
            names.update(re.sub(r"{\w+}", "value", text) for text in texts)
    assert plain[0].isdisjoint(plain[1])
    assert found != edits.wordings(seed + 1)


def test_a_fifth_of_the_pairs_is_kept():
    one = synthetic.make_shop()
    pairs = [edits.unseen_pair(one, "colour", name, at) for name in wording.COLOURS for at in range(32)]
    assert 0.15 < np.mean(pairs) < 0.25


def test_every_wording_can_be_written():
    rng = np.random.default_rng(0)
    for field, table in TABLES.items():
        for template in (*wording.ASKED[field], *wording.ASKED[f"no {field}"]):
            for old in table:
                new = "" if template in wording.ASKED[f"no {field}"] else next(name for name in table if name != old)
                text = wording.phrased(template, field, old, new, rng)
                assert "{" not in text and text == text.strip() and "  " not in text
    assert wording.phrased("with {part}", "part", "", "cushioned", rng) == "with cushions"
    assert wording.phrased("does not have {part}", "part", "v-neck", "", rng) == "does not have a v-neck"


def test_edits_are_the_same_whatever_their_number_and_photos_stay_as_they_are(shop):
    few = loading.load(queries="edits", **SIZES | {"num_query": 20})
    assert few.query.column("words") == shop.query.column("words")[:20]
    np.testing.assert_array_equal(few.truth.rows, shop.truth.rows[: len(few.truth.rows)])
    photos = loading.load(**SIZES)
    assert "edits/gallery" in photos.tables and "product" not in photos.gallery.columns
    assert set(shop.tables) == {"outfits/train", "clicks/train", "queries/train", "edits/train"} | {
        f"{name}/{split}" for name in ("outfits", "queries") for split in ("val", "gallery")
    } | {"edits/val"}
    products = shop.gallery.column("product")
    assert products[0] == products[1] != products[-1]
    one, other = digest.of(shop), digest.of(loading.load(queries="edits", **SIZES | {"seed": 1}))
    assert {"query: pictures, columns", "catalogue: truth, tables"} <= set(digest.differences(one, other))
    assert not digest.differences(one, digest.of(loading.load(queries="edits", **SIZES)))


def test_too_few_products_are_reported():
    with pytest.raises(
        InputError, match="'gallery' .* has 3 products, too few for 50 different edits: lower num_query"
    ):
        loading.load(queries="edits", num_gallery=8, num_query=50)
    with pytest.raises(InputError, match="too few for 4 edits: give it some hundred listings, or lower num_edits"):
        edits.edits(synthetic.make_shop(num_train=3), 4, "train")
    assert loading.load(queries="edits", num_gallery=8, num_query=0).query is None
    none = edits.edits(synthetic.make_shop(num_train=3), 0, "train")
    assert none.words == [] and none.indptr.tolist() == [0] and dataclasses.is_dataclass(none)
