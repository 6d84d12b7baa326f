"""Generates titles like those of a marketplace from the statistics of real ones: any number, reproducibly.

A title is a random walk over words: the next word is the one that follows a random occurrence of the current word in
the real titles, so words, neighbours and lengths have the same distribution. A share of the words is replaced by unseen
ones (part numbers, names, typos), whose ranks follow a Lomax law (Zipf's with a flat head), so that the number of
distinct words keeps growing with the number of titles. The constants below are set so that 1,300,000 titles have about
as many words seen more than 30 times as eProduct (22,295), and about as many of them per title (9.07).

The real titles come from the reference data (RETRIEVAL_JAX_REFERENCE, or shared/ beside the checkout). Without them the
walk uses 20,000 titles of invented words; `source` says which.
"""

import csv
import gzip
import json
import os
import pathlib
import tarfile
from collections.abc import Iterator

import numpy as np

BLOCK = 10_000  # titles drawn at once
UNSEEN = 0.16  # share of words that are replaced
OFTEN, TAIL = 50, 0.3  # distribution of their ranks: P(rank > r) = (1 + r / OFTEN)^-TAIL
SPLICED = 0.36  # share of titles that are two walks in a row: a marketplace's titles are longer
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "il")]


def reference_root() -> pathlib.Path:
    """Returns the folder of the reference data."""
    default = pathlib.Path(__file__).resolve().parents[2] / "shared"
    return pathlib.Path(os.environ.get("RETRIEVAL_JAX_REFERENCE", default))


def reference_titles() -> list[str]:
    """Returns the titles of the reference data, those of the parity file first; [] without reference data."""
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
      seed: seed of all draws.

    Attributes:
      source: description of where the titles come from.
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
        )  # the empty word, 0, marks the beginning and end of titles
        self.walked = walked.astype(np.int32)
        order = np.argsort(self.walked, kind="stable")
        order = order[order < len(self.walked) - 1]
        self.after = self.walked[order + 1]  # successors of every word's occurrences, grouped by word
        self.first = np.searchsorted(self.walked[order], np.arange(len(self.words) + 1))
        self.words = self.words.tolist()

    def titles(self, count: int) -> Iterator[str]:
        """Yields `count` titles; a smaller count gives a prefix of a larger one."""
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
            if ended.any():  # starts again, if a second walk is due
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
    """Returns a word for an integer: syllables, every third with digits like a part number."""
    letters, number = [], rank // 3
    while number or not letters:
        number, place = divmod(number, len(_SYLLABLES))
        letters.append(_SYLLABLES[place])
    word = "".join(letters) + "x"
    return f"{word.upper()}-{rank % 9973}" if rank % 3 == 0 else word.capitalize() if rank % 3 == 1 else word


def _invented_titles() -> list[str]:
    rng = np.random.default_rng(7)
    return [" ".join(map(_unseen, _ranks(rng, rng.integers(4, 14)))) for _ in range(20_000)]
