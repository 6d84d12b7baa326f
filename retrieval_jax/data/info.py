"""Facts about the training listings that a task needs: labels, categories and their counts."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.catalog import Split
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents

_REMEDY = "train again in a new work directory"
_MISSING = "train first, with `retrieval-jax train`"
_MOST_VALUES = 1 << 28  # of one example
_Dtype = Literal[
    "bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]


class _Field(TypedDict):
    """A field of data_info.json."""

    name: str
    values: documents.Count
    many: bool
    optional: bool
    most: documents.Count
    known: documents.Count
    unknown: documents.Count
    set_aside: documents.Count


class _Tokens(TypedDict):
    """The tokens of data_info.json."""

    size: documents.Count
    pad: documents.Count
    mask: documents.Count
    start: documents.Count
    end: documents.Count
    unknown: documents.Count
    hash: str


class _File(TypedDict):
    """data_info.json."""

    label_names: list[str]
    label_counts: list[documents.Count]
    num_listings: documents.Count
    category_names: list[list[str]]
    category_counts: list[list[documents.Count]]
    vocabulary_hash: str
    fields: NotRequired[list[_Field]]
    tokens: NotRequired[_Tokens]
    target_space: NotRequired[str]


@dataclasses.dataclass(frozen=True)
class LearnedField:
    """A field of attributes whose values are labels: `values` of them in a row, called "<name>=<value>".

    Attributes:
      name: of the field, such as "colour".
      values: number of its values.
      many: whether a listing may have several.
      optional: whether a listing that is known may have none.
      most: values of a training listing, at most.
      known: training listings whose value is known.
      unknown: training listings without a value.
      set_aside: training listings whose every value is too rare to be learned; with the two above, all listings.
    """

    name: str
    values: int
    many: bool
    optional: bool
    most: int
    known: int
    unknown: int
    set_aside: int


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Facts about the tokens of a run's texts, see `data.text.Tokenizer`.

    Attributes:
      size: rows that a table of tokens needs.
      pad, mask, start, end, unknown: ids of the special tokens.
      hash: hex digest of the tokens and their ids.
    """

    size: int
    pad: int
    mask: int
    start: int
    end: int
    unknown: int
    hash: str

    __repr__ = brief.line


@dataclasses.dataclass
class DataInfo:
    """Facts about the training listings that a task needs before it sees one.

    Attributes:
      label_names: V pseudo-attributes, sorted; empty without a vocabulary.
      label_counts: int64 [V], listings that have the label, out of `num_listings`.
      num_listings: listings that `label_counts` are counted over (train and val); without a vocabulary, those of the
        split.
      category_names: names per level, coarse to fine.
      category_counts: int64 [names of the level] per level, listings of the split in each category.
      vocabulary_hash: hex digest of the vocabulary, "" without one.
      fields: where labels are the values of fields, the fields in the order of the labels; otherwise empty.
      tokens: facts about the tokens of texts, None for a task that reads none.
      target_space: name of the space of another run that this one learns to embed into; "" for a space of its own.
      frozen: what a task learns with of that run's network, which becomes its constants; not written to disk, since a
        network that only predicts does not need it.
    """

    label_names: list[str]
    label_counts: np.ndarray
    num_listings: int
    category_names: tuple[list[str], ...]
    category_counts: tuple[np.ndarray, ...]
    vocabulary_hash: str
    fields: tuple[LearnedField, ...] = ()
    tokens: Tokens | None = None
    target_space: str = ""
    frozen: Any = None

    __repr__ = brief.line


def of_split(split: Split, vocabulary: Any = None) -> DataInfo:
    """Collects the facts about a split.

    Args:
      split: the training split of a `Catalog`.
      vocabulary: an `attributes.vocabulary.Vocabulary`, or None for tasks without pseudo-attributes.

    Returns:
      The `DataInfo`.
    """
    names = split.category_names if split.categories is not None else ()
    counts = []
    for level, level_names in enumerate(names):
        column = split.categories[:, level]
        counts.append(np.bincount(column[column >= 0], minlength=len(level_names)).astype(np.int64))
    if vocabulary is None:
        return DataInfo([], np.zeros(0, np.int64), len(split), names, tuple(counts), "")
    return DataInfo(vocabulary.tokens, vocabulary.counts, vocabulary.num_titles, names, tuple(counts), vocabulary.hash)


