"""Edits of a listing that shoppers of the embedded catalogue ask for: "the same but in red", "without stripes".

Edits are simulated from the true attributes. Two things are kept for scoring, so that no edit of train or val has them:
a third of the wordings of each kind of edit ("is red in colour"), and a fifth of the pairs of a value and a category
("red" about dresses: wanted, excluded, or named as what it replaces). A quarter of the scored edits has an unseen
wording, another quarter an unseen pair: the value that they want or exclude.
"""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.shop import shoppers, synthetic, wording
from retrieval_jax.errors import InputError

KINDS = ("colour", "pattern", "material", "part", "negation")
FIELDS = ("colour", "pattern", "material", "part")  # what is edited; the last is one of the two of the category
SEEN = ("seen", "unseen")
UNSEEN_WORDINGS = 0.34  # share of the wordings of one kind that are kept for scoring
UNSEEN_PAIRS = 0.2  # share of the pairs of value and category
# Whether wording and pair are unseen, of four scored edits.
_ROUND = ((0, 0), (1, 0), (0, 0), (0, 1))
_TRIES = 1000  # draws for an edit; in the second half its kind may be any
_TABLES = {"colour": tuple(wording.COLOURS), "pattern": tuple(wording.PATTERNS), "material": tuple(wording.MATERIALS)}
_PLAIN, _OMBRE = (_TABLES["pattern"].index(name) for name in ("plain", "ombre"))


@dataclasses.dataclass(frozen=True)
class Edits:
    """Edits; the targets of edit i are rows[indptr[i]:indptr[i + 1]], ascending.

    Attributes:
      references: int64 [n], the listing in view, row of the split.
      words: n strings, what to change.
      kinds: int32 [n], rows of KINDS.
      fields: int32 [n], rows of FIELDS: what is edited.
      wanted: n strings, the true name of the value that the words ask for, "" where they only exclude one.
      unwanted: n strings, the true name of the value that they exclude, "" otherwise.
      wordings: int32 [n], rows of SEEN.
      pairs: int32 [n], rows of SEEN.
      indptr: int64 [n + 1].
      rows: int64, every listing of the products that match, rows of the split.
    """

    references: np.ndarray
    words: list[str]
    kinds: np.ndarray
    fields: np.ndarray
    wanted: list[str]
    unwanted: list[str]
    wordings: np.ndarray
    pairs: np.ndarray
    indptr: np.ndarray
    rows: np.ndarray

    __repr__ = brief.line


def unseen_pair(shop: synthetic.Shop, field: str, value: str, category: int) -> bool:
    """Returns whether edits that name a value about listings of a category are kept for scoring.

    The rule: a number drawn from seed, field, value and category is below UNSEEN_PAIRS.

    Args:
      shop: the catalogue.
      field: of FIELDS.
      value: true name.
      category: row of wording.CATEGORIES.
    """
    return synthetic.uniform(shop.seed, f"unseen {field} {value}", np.array([category]), 1)[0, 0] < UNSEEN_PAIRS


