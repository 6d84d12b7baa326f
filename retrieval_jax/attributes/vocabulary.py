"""The vocabulary of pseudo-attributes: tokens seen often enough, in a stable order, with a hash for checkpoints."""

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

from retrieval_jax.attributes import statistics, words
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.attributes.words import Rules
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """Attributes and how often titles have them.

    Attributes:
      tokens: V tokens, sorted by code point; the id of an attribute is its place here.
      counts: int64 [V], titles that have the token, each counted once.
      num_titles: titles that were looked at.
      threshold: a token was kept when seen more than this many times, repetitions inside a title included.
      rules: what is made of the tokens of a title before they are looked up here; none for the plain rule.
    """

    tokens: list[str]
    counts: np.ndarray
    num_titles: int
    threshold: int
    rules: Rules = Rules()

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.cached_property
    def hash(self) -> str:
        """Hex SHA-256 of the tokens in order and of the rule that made them: equal hashes, equal attribute ids."""
        content = {"rule": title_rule.RULE, "tokens": self.tokens} | self._rules()
        canonical = json.dumps(content, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def encode(self, titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Finds the attributes of titles.

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
        """Writes the vocabulary as JSON, whole or not at all."""
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
        """Reads a saved vocabulary and checks it against its own hash.

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
            raise InputError(f"{path}: there is no vocabulary here; {remedy}") from None
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(f"{path}: not a vocabulary ({error}); {remedy}") from None
        if rule != title_rule.RULE:
            raise InputError(f"{path}: made by the title rule {rule!r}, this version has {title_rule.RULE!r}; {remedy}")
        if counts.shape != (len(tokens),) or vocabulary.hash != expected:
            raise InputError(f"{path}: the tokens are not those it was saved with (their hash differs); {remedy}")
        return vocabulary

    def _rules(self) -> dict:
        # The plain rule has none, so that its files and hashes are those of every version before.
        return {"rules": self.rules.as_json()} if self.rules else {}


def build(counts: pl.DataFrame, num_titles: int, threshold: int, rules: Rules | None = None) -> Vocabulary:
    """Keeps the tokens that were seen more than `threshold` times.

    Args:
      counts: the frame `statistics.Statistics.tokens`.
      num_titles: titles that were counted.
      threshold: a token is kept when its occurrences are greater.
      rules: that titles were counted by; None for the plain rule.

    Returns:
      The `Vocabulary`, sorted by token.
    """
    kept = counts.filter(pl.col("occurrences") > threshold).sort("token")
    counts = kept["titles"].to_numpy().astype(np.int64)
    return Vocabulary(kept["token"].to_list(), counts, num_titles, threshold, rules or Rules())


def save_targets(path: str | pathlib.Path, indptr: np.ndarray, label_ids: np.ndarray, vocabulary_hash: str) -> None:
    """Writes sparse target rows (see `Vocabulary.encode`) with the hash of the vocabulary that they count into.

    Args:
      path: .npz file, written whole or not at all.
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
      path: file of `save_targets`.
      vocabulary_hash: hash that the rows must belong to; None takes any.

    Returns:
      (indptr int64 [n + 1], label_ids int32).

    Raises:
      InputError: no such file, not one of targets, or made for another vocabulary.
    """
    try:
        with np.load(io.BytesIO(pathlib.Path(path).read_bytes()), allow_pickle=False) as content:
            indptr, label_ids, found = content["indptr"], content["label_ids"], str(content["vocabulary_hash"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable targets ({error}); run retrieval_jax.mine again") from None
    if vocabulary_hash is not None and found != vocabulary_hash:
        raise InputError(
            f"{path}: targets of another vocabulary ({found[:12]}, wanted {vocabulary_hash[:12]}); "
            "run retrieval_jax.mine again"
        )
    return indptr, label_ids
