"""Examples of edits: a reference, words, one of the listings that are right, and listings that are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data import text as text_lib
from retrieval_jax.data.catalog import Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

NEAREST = 100  # listings around a target that are drawn from as negatives


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Edits with one target each.

    Attributes:
      words: E texts.
      edit: int64 [n], row of `words`.
      reference: int64 [n], row of the split; -1 for words alone.
      target: int64 [n], row of the split.
      negative: int64 [n, k], rows that are wrong, -1 where there are fewer; the reference comes first.
      right: E rows of listings, ascending: all that is right after these words.
      weight: float32 [n], those of an edit sum to 1.
    """

    words: list[str]
    edit: np.ndarray
    reference: np.ndarray
    target: np.ndarray
    negative: np.ndarray
    right: Ragged
    weight: np.ndarray

    __repr__ = brief.line


def pairs(table: Table, count: int, most: int, siblings: int, seed: int) -> Pairs:
    """Returns the pairs of a table "edits".

    Args:
      table: with reference, words and targets, of train listings; edits without a target other than the reference are
        left out.
      count: listings of the split.
      most: targets of an edit, at most; the others stay right.
      siblings: negatives beside the reference: what other words about the same reference ask for, then listings drawn
        at random.
      seed: of the draws.

    Raises:
      InputError: no edit has a target.
    """
    if set(table.rows_of.values()) != {"train"}:
        raise InputError(
            "edits to learn from are about train listings, and the table 'edits' refers to listings of "
            f"{', '.join(sorted(set(table.rows_of.values()) - {'train'}))}: leave those rows out"
        )
    references, targets = np.asarray(table.columns["reference"]), table.columns["targets"]
    each, kept = [], []
    for row, reference in enumerate(references.tolist()):
        found = np.unique(targets.values[targets.indptr[row] : targets.indptr[row + 1]])
        found = found[(found >= 0) & (found != reference)]  # the reference is never what is asked for
        if len(found) and reference >= 0:
            each.append(found)
            kept.append(row)
    kept = np.array(kept, np.int64)
    if not len(kept):
        raise InputError("the table 'edits' has no edit with a reference and a target: there is nothing to learn from")
    rng = np.random.default_rng((seed, 4))
    about: dict[int, list[int]] = {}
    for number, row in enumerate(kept.tolist()):
        about.setdefault(int(references[row]), []).append(number)
    edit, target, negative = [], [], []
    for number, row in enumerate(kept.tolist()):
        reference, right = int(references[row]), each[number]
        others = [each[other] for other in about[reference] if other != number]
        wrong = np.setdiff1d(np.concatenate(others), right) if others else np.zeros(0, np.int64)
        for chosen in rng.permutation(right)[:most].tolist():
            row_negatives = np.full(1 + siblings, -1)
            row_negatives[0] = reference
            found = rng.permutation(wrong)[:siblings]
            if len(found) < siblings:
                drawn = rng.integers(count, size=siblings - len(found))
                drawn = np.where(np.isin(drawn, right) | (drawn == reference), -1, drawn)
                found = np.append(found, drawn)
            row_negatives[1:] = found
            edit.append(number)
            target.append(chosen)
            negative.append(row_negatives)
    edit, target = np.array(edit, np.int64), np.array(target, np.int64)
    weight = (1.0 / np.bincount(edit))[edit].astype(np.float32)
    right = Ragged(np.concatenate([[0], np.cumsum([len(one) for one in each])]), np.concatenate(each).astype(np.int32))
    words = [table.columns["words"][row] for row in kept.tolist()]
    reference = references[kept][edit].astype(np.int64)
    return Pairs(words, edit, reference, target, np.stack(negative).astype(np.int64), right, weight)


