"""Completes looks: listings of other types that go with what is chosen, of several colours, under conditions."""

from __future__ import annotations

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
_BLOCK = 65536  # vectors that are read at once
_LENGTH = 0.01  # largest difference of a length from 1: views and float16 change it a little


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
      gallery: `Embeddings` [G, D] of unit length, each projected by its type ("embed_item" of the task 'outfit').
      types: G names of types, "" where unknown: such a listing fits no slot.
      colours: G values that should differ between looks, such as colours, "" where unknown; None where all are alike.
      products: G values, equal for listings of one product, of which one look holds one; None where all differ.
      table: attributes of the gallery, for conditions; None without.

    Raises:
      InputError: columns of another length, or vectors that are not of unit length.
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
        _check_lengths(gallery.vectors, "the gallery")
        self.types = np.asarray(types, object).astype(str)
        self.kinds = sorted(set(self.types.tolist()) - {""})
        self.colours = np.asarray([""] * count if colours is None else colours, object).astype(str)
        names, self._colour_of = np.unique(self.colours, return_inverse=True)
        self._colour_of[self.colours == ""] = len(names)  # which is never counted
        self.products = (
            np.arange(count) if products is None else np.unique(np.asarray(products), return_inverse=True)[1]
        )
        self.place = np.empty(count, np.int64)  # in the order of ids
        self.place[np.argsort(np.array([gallery.ids[row] for row in range(count)], object).astype(str))] = np.arange(
            count
        )
        self._row_of = {gallery.ids[row]: row for row in range(count)}
        self._rows_of = {kind: self._in_order(np.flatnonzero(self.types == kind)) for kind in self.kinds}

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
          photos: [m, D] vectors of unit length of what is not in the gallery, such as a person's own photo: an array,
            or `Embeddings`, whose space is compared with the gallery's.
          conditions: of every slot, see `index.attribute.parse`; required and excluded ones.
          conditions_of: {slot: further conditions}.
          most_of_a_colour: largest share of the k listings of a slot that may have one colour, 0 to 1; at least one
            may. Listings whose colour is unknown do not count.

        Returns:
          The looks, the best first by `score`; fewer than k where too few listings fit, and without a slot that
          nothing fits.

        Raises:
          InputError: an unknown listing or type, conditions without attributes or preferred ones, photos of another
            space or whose length is not 1, or nothing to start from.
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
        to_start = {slot: _distances(self._vectors(rows), start).sum(1) for slot, rows in allowed.items()}
        looks = []
        for _ in range(k):
            chosen, vectors, products = {}, start, self.products[taken].tolist()
            for number, slot in enumerate(slots):
                rows = allowed[slot]
                free = ~used[slot][self.products[rows]] & (counts[number, self._colour_of[rows]] < most)
                free &= ~np.isin(self.products[rows], products)
                if not free.any():
                    continue
                sums = to_start[slot][free] + _distances(self._vectors(rows[free]), vectors[len(start) :]).sum(1)
                row = int(rows[free][sums.argmin()])  # rows are in the order of ids: the first of equal sums
                chosen[names[number]] = row
                used[slot][self.products[row]] = True
                products.append(int(self.products[row]))
                counts[number, self._colour_of[row]] += bool(self.colours[row])
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
        for item in dict.fromkeys(arguments.sequence(listings, "listings", _WHERE)):
            if item not in self._row_of:
                raise InputError(f"{_WHERE}: the gallery has no listing {short(repr(item))}: give ids of its listings")
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
            parts.append(arguments.array(photos, "photos", _WHERE, ("m", dim)).astype(np.float64))
            _check_lengths(parts[-1], "photos")
        if not sum(map(len, parts)):
            raise InputError(
                f"{_WHERE}: there is nothing to start from: give listings of the gallery, or photos [m, {dim}]"
            )
        return np.concatenate(parts), rows

    def _vectors(self, rows) -> np.ndarray:
        return np.asarray(self.gallery.vectors[np.asarray(rows, np.int64)], np.float64)

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
    slots = list(slots)
    return [
        slot if slots.count(slot) == 1 else f"{slot} {slots[: number + 1].count(slot)}"
        for number, slot in enumerate(slots)
    ]


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the distances of vectors [n, D] to vectors [m, D], [n, m]; those of equal vectors are bitwise equal."""
    squares = [np.einsum("nd,nd->n", one, one) for one in (first, second)]
    products = np.einsum("nd,md->nm", first, second)  # a matrix product would sum in the order of its blocks
    return np.sqrt(np.maximum(squares[0][:, None] + squares[1] - 2.0 * products, 0.0))


def _check_lengths(vectors: np.ndarray, what: str) -> None:
    """Raises InputError for vectors [n, D] that are not of unit length."""
    for start in range(0, len(vectors), _BLOCK):
        block = np.asarray(vectors[start : start + _BLOCK], np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        if (wrong := np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH))).size:
            raise InputError(
                f"{_WHERE}: vector {start + wrong[0]} of {what} has the length {lengths[wrong[0]]:.3f}, expected 1: "
                "give vectors of 'embed_item' of the task 'outfit'"
            )
