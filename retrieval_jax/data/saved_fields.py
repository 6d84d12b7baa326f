"""Predicted labels on disk: what embed writes beside the embeddings of val, query and gallery, and evaluate scores."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

import numpy as np

from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.info import DataInfo
from retrieval_jax.errors import InputError
from retrieval_jax.files import arrays, atomic

FOLDER = "fields"  # beside the embeddings of a model's splits


def save(file: pathlib.Path, blocks: Iterable[tuple[np.ndarray, np.ndarray]], ids_sha256: str) -> None:
    """Writes predicted labels.

    Args:
      file: <work directory>/embeddings/trained/fields/<split>.npz.
      blocks: of consecutive listings, "chosen" bool [n, labels] and probabilities float32 [n, labels]; one block is in
        memory at a time.
      ids_sha256: digest of the ids of all listings, `embeddings.Ids.sha256`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    counts, label_ids, kept = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for chosen, probabilities in blocks:
        rows, ids = np.nonzero(chosen)
        counts.append(np.bincount(rows, minlength=len(chosen)))
        label_ids.append(ids.astype(np.int32))
        kept.append(np.asarray(probabilities[rows, ids], np.float32))
    atomic.write_npz(
        file,
        indptr=np.cumsum(np.concatenate(counts)),
        label_ids=np.concatenate(label_ids),
        probabilities=np.concatenate(kept),
        ids_sha256=np.frombuffer(bytes.fromhex(ids_sha256), np.uint8),
    )


def load(file: pathlib.Path, info: DataInfo, ids_sha256: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads what `save` wrote; `fields.predicted` makes fields of it.

    Args:
      file: the file.
      info: of the run.
      ids_sha256: digest of the listings' ids, see `save`.

    Returns:
      "chosen" bool [n, labels] and probabilities float32 [n, labels], 0 where not chosen.

    Raises:
      InputError: the file is missing, damaged, of other labels, or of other listings.
    """
    kinds = {
        "indptr": (("int64",), 1),
        "label_ids": (("int32",), 1),
        "probabilities": (("float32",), 1),
        "ids_sha256": (("uint8",), 1),
    }
    found = arrays.load_npz(file, kinds, remedy="run embed again")
    if found["ids_sha256"].tobytes().hex() != ids_sha256:
        raise InputError(f"{file} is of other listings than the catalogue's, or in another order: run embed again")
    rows, labels = Ragged(found["indptr"], found["label_ids"]), len(info.label_names)
    ids = rows.values
    if len(found["probabilities"]) != len(ids) or (len(ids) and (ids.min() < 0 or ids.max() >= labels)):
        raise InputError(f"{file} is not of the {labels:,} labels of this run: run embed again")
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    chosen, probabilities = np.zeros((len(rows), labels), bool), np.zeros((len(rows), labels), np.float32)
    chosen[owner, ids], probabilities[owner, ids] = True, found["probabilities"]
    return chosen, probabilities
