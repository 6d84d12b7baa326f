"""Attributes of listings in memory: which rows have a value, which values a row has, which rows meet conditions.

Three structures, each of which answers another question:

    postings   per value the rows that have it, as a Roaring bitmap: conditions
    segments   per row the values that it has: facets of few matches, explanations
    columns    per number a float32 array, which a range scans: a million rows take about a millisecond

Rows are only appended and marked as dead, never renumbered, so rows that others hold stay valid.

Source: Chambi et al., "Better bitmap performance with Roaring bitmaps", arXiv 1402.6407, by pyroaring.
"""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from pyroaring import BitMap

from retrieval_jax import brief, pairs
from retrieval_jax.errors import InputError, short
from retrieval_jax.index.attribute.conditions import Clause, Conditions
from retrieval_jax.index.attribute.fields import WHERE
from retrieval_jax.workdir.provenance import cores

BLOCK = 1 << 16  # rows encoded at once
THREADS_FROM = 2048  # rows whose values are counted by several threads


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Listings as the table keeps them.

    Attributes:
      indptr: [n + 1] int64.
      values: [entries] uint16 or uint32, numbers of values; field by field within a row, without repeats.
      probability: [entries] float16, 1 for known values; None if all are known.
      numbers: [n, numbers] float32, NaN where unknown.
    """

    indptr: np.ndarray
    values: np.ndarray
    probability: np.ndarray | None
    numbers: np.ndarray

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.indptr) - 1


class Growing:
    """A float32 array [n, m] that rows are appended to; takes up to twice its size."""

    def __init__(self, width: int):
        self._data, self._rows = np.empty((0, width), np.float32), 0

    def append(self, rows: np.ndarray) -> None:
        """Appends rows [n, m]."""
        need = self._rows + len(rows)
        if need > len(self._data):
            data = np.empty((max(need, min(2 * len(self._data), need + (1 << 20))), rows.shape[1]), np.float32)
            data[: self._rows] = self.array
            self._data = data
        self._data[self._rows : need] = rows
        self._rows = need

    @property
    def array(self) -> np.ndarray:
        """The rows so far, [n, m]."""
        return self._data[: self._rows]


class Table:
    """Attributes of listings; row r is the r-th listing ever added.

    Args:
      kinds: {name of a field: whether it holds numbers}, in the fields' order.

    Attributes:
      fields: names of the fields with values.
      numbers: names of the fields with numbers.
      names: names of the values, by number.
      field_of: the field of each value, a row of `fields`.
      parent: the value that each is a kind of, -1 for a root.
      alive: rows that were not deleted.
      sizes: [values] int64, rows that have each value, dead ones included.
      present: per field the rows that have any value there.
    """

    def __init__(self, kinds: Mapping[str, bool]):
        self.kinds = dict(kinds)
        self.fields = [name for name, is_number in kinds.items() if not is_number]
        self.numbers = [name for name, is_number in kinds.items() if is_number]
        self.names: list[str] = []
        self.field_of, self.parent = np.zeros((2, 0), np.int64)
        self.number_of: list[dict[str, int]] = [{} for _ in self.fields]
        self.sizes = np.zeros(0, np.int64)
        self.rows, self.alive = 0, BitMap()
        self.present = [BitMap() for _ in self.fields]
        self.segments: list[tuple[int, Block]] = []
        self.columns = [Growing(1) for _ in self.numbers]
        self._postings: list[BitMap | None] = []
        self._stored: tuple[np.ndarray, np.ndarray] | None = None  # bytes and offsets of postings not read yet

    def __repr__(self) -> str:
        return f"Table({len(self.alive):,} listings, {len(self.names):,} values, {len(self.numbers)} numbers)"

    def __len__(self) -> int:
        return len(self.alive)

    def values(self) -> dict[str, list[str]]:
        """Returns the names of the values of every field, none for one that holds numbers; `from_words` reads them."""
        named = dict(zip(self.fields, map(list, self.number_of), strict=True))
        return {name: named.get(name, []) for name in self.kinds}

    # --------------------------------------------------------------------------------------------------- adding rows

    def learn(self, values: Sequence[tuple[int, str, int]]) -> None:
        """Adds values, given as (field, name, number of the parent)."""
        for field, name, _ in values:
            self.number_of[field][name] = len(self.names)
            self.names.append(name)
            self._postings.append(None)
        self.sizes = np.append(self.sizes, np.zeros(len(values), np.int64))
        self.field_of = np.append(self.field_of, [field for field, _, _ in values]).astype(np.int64)
        self.parent = np.append(self.parent, [parent for _, _, parent in values]).astype(np.int64)

    def with_values(self, values: Sequence[tuple[int, str, int]]) -> Table:
        """Returns a table without rows that knows further values too, to encode listings with."""
        if not values:
            return self
        out = Table(self.kinds)
        out.learn(list(zip(self.field_of.tolist(), self.names, self.parent.tolist(), strict=True)))
        out.learn(values)
        return out

    def append(self, block: Block) -> None:
        """Adds encoded listings under the next row numbers."""
        first, count = self.rows, len(block)
        if not count:
            return
        self.rows += count
        self.alive.add_range(first, first + count)
        self.sizes += np.bincount(block.values, minlength=len(self.names))
        owner = np.repeat(np.arange(first, first + count, dtype=np.uint32), np.diff(block.indptr))
        for value, rows in grouped(block.values, owner):
            self.posting(value).update(rows)
        field = self.field_of[block.values]
        begins = np.flatnonzero((np.diff(field, prepend=-1) != 0) | (np.diff(owner, prepend=first) != 0))
        for number, rows in grouped(field[begins].astype(np.uint32), owner[begins]):
            self.present[number].update(rows)
        for number, column in enumerate(self.columns):
            column.append(block.numbers[:, number : number + 1])
        self.segments.append((first, dataclasses.replace(block, numbers=block.numbers[:, :0])))
        # Many small additions would make many segments: equal ones are merged, so that each row moves a few times.
        while len(self.segments) > 1 and 2 * len(self.segments[-1][1]) >= len(self.segments[-2][1]):
            if len(self.segments[-1][1]) + len(self.segments[-2][1]) > BLOCK:
                break
            (before, one), (_, other) = self.segments[-2:]
            self.segments[-2:] = [(before, _joined(one, other))]

    def kill(self, rows: np.ndarray) -> None:
        """Removes rows [n] from what conditions find."""
        self.alive -= bitmap(np.sort(rows))

    # -------------------------------------------------------------------------------------------------------- lookup

    def posting(self, value: int) -> BitMap:
        """Returns the rows that have a value, dead ones included; not to be changed."""
        found = self._postings[value]
        if found is None:
            found = BitMap()
            if self._stored is not None and value < len(self._stored[1]) - 1:
                data, offsets = self._stored
                found = BitMap.deserialize(data[offsets[value] : offsets[value + 1]].tobytes())
            self._postings[value] = found
        return found

    def number(self, field: str, value: str, where: str = WHERE) -> int:
        """Returns the number of a value; raises InputError, with near names, for one that no listing ever had."""
        self.check_field(field, where)
        if field in self.numbers:
            raise InputError(f"{where}: {field!r} is a number: give a range, low and high, instead of values")
        known = self.number_of[self.fields.index(field)]
        if value not in known:
            near = pairs.near(value, known) if len(known) <= 20 else pairs.near(value, known).split(" (")[0]
            raise InputError(f"{where}: no listing has {field} {short(value)!r}{near}")
        return known[value]

    def check_field(self, field: str, where: str) -> None:
        """Raises InputError, with near names, for a field that the table does not have."""
        if field not in self.fields and field not in self.numbers:
            raise InputError(f"{where}: there is no field {field!r}{pairs.near(field, [*self.fields, *self.numbers])}")

    def check(self, given: Conditions, where: str = "conditions") -> None:
        """Checks conditions against the fields and values that there are.

        Raises:
          InputError: an unknown field or value, with near names; a range of values or values of a number; or a required
            or preferred clause whose every value is a kind of an excluded one.
        """
        out: set[int] = set()
        for kind, clause in reversed(given.clauses()):  # the excluded ones first
            self.check_field(clause.field, f"{where}: {kind}")
            if clause.is_range:
                if clause.field in self.fields:
                    raise InputError(f"{where}: {clause.field!r} is not a number: give values instead of a range")
                continue
            numbers = [self.number(clause.field, value, f"{where}: {kind}") for value in clause.values]
            if kind == "excluded":
                out.update(numbers)
            elif all(out.intersection(self.lineage(value)) for value in numbers) and not clause.unknown:
                raise InputError(
                    f"{where}: '{clause}' is {kind}, but all of it is excluded, as kinds of an excluded value: "
                    "remove one of the two clauses"
                )

    def lineage(self, value: int) -> list[int]:
        """Returns a value and its ancestors, nearest first."""
        out = []
        while value >= 0:
            out.append(value)
            value = int(self.parent[value])
        return out

    def of_clause(self, clause: Clause) -> BitMap:
        """Returns the rows that meet a clause, maybe with dead ones."""
        if clause.is_range:
            column = self.columns[self.numbers.index(clause.field)].array[:, 0]
            with np.errstate(over="ignore"):  # a bound beyond float32 is as good as none
                low, high = (None if end is None else np.float32(end) for end in (clause.low, clause.high))
            inside = column >= (-np.inf if low is None else low)  # False for NaN
            if high is not None:
                inside &= column <= high
            if clause.unknown:
                inside |= np.isnan(column)
            return bitmap(np.flatnonzero(inside))
        numbers = [self.number(clause.field, value) for value in clause.values]
        found = self.posting(numbers[0])
        for value in numbers[1:]:
            found = found | self.posting(value)
        if clause.unknown:
            found = found | (self.alive - self.present[self.fields.index(clause.field)])
        return found

    def matching(self, given: Conditions, preferred: int | None = None) -> BitMap:
        """Returns the rows that meet the required, the excluded and the first `preferred` preferred clauses (all)."""
        clauses = [*given.required, *given.preferred[:preferred]]
        found = self.alive
        for rows in sorted((self.of_clause(clause) for clause in clauses), key=len):
            found = found & rows
        for clause in given.excluded:
            found = found - self.of_clause(clause)
        return found

    def values_of(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Yields (row, values, probabilities or None) for ascending rows [n]."""
        starts = np.array([first for first, _ in self.segments])
        for row, segment in zip(rows.tolist(), (np.searchsorted(starts, rows, side="right") - 1).tolist(), strict=True):
            first, block = self.segments[segment]
            begin, end = block.indptr[row - first], block.indptr[row - first + 1]
            yield row, block.values[begin:end], None if block.probability is None else block.probability[begin:end]

    def stored(self, data: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Takes postings that are read when they are needed.

        Args:
          data: bytes, memory-mapped.
          offsets: [values + 1 or more] int64, where the posting of each value begins.
          sizes: [values] int64, rows of each posting.
        """
        self.sizes = sizes.copy()
        self._stored = data, offsets[: len(self.names) + 1]

    def taken(self, rows: np.ndarray) -> Table:
        """Returns a table of ascending rows [n] alone, renumbered from 0; the values keep their numbers."""
        out = Table(self.kinds)
        out.learn(list(zip(self.field_of.tolist(), self.names, self.parent.tolist(), strict=True)))
        numbers = np.hstack([np.zeros((self.rows, 0), np.float32), *(column.array for column in self.columns)])
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            found = [(values, chance) for _, values, chance in self.values_of(some)]
            indptr = np.concatenate([[0], np.cumsum([len(values) for values, _ in found])])
            values = np.concatenate([values for values, _ in found])
            chance = None
            if any(one is not None for _, one in found):
                chance = [np.ones(len(values), np.float16) if one is None else one for values, one in found]
                chance = np.concatenate(chance)
            out.append(Block(indptr, values, chance, numbers[some]))
        return out

    def chances(self, value: int, rows: np.ndarray) -> np.ndarray:
        """Returns the probability of a value that ascending rows [n] have, [n] float32; 1 where it is known."""
        out = np.ones(len(rows), np.float32)
        for first, block in self.segments:
            if block.probability is not None:
                begin, end = np.searchsorted(rows, [first, first + len(block)])
                here = np.flatnonzero(block.values == value)
                # A row has a value once, so its entries are those of the rows, in their order.
                out[begin:end] = block.probability[here]
        return out

    def counted(self, rows: np.ndarray) -> np.ndarray:
        """Returns how many of ascending rows [n] have each value, [values] int64."""
        first = [first for first, _ in self.segments]
        cut = np.searchsorted(rows, [*first, self.rows])

        def some(number: int) -> np.ndarray:
            start, block = self.segments[number]
            here = rows[cut[number] : cut[number + 1]] - start
            begin, length = block.indptr[here], block.indptr[here + 1] - block.indptr[here]
            ends = np.cumsum(length)
            places = np.repeat(begin - (ends - length), length) + np.arange(ends[-1])
            return np.bincount(block.values[places], minlength=len(self.names))

        out = np.zeros(len(self.names), np.int64)
        numbers = np.flatnonzero(np.diff(cut)).tolist()
        with ThreadPoolExecutor(min(cores(), max(1, len(numbers)))) as pool:
            for counts in map(some, numbers) if len(rows) < THREADS_FROM else pool.map(some, numbers):
                out += counts
        return out


def bitmap(rows: np.ndarray) -> BitMap:
    """Returns the bitmap of ascending rows [n]."""
    out = BitMap()
    if len(rows):
        out.update(_plain(rows))
    return out


def to_rows(found: BitMap) -> np.ndarray:
    """Returns the rows of a bitmap, ascending, [n] int64."""
    return np.frombuffer(found.to_array(), np.uint32).astype(np.int64) if found else np.zeros(0, np.int64)


def _plain(rows: np.ndarray) -> array.array:
    """Returns rows as the kind of array that pyroaring reads without a Python object per row."""
    out = array.array("I")
    out.frombytes(np.ascontiguousarray(rows, np.uint32).tobytes())
    return out


def grouped(values: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, array.array]]:
    """Yields (value, its rows) for pairs [n], values ascending; rows keep their order."""
    order = np.argsort(values, kind="stable")  # of 16 bits: a radix sort
    values, rows = values[order], rows[order]
    first = np.flatnonzero(np.diff(values, prepend=values[:1] + 1))
    ends = np.append(first, len(rows))[1:]
    for value, begin, end in zip(values[first].tolist(), first.tolist(), ends.tolist(), strict=True):
        yield value, _plain(rows[begin:end])


def _joined(one: Block, other: Block) -> Block:
    values = np.concatenate([one.values, other.values])
    chance = None
    if one.probability is not None or other.probability is not None:
        parts = (np.ones(len(b.values), np.float16) if b.probability is None else b.probability for b in (one, other))
        chance = np.concatenate(list(parts))
    indptr = np.concatenate([one.indptr, one.indptr[-1] + other.indptr[1:]])
    return Block(indptr, values, chance, np.concatenate([one.numbers, other.numbers]))
