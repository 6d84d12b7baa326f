"""Boxes on disk: where a network looked in the query pictures, as embed writes them and the report draws them."""

from __future__ import annotations

import pathlib

import numpy as np

from retrieval_jax.errors import InputError
from retrieval_jax.files import arrays, atomic

FILE = "query_boxes.npz"  # in <work directory>/embeddings/trained


def save(file: pathlib.Path, boxes: np.ndarray, ids_sha256: str) -> None:
    """Writes boxes.

    Args:
      file: <work directory>/embeddings/trained/query_boxes.npz.
      boxes: [n, 4], ymin, xmin, ymax, xmax as shares of height and width.
      ids_sha256: digest of the ids of the pictures, `embeddings.Ids.sha256`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = np.frombuffer(bytes.fromhex(ids_sha256), np.uint8)
    atomic.write_npz(file, boxes=np.asarray(boxes, np.float32), ids_sha256=digest)


def load(file: pathlib.Path, ids_sha256: str) -> np.ndarray:
    """Reads what `save` wrote.

    Args:
      file: the file.
      ids_sha256: digest of the pictures' ids, see `save`.

    Returns:
      float32 [n, 4].

    Raises:
      InputError: the file is missing, damaged, or of other pictures.
    """
    kinds = {"boxes": (("float32",), 2), "ids_sha256": (("uint8",), 1)}
    found = arrays.load_npz(file, kinds, remedy="run embed again")
    if found["boxes"].shape[1] != 4 or found["ids_sha256"].tobytes().hex() != ids_sha256:
        raise InputError(f"{file} is of other pictures than the catalogue's, or in another order: run embed again")
    return found["boxes"]
