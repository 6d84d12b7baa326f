"""Which tokenizers an exported model may have: their files come from strangers, and run on what a person types."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from retrieval_jax.errors import InputError, short

# What this package trains, and what RoBERTa's and BERT's tokenizers have, by section of the file. Nothing here takes
# regular expressions of its own, or writes a text longer than by a fixed factor; no type may occur twice in a section,
# because the second ByteLevel would double what the first has written, and so on.
TYPES = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Sequence"},
    "pre_tokenizer": {"ByteLevel", "BertPreTokenizer", "Sequence"},
    "model": {"BPE", "WordPiece"},
    "post_processor": {"TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence"},
    "decoder": {"ByteLevel", "WordPiece", "Sequence"},
}
_PARTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix", "unk_token")  # of a model, set to every piece of a word
_LONGEST_AFFIX = 64  # characters
_LONGEST_WORD = 200  # characters; BERT's has 100. WordPiece takes the cube of it
_REMEDY = "export a run with RoBERTa's or BERT's tokenizer, or with one that was trained here"


def check(document: Mapping[str, Any], file: pathlib.Path) -> None:
    """Checks that a tokenizer takes no more than a fixed time and memory for each character of a text.

    Args:
      document: content of tokenizer.json, as the library `tokenizers` writes it.
      file: where it is, for messages.

    Raises:
      InputError: a component of another type, or one that could take forever.
    """
    for section, types in TYPES.items():
        seen: set[str] = set()
        for part in _parts(document.get(section), _PARTS.get(section, ""), section, file):
            kind = part.get("type")
            if not isinstance(kind, str) or kind not in types:
                raise InputError(
                    f"{file}: its {section} has the type {short(str(kind))!r}, and exported models have only "
                    f"{', '.join(sorted(types))}: {_REMEDY}"
                )
            if kind in seen:
                raise InputError(f"{file}: its {section} has {kind} twice: {_REMEDY}")
            seen.add(kind)
            if problem := _problem(kind, part):
                raise InputError(f"{file}: its {section} {problem}: {_REMEDY}")


def _parts(value: Any, name: str, section: str, file: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    """Yields a component, and those of a sequence after it; nothing for null."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise InputError(f"{file}: its {section} is not an object with a type: {_REMEDY}")
    yield value
    if value.get("type") == "Sequence":
        parts = value.get(name)
        for part in parts if isinstance(parts, list) else [None]:
            yield part if isinstance(part, dict) else {}


def _problem(kind: str, part: Mapping[str, Any]) -> str:
    """Returns what is wrong with a component of a type that may be there, "" for nothing."""
    if kind == "TemplateProcessing":
        single = part.get("single")
        pieces = [piece for piece in single if isinstance(piece, dict)] if isinstance(single, list) else []
        if sum("Sequence" in piece for piece in pieces) != 1 or len(pieces) > 3 or pieces != single:
            return "does not write a text once, between a start and an end token"
    if any(isinstance(part.get(name), str) and len(part[name]) > _LONGEST_AFFIX for name in _AFFIXES):
        return f"sets more than {_LONGEST_AFFIX} characters before or after each piece of a word"
    if kind == "WordPiece" and (most := part.get("max_input_chars_per_word")) is not None:
        if not isinstance(most, int) or most > _LONGEST_WORD:
            return f"reads words of {short(str(most))} characters, and {_LONGEST_WORD} are read at most"
    return ""
