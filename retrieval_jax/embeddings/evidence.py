"""What search steps are chosen by, beside the vectors of a model: embeddings of listings that agree without any label.

    <workdir>/embeddings/<model>/evidence/train/      some train listings
    <workdir>/embeddings/<model>/evidence/altered/    altered gallery pictures, with the ids of their originals
    <workdir>/embeddings/<model>/evidence/agreement.npz   which of the train listings agree by title and category

`embed` writes it where config.search.steps has "chosen"; `postprocess.choosing` reads it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from retrieval_jax import brief
from retrieval_jax.embeddings.folder import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import load_npz

FOLDER = "evidence"
ROWS = 2000  # of each kind at most: 4,000 pictures more, whatever the size of the catalogue


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known without labels of the queries' products; each part may be missing.

    Attributes:
      train: embeddings of train listings.
      indptr, rows: the train listings that agree with each of them: rows[indptr[i] : indptr[i + 1]], rows of `train`.
      altered: embeddings of altered gallery pictures, with the ids of their originals.
    """

    train: Embeddings | None = None
    indptr: np.ndarray | None = None
    rows: np.ndarray | None = None
    altered: Embeddings | None = None

    __repr__ = brief.line

    @property
    def agreeing(self) -> list[np.ndarray]:
        """The rows that agree with each train listing; [] where titles are not known."""
        if self.indptr is None:
            return []
        return [self.rows[start:stop] for start, stop in zip(self.indptr[:-1], self.indptr[1:], strict=True)]


def save_agreement(folder: pathlib.Path, indptr: np.ndarray, rows: np.ndarray) -> None:
    """Writes agreement.npz: int64 indptr [n + 1] and rows."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"indptr": np.asarray(indptr, np.int64), "rows": np.asarray(rows, np.int64)}
    atomic.write_npz(folder / "agreement.npz", **arrays)


def load(folder: str | os.PathLike) -> Evidence:
    """Returns the evidence in <workdir>/embeddings/<model>/evidence, which is empty if embed wrote nothing.

    Args:
      folder: that folder.

    Raises:
      InputError: damaged files, or agreement of other train listings.
    """
    folder = pathlib.Path(folder)
    found = {
        name: Embeddings.load(folder / name, verify=True) if (folder / name / "embeddings.json").exists() else None
        for name in ("train", "altered")
    }
    indptr = rows = None
    if found["train"] is not None and (folder / "agreement.npz").exists():
        kinds = {"indptr": (("int64",), 1), "rows": (("int64",), 1)}
        arrays = load_npz(folder / "agreement.npz", kinds, remedy="run embed again")
        indptr, rows = arrays["indptr"], arrays["rows"]
        count = len(found["train"])
        fits = len(indptr) == count + 1 and indptr[0] == 0 and indptr[-1] == len(rows) and (np.diff(indptr) >= 0).all()
        if not fits or (len(rows) and not 0 <= rows.min() <= rows.max() < count):
            raise InputError(f"{folder / 'agreement.npz'} is of other train listings: run embed again")
    return Evidence(found["train"], indptr, rows, found["altered"])
