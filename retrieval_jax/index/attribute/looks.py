"""Completes looks: listings of other types that go with what is chosen, of several colours, under conditions."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax import arguments, brief, pairs
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError, short
from retrieval_jax.index.attribute import parse
from retrieval_jax.index.attribute.table import Table, to_rows

_WHERE = "complete"
_BLOCK = 8192  # vectors that are read at once
_FEW = 256  # of the nearest to the start, which the nearest to the whole outfit is mostly among


@dataclasses.dataclass(frozen=True)
class Look:
    """One way to complete an outfit.

    Attributes:
      rows: {slot: gallery row}, without slots that nothing fits.
      ids: {slot: id of that listing}.
      score: 1 less the mean distance of the pairs of the whole outfit, as `scoring.outfits.compatibility`.
    """

    rows: dict[str, int]
    ids: dict[str, str]
    score: float

    __repr__ = brief.line


class Looks:
    """The gallery, by type, for completing outfits.

    Args:
      gallery: `Embeddings` [G, D], each projected by its type ("embed_item" of the task 'outfit'). Directions are
        compared: averages of several views are shorter than 1.
      types: G names of types, "" where unknown: such a listing fits no slot.
      colours: G values that should differ between looks, such as colours, "" where unknown; None where all are alike.
      products: G values, equal for listings of one product, of which one look holds one; None where all differ.
      table: attributes of the gallery, for conditions; None without.

    Raises:
      InputError: columns of another length, or vectors without a direction.
    """

    def __repr__(self) -> str:
        return f"Looks({len(self.types):,} listings, {len(self.kinds)} types)"

    def __init__(
        self,
        gallery: Embeddings,
        types: Sequence[str],
        *,
        colours: Sequence[str] | None = None,
        products: Sequence | None = None,
        table: Table | None = None,
    ):
        self.gallery, self.table, count = gallery, table, len(gallery)
        given = {"types": types, "colours": colours, "products": products, "table": table}
        for name, column in given.items():
            length = count if column is None else column.rows if name == "table" else len(column)
            if length != count:
                raise InputError(f"{_WHERE}: {name} of {length:,} listings for a gallery of {count:,}")
        self._lengths = _lengths(gallery.vectors, "the gallery")
        self.types = np.asarray(types, object).astype(str)
        self.kinds = sorted(set(self.types.tolist()) - {""})
        self._vary([""] * count if colours is None else colours)
        self.products = (
            np.arange(count) if products is None else np.unique(np.asarray(products), return_inverse=True)[1]
        )
        self.place = np.empty(count, np.int64)  # in the order of ids
        self.place[np.argsort(np.array([gallery.ids[row] for row in range(count)], object).astype(str))] = np.arange(
            count
        )
        self._row_of = {gallery.ids[row]: row for row in range(count)}
        self._rows_of = {kind: self._in_order(np.flatnonzero(self.types == kind)) for kind in self.kinds}

    def varied(self, colours: Sequence[str]) -> Looks:
        """Returns the same gallery with other values that should differ between looks; all else is shared.

        Args:
          colours: G values, "" where unknown.

        Raises:
          InputError: another number of values.
        """
        if len(colours) != len(self.types):
            raise InputError(f"{_WHERE}: colours of {len(colours):,} listings for a gallery of {len(self.types):,}")
        made = copy.copy(self)
        made._vary(colours)
        return made

    def _vary(self, colours: Sequence[str]) -> None:
        numbers = {"": 0}  # of what is unknown, which is never counted
        self.colours = colours
        self._colour_of = np.fromiter(
            (numbers.setdefault(one, len(numbers)) for one in colours), np.int32, len(colours)
        )

    def unit(self) -> np.ndarray:
        """Returns the vectors of the gallery at length 1, float32 [G, D]."""
        return (np.asarray(self.gallery.vectors, np.float32) / self._lengths[:, None]).astype(np.float32)

    def complete(
        self,
        listings: Sequence[str] = (),
        slots: Sequence[str] = (),
        k: int = 4,
        *,
        photos: np.ndarray | Embeddings | None = None,
        conditions: Mapping | str | None = None,
        conditions_of: Mapping[str, Mapping | str] | None = None,
        most_of_a_colour: float = 0.5,
    ) -> list[Look]:
        """Completes a look with one listing for each slot.

        The first look takes, slot after slot, the listing with the smallest sum of distances to all that is chosen so
        far; each further look does so with products that no look before it has as that type.

        Args:
          listings: ids of the gallery that the outfit has.
          slots: types to fill in, in this order; a type may come twice.
          k: looks.
          photos: [m, D] vectors of what is not in the gallery, such as a person's own photo: an array, or `Embeddings`,
            whose space is compared with the gallery's.
          conditions: of every slot, see `index.attribute.parse`; required and excluded ones.
          conditions_of: {slot: further conditions}.
          most_of_a_colour: largest share of the k listings of a slot that may have one colour, 0 to 1, as long as
            listings of another fit; at least one may. Listings whose colour is unknown do not count.

        Returns:
          The looks, the best first by `score`; fewer than k where too few listings fit, and without a slot that
          nothing fits.

        Raises:
          InputError: an unknown listing or type, a listing without a type that the network has learned, conditions
            without attributes or preferred ones, photos of another space or without a direction, or nothing to start
            from.
        """
        k = arguments.integer(k, "k", _WHERE)
        share = arguments.number(most_of_a_colour, "most_of_a_colour", _WHERE, low=0, high=1)
        start, taken = self._start(listings, photos)
        slots = [
            str(arguments.choice(slot, "slots", _WHERE, self.kinds))
            for slot in arguments.sequence(slots, "slots", _WHERE)
        ]
        if not slots:
            raise InputError(f"{_WHERE}: there is no slot to fill: give types such as {', '.join(self.kinds[:3])}")
        of_slot = arguments.mapping(conditions_of, "conditions_of", _WHERE)
        if unknown := [name for name in of_slot if name not in slots]:
            raise InputError(f"{_WHERE}: conditions_of has {short(unknown[0])!r}{pairs.near(unknown[0], slots)}")
        names = slot_names(slots)
        allowed = {slot: self._allowed(slot, [conditions, of_slot.get(slot)]) for slot in dict.fromkeys(slots)}
        most = max(1, math.floor(share * k))
        # By type: where what is alike is a photo, its shoes may follow its bag.
        used = {slot: np.zeros(self.products.max(initial=-1) + 1, bool) for slot in allowed}
        counts = np.zeros((len(slots), self._colour_of.max(initial=0) + 1), np.int64)
        to_start = {slot: self._sums(rows, start) for slot, rows in allowed.items()}
        nearest = {slot: np.argsort(sums, kind="stable") for slot, sums in to_start.items()}
        looks = []
        for _ in range(k):
            chosen, vectors, products = {}, start, self.products[taken].tolist()
            for number, slot in enumerate(slots):
                rows = allowed[slot][nearest[slot]]
                free = ~used[slot][self.products[rows]] & ~np.isin(self.products[rows], products)
                if not free.any():
                    continue
                few = free & (counts[number, self._colour_of[rows]] < most)
                free = np.flatnonzero(few if few.any() else free)
                row = self._first(rows[free], to_start[slot][nearest[slot][free]], vectors[len(start) :])
                chosen[names[number]] = row
                used[slot][self.products[row]] = True
                products.append(int(self.products[row]))
                counts[number, self._colour_of[row]] += self._colour_of[row] > 0
                vectors = np.concatenate([vectors, self._vectors([row])])
            if not chosen:
                break
            apart = _distances(vectors, vectors)[np.triu_indices(len(vectors), 1)]
            ids = {slot: self.gallery.ids[row] for slot, row in chosen.items()}
            looks.append(Look(chosen, ids, float(1 - apart.mean())))
        order = sorted(
            range(len(looks)), key=lambda number: (len(slots) - len(looks[number].rows), -looks[number].score)
        )
        return [looks[number] for number in order]

    def _start(self, listings, photos) -> tuple[np.ndarray, list[int]]:
        """Returns the vectors [m, D] of what the outfit has, and the gallery rows among it."""
        rows, dim = [], self.gallery.dim
        for item in arguments.sequence(listings, "listings", _WHERE):
            if not isinstance(item, str) or item not in self._row_of:
                raise InputError(f"{_WHERE}: the gallery has no listing {short(repr(item))}: give ids of its listings")
            if not self.types[self._row_of[item]]:
                raise InputError(
                    f"{_WHERE}: the listing {short(repr(item))} has no type, or one that no outfit of the train split "
                    f"has: start from another; the network knows {', '.join(self.kinds)}"
                )
            if self._row_of[item] not in rows:
                rows.append(self._row_of[item])
        parts = [self._vectors(rows)] if rows else []
        if isinstance(photos, Embeddings):
            spaces = photos.meta.get("space"), self.gallery.meta.get("space")
            if spaces[1] is not None and spaces[0] != spaces[1]:
                raise InputError(
                    f"{_WHERE}: photos are of the space {spaces[0]!r}, and the gallery of {spaces[1]!r}: embed "
                    "both with one network"
                )
            photos = np.asarray(photos.vectors)
        if photos is not None:
            photos = arguments.array(photos, "photos", _WHERE, ("m", dim)).astype(np.float64)
            parts.append(photos / _lengths(photos, "photos")[:, None])
        if not sum(map(len, parts)):
            raise InputError(
                f"{_WHERE}: there is nothing to start from: give listings of the gallery, or photos [m, {dim}]"
            )
        return np.concatenate(parts), rows

    def _vectors(self, rows) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        return np.asarray(self.gallery.vectors[rows], np.float64) / self._lengths[rows][:, None]

    def _sums(self, rows: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Returns the sums of distances of gallery rows [n] to vectors [m, D], [n]."""
        out = np.empty(len(rows))
        for start in range(0, len(rows), _BLOCK):
            out[start : start + _BLOCK] = _distances(self._vectors(rows[start : start + _BLOCK]), to).sum(1)
        return out

    def _first(self, rows: np.ndarray, sums: np.ndarray, added: np.ndarray) -> int:
        """Returns the row of the smallest sum, of equal ones the first by id.

        Args:
          rows: int [n], at least one.
          sums: [n] of distances to what the outfit had, ascending.
          added: [m, D], what it has beside.
        """
        best, row = np.inf, -1
        for start in range(0, len(rows), _FEW):
            if sums[start] > best:  # distances only add to it
                break
            some = rows[start : start + _FEW]
            totals = sums[start : start + _FEW] + self._sums(some, added)
            least = totals.min()
            if least <= best:
                alike = some[totals == least].tolist() + ([row] if least == best else [])
                best, row = least, min(alike, key=self.place.__getitem__)
        return row

    def _allowed(self, slot: str, conditions: Sequence) -> np.ndarray:
        """Returns the rows that fit a slot, in the order of ids."""
        rows = self._rows_of[slot]
        for number, one in enumerate(conditions):
            given = parse(one, f"conditions of the slot {slot}" if number else "conditions")
            if not given:
                continue
            if given.preferred:
                raise InputError(f"{_WHERE}: conditions of looks are required or excluded: give no preferred ones")
            if self.table is None:
                raise InputError(f"{_WHERE}: conditions need the attributes of the gallery: make Looks with a table")
            self.table.check(given)
            rows = self._in_order(np.intersect1d(rows, to_rows(self.table.matching(given))))
        return rows

    def _in_order(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows in the order of their ids."""
        return rows[np.argsort(self.place[rows])]


def slot_names(slots: Sequence[str]) -> list[str]:
    """Returns the names of slots in a look: "shoes", or "shoes 1" and "shoes 2" for a type that comes twice."""
    names = []
    for slot in slots:
        number = 1
        name = slot if list(slots).count(slot) == 1 else f"{slot} 1"
        while name in names or (name != slot and name in slots):  # some type may be called "shoes 1"
            number += 1
            name = f"{slot} {number}"
        names.append(name)
    return names


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the distances of vectors [n, D] to vectors [m, D], [n, m]; those of equal vectors are bitwise equal."""
    squares = [np.einsum("nd,nd->n", one, one) for one in (first, second)]
    products = np.einsum("nd,md->nm", first, second)  # a matrix product would sum in the order of its blocks
    return np.sqrt(np.maximum(squares[0][:, None] + squares[1] - 2.0 * products, 0.0))


def _lengths(vectors: np.ndarray, what: str) -> np.ndarray:
    """Returns the lengths of vectors [n, D], float64 [n]; raises InputError for a vector without a direction."""
    found = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK], np.float64)
        found[start : start + _BLOCK] = np.sqrt(np.einsum("nd,nd->n", block, block))
    if (wrong := np.flatnonzero(~((found > 1e-12) & np.isfinite(found)))).size:
        raise InputError(
            f"{_WHERE}: vector {wrong[0]} of {what} has the length {found[wrong[0]]:.3f} and no direction: give "
            "vectors of 'embed_item' of the task 'outfit'"
        )
    return found
