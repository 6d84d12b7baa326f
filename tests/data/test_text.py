"""Tokens: byte-level BPE by its definition, files of Hugging Face's models, cutting, words, and a run's folder."""

import json
import subprocess
import sys
import types

import numpy as np
import pytest

from retrieval_jax.data import listing_texts, text
from retrieval_jax.data.catalog import Catalog, Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

TEXTS = [
    "Red Running Shoes",
    "blue jeans for men",
    "тёплая куртка",
    "走る靴 赤い",
    "red shoes",
    "नमस्ते दुनिया",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return text.train(TEXTS, 400)


def test_any_text_can_be_written_and_read_back(tokenizer):
    given = ["red running shoes", "Ωmega, ﬁ ｗｉｄｅ 👩‍👩 ไหม", "", "<mask> [SEP] </s>", "x\x00y \ud800z"]
    encoded = tokenizer.encode(given, 64)
    read = [tokenizer.inner.decode(encoded[row].tolist()).strip() for row in range(len(given))]
    assert read == ["red running shoes", "ωmega, fi wide 👩‍👩 ไหม", "", "<mask> [sep] </s>", "x y z"]
    for row in range(len(given)):
        ids = encoded[row].tolist()
        assert (ids[0], ids[-1]) == (tokenizer.start, tokenizer.end)
        assert not set(ids[1:-1]) & set(tokenizer.special())  # what is typed is text
    assert encoded[2].tolist() == [tokenizer.start, tokenizer.end]


def test_frequent_words_are_tokens_first_and_later(tokenizer):
    one, two, three = (tokenizer.encode([given], 9)[0].tolist() for given in ("shoes", "red shoes", "SHOES"))
    assert len(one) == 3 and len(two) == 4 and one[1] == two[2] and one == three


def test_long_texts_are_cut_and_keep_their_end(tokenizer):
    encoded = tokenizer.encode(["red " * 50, "a" * 2_000_000, "red"], 8)
    assert np.diff(encoded.indptr).tolist() == [8, 8, 3] and encoded.values.dtype == np.int32
    assert (encoded.values[encoded.indptr[1:] - 1] == tokenizer.end).all()
    with pytest.raises(InputError, match="length is 2"):
        tokenizer.encode(["red"], 2)


def test_the_same_texts_give_the_same_tokens_in_any_order_and_process(tokenizer):
    assert text.train(TEXTS[::-1], 400).tokens() == tokenizer.tokens()
    code = f"import sys; from retrieval_jax.data import text; print(text.train({TEXTS[:6]!r} * 20, 400).hash)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        )
        assert done.stdout.strip() == tokenizer.hash, done.stderr


def test_no_token_is_endless():
    made = text.train(["x" * 8000] * 30, 400)
    assert max(map(len, made.tokens())) <= 48


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "text")
    for path in (tmp_path / "text", tmp_path / "text" / "tokenizer.json"):
        loaded = text.load(path)
        assert loaded.tokens() == tokenizer.tokens() and loaded.hash == tokenizer.hash
        assert np.array_equal(loaded.encode(TEXTS, 16).values, tokenizer.encode(TEXTS, 16).values)
        assert loaded.facts() == tokenizer.facts()


def test_words(tokenizer):
    encoded = tokenizer.encode(["red jeanes", "", "blue"], 16)
    words = tokenizer.words(encoded)
    inside = len(tokenizer.encode(["jeanes"], 16)[0]) - 2  # "jeanes" is more than one token
    assert inside > 1
    assert words[0].tolist() == [-1, 0, *[1] * inside, -1] and words[1].tolist() == [-1, -1]
    assert words[2].tolist() == [-1, 0, -1]


# ------------------------------------------------------------------------------------------------------- other files


