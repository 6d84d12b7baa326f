"""Edits of a listing that shoppers of the embedded catalogue ask for: "the same but in red", "without stripes".

They are simulated from the true attributes, deterministic by seed and number.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.shop import shoppers, synthetic, wording
from retrieval_jax.errors import InputError

# Which attribute is edited, and how often; a part is one of the two of its category, such as the belt of a dress.
SHARES = {"colour": 0.4, "pattern": 0.3, "material": 0.1, "part1": 0.1, "part2": 0.1}
NEGATED = 0.25  # share of edits that only exclude a value: "not in blue", "without stripes"
_TRIES = 500  # draws of a reference before the split counts as too small


@dataclasses.dataclass(frozen=True)
class Edits:
    """Edits; the targets of edit i are rows[indptr[i]:indptr[i + 1]], ascending.

    Attributes:
      references: int64 [n], the listing in view, row of the split.
      words: n strings, what to change.
      attributes: n strings, what is edited: a key of SHARES.
      indptr: int64 [n + 1].
      rows: int64, every listing of the products that match, rows of the split.
    """

    references: np.ndarray
    words: list[str]
    attributes: list[str]
    indptr: np.ndarray
    rows: np.ndarray

    __repr__ = brief.line


def edits(shop: synthetic.Shop, num: int, split: str = "train") -> Edits:
    """Simulates edits: a reference listing, words, and the listings that match.

    A product matches if it is of the reference's category, has what the words ask for, and agrees with the reference in
    the others of colour, pattern and material. A product of the reference's own family need not agree in the others.

    Args:
      shop: the catalogue.
      num: edits.
      split: "train", "val" or "gallery".

    Returns:
      The `Edits`.

    Raises:
      InputError: the split has too few products for a match.
    """
    first, truth = shoppers.pool(shop, split)
    numbers, category = np.arange(len(first)), truth["category"]
    of_category = [np.flatnonzero(category == leaf) for leaf in range(len(wording.LEAVES))]
    sizes = np.minimum(synthetic.first_row(split, numbers + 1), shop.size(split)) - first
    names, ends = list(SHARES), np.cumsum(list(SHARES.values()))
    found: dict[str, list] = {"references": [], "words": [], "attributes": [], "rows": []}
    for number in range(num):
        rng = synthetic.generator(shop.seed, split + " edit", number)
        for _ in range(_TRIES if len(first) else 0):
            reference = int(rng.random() * len(first))
            name = names[int(np.searchsorted(ends, rng.random(), side="right"))]
            others = of_category[category[reference]]
            old = truth[name][reference]
            others = others[(truth[name][others] != old) & _alike(truth, reference, others, name)]
            if len(others):
                break
        else:
            raise InputError(
                f"split {split!r} of the embedded catalogue has {len(first)} products, too few for edits: give it "
                "some hundred listings"
            )
        new = truth[name][others[int(rng.random() * len(others))]]
        negated = rng.random() < NEGATED and not name.startswith("part")  # a part is there or not
        if not negated:
            others = others[truth[name][others] == new]
        found["references"].append(first[reference] + int(rng.random() * sizes[reference]))
        found["words"].append(wording.edit_text(name, category[reference], old, None if negated else new, rng))
        found["attributes"].append(name)
        found["rows"].append(np.concatenate([first[other] + np.arange(sizes[other]) for other in others]))
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in found["rows"]])]).astype(np.int64)
    rows = np.concatenate([np.zeros(0, np.int64), *found["rows"]])
    return Edits(np.array(found["references"], np.int64), found["words"], found["attributes"], indptr, rows)


def _alike(truth: dict[str, np.ndarray], reference: int, others: np.ndarray, edited: str) -> np.ndarray:
    """Returns bool [len(others)]: of the reference's family, or the same in all but what is edited."""
    same = np.ones(len(others), bool)
    for name in ("colour", "pattern", "material"):
        if name != edited:
            same &= truth[name][others] == truth[name][reference]
    return same | (others // synthetic.FAMILY == reference // synthetic.FAMILY)
