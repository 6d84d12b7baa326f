"""Statistics of titles against plain loops, for any chunk size, and their sums."""

import collections

import numpy as np
import pytest

from retrieval_jax.attributes import statistics, titles
from retrieval_jax.errors import InputError

TITLES = ["Red red shoes", "red Hat w/ box", "blue shoes - the best", "", "éclair Éclair hat", "the - w ."]
MANY = [*TITLES, *(f"red {i % 7} {i % 11}x of Ωmega\n{i % 3} red {i % 7}" for i in range(200))]
CATEGORIES = [i % 4 - 1 for i in range(len(MANY))]


def _plain(texts, categories):
    """Returns the rows of the four tables, computed by plain loops."""
    tokens, pairs, by_category, sizes = (collections.defaultdict(list) for _ in range(4))
    for place, (text, category) in enumerate(zip(texts, categories, strict=True)):
        found = titles.tokenize(text)
        for token in found:
            tokens[token].append(place)
            by_category[token, category].append(place)
        for pair in zip(found, found[1:], strict=False):
            pairs[pair].append(place)
        sizes[category].append(place)
    dropped = titles.DROPPED
    return (
        [(key, len(tokens[key]), len(set(tokens[key]))) for key in sorted(tokens) if key not in dropped],
        [(*key, len(pairs[key]), len(set(pairs[key]))) for key in sorted(pairs) if not dropped & set(key)],
        [(*key, len(set(by_category[key]))) for key in sorted(by_category) if key[0] not in dropped and key[1] >= 0],
        [(key, len(sizes[key])) for key in sorted(sizes) if key >= 0],
    )


def _rows(found):
    return tuple(table.rows() for table in (found.tokens, found.pairs, found.by_category, found.categories))


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
@pytest.mark.parametrize("characters", [10, 10_000_000])
def test_counts_equal_a_plain_loop(monkeypatch, chunk, characters):
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    monkeypatch.setattr(statistics, "CHARACTERS", characters)
    found = statistics.count(
        [iter(MANY[:9]), MANY[9:]], categories=[CATEGORIES[:9], np.array(CATEGORIES[9:])], pairs=True
    )
    assert found.num_titles == len(MANY)
    assert _rows(found) == _plain(MANY, CATEGORIES)


def test_only_requested_tables_are_built():
    found = statistics.count([MANY])
    assert (found.pairs, found.by_category, found.categories) == (None, None, None)
    assert found.tokens.rows() == _plain(MANY, CATEGORIES)[0]


def test_parts_add_up_in_any_order():
    parts = [statistics.count([MANY[i::3]], categories=[CATEGORIES[i::3]], pairs=True) for i in range(3)]
    for order in ([0, 1, 2], [2, 0, 1]):
        found = statistics.total([parts[i] for i in order])
        assert found.num_titles == len(MANY) and _rows(found) == _plain(MANY, CATEGORIES)


def test_no_titles():
    found = statistics.count([[]], categories=[[]], pairs=True)
    assert found.num_titles == 0 and _rows(found) == ([], [], [], [])
    assert statistics.count([["", "the"]]).tokens.rows() == []


@pytest.mark.parametrize(("categories", "says"), [([0], "fewer categories"), ([0, 1, 2], "more categories")])
def test_wrong_number_of_categories_is_refused(categories, says):
    with pytest.raises(InputError, match=says):
        statistics.count([["a", "b"]], categories=[categories])


@pytest.mark.parametrize("tokens", [["red", "hat"], [], ["nobody has this"]])
def test_encode_indexes_tokens_in_the_given_order(tokens):
    indptr, ids = statistics.encode(TITLES, tokens)
    assert [ids[indptr[row] : indptr[row + 1]].tolist() for row in range(len(TITLES))] == [
        sorted({tokens.index(token) for token in titles.tokenize(title) if token in tokens}) for title in TITLES
    ]


def test_save_and_load(tmp_path):
    for name, wanted in {"all": {"categories": [CATEGORIES], "pairs": True}, "tokens": {}}.items():
        made = statistics.count([MANY], **wanted)
        statistics.save(tmp_path / name, made)
        again = statistics.load(str(tmp_path / name))
        assert again.num_titles == made.num_titles
        for table in statistics.TABLES:
            one, other = getattr(made, table), getattr(again, table)
            assert (one is None and other is None) or one.equals(other)


def test_tables_from_rows():
    made = statistics.count([MANY], pairs=True)
    again = statistics.from_rows(len(MANY), tokens=made.tokens.rows()[::-1], pairs=made.pairs.rows()[::-1])
    assert again.tokens.equals(made.tokens) and again.pairs.equals(made.pairs)
    assert (again.num_titles, again.by_category) == (len(MANY), None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "statistics.json").unlink(), "statistics.json not found"),
        (lambda folder: (folder / "pairs.parquet").unlink(), "one of its tables is missing"),
        (lambda folder: (folder / "tokens.parquet").write_bytes(b"PAR1 broken"), "unreadable statistics"),
        (lambda folder: (folder / "statistics.json").write_text("{"), "statistics.json is not readable JSON"),
        (
            lambda folder: (folder / "statistics.json").write_text(
                (folder / "statistics.json").read_text().replace("titles-2", "titles-0")
            ),
            "title rule 'titles-0'",
        ),
        (
            lambda folder: (folder / "tokens.parquet").write_bytes((folder / "pairs.parquet").read_bytes()),
            "absent or has unexpected columns",
        ),
    ],
)
def test_damaged_statistics_are_refused(tmp_path, change, says):
    statistics.save(tmp_path, statistics.count([TITLES], pairs=True))
    change(tmp_path)
    with pytest.raises(InputError, match=says):
        statistics.load(tmp_path)
