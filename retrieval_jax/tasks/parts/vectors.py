"""Vectors of the train pictures that another run's network made, for tasks that learn into its space."""

import dataclasses
import pathlib

import numpy as np

from retrieval_jax.data import text
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import load_npz

FILE = "pictures.npz"  # in <workdir>/text: the vectors, and the name of their space


def once(columns: dict) -> tuple[dict, np.ndarray]:
    """Returns columns with every picture file once, for queries about the same listing show the same picture.

    Args:
      columns: {"image": `Pictures`}; other columns, or pictures that are not files, are returned as they are.

    Returns:
      (columns, int [n], the row of each picture among them).
    """
    pictures = columns.get("image")
    paths = getattr(getattr(pictures, "source", None), "relative_paths", None)
    if len(columns) > 1 or paths is None or pictures.rows is not None:
        return columns, np.arange(len(next(iter(columns.values()))))
    _, first, at = np.unique(np.asarray(paths, object), return_index=True, return_inverse=True)
    return {"image": dataclasses.replace(pictures, rows=first)}, at.reshape(-1)


def save(workdir, made: np.ndarray, space: str) -> None:
    """Writes the vectors of the train pictures.

    Args:
      workdir: the work directory that learns with them.
      made: [n, D] float32.
      space: name of their space.
    """
    file = pathlib.Path(workdir) / text.FOLDER / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_npz(file, vectors=made, space=np.frombuffer(space.encode(), np.uint8))


def load(workdir, count: int) -> tuple[Ragged, str]:
    """Returns the vectors as a table, one row per listing of the train split, and the name of their space.

    Args:
      workdir: the work directory, where `inference.examples` has put them.
      count: listings of the train split.

    Raises:
      InputError: the file is missing or of another catalogue.
    """
    file, remedy = pathlib.Path(workdir) / text.FOLDER / FILE, "train again"
    found = load_npz(file, {"vectors": (("float32",), 2), "space": (("uint8",), 1)}, remedy=remedy)
    vectors = found["vectors"]
    if len(vectors) != count:
        raise InputError(f"{file} holds {len(vectors):,} vectors, the train split {count:,} pictures: {remedy}")
    table = Ragged(vectors.shape[1] * np.arange(count + 1), vectors.reshape(-1))
    return table, found["space"].tobytes().decode()
