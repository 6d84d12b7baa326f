"""The folder of a binary index on disk: creating an empty one, and reading its description.

folder/binary.json    dtype, shards, checksum of coder.npz; dim, bits and cells for human readers
folder/coder.npz      rotation and centroids (codes.Coder)
folder/writer.lock    held by the one process that writes
folder/shard-000 ...  see shard.py; an id lives in the shard given by its checksum
"""

from __future__ import annotations

import json
import pathlib
from typing import Annotated, Literal, TypedDict

import msgspec

from retrieval_jax.errors import InputError
from retrieval_jax.files import documents
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.files.atomic import replace_folder, sync
from retrieval_jax.index.binary import shard
from retrieval_jax.index.binary.codes import Coder

FORMAT = 1
MOST_SHARDS = 1000


class _Info(TypedDict):
    """binary.json."""

    format: int
    shards: Annotated[int, msgspec.Meta(ge=1, le=MOST_SHARDS)]
    dtype: Literal["float32", "float16"]
    coder_sha256: documents.Sha256


def write(folder: pathlib.Path, coder: Coder, shards: int, dtype: str) -> None:
    """Writes the folder of an empty index, atomically and durably.

    Args:
      folder: where to write it; must not exist.
      coder: computes the codes.
      shards: number of shards.
      dtype: dtype of the vectors on disk.
    """

    def fill(new: pathlib.Path) -> None:
        coder.save(new / "coder.npz")
        for number in range(shards):
            shard.start(new / f"shard-{number:03d}")
        (new / "writer.lock").touch()
        info = {
            "format": FORMAT,
            "dim": len(coder.mean),
            "dtype": dtype,
            "bits": coder.bits,
            "cells": coder.cells,
            "shards": shards,
            "coder_sha256": file_sha256(new / "coder.npz"),
        }
        (new / "binary.json").write_text(json.dumps(info, indent=1))
        for file in ("coder.npz", "binary.json"):
            sync(new / file)
        sync(new)

    replace_folder(folder, fill)
    sync(folder.parent)


def read(folder: pathlib.Path) -> dict:
    """Returns the contents of binary.json, checked.

    Raises:
      InputError: there is no binary index, or its description or coder is damaged.
    """
    file = folder / "binary.json"
    remedy = "restore it from a backup, or create the index again"
    info = documents.read(
        file, _Info, remedy=remedy, missing=f"there is no binary index in {folder}; create one", most_bytes=1 << 20
    )
    if info["format"] != FORMAT:
        raise InputError(f"{file} has format {info['format']}, this version reads {FORMAT}: create the index again")
    coder = folder / "coder.npz"
    if not coder.exists() or file_sha256(coder) != info["coder_sha256"]:
        raise InputError(
            f"{coder} has changed since it was written: restore it from a backup, or create the index again"
        )
    return info