@functools.cache
def wordings(seed: int) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Returns the wordings of every group that train has, and those that are kept for scoring.

    The rule: wordings that differ in the names of their values alone ("has {new}", "has {part}") are one. Group by
    group, those with the smallest of the numbers drawn from seed and wording are kept, until a group has its share.

    Args:
      seed: of the catalogue.

    Returns:
      {key of wording.ASKED: (seen, unseen)}.
    """
    kept: dict[str, bool] = {}
    out = {}
    for group, known in wording.ASKED.items():
        plain = {one: re.sub(r"\{\w+\}", "_", one) for one in known}
        drawn = {
            text: synthetic.uniform(seed, f"unseen wording {text}", np.zeros(1), 1)[0, 0] for text in plain.values()
        }
        missing = round(UNSEEN_WORDINGS * len(known)) - sum(kept.get(text, False) for text in drawn)
        for at, text in enumerate(sorted(drawn.keys() - kept.keys(), key=drawn.__getitem__)):
            kept[text] = at < missing
        out[group] = tuple(tuple(one for one in known if kept[plain[one]] == unseen) for unseen in (False, True))
    return out


def edits(shop: synthetic.Shop, num: int, split: str, scored: bool = False) -> Edits:
    """Simulates edits, as many of each of KINDS.

    A listing is a target if it is of the reference's category, has what the words ask for, and agrees with the
    reference in the others of colour, pattern and material. That it is of the same family is not enough: no picture
    shows it. What a picture shows counts: a gradient has both its colours (so its
    colour is not edited), and with "not in blue" nothing may have blue as the second colour of its pattern either.

    Args:
      shop: the catalogue.
      num: edits.
      split: "train", "val" or "gallery".
      scored: whether they are the queries: all different, half of them with an unseen wording or pair; other edits
        have neither.

    Returns:
      The `Edits`.

    Raises:
      InputError: the split has too few products.
    """
    count = synthetic.num_products(shop, split)
    numbers = np.arange(count if scored else min(count, shoppers.POOL))
    first = synthetic.first_row(split, numbers)
    sizes = np.minimum(synthetic.first_row(split, numbers + 1), shop.size(split)) - first
    truth = synthetic.attributes(shop, split, first)
    of_category = [np.flatnonzero(truth["category"] == leaf) for leaf in range(len(wording.LEAVES))]
    known = wordings(shop.seed)
    found: list[tuple] = []
    taken = set()
    for number in range(num):
        rng = synthetic.generator(shop.seed, split + " edit query", number)
        unseen = _ROUND[number // len(KINDS) % len(_ROUND)] if scored else (0, 0)
        for attempt in range(_TRIES if len(first) else 0):
            kind = number % len(KINDS) if attempt < _TRIES // 2 else int(rng.random() * len(KINDS))
            product = int(rng.random() * len(first))
            drawn = _drawn(truth, of_category, product, KINDS[kind], rng)
            if drawn is None:
                continue
            field, old, new, matches = drawn
            if unseen_pair(shop, field, new or old, int(truth["category"][product])) != unseen[1]:
                continue
            templates = known[field if new else f"no {field}"][unseen[0]]
            template = templates[int(rng.random() * len(templates))]
            replaced = new and "{old" in template  # "blue instead of red" names red as well
            if replaced and not unseen[1] and unseen_pair(shop, field, old, int(truth["category"][product])):
                continue
            words = wording.phrased(template, field, old, new, rng)
            reference = int(first[product] + int(rng.random() * sizes[product]))
            if not scored or (reference, words) not in taken:
                break
        else:
            raise InputError(
                f"split {split!r} of the embedded catalogue has {len(first):,} products, too few for {num:,} "
                + (
                    "different edits: lower num_query, or raise num_gallery"
                    if scored
                    else "edits: give it some hundred listings, or lower num_edits"
                )
            )
        taken.add((reference, words))
        rows = np.concatenate([first[match] + np.arange(sizes[match]) for match in matches])
        unwanted = "" if new else old
        found.append((reference, words, kind, FIELDS.index(field), new, unwanted, *unseen, rows))
    columns = list(zip(*found, strict=True)) if found else [()] * 9
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows in columns[8]])]).astype(np.int64)
    kinds, fields, unseen_wordings, pairs = (np.array(columns[at], np.int32) for at in (2, 3, 6, 7))
    return Edits(
        np.array(columns[0], np.int64),
        list(columns[1]),
        kinds,
        fields,
        list(columns[4]),
        list(columns[5]),
        unseen_wordings,
        pairs,
        indptr,
        np.concatenate([np.zeros(0, np.int64), *columns[8]]),
    )


def _drawn(
    truth: dict[str, np.ndarray], of_category: list[np.ndarray], product: int, kind: str, rng: np.random.Generator
) -> tuple[str, str, str, np.ndarray] | None:
    """Draws an edit of a product: (field, old value, wanted value or "", the products that match, ascending); None
    where there is nothing to edit or nothing matches."""
    negated = kind == "negation"
    field = FIELDS[int(rng.random() * len(FIELDS))] if negated else kind
    part = f"part{1 + int(rng.random() * 2)}" if field == "part" else ""
    key = part or field
    category, old = int(truth["category"][product]), int(truth[key][product])
    pattern = int(truth["pattern"][product])
    if field == "colour" and pattern == _OMBRE:  # which of the two is its colour?
        return None
    if negated and field == "pattern" and old == _PLAIN:  # nobody says "without plain"
        return None
    if part and old != negated:  # only a missing part is wished for, and only a part that is there excluded
        return None
    others = of_category[category]
    others = others[(truth[key][others] != old) & _alike(truth, product, others, field)]
    if negated and field == "colour":
        shown = (truth["second"][others] == old) & (pattern != _PLAIN)
        others = others[~shown]
    if not len(others):
        return None
    if part:
        name = wording.CATEGORIES[category][4 if part == "part1" else 5]
        return field, name if old else "", "" if old else name, others
    if negated:
        return field, _TABLES[field][old], "", others
    new = int(truth[key][others[int(rng.random() * len(others))]])
    return field, _TABLES[field][old], _TABLES[field][new], others[truth[key][others] == new]


def _alike(truth: dict[str, np.ndarray], product: int, others: np.ndarray, edited: str) -> np.ndarray:
    """Returns bool [len(others)]: the same in all of colour, pattern and material but what is edited."""
    same = np.ones(len(others), bool)
    for name in ("pattern", "material"):
        if name != edited:
            same &= truth[name][others] == truth[name][product]
    if edited != "colour":  # a gradient has both its colours
        main, second = truth["colour"][product], truth["second"][product]
        also = second if truth["pattern"][product] == _OMBRE else main
        colour, other = truth["colour"][others], truth["second"][others]
        gradient = truth["pattern"][others] == _OMBRE
        same &= (colour == main) | (colour == also) | gradient & ((other == main) | (other == also))
    return same
