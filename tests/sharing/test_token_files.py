"""Tokenizers of strangers: what is trained here and what RoBERTa and BERT have is read, anything else is refused."""

import copy
import json
import pathlib
import time

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from retrieval_jax.data import text
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import token_files

FILE = pathlib.Path("served/tokenizer.json")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="module")
def trained():
    return json.loads(text.train(["red running shoes", "blue jeans", "Regex"] * 3, vocabulary=320).inner.to_str())


def test_trained_tokenizers_and_those_of_roberta_and_bert_are_read(trained, tmp_path):
    token_files.check(trained, FILE)
    trained["model"]["vocab"]["Regex"] = len(trained["model"]["vocab"])  # a token like any other
    token_files.check(trained, FILE)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red"]))
    bert = text.load(tmp_path).inner
    token_files.check(json.loads(bert.to_str()), FILE)
    bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    token_files.check(json.loads(bert.to_str()), FILE)
    roberta = tokenizers.Tokenizer(models.BPE({name: row for row, name in enumerate(SPECIAL)}, []))
    roberta.pre_tokenizer, roberta.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    token_files.check(json.loads(roberta.to_str()), FILE)


def changed(document, section, value):
    out = copy.deepcopy(document)
    out[section] = {**out[section], **value} if section == "model" else value
    return out


DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
PIECE = {"Sequence": {"id": "A", "type_id": 0}}


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("normalizer", {"type": "Sequence", "normalizers": [DOUBLED] * 35}, "normalizer has the type 'Replace'"),
        ("normalizer", {**DOUBLED, "pattern": {"Regex": "(a+)+$"}}, "normalizer has the type 'Replace'"),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 1000}, "normalizer has the type 'Prepend'"),
        ("normalizer", {"pattern": {"String": "a"}, "content": "aa"}, "normalizer has the type 'None'"),
        ("normalizer", [DOUBLED], "normalizer is not an object with a type"),
        ("normalizer", {"type": "Sequence", "normalizers": {"a": DOUBLED}}, "normalizer has the type 'None'"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Sequence"}]}, "has Sequence twice"),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
         "pre_tokenizer has the type 'Split'"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 35}, "has ByteLevel twice"),
        ("model", {"type": "Unigram"}, "model has the type 'Unigram'"),
        ("model", {"continuing_subword_prefix": "#" * 1000}, "more than 64 characters before or after each piece"),
        ("model", {"type": "WordPiece", "max_input_chars_per_word": 10**9}, "reads words of 1000000000 characters"),
        ("post_processor", {"type": "TemplateProcessing", "single": [PIECE] * 1000}, "does not write a text once"),
        ("decoder", {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}, "decoder has the type 'Replace'"),
    ],
)  # fmt: skip
def test_what_grows_or_takes_forever_is_refused_by_name(trained, section, value, message):
    with pytest.raises(InputError, match=message) as raised:
        token_files.check(changed(trained, section, value), FILE)
    assert str(raised.value).startswith(f"{FILE}: its {section} ") and "RoBERTa's or BERT's" in str(raised.value)


def test_what_is_read_answers_the_longest_text_of_the_worst_characters_at_once(trained, tmp_path):
    every = [{"type": kind} for kind in ("NFKC", "NFD", "NFC", "NFKD", "Lowercase", "StripAccents")]
    document = changed(trained, "normalizer", {"type": "Sequence", "normalizers": every})
    token_files.check(document, FILE)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    tokenizer, start = text.load(tmp_path), time.process_time()
    assert len(tokenizer.encode(["\ufdfa" * text.MOST_CHARACTERS, "a" * text.MOST_CHARACTERS], 16)) == 2
    assert time.process_time() - start < 10
