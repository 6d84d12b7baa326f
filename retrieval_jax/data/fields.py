"""Attributes of listings as fields: labelled columns, levels of categories and mined words, side by side.

A field has named values, and every listing has none (unknown), one or several of them. What a task learns, an
evaluation compares and an index looks up are the same fields: `of_split` makes them of a split's labels, `predicted` of
what a network predicts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax import arguments, brief, pairs
from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.info import DataInfo, LearnedField
from retrieval_jax.errors import InputError, short

MINED = "mined"  # the field of the words that mine found in titles
CATEGORY = "category"  # the field of all category levels, of which each listing has its leaf
ABOVE = " > "  # between the names of a category's levels
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Field:
    """One attribute of n listings.

    Attributes:
      values: names that the ids refer to.
      indptr: int64 [n + 1]; listing i has value_ids[indptr[i]:indptr[i + 1]], nothing where unknown.
      value_ids: int32, rows of `values`.
      probability: float32 like value_ids, of values that are predicted; None for labels.
      parents: int32 [len(values)], the value above each, -1 at the top; None where values have no hierarchy.
      many: whether a listing may have several values.
    """

    values: Sequence[str]
    indptr: np.ndarray
    value_ids: np.ndarray
    probability: np.ndarray | None = None
    parents: np.ndarray | None = None
    many: bool = False

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: np.ndarray) -> Field:
        """Returns the field of some listings [m], in the order given."""
        counts = np.diff(self.indptr)[rows]
        ends = np.cumsum(counts)
        places = np.repeat(np.asarray(self.indptr)[rows] - (ends - counts), counts) + np.arange(counts.sum())
        chance = None if self.probability is None else self.probability[places]
        return dataclasses.replace(
            self, indptr=np.append(0, ends), value_ids=np.asarray(self.value_ids)[places], probability=chance
        )

    def row(self, number: int) -> list[tuple[str, float]]:
        """Returns the values of a listing with their probabilities, 1 for labels."""
        at = slice(self.indptr[number], self.indptr[number + 1])
        ids = self.value_ids[at].tolist()
        chances = [1.0] * len(ids) if self.probability is None else self.probability[at].tolist()
        return [(self.values[value], chance) for value, chance in zip(ids, chances, strict=True)]


def read(split: Split, name: str, mined: tuple[Sequence[str], Ragged] | None = None) -> Field:
    """Returns a field of a split; all of its listings are unknown where the split lacks the column.

    Args:
      split: of a `Catalog`.
      name: an attribute among the split's columns, a category level, "category" for all levels as one hierarchy, or
        "mined".
      mined: the vocabulary's words and every listing's, for "mined"; None where nothing was mined.

    Raises:
      InputError: the catalogue has no such field; the message has near names.
    """
    if name in split.column_names:
        column = split.columns[name] if name in split.columns else np.full(len(split), -1, np.int32)
        return _field(list(split.column_names[name]), column)
    if name in split.category_levels:
        level = split.category_levels.index(name)
        column = np.full(len(split), -1) if split.categories is None else split.categories[:, level]
        return _field(list(split.category_names[level]), column)
    if name == CATEGORY and split.category_levels:
        return _hierarchy(split)
    if name == MINED and mined is not None:
        return _field(list(mined[0]), mined[1])
    known = [*names(split), *([MINED] if mined is not None else [])]
    what = "is a column of text or numbers" if name in split.columns else "does not exist"
    raise InputError(
        f"the field {name!r} {what}{pairs.near(name, known)}; an attribute is a column of the kind "
        "'category' or 'list' in config.data.kwargs.columns, or a category level"
    )


def names(split: Split) -> list[str]:
    """Returns the names of the fields that a split's labels have: columns, category levels and "category"."""
    return [*split.column_names, *split.category_levels, *([CATEGORY] if split.category_levels else [])]


def _field(values: list[str], column: np.ndarray | Ragged) -> Field:
    if isinstance(column, Ragged):
        owner = np.repeat(np.arange(len(column)), np.diff(column.indptr))
        entries = np.unique(np.stack([owner, column.values], 1)[column.values >= 0], axis=0).astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(entries[:, 0], minlength=len(column)))])
        return Field(values, indptr, entries[:, 1].astype(np.int32), many=True)
    column = np.asarray(column)
    return Field(values, np.concatenate([[0], np.cumsum(column >= 0)]), column[column >= 0].astype(np.int32))


def _hierarchy(split: Split) -> Field:
    """Returns the category levels as one field: values of all levels, each listing with its finest known one."""
    levels = len(split.category_levels)
    if split.categories is None:
        return Field([], np.zeros(len(split) + 1, np.int64), np.zeros(0, np.int32), parents=np.zeros(0, np.int32))
    found, parents, own = {}, [], np.full(len(split), -1, np.int32)
    for level in range(levels):
        rows = np.flatnonzero((split.categories[:, : level + 1] >= 0).all(1))
        paths, inverse = np.unique(split.categories[rows, : level + 1], axis=0, return_inverse=True)
        numbers = np.empty(len(paths), np.int32)
        for place, path in enumerate(paths.tolist()):
            names = [split.category_names[at][number] for at, number in enumerate(path)]
            path_name = ABOVE.join(names)
            if path_name not in found:  # two categories of one name under one parent are one value
                parents.append(found[ABOVE.join(names[:-1])] if level else -1)
            numbers[place] = found.setdefault(path_name, len(found))
        own[rows] = numbers[inverse.reshape(-1)]
    plain = _field(list(found), own)
    return dataclasses.replace(plain, parents=np.asarray(parents, np.int32))


