"""Titles like those of a marketplace, drawn from the statistics of real ones; any number, always the same.

A title is a walk from word to word: the next word is the one that follows a random occurrence of the present word in
the real titles, so that words, neighbours and lengths are distributed as there. A share of the words is replaced by
ones that nobody has seen (part numbers, names, typos), whose ranks follow a Lomax law (Zipf's with a flat head), so
that the number of distinct words keeps growing with the titles. The three shares below are set so that 1,300,000 titles
have about as many words seen more than 30 times as eProduct has (22,295), and about as many of them a title (9.07).

Real titles: the reference data's (RETRIEVAL_JAX_REFERENCE, or shared/ beside the checkout). Without them the walk goes
over 20,000 titles of invented words; `source` says which.
"""

import csv
import gzip
import json
import os
import pathlib
import tarfile
from collections.abc import Iterator

import numpy as np

BLOCK = 10_000  # titles that are drawn at once
UNSEEN = 0.16  # share of words that are replaced
OFTEN, TAIL = 50, 0.3  # the law of their ranks: P(rank > r) = (1 + r / OFTEN)^-TAIL
SPLICED = 0.36  # share of titles that are two walks, one after the other: a marketplace's titles are longer
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "il")]


def reference_root() -> pathlib.Path:
    """Returns the folder of the reference data."""
    default = pathlib.Path(__file__).resolve().parents[2] / "shared"
    return pathlib.Path(os.environ.get("RETRIEVAL_JAX_REFERENCE", default))


def reference_titles() -> list[str]:
    """Returns the titles of the reference data, those of the parity file first; none where it is not there."""
    root = reference_root()
    if not (root / "data/fashion.tar.gz").exists():
        return []
    with gzip.open(root / "parity/title_tokens.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line)["title"] for line in file]
    with gzip.open(root / "data/icecat_titles.csv.gz", "rt", encoding="utf-8", newline="") as file:
        found += [row["title"] for row in csv.DictReader(file)]
    with tarfile.open(root / "data/fashion.tar.gz") as tar:
        for member in tar:
            if member.name.endswith(("metadata/train.csv", "metadata/val.csv")):
                lines = tar.extractfile(member).read().decode("utf-8").splitlines()
                found += [row["AUCT_TITL"] for row in csv.DictReader(lines)]
    return found


class Generator:
    """Draws titles.

    Args:
      seed: of all draws.

    Attributes:
      source: in words, what the titles are like.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        real = reference_titles()
        self.source = (
            f"walks over {len(real):,} real titles"
            if real
            else "walks over 20,000 titles of invented words (no reference data found)"
        )
        words = [title.split() for title in real or _invented_titles()]
        self.words, walked = np.unique(
            np.array([word for title in words for word in ["", *title]] + [""]), return_inverse=True
        )  # the empty word, 0, is where titles begin and end
        self.walked = walked.astype(np.int32)
        order = np.argsort(self.walked, kind="stable")
        order = order[order < len(self.walked) - 1]
        self.after = self.walked[order + 1]  # what follows every word's occurrences, word by word
        self.first = np.searchsorted(self.walked[order], np.arange(len(self.words) + 1))
        self.words = self.words.tolist()

    def titles(self, count: int) -> Iterator[str]:
        """Yields `count` titles; fewer are the beginning of more."""
        for block in self.blocks(count):
            yield from block

    def blocks(self, count: int) -> Iterator[list[str]]:
        """Yields `count` titles in lists."""
        for start in range(0, count, BLOCK):
            yield self._block(start)[: count - start]

    def _block(self, start: int) -> list[str]:
        rng = np.random.default_rng((self.seed, start))
        at, walks, left = np.zeros(BLOCK, np.int32), [], (rng.random(BLOCK) < SPLICED).astype(int)
        while len(walks) < 60:
            size = self.first[at + 1] - self.first[at]
            at = self.after[self.first[at] + (rng.random(BLOCK) * size).astype(np.int64)]
            ended = at == 0
            if ended.any():  # goes on from the start, if another walk is due
                again = ended & (left > 0)
                left[ended] -= 1
                size = self.first[1]
                at[again] = self.after[(rng.random(int(again.sum())) * size).astype(np.int64)]
                at[left < 0] = 0
            if not at.any():
                break
            walks.append(np.where(left < 0, 0, at))
        walked = np.stack(walks, 1)
        lines = np.array(self.words, dtype=object)[walked]
        unseen = (rng.random(walked.shape) < UNSEEN) & (walked > 0)
        lines[unseen] = [_unseen(rank) for rank in _ranks(rng, int(unseen.sum()))]
        return [" ".join(line).rstrip() for line in lines.tolist()]


def _ranks(rng: np.random.Generator, count: int) -> list[int]:
    return np.minimum(rng.pareto(TAIL, count) * OFTEN, 2.0**40).astype(np.int64).tolist()


def _unseen(rank: int) -> str:
    """Returns a word for a whole number: syllables, every third with digits as a part number has."""
    letters, number = [], rank // 3
    while number or not letters:
        number, place = divmod(number, len(_SYLLABLES))
        letters.append(_SYLLABLES[place])
    word = "".join(letters) + "x"
    return f"{word.upper()}-{rank % 9973}" if rank % 3 == 0 else word.capitalize() if rank % 3 == 1 else word


def _invented_titles() -> list[str]:
    rng = np.random.default_rng(7)
    return [" ".join(map(_unseen, _ranks(rng, rng.integers(4, 14)))) for _ in range(20_000)]
