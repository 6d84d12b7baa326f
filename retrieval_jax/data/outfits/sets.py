"""Outfits of the table "outfits" by type: which are learned from, what is asked about them, and what is exchanged."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data import fields
from retrieval_jax.data.catalog import Catalog, Split, Table
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError

_log = logging.getLogger(__name__)
OPTIONS = {"types": fields.CATEGORY, "same_product": ""}  # of the task 'outfit', as far as they describe listings
_DRAWN = 50  # tries for a negative of another product, before every listing of the type is looked at


@dataclasses.dataclass(frozen=True)
class Outfits:
    """Sets of listings of one split.

    Attributes:
      rows: int64 [n, k], rows of the split, -1 past the end.
      types: int32 [n, k], rows of the learned types, -1 past the end.
      compatible: int32 [n]: 1, 0, or -1 where unknown.
      left_out: outfits with fewer than two items of a learned type.
    """

    rows: np.ndarray
    types: np.ndarray
    compatible: np.ndarray
    left_out: int = 0

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> Outfits:
        """Returns some outfits, by number or mask."""
        return dataclasses.replace(
            self, rows=self.rows[chosen], types=self.types[chosen], compatible=self.compatible[chosen]
        )

    def rated(self) -> Outfits:
        """Returns the outfits with a 1 or a 0, or all where none has one (all were worn)."""
        return self if (self.compatible < 0).all() else self.take(self.compatible >= 0)

    def good(self) -> Outfits:
        """Returns the outfits that go together: those with a 1, or all where none has a 1 or a 0 (all were worn)."""
        return self if (self.compatible < 0).all() else self.take(self.compatible == 1)


@dataclasses.dataclass(frozen=True)
class Questions:
    """Blanks to fill in: which answer completes the outfit?

    Attributes:
      rows: int64 [n, k], the items that are left; -1 at the blank and past the end.
      types: int32 [n, k], theirs.
      answers: int64 [n, c], rows of the split, all of one type.
      right: int64 [n], the place of the right answer.
    """

    rows: np.ndarray
    types: np.ndarray
    answers: np.ndarray
    right: np.ndarray

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> Questions:
        """Returns some questions, by number or mask."""
        return Questions(self.rows[chosen], self.types[chosen], self.answers[chosen], self.right[chosen])


def described(split: Split, task_kwargs: Mapping, info: DataInfo) -> tuple[np.ndarray, np.ndarray]:
    """Returns the type and the product of every listing, see `types_of` and `products_of`.

    Args:
      split: of a `Catalog`.
      task_kwargs: of the task 'outfit'; `types` and `same_product` are read.
      info: of the types that are learned.

    Raises:
      InputError: see `types_of` and `products_of`.
    """
    types, product = ((task_kwargs or {}).get(name, default) for name, default in OPTIONS.items())
    return types_of(split, types, info), products_of(split, product)


def types_of(split: Split, name: str, info: DataInfo) -> np.ndarray:
    """Returns the learned type of every listing, int32 [n], -1 where it is unknown.

    Args:
      split: of a `Catalog`.
      name: of the field of types.
      info: of the types that are learned (`fields.learned`).

    Raises:
      InputError: no such field, or one of several values per listing.
    """
    field = fields.read(split, name)
    if field.many:
        raise InputError(
            f"config.train.task_kwargs.types: {name!r} has several values per listing, and an item has one type: name "
            "a column of the kind 'category', or a category level"
        )
    ids, known = fields.encode({name: field}, info)
    found = np.full(len(split), -1, np.int32)
    found[known[:, 0]] = ids.values
    return found


def products_of(split: Split, name: str, beside: Split | None = None) -> np.ndarray:
    """Returns numbers that are equal for listings of one product, int32 [n].

    Args:
      split: of a `Catalog`.
      name: a column of text whose equal values are one product; "" where every listing is its own. An empty value is
        its own.
      beside: another split, whose products keep the numbers that they have there; other products, and listings that are
        their own, have negative ones, from -2 down.

    Raises:
      InputError: there is no such column of text.
    """
    if not name:
        numbers = np.arange(len(split), dtype=np.int32)
        return numbers if beside is None else -2 - numbers
    values = np.array(list(split.texts(name)), object).astype(str)
    numbers = np.unique(values, return_inverse=True)[1].astype(np.int32)
    unknown = values == ""
    numbers[unknown] = numbers.max(initial=0) + 1 + np.arange(int(unknown.sum()), dtype=np.int32)
    if beside is None:
        return numbers
    of = dict(zip(beside.texts(name), products_of(beside, name).tolist(), strict=True))
    own = zip(values.tolist(), (-2 - numbers).tolist(), strict=True)
    return np.array([of.get(text, number) if text else number for text, number in own], np.int32)


def of_table(table: Table, types: np.ndarray) -> Outfits:
    """Returns the outfits of a table; items without a learned type are dropped, and outfits with fewer than two left.

    Args:
      table: "outfits" of a `Catalog`.
      types: int [n], of the listings of the split, see `types_of`.
    """
    rows = np.asarray(table.columns["listings"], np.int64)
    kinds = np.where(rows >= 0, np.append(types, -1)[rows], -1).astype(np.int32)
    order = np.argsort(kinds < 0, axis=1, kind="stable")  # what is left, first
    kinds = np.take_along_axis(kinds, order, 1)
    rows = np.where(kinds >= 0, np.take_along_axis(rows, order, 1), -1)
    usable = ((rows >= 0) & (rows != rows[:, :1])).any(1)  # two different ones
    left_out, dropped = int((~usable).sum()), int((np.asarray(table.columns["listings"])[usable] >= 0).sum())
    dropped -= int((rows[usable] >= 0).sum())
    if left_out or dropped:
        _log.warning(
            "outfits of %s: %s of %s have fewer than two items of a learned type and are left out; of the others, %s "
            "items of further types are",
            table.rows_of["listings"], f"{left_out:,}", f"{len(rows):,}", f"{dropped:,}",
        )  # fmt: skip
    width = max(2, int((kinds >= 0).sum(1).max(initial=0)))
    return Outfits(rows[usable, :width], kinds[usable, :width], _compatible(table)[usable], left_out)


def _compatible(table: Table) -> np.ndarray:
    """Returns what a table says of its outfits, int32 [n]: 1, 0, or -1 where it does not say."""
    return np.asarray(table.columns.get("compatible", np.full(len(table.columns["listings"]), -1)), np.int32)


def worn(table: Table) -> np.ndarray:
    """Returns the listings of outfits that go together, int64 [n] rows of the split, ascending.

    Args:
      table: "outfits" of a `Catalog`.
    """
    rows = np.asarray(table.columns["listings"], np.int64)
    found = Outfits(rows, np.full_like(rows, -1), _compatible(table)).good().rows
    return np.unique(found[found >= 0])


def labelled(outfits: Outfits, ids: Sequence[str], share: float) -> Outfits:
    """Returns a share of the outfits, chosen by a hash of their listings: a smaller share is part of a larger one.

    Args:
      outfits: of one split.
      ids: of its listings.
      share: above 0, at most 1; at least one outfit is left.
    """
    if share >= 1 or not len(outfits):
        return outfits
    names = ["\n".join(ids[int(row)] for row in rows[rows >= 0]) for rows in outfits.rows]
    hashes = np.array([int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) for name in names])
    order = np.argsort(hashes, kind="stable")[: max(1, round(share * len(outfits)))]
    return outfits.take(np.sort(order))


def questions(outfits: Outfits, products: np.ndarray, *, choices: int = 4, seed: int = 0) -> Questions:
    """Takes an item out of every outfit and asks which of several listings of its type it is.

    Args:
      outfits: that go together; those whose blank has too few other listings are left out.
      products: int [n], of the listings of the split, see `products_of`.
      choices: answers of a question, the right one among them.
      seed: of the draws.

    Returns:
      The `Questions`; wrong answers are items of other outfits, of the blank's type, and no product of this outfit.

    Raises:
      InputError: no question can be asked.

    Source: fill in the blank, Han et al., "Learning Fashion Compatibility with Bidirectional LSTMs", ACM MM 2017; wrong
    answers of the same type: Vasileva et al., ECCV 2018.
    """
    rng, pools = np.random.default_rng(seed), _pools(outfits)
    kept, blanks, answers, right = [], [], [], []
    for number, (rows, types) in enumerate(zip(outfits.rows, outfits.types, strict=True)):
        place = int(rng.integers((rows >= 0).sum()))
        wrong = _others(rng, pools[int(types[place])], products[rows[rows >= 0]], products, choices - 1)
        if len(wrong) < choices - 1:
            continue
        at = int(rng.integers(choices))
        kept.append(number)
        blanks.append(place)
        right.append(at)
        answers.append(wrong[:at] + [int(rows[place])] + wrong[at:])
    if not kept:
        raise InputError(f"none of {len(outfits):,} outfits has {choices - 1} other listings of a type for a question")
    rows = outfits.rows[kept]
    taken = rows == rows[np.arange(len(kept)), blanks][:, None]  # also where the outfit has it twice
    if missing := len(outfits) - len(kept):
        _log.warning(
            "%s of %s outfits have no blank to fill in: too few other listings of its type", f"{missing:,}",
            f"{len(outfits):,}",
        )  # fmt: skip
    rows, types = np.where(taken, -1, rows), np.where(taken, -1, outfits.types[kept])
    return Questions(rows, types, np.array(answers, np.int64), np.array(right, np.int64))


def blanks(
    catalog: Catalog, split: str, outfits: Outfits, types: np.ndarray, products: np.ndarray, *, seed: int = 0
) -> Questions:
    """Returns the questions about a split: the published ones where the catalogue has them, else `questions`.

    Args:
      catalog: may have tables "blanks" (`data.outfits.polyvore`).
      split: name of the split.
      outfits: of it, that go together.
      types, products: int [n], of its listings, see `types_of` and `products_of`.
      seed: of the draws.

    Raises:
      InputError: no question can be asked.
    """
    if f"blanks/{split}" not in catalog.tables:
        return questions(outfits, products, seed=seed)
    columns = catalog.table("blanks", split).columns
    rows = np.asarray(columns["listings"], np.int64)
    kinds = np.where(rows >= 0, np.append(types, -1)[rows], -1).astype(np.int32)
    return Questions(rows, kinds, np.asarray(columns["answers"], np.int64), np.asarray(columns["right"], np.int64))


def exchanged(outfits: Outfits, products: np.ndarray, *, seed: int = 0) -> Outfits:
    """Makes an outfit that does not go together of each: every item is exchanged for one of its type elsewhere.

    Args:
      outfits: that go together.
      products: int [n], of the listings of the split, see `products_of`.
      seed: of the draws.

    Returns:
      As many outfits, compatible 0; none of their items is a product of the outfit that they were made of. An item
      whose type no other outfit has is dropped; what has fewer than two items left has none.

    Source: the compatibility questions of Vasileva et al., ECCV 2018, whose items keep their types.
    """
    rng, pools = np.random.default_rng((seed, 1)), _pools(outfits)
    rows, types = np.full_like(outfits.rows, -1), np.full_like(outfits.types, -1)
    for number, (own, kinds) in enumerate(zip(outfits.rows, outfits.types, strict=True)):
        taken = list(products[own[own >= 0]])
        found = []
        for kind in kinds[own >= 0]:
            other = _others(rng, pools[int(kind)], taken, products, 1)
            if other:
                taken.append(products[other[0]])
                found.append((other[0], kind))
        if len(found) >= 2:
            rows[number, : len(found)], types[number, : len(found)] = zip(*found, strict=True)
    return Outfits(rows, types, np.zeros(len(rows), np.int32))


def asked(outfits: Outfits, products: np.ndarray, *, seed: int = 0) -> Outfits:
    """Returns outfits that go together, and outfits that do not.

    Args:
      outfits: of a table; where it says nothing of what does not go together, `exchanged` makes it.
      products: int [n], see `products_of`.
      seed: of the draws.
    """
    if (outfits.compatible == 0).any():
        return outfits.take(outfits.compatible >= 0)
    good = outfits.good()
    bad = exchanged(good, products, seed=seed)
    bad = bad.take((bad.rows >= 0).sum(1) >= 2)
    good = dataclasses.replace(good, compatible=np.ones(len(good), np.int32))
    return Outfits(*(
        np.concatenate([getattr(one, name) for one in (good, bad)]) for name in ("rows", "types", "compatible")
    ))  # fmt: skip


def _pools(outfits: Outfits) -> dict[int, np.ndarray]:
    """Returns the rows of all items, by type."""
    rows, types = outfits.rows[outfits.rows >= 0], outfits.types[outfits.rows >= 0]
    return {int(kind): np.unique(rows[types == kind]) for kind in np.unique(types)}


def _others(rng, pool: np.ndarray, taken, products: np.ndarray, count: int) -> list[int]:
    """Draws rows of a pool that are of different products, none of which is taken."""
    taken, found = set(np.asarray(taken).tolist()), []
    for tried in range(_DRAWN + len(pool)):
        if len(found) == count:
            break
        if tried == _DRAWN:  # most listings of the type are of one product
            pool = pool[rng.permutation(len(pool))]
        row = int(pool[rng.integers(len(pool)) if tried < _DRAWN else tried - _DRAWN])
        if int(products[row]) not in taken:
            taken.add(int(products[row]))
            found.append(row)
    return found
