"""The vocabulary of pseudo-attributes: frequent tokens in a stable order, with a hash that checkpoints carry."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
import polars as pl

from retrieval_jax import brief
from retrieval_jax.attributes import statistics, words
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.attributes.words import Rules
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Attributes and their title counts.

    Attributes:
      tokens: V tokens, sorted by code point; the id of an attribute is its index.
      counts: int64 [V], number of titles with the token.
      num_titles: titles counted.
      threshold: tokens seen more than this many times were kept, repetitions within a title included.
      rules: how the tokens of a title become words before they are looked up; empty for the plain rule.
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
        content = {"rule": title_rule.RULE, "tokens": self.tokens} | self._rules()
        canonical = json.dumps(content, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def encode(self, titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the attributes of titles.

        Args:
          titles: n texts.

        Returns:
          Sparse rows (indptr int64 [n + 1], label_ids int32): title i has `label_ids[indptr[i]:indptr[i + 1]]`,
          distinct and ascending.
        """
        if not self.rules:
            return statistics.encode(titles, self.tokens)
        return statistics.encode(titles, self.tokens, functools.partial(words.of_titles, rules=self.rules))

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the vocabulary as JSON, atomically."""
        content = {
            "rule": title_rule.RULE,
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
        try:
            content = json.loads(pathlib.Path(path).read_bytes())
            tokens, counts = list(content["tokens"]), np.asarray(content["counts"], dtype=np.int64)
            vocabulary = cls(
                tokens,
                counts,
                int(content["num_titles"]),
                int(content["threshold"]),
                Rules.from_json(content["rules"]) if "rules" in content else Rules(),
            )
            rule, expected = content["rule"], content["hash"]
        except FileNotFoundError:
            raise InputError(f"{path}: no vocabulary here; {remedy}") from None
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(f"{path}: not a vocabulary ({error}); {remedy}") from None
        if rule != title_rule.RULE:
            raise InputError(
                f"{path}: made by the title rule {rule!r}, but this version has {title_rule.RULE!r}; {remedy}"
            )
        if counts.shape != (len(tokens),) or vocabulary.hash != expected:
            raise InputError(f"{path}: the tokens have changed since it was saved (the hash differs); {remedy}")
        return vocabulary

    def _rules(self) -> dict:
        # Left out for the plain rule, so that its files and hashes equal those of earlier versions.
        return {"rules": self.rules.as_json()} if self.rules else {}


def build(counts: pl.DataFrame, num_titles: int, threshold: int, rules: Rules | None = None) -> Vocabulary:
    """Builds a vocabulary of the tokens seen more than `threshold` times.

    Args:
      counts: the frame `statistics.Statistics.tokens`.
      num_titles: titles counted.
      threshold: tokens with more occurrences are kept.
      rules: rules that titles were counted by; None for the plain rule.

    Returns:
      The `Vocabulary`, sorted by token.
    """
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
    content = io.BytesIO()
    np.savez(content, indptr=indptr, label_ids=label_ids, vocabulary_hash=np.asarray(vocabulary_hash))
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, content.getvalue())


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
    try:
        with np.load(io.BytesIO(pathlib.Path(path).read_bytes()), allow_pickle=False) as content:
            indptr, label_ids, found = content["indptr"], content["label_ids"], str(content["vocabulary_hash"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: missing or unreadable targets ({error}); run retrieval_jax.mine again") from None
    if vocabulary_hash is not None and found != vocabulary_hash:
        raise InputError(
            f"{path}: targets of another vocabulary ({found[:12]}, expected {vocabulary_hash[:12]}); "
            "run retrieval_jax.mine again"
        )
    return indptr, label_ids
