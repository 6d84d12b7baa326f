"""Counting, hashing, saving and encoding pseudo-attributes, against plain loops."""

import functools
import json

import numpy as np
import pytest

from retrieval_jax.attributes import statistics, titles, vocabulary, words
from retrieval_jax.errors import InputError

TITLES = ["Red red shoes", "red Hat w/ box", "blue shoes - the best", "", "éclair Éclair hat", "the - w ."]


def _made(threshold=1):
    return vocabulary.build(statistics.count([TITLES]).tokens, len(TITLES), threshold)


def test_threshold_must_be_exceeded():
    assert _made(1).tokens == ["hat", "red", "shoes", "éclair"]  # éclair: twice in one title
    assert _made(2).tokens == ["red"]
    assert _made(1).counts.tolist() == [2, 2, 2, 1]
    assert _made(0).tokens == sorted(_made(0).tokens)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_encode_equals_a_plain_loop(monkeypatch, chunk):
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    made = _made(0)
    indptr, ids = made.encode(TITLES)
    assert (indptr.dtype, ids.dtype, len(indptr)) == (np.int64, np.int32, len(TITLES) + 1)
    places = {token: place for place, token in enumerate(made.tokens)}
    for row, title in enumerate(TITLES):
        expected = sorted({places[token] for token in titles.tokenize(title) if token in places})
        assert ids[indptr[row] : indptr[row + 1]].tolist() == expected
    assert np.bincount(ids, minlength=len(made)).tolist() == made.counts.tolist()


def test_encode_no_titles():
    indptr, ids = _made().encode([])
    assert indptr.tolist() == [0] and len(ids) == 0


def test_hash_covers_tokens_and_their_order():
    made = _made()
    other = vocabulary.Vocabulary(made.tokens, made.counts + 1, 99, 7)
    assert made.hash == other.hash  # counts do not change the meaning of an id
    assert made.hash != vocabulary.Vocabulary(made.tokens[::-1], made.counts, 6, 1).hash
    assert made.hash != vocabulary.Vocabulary(made.tokens[:-1], made.counts[:-1], 6, 1).hash
    assert _made().hash == made.hash and len(made.hash) == 64


def test_save_and_load(tmp_path):
    made = _made()
    made.save(tmp_path / "a" / "vocabulary.json")
    again = vocabulary.Vocabulary.load(str(tmp_path / "a" / "vocabulary.json"))
    assert (again.tokens, again.counts.tolist(), again.num_titles, again.threshold, again.hash) == (
        made.tokens,
        made.counts.tolist(),
        made.num_titles,
        made.threshold,
        made.hash,
    )
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["vocabulary.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content["tokens"].reverse(), "hash differs"),
        (lambda content: content["counts"].pop(), "hash differs"),
        (lambda content: content.update(rule="titles-0"), "title rule"),
        (lambda content: content.pop("tokens"), "missing required field `tokens`"),
    ],
)
def test_a_changed_vocabulary_is_refused(tmp_path, change, says):
    file = tmp_path / "vocabulary.json"
    _made().save(file)
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=f"vocabulary.json.*{says}.*mine again"):
        vocabulary.Vocabulary.load(file)


def test_the_title_rule_is_part_of_a_vocabulary_and_old_ones_keep_theirs(tmp_path):
    title = ["cre\u0300me &amp; Straße"]
    for rule, tokens in ((1, ["amp", "cre", "straße"]), (2, ["crème", "strasse"])):
        rules = words.Rules(rule=rule)
        counted = statistics.count([title], tokenize=functools.partial(words.of_titles, rules=rules))
        made = vocabulary.build(counted.tokens, 1, 0, rules)
        assert made.tokens == tokens and made.encode(title)[1].tolist() == list(range(len(tokens)))
        made.save(tmp_path / "vocabulary.json")
        content = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
        assert content["rule"] == f"titles-{rule}" and "rules" not in content
        again = vocabulary.Vocabulary.load(tmp_path / "vocabulary.json")
        assert again.rules.rule == rule and again.hash == made.hash
        assert again.encode(title)[1].tolist() == made.encode(title)[1].tolist()
    old = vocabulary.Vocabulary(["red", "shoes"], np.array([2, 2]), 6, 1, words.Rules(rule=1))
    assert (
        old.hash == "c251ec79ac8742dc1c819839d4f21b1e5b6a8007a22f706042e384d320a83650"
    )  # as before there was a second rule


def test_a_missing_or_broken_vocabulary_is_refused(tmp_path):
    with pytest.raises(InputError, match="not found: there is no vocabulary"):
        vocabulary.Vocabulary.load(tmp_path / "vocabulary.json")
    (tmp_path / "broken.json").write_bytes(b'{"tokens": [')
    with pytest.raises(InputError, match="is not readable JSON"):
        vocabulary.Vocabulary.load(tmp_path / "broken.json")


def test_targets_carry_the_hash(tmp_path):
    made = _made()
    indptr, ids = made.encode(TITLES)
    vocabulary.save_targets(tmp_path / "train.npz", indptr, ids, made.hash)
    first = (tmp_path / "train.npz").read_bytes()
    for got, expected in zip(vocabulary.load_targets(tmp_path / "train.npz", made.hash), (indptr, ids), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    with pytest.raises(InputError, match="another vocabulary"):
        vocabulary.load_targets(tmp_path / "train.npz", "0" * 64)
    with pytest.raises(InputError, match="val.npz not found"):
        vocabulary.load_targets(tmp_path / "val.npz")
    (tmp_path / "val.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InputError, match="cannot be read"):
        vocabulary.load_targets(tmp_path / "val.npz")
    vocabulary.save_targets(tmp_path / "train.npz", indptr, ids, made.hash)
    assert (tmp_path / "train.npz").read_bytes() == first  # the same bytes every time