def roberta(folder):
    """Writes vocab.json and merges.txt as RoBERTa has them: no blank before the first word, names first."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = ["a", "b", "c", "Ġ", "ab", "Ġc", "abc"]
    (folder / "vocab.json").write_text(json.dumps({name: row for row, name in enumerate(names + pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nĠ c\nab c\n")


def bert(folder):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "shoe", "##s", ",", "été", "ete"]
    (folder / "vocab.txt").write_text("\n".join(names) + "\n", "utf-8")


def test_roberta_files(tmp_path):
    roberta(tmp_path)
    made = text.load(tmp_path)
    assert (made.start, made.pad, made.end, made.unknown, made.mask, made.size) == (0, 1, 2, 3, 4, 12)
    assert made.encode(["ab c", "abc c"], 9)[0].tolist() == [0, 9, 10, 2]
    assert made.encode(["abc c"], 9)[0].tolist() == [0, 11, 10, 2]
    assert made.words(made.encode(["ab c"], 9))[0].tolist() == [-1, 0, 1, -1]
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(InputError, match="needs merges.txt beside it"):
        text.load(tmp_path)


def test_bert_files(tmp_path):
    bert(tmp_path)
    made = text.load(tmp_path / "vocab.txt")
    assert (made.start, made.pad, made.end, made.unknown, made.mask) == (2, 0, 3, 1, 4)
    encoded = made.encode(["Red, shoes", "Été blue"], 9)
    assert encoded[0].tolist() == [2, 5, 8, 6, 7, 3] and encoded[1].tolist() == [2, 10, 1, 3]
    assert made.words(encoded)[0].tolist() == [-1, 0, 1, 2, 2, -1]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert text.load(tmp_path).encode(["été"], 9)[0].tolist() == [2, 9, 3]


@pytest.mark.parametrize(
    "content, message",
    [("{", "cannot be read as a tokenizer"), ("{}", "cannot be read as a tokenizer"), ("[1]", "cannot be read")],
)
def test_broken_files(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=message):
        text.load(tmp_path)


def test_missing_files_and_tokens(tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer: expected tokenizer.json, vocab.json or vocab.txt"):
        text.load(tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        text.load(tmp_path / "other.json")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n")
    with pytest.raises(InputError, match=r"no token '<mask>' or '\[MASK\]'"):
        text.load(tmp_path)


@pytest.mark.parametrize("vocabulary", [299, 2_000_000])
def test_a_vocabulary_out_of_range(vocabulary):
    with pytest.raises(InputError, match="give a number from 300"):
        text.train(TEXTS, vocabulary)


def test_no_text_at_all():
    with pytest.raises(InputError, match="every text is empty"):
        text.train(["", " \x00"], 400)


# ------------------------------------------------------------------------------------------------------- catalogues


def catalogue():
    columns = {
        "brand": ["Acme", ""],
        "colour": np.array([1, -1]),
        "parts": Ragged.of([[0, 1], []]),
        "price": np.array([1.0, 2.0], np.float32),
    }
    split = Split("train", ["a", "b"], ["red shoe", ""], np.array([[0], [-1]]), None, columns=columns)
    names = {"colour": ["blue", "red"], "parts": ["sole", "lace"]}
    table = Table({"text": ["typed"], "clicked": Ragged.of([[0]])}, {"clicked": "train"})
    return Catalog(
        "tiny",
        train=split,
        category_levels=("kind",),
        category_names=(["shoes"],),
        column_names=names,
        tables={"queries/train": table},
    )


def test_the_text_of_listings():
    found = listing_texts.of(catalogue().train, ("kind", "title", "brand", "colour", "parts"))
    assert found == ["shoes red shoe Acme red sole lace", ""]
    assert text.texts_of(catalogue()) == ["red shoe", "", "typed"]
    with pytest.raises(InputError, match="'price' of the train split holds numbers"):
        listing_texts.of(catalogue().train, ("price",))
    with pytest.raises(InputError, match="did you mean brand"):
        listing_texts.of(catalogue().train, ("brnd",))


def test_the_tokenizer_of_a_run(tmp_path):
    options = {"vocabulary": 300, "text_columns": ("title",), "tokenizer": ""}
    made = text.of_run(options, catalogue(), tmp_path / "run")
    assert (tmp_path / "run" / "text" / "tokenizer.json").exists()
    assert text.of_run(options, None, tmp_path / "run").hash == made.hash  # needs no catalogue
    other = types.SimpleNamespace(**vars(catalogue()))
    start = text.of_run(options, other, tmp_path / "next", start=tmp_path / "run")
    assert start.hash == made.hash
    bert(tmp_path)
    given = text.of_run(options | {"tokenizer": str(tmp_path / "vocab.txt")}, None, tmp_path / "third")
    assert given.size == 11 and text.of_run(options, None, tmp_path / "third").hash == given.hash
