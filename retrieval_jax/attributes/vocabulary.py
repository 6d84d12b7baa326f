"""The vocabulary of pseudo-attributes: frequent tokens in a stable order, with a hash that checkpoints carry."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from retrieval_jax import brief
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.attributes import words
from retrieval_jax.attributes.words import Rules
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import load_npz

if TYPE_CHECKING:
    import polars as pl


class _Rules(TypedDict):
    """See `words.Rules.as_json`."""

    normalise: str
    segment: str
    merges: list[tuple[str, str]]
    phrases: list[tuple[str, str, str]]


class _File(TypedDict):
    """vocabulary.json."""

    rule: str
    threshold: int
    num_titles: documents.Count
    hash: str
    tokens: list[str]
    counts: list[documents.Count]
    rules: NotRequired[_Rules]


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Attributes and their title counts.

    Attributes:
      tokens: V tokens, sorted by code point; the id of an attribute is its index.
      counts: int64 [V], number of titles with the token.
      num_titles: titles counted.
      threshold: tokens seen more than this many times were kept, repetitions within a title included.
      rules: the title rule, and how its tokens become words before they are looked up.
    """

    tokens: list[str]
    counts: np.ndarray
    num_titles: int
    threshold: int
    rules: Rules = Rules()

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def hash(self) -> str:
        """Hex SHA-256 of the tokens in order and of the rules behind them: equal hashes, equal attribute ids."""
        content = {"rule": title_rule.RULES[self.rules.rule], "tokens": self.tokens} | self._rules()
        canonical = json.dumps(content, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def encode(self, titles: Sequence[str], progress: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Returns the attributes of titles.

        Args:
          titles: n texts.
          progress: whether to show a progress bar.

        Returns:
          Sparse rows (indptr int64 [n + 1], label_ids int32): title i has `label_ids[indptr[i]:indptr[i + 1]]`,
          distinct and ascending.
        """
        from retrieval_jax.attributes import statistics  # with polars, which only mining needs

        tokenize = functools.partial(words.of_titles, rules=self.rules)
        return statistics.encode(titles, self.tokens, tokenize, progress=progress)

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the vocabulary as JSON, atomically."""
        content = {
            "rule": title_rule.RULES[self.rules.rule],
            "threshold": self.threshold,
            "num_titles": self.num_titles,
            "hash": self.hash,
            "tokens": self.tokens,
            "counts": self.counts.tolist(),
        } | self._rules()
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, (json.dumps(content, ensure_ascii=False, indent=0) + "\n").encode("utf-8"))

    @classmethod
    def load(cls, path: str | pathlib.Path) -> Vocabulary:
        """Reads a saved vocabulary and verifies its hash.

        Raises:
          InputError: no such file, not a vocabulary, made by another title rule, or changed since it was saved.
        """
        remedy = "run retrieval_jax.mine again"
        names = {name: number for number, name in title_rule.RULES.items()}
        content = documents.read(path, _File, remedy=remedy, missing=f"there is no vocabulary; {remedy}")
        tokens, counts = content["tokens"], np.asarray(content["counts"], dtype=np.int64)
        rule, expected = content["rule"], content["hash"]
        number = names.get(rule, title_rule.DEFAULT)
        try:
            rules = Rules.from_json(content["rules"], number) if "rules" in content else Rules(rule=number)
        except ValueError as error:
            raise InputError(f"{path}: not a vocabulary of this version ({error}); {remedy}") from None
        vocabulary = cls(tokens, counts, content["num_titles"], content["threshold"], rules)
        if rule not in names:
            known = " and ".join(map(repr, names))
            raise InputError(f"{path}: made by the title rule {rule!r}, but this version has {known}; {remedy}")
        if counts.shape != (len(tokens),) or len(set(tokens)) != len(tokens) or vocabulary.hash != expected:
            raise InputError(f"{path}: the tokens have changed since it was saved (the hash differs); {remedy}")
        return vocabulary

    def _rules(self) -> dict:
        # Left out where empty, so that files and hashes of rule 1 equal those of earlier versions.
        return {"rules": self.rules.as_json()} if self.rules.beyond_tokens else {}


def build(counts: pl.DataFrame, num_titles: int, threshold: int, rules: Rules | None = None) -> Vocabulary:
    """Builds a vocabulary of the tokens seen more than `threshold` times.

    Args:
      counts: the frame `statistics.Statistics.tokens`.
      num_titles: titles counted.
      threshold: tokens with more occurrences are kept.
      rules: rules that titles were counted by; None for the default title rule alone.

    Returns:
      The `Vocabulary`, sorted by token.
    """
    import polars as pl

    kept = counts.filter(pl.col("occurrences") > threshold).sort("token")
    counts = kept["titles"].to_numpy().astype(np.int64)
    return Vocabulary(kept["token"].to_list(), counts, num_titles, threshold, rules or Rules())


def save_targets(path: str | pathlib.Path, indptr: np.ndarray, label_ids: np.ndarray, vocabulary_hash: str) -> None:
    """Writes sparse target rows (see `Vocabulary.encode`) with the hash of the vocabulary they index.

    Args:
      path: .npz file, written atomically.
      indptr: int64 [n + 1].
      label_ids: int32 [indptr[-1]].
      vocabulary_hash: `Vocabulary.hash`.
    """
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write_npz(path, indptr=indptr, label_ids=label_ids, vocabulary_hash=np.asarray(vocabulary_hash))


def load_targets(path: str | pathlib.Path, vocabulary_hash: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reads sparse target rows.

    Args:
      path: file written by `save_targets`.
      vocabulary_hash: hash of the vocabulary they must index; None accepts any.

    Returns:
      (indptr int64 [n + 1], label_ids int32).

    Raises:
      InputError: the file is missing, unreadable or belongs to another vocabulary.
    """
    remedy = "run retrieval_jax.mine again"
    kinds = {"indptr": (("int64",), 1), "label_ids": (("int32",), 1), "vocabulary_hash": (("str",), 0)}
    content = load_npz(path, kinds, remedy=remedy)
    indptr, label_ids, found = content["indptr"], content["label_ids"], str(content["vocabulary_hash"])
    ends = indptr[[0, -1]].tolist() if len(indptr) else []
    if ends != [0, len(label_ids)] or (np.diff(indptr) < 0).any() or (label_ids < 0).any():
        raise InputError(
            f"{path}: the rows of these targets do not add up to their {len(label_ids):,} labels: {remedy}"
        )
    if vocabulary_hash is not None and found != vocabulary_hash:
        raise InputError(
            f"{path}: targets of another vocabulary ({found[:12]}, expected {vocabulary_hash[:12]}); "
            "run retrieval_jax.mine again"
        )
    return indptr, label_ids