def of_split(
    split: Split,
    names: Sequence[str],
    mined: tuple[Sequence[str], Ragged] | None = None,
    ids: Sequence[str] | None = None,
) -> dict:
    """Returns what an index of attributes takes: {name: `Field`, or float32 [n] with NaN for unknown numbers}.

    Args:
      split: of a `Catalog`.
      names: see `read`; columns of numbers [n] may be among them.
      mined: see `read`.
      ids: of the listings, in the order wanted; None for all of the split, in its order.

    Raises:
      InputError: see `read`; or a listing is not in the split.
    """
    found, rows = {}, None
    if ids is not None:
        row_of = {item: row for row, item in enumerate(split.ids)}
        if missing := [item for item in ids if item not in row_of]:
            raise InputError(
                f"{len(missing):,} listings of the gallery, first {missing[0]!r}, are not in the catalogue: embed the "
                "gallery of this catalogue"
            )
        rows = np.array([row_of[item] for item in ids], np.int64)
    for name in names:
        column = split.columns[name] if name in split.columns and name not in split.column_names else None
        numeric = isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.ndim == 1
        field = column if numeric else read(split, name, mined)
        found[name] = field if rows is None else (field[rows] if numeric else field.take(rows))
    return found


# ------------------------------------------------------------------------------------- fields as labels of a network


def learned(given: Mapping[str, Field], min_count: int, optional: Sequence[str], length: int) -> DataInfo:
    """Chooses the values that a network learns: those of enough training listings, field after field.

    Args:
      given: {name: `Field` of the train split}, in the order of the labels.
      min_count: listings that a value needs; rarer values are set aside.
      optional: fields in which a known listing may have no value: without one it has none, rather than an unknown one.
      length: values of a listing, at most, over all fields; 0 for no limit.

    Returns:
      `DataInfo` with the labels "<field>=<value>" and their fields, without categories.

    Raises:
      InputError: a field without two values to choose from, or unknown names in `optional`.
    """
    if unknown := [name for name in optional if name not in given]:
        raise InputError(
            f"config.train.task_kwargs.optional_fields has {unknown[0]!r}{pairs.near(unknown[0], list(given))}"
        )
    labels, counts, fields = [], [], []
    for name, field in given.items():
        seen = np.bincount(field.value_ids, minlength=len(field.values))
        kept = np.flatnonzero(seen >= max(1, min_count))
        many, may_lack = field.many, name in optional
        if len(kept) < 2 and not (many or may_lack):
            raise InputError(
                f"the field {name!r} has {len(kept)} values with {min_count} or more training listings, so there is "
                "nothing to learn: lower config.train.task_kwargs.min_count, or leave the field out"
            )
        if not len(kept):
            raise InputError(
                f"no value of the field {name!r} has {min_count} training listings: lower "
                "config.train.task_kwargs.min_count, or leave the field out"
            )
        place = np.full(len(field.values) + 1, -1)
        place[kept] = np.arange(len(kept))
        owner = np.repeat(np.arange(len(field)), np.diff(field.indptr))
        usable = np.bincount(owner[place[field.value_ids] >= 0], minlength=len(field))
        having = np.diff(field.indptr) > 0
        rare = int((having & (usable == 0)).sum())
        none = int((~having).sum())
        known = len(field) - rare - (0 if may_lack else none)
        labels += [f"{name}={field.values[value]}" for value in kept]
        counts += seen[kept].tolist()
        most = int(usable.max(initial=1)) if many else 1
        fields.append(LearnedField(name, len(kept), many, may_lack, most, known, 0 if may_lack else none, rare))
        dropped = int((seen > 0).sum()) - len(kept)
        if dropped:
            _log.warning(
                "field %s: %s values with fewer than %s training listings are set aside, and with them %s listings",
                name, f"{dropped:,}", min_count, f"{rare:,}",
            )  # fmt: skip
    if length and length < sum(not one.optional for one in fields):
        raise InputError(
            f"config.train.task_kwargs.length is {length}, but {sum(not one.optional for one in fields)} fields need a "
            "value each: raise it, or set 0"
        )
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()
    rows = len(next(iter(given.values())))
    return DataInfo(labels, np.asarray(counts, np.int64), rows, (), (), digest, tuple(fields))