def with_neighbours(found: Pairs, vectors: np.ndarray, count: int, seed: int) -> Pairs:
    """Returns pairs with more negatives: listings that look like what is right, and are not.

    Args:
      found: of `pairs`.
      vectors: float32 [n, D], of all listings of the split.
      count: negatives per pair, drawn among the NEAREST listings to its target.
      seed: of the draws.

    Source: hard negatives, Faghri et al., "VSE++", arXiv 1707.05612; drawn rather than the hardest, since that is often
    right too.
    """
    rng, nearest = np.random.default_rng((seed, 6)), min(NEAREST, len(vectors) - 1)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    targets, row_of = np.unique(found.target, return_inverse=True)
    negative = np.full((len(found.target), count), -1)
    order = np.argsort(row_of, kind="stable")
    ends = np.searchsorted(row_of[order], np.arange(len(targets) + 1))
    for start in range(0, len(targets), 1024):
        block = targets[start : start + 1024]
        scores = vectors[block] @ vectors.T
        scores[np.arange(len(block)), block] = -np.inf
        near = np.argpartition(-scores, nearest - 1, axis=1)[:, :nearest]
        near.sort(axis=1)
        for at in range(len(block)):
            for pair in order[ends[start + at] : ends[start + at + 1]].tolist():
                drawn = rng.permutation(near[at][~np.isin(near[at], found.right[found.edit[pair]])])[:count]
                negative[pair, : len(drawn)] = drawn
    return dataclasses.replace(found, negative=np.concatenate([found.negative, negative], axis=1))


def with_titles(found: Pairs, titles: Sequence[str] | None, times: int) -> Pairs:
    """Returns pairs with the listings' titles added as words alone, whose right answers are the listings so titled.

    Args:
      found: the edits.
      titles: of all listings of the split; None for a split without.
      times: how often each is learned.

    Raises:
      InputError: there are no titles.
    """
    said = [] if titles is None else [" ".join(title.split()) for title in titles]
    rows = np.array([row for row, title in enumerate(said) if title], np.int64)
    if not len(rows):
        raise InputError("config.train.task_kwargs.titles is set, and no train listing has a title: set it to 0")
    names, number = np.unique([said[row].casefold() for row in rows.tolist()], return_inverse=True)
    order = np.argsort(number, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=len(names)))])
    right = Ragged(
        np.append(found.right.indptr, found.right.indptr[-1] + indptr[1:]),
        np.append(found.right.values, rows[order]).astype(np.int32),
    )
    words = [said[rows[order[start]]] for start in indptr[:-1].tolist()]
    count = times * len(rows)
    return Pairs(
        [*found.words, *words],
        np.append(found.edit, len(found.words) + np.tile(number, times)),
        np.append(found.reference, np.full(count, -1)),
        np.append(found.target, np.tile(rows, times)),
        np.concatenate([found.negative, np.full((count, found.negative.shape[1]), -1)]),
        right,
        np.append(found.weight, np.ones(count, np.float32)),
    )


def varied(
    words: Sequence[str], edit: np.ndarray, typos: float, fillers: float, turned: float, seed: int, fits: Callable
) -> list[str]:
    """Returns the words of every pair, shares of them in another order, among words that mean nothing, with a typo.

    People word an edit in more ways than any table has. Words made of random letters of the catalogue's own writing
    stand for those that training never shows, so that a network learns to read past them. "red and not blue" is also
    said as "not blue but red": the words after a random place come first, so that a network learns which words belong
    together rather than which value is named first.

    Args:
      words: E texts.
      edit: int [n], rows of `words`.
      typos, fillers, turned: shares, 0 to 1.
      seed: of the choice.
      fits: texts -> bool [n], whether a network reads them to the end; fillers are left out where it would not.
    """
    rng = np.random.default_rng((seed, 5))
    plain = [words[row] for row in edit.tolist()]
    for at in np.flatnonzero(rng.random(len(plain)) < turned).tolist():
        said = plain[at].split()
        cut = int(rng.integers(len(said))) if said else 0
        plain[at] = " ".join(said[cut:] + said[:cut])
    texts = list(plain)
    letters = np.array([letter for letter in "".join(words).casefold() if letter.isalpha()] or ["a"])
    for at in np.flatnonzero(rng.random(len(texts)) < fillers).tolist():
        said = texts[at].split()
        for _ in range(int(rng.integers(1, 6))):
            said.insert(int(rng.integers(len(said) + 1)), "".join(rng.choice(letters, int(rng.integers(1, 7)))))
        texts[at] = " ".join(said)
    texts = [filled if fit else own for filled, own, fit in zip(texts, plain, fits(texts), strict=True)]
    wrong = np.flatnonzero(rng.random(len(texts)) < typos)
    for at, typo in zip(wrong.tolist(), text_lib.with_typos([texts[at] for at in wrong], rng, 1.0), strict=True):
        texts[at] = typo
    return texts