def to_json(data_info):
    """Returns a `DataInfo` as a JSON-able dict."""
    return {
        "label_names": list(data_info.label_names),
        "label_counts": np.asarray(data_info.label_counts).tolist(),
        "num_listings": int(data_info.num_listings),
        "category_names": [list(names) for names in data_info.category_names],
        "category_counts": [np.asarray(counts).tolist() for counts in data_info.category_counts],
        "vocabulary_hash": data_info.vocabulary_hash,
        **({"fields": [dataclasses.asdict(field) for field in data_info.fields]} if data_info.fields else {}),
        **({"tokens": dataclasses.asdict(data_info.tokens)} if data_info.tokens else {}),
        **({"target_space": data_info.target_space} if data_info.target_space else {}),
    }


def from_json(value):
    """Returns the `DataInfo` of a dict of `to_json`."""
    return DataInfo(
        label_names=list(value["label_names"]),
        label_counts=np.asarray(value["label_counts"], np.int64),
        num_listings=int(value["num_listings"]),
        category_names=tuple(list(names) for names in value["category_names"]),
        category_counts=tuple(np.asarray(counts, np.int64) for counts in value["category_counts"]),
        vocabulary_hash=value["vocabulary_hash"],
        fields=tuple(
            LearnedField(**{one.name: field[one.name] for one in dataclasses.fields(LearnedField)})
            for field in value.get("fields", ())
        ),
        tokens=Tokens(**value["tokens"]) if value.get("tokens") else None,
        target_space=value.get("target_space", ""),
    )


def save(file, data_info):
    """Writes <work directory>/checkpoints/data_info.json, so that the task can be rebuilt without the data."""
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, to_json(data_info))


def load(file):
    """Reads what `save` wrote; raises InputError if it is missing or broken."""
    content = documents.read(file, _File, remedy=_REMEDY, missing=_MISSING)
    levels = zip(content["category_names"], content["category_counts"], strict=False)
    if (
        len(content["label_names"]) != len(content["label_counts"])
        or len(content["category_names"]) != len(content["category_counts"])
        or any(len(names) != len(counts) for names, counts in levels)
        or (content.get("fields") and sum(one["values"] for one in content["fields"]) != len(content["label_names"]))
    ):
        raise InputError(f"{file} has other numbers of names than of counts: {_REMEDY}")
    return from_json(content)


def save_batch(file, batch):
    """Writes what the examples of a batch look like, from which `zero_batch` makes a batch of zeros again.

    Args:
      file: <work directory>/checkpoints/batch.json.
      batch: {name: array [B, ...]}.
    """
    file = pathlib.Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(file, {name: [list(np.shape(value)[1:]), str(value.dtype)] for name, value in batch.items()})


def zero_batch(file):
    """Returns a batch of one example that is all zeros, for `Task.init`: {name: array [1, ...]}.

    Args:
      file: what `save_batch` wrote.

    Raises:
      InputError: the file is missing or broken.
    """
    columns = documents.read(file, dict[str, tuple[list[documents.Count], _Dtype]], remedy=_REMEDY, missing=_MISSING)
    for name, (shape, _) in columns.items():
        if math.prod(shape) > _MOST_VALUES:
            raise InputError(f"{file}: an example of {name!r} has the shape {shape}: {_REMEDY}")
    return {name: np.zeros((1, *shape), np.dtype(dtype)) for name, (shape, dtype) in columns.items()}


def check_vocabulary(meta, folder):
    """Raises InputError if a checkpoint's labels are not those of the work directory."""
    there = load(folder / "checkpoints" / "data_info.json").vocabulary_hash
    if meta.get("vocabulary_hash", there) != there:
        raise InputError(
            f"{folder}: the checkpoint was trained on a different vocabulary from that in "
            "checkpoints/data_info.json; train again in a new work directory"
        )