def encode(given: Mapping[str, Field], info: DataInfo, length: int = 0) -> tuple[Ragged, np.ndarray]:
    """Turns fields into labels of a network.

    Args:
      given: {name: `Field`}; fields that the network did not learn are ignored, those that are missing are unknown.
      info: of `learned`.
      length: labels of a listing, at most; fields that do not fit whole are unknown. 0 for no limit.

    Returns:
      Ids of each listing's labels, ascending, and bool [n, fields]: whether the listing's value is known.
    """
    rows = len(next(iter(given.values())))
    place = {label: number for number, label in enumerate(info.label_names)}
    known, counts = np.zeros((rows, len(info.fields)), bool), np.zeros((rows, len(info.fields)), np.int64)
    owners, ids = [], []
    for number, learned_field in enumerate(info.fields):
        field = given.get(learned_field.name)
        if field is None:
            continue
        to = np.array([place.get(f"{learned_field.name}={value}", -1) for value in field.values] or [-1])
        own, labels = np.repeat(np.arange(rows), np.diff(field.indptr)), to[field.value_ids]
        own, labels = own[labels >= 0], labels[labels >= 0]
        counts[:, number] = np.bincount(own, minlength=rows)
        having = np.diff(field.indptr) > 0
        known[:, number] = (counts[:, number] > 0) | (learned_field.optional & ~having)
        owners.append(own)
        ids.append(labels)
    own, labels = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (owners, ids))
    if length:
        fits = np.cumsum(counts, axis=1) <= length
        if cut := int((~fits & known).any(1).sum()):
            _log.warning(
                "%s of %s listings have more than %s attributes, the last of which are not used",
                f"{cut:,}",
                f"{rows:,}",
                length,
            )
        known &= fits
        kept = known[own, field_of(info)[labels]]
        own, labels = own[kept], labels[kept]
    order = np.lexsort((labels, own))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=rows))])
    return Ragged(indptr, labels[order].astype(np.int32)), known


def guides(given: Sequence[Mapping[str, str | Sequence[str]]], info: DataInfo) -> Ragged:
    """Returns known attributes as labels of a network, which its predictions then have to contain.

    Args:
      given: per listing {field: value, or values of a many-valued field}; {} for no guidance.
      info: of `learned`.

    Raises:
      InputError: an unknown field or value, with near names, several values of a field that has one, or another shape.
    """
    place, where = {label: number for number, label in enumerate(info.label_names)}, "guides"
    fields, rows = {field.name: field for field in info.fields}, []
    for number, one in enumerate(arguments.sequence(given, "given", where)):
        row = []
        for name, values in arguments.mapping(one, f"given[{number}]", where).items():
            if name not in fields:
                raise InputError(f"there is no field {short(name)!r}{pairs.near(name, list(fields))}")
            values = [values] if isinstance(values, str) else arguments.sequence(values, name, where)
            values = [arguments.text(value, name, where) for value in values]
            if len(values) > fields[name].most:
                what = f"at most {fields[name].most} values" if fields[name].many else "one value"
                raise InputError(f"the field {name!r} has {what}, and {len(values)} are given: leave some out")
            for value in values:
                if f"{name}={value}" not in place:
                    own = [label.partition("=")[2] for label in place if label.startswith(f"{name}=")]
                    raise InputError(f"the field {name!r} has no value {short(value)!r}{pairs.near(value, own)}")
                row.append(place[f"{name}={value}"])
        rows.append(sorted(set(row)))
    return Ragged.of(rows)


def predicted(chosen: np.ndarray, probabilities: np.ndarray, info: DataInfo) -> dict[str, Field]:
    """Returns what a network predicts as fields, for an index of attributes.

    Args:
      chosen: bool [n, labels], which labels each listing gets.
      probabilities: float32 [n, labels].
      info: of `learned`.

    Returns:
      {name: `Field` with probabilities}.
    """
    found, start = {}, 0
    for field in info.fields:
        stop = start + field.values
        own = np.asarray(chosen[:, start:stop], bool)
        rows, ids = np.nonzero(own)
        values = [label.partition("=")[2] for label in info.label_names[start:stop]]
        found[field.name] = Field(
            values,
            np.concatenate([[0], np.cumsum(own.sum(1))]),
            ids.astype(np.int32),
            np.clip(np.asarray(probabilities, np.float32)[rows, start + ids], 1e-6, 1),
            many=field.many,
        )
        start = stop
    return found


def true_labels(split: Split, info: DataInfo, mined: tuple[Sequence[str], Ragged] | None = None) -> tuple:
    """Returns the true labels of a split, bool [n, labels], and which fields are known, bool [n, fields].

    Args:
      split: of a `Catalog`.
      info: of the run; the field "mined" is unknown where `mined` is None.
      mined: see `read`.
    """
    given = {field.name: read(split, field.name, mined) for field in info.fields if field.name != MINED or mined}
    if not given:
        return np.zeros((len(split), len(info.label_names)), bool), np.zeros((len(split), len(info.fields)), bool)
    ids, known = encode(given, info)
    true = np.zeros((len(split), len(info.label_names)), bool)
    true[np.repeat(np.arange(len(split)), np.diff(ids.indptr)), ids.values] = True
    return true, known


def field_of(info: DataInfo) -> np.ndarray:
    """Returns the number of the field of every label, int64 [labels]."""
    return np.repeat(np.arange(len(info.fields)), [field.values for field in info.fields])
