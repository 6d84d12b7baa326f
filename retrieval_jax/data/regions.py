"""True boxes of pictures: those of listings that show the same picture belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from retrieval_jax import brief, pairs
from retrieval_jax.data import fields
from retrieval_jax.data.catalog import Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError

BOX = "box"


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The boxes of g pictures.

    Attributes:
      rows: int64 [g], a listing of each picture.
      boxes: float32 [g, M, 4], ymin, xmin, ymax, xmax as shares of the picture; NaN past the last.
      types: int32 [g, M], rows of the learned types, -1 where unknown.
      left_out: listings without a box.
    """

    rows: np.ndarray
    boxes: np.ndarray
    types: np.ndarray
    left_out: int

    __repr__ = brief.line

    def true(self, rows: Sequence[int] | None = None) -> list[dict[str, np.ndarray]]:
        """Returns per picture {"boxes" [m, 4], "types" [m]}, without boxes of unknown type, for `scoring.boxes`."""
        out = []
        for row in range(len(self.rows)) if rows is None else rows:
            known = np.isfinite(self.boxes[row]).all(1) & (self.types[row] >= 0)
            out.append({"boxes": self.boxes[row, known], "types": self.types[row, known]})
        return out


def of_split(split: Split, types: fields.Field, info: DataInfo, group: str = "") -> Boxes:
    """Collects the boxes of a split's pictures.

    Args:
      split: of a `Catalog`, with the column "box".
      types: its field of types.
      info: `DataInfo` of the types that are learned (`fields.learned`).
      group: a text column that is equal for listings that show the same picture, and "" for one that shows its own; ""
        where each listing shows its own.

    Returns:
      The `Boxes`; listings without a box are left out.

    Raises:
      InputError: no column of boxes of four numbers, no such text column, or a field of several types per listing.
    """
    if BOX not in split.columns:
        raise InputError(
            f"the {split.name} split has no column 'box': declare box=(('ymin', 'xmin', 'ymax', 'xmax'), 'number') in "
            "config.data.kwargs.columns"
        )
    box, name = split.columns[BOX], info.fields[0].name
    if not isinstance(box, np.ndarray) or box.dtype.kind not in "fiu" or box.shape != (len(split), 4):
        shape = f"holds {list(box.shape[1:])} numbers" if isinstance(box, np.ndarray) else "holds no numbers"
        raise InputError(
            f"the column 'box' of the {split.name} split {shape} per listing, expected 4: declare "
            "box=(('ymin', 'xmin', 'ymax', 'xmax'), 'number') in config.data.kwargs.columns"
        )
    if types.many or info.fields[0].many:
        raise InputError(
            f"config.train.task_kwargs.types: {name!r} has several values per listing, and a box has one type: name a "
            "column of the kind 'category', or a category level"
        )
    box = box.astype(np.float32)
    ids, known = fields.encode({name: types}, info)
    label = np.full(len(split), -1, np.int32)
    label[known[:, 0]] = ids.values
    if group:
        column = split.columns.get(group)
        if column is None or isinstance(column, (np.ndarray, Ragged)):
            texts = [one for one in split.columns if not isinstance(split.columns[one], (np.ndarray, Ragged))]
            raise InputError(
                f"config.train.task_kwargs.group: the {split.name} split has no column of text {group!r}"
                f"{pairs.near(group, texts)}"
            )
        texts = np.array([one or "" for one in column], object).astype(str)
        _, place = np.unique(texts, return_inverse=True)
        unknown = texts == ""  # pictures of which nothing is known are not one picture
        place[unknown] = len(split) + np.arange(int(unknown.sum()))
    else:
        place = np.arange(len(split))
    usable = np.flatnonzero(np.isfinite(box).all(1))
    groups, owner = np.unique(place[usable], return_inverse=True)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(groups)))
    number = np.arange(len(usable)) - starts[owner[order]]
    most = int(number.max(initial=0)) + 1
    boxes = np.full((len(groups), most, 4), np.nan, np.float32)
    labels = np.full((len(groups), most), -1, np.int32)
    boxes[owner[order], number] = box[usable[order]]
    labels[owner[order], number] = label[usable[order]]
    return Boxes(usable[order][starts].astype(np.int64), boxes, labels, len(split) - len(usable))
