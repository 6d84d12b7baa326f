"""A digest of a catalogue's content, so that edited data is noticed: an edited title, a replaced picture, a new row.

The digest depends on content alone: a copy under another root, or with other file times, has the same one. Of every
picture's file it reads the size and both ends, not the whole; of an embedded catalogue, what it is computed from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import numpy as np

from retrieval_jax import errors
from retrieval_jax.data import joined, pasted
from retrieval_jax.data.catalog import Catalog, Column, Lazy, Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.pictures.sources import Cached, FileImages, NoPictures
from retrieval_jax.data.records.reading import RecordImages
from retrieval_jax.data.shop import synthetic
from retrieval_jax.errors import InputError

_ENDS = 4096  # bytes read at either end of a picture's file
_BLOCKS = 256  # blocks of that size read from a record file, evenly spaced
_CHUNK = 1024  # pictures per thread at a time
_TEXTS = 100_000  # texts encoded at a time


def of(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Digests a catalogue's content.

    Args:
      catalog: as `loading.load` returns it.

    Returns:
      A JSON-able dict: {split: {"listings": n, "ids", "titles", "categories", "pictures", "columns": digest}}, and
      under "catalogue" the digests of "truth", "names" (of categories and attributes) and "tables"; what a catalogue
      does not have is left out.
    """
    out = {name: _split(split) for name, split in catalog.splits().items()}
    names = {"levels": catalog.category_levels, "categories": catalog.category_names}
    names["columns"] = {name: list(values) for name, values in catalog.column_names.items()}
    out["catalogue"] = {"names": _sha(json.dumps(names).encode())}
    if catalog.truth is not None:
        truth = catalog.truth
        graded = [array for array in (truth.grades, truth.rated_zero) if array is not None]
        out["catalogue"]["truth"] = _arrays(truth.indptr, truth.rows, *graded)
    if catalog.tables:
        out["catalogue"]["tables"] = _mapping(
            catalog.tables, lambda table: _mapping(table.columns) + json.dumps(sorted(table.rows_of.items()))
        )
    return out


def differences(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns what differs between two digests, such as ["train: titles", "gallery: listings, ids, pictures"].

    Args:
      before, after: as of `of`.
    """
    out = []
    for part in dict.fromkeys([*before, *after]):
        old, new = before.get(part, {}), after.get(part, {})
        if changed := [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]:
            out.append(f"{part}: {', '.join(changed)}")
    return out


def _split(split: Split) -> dict[str, Any]:
    out = {"listings": len(split), "pictures": _pictures(split.images)}
    if not isinstance(split.images, synthetic.Column):  # otherwise known from what the pictures are computed from
        out["ids"] = _column(split.ids)
        if split.titles is not None:
            out["titles"] = _column(split.titles)
        if split.categories is not None:
            out["categories"] = _column(split.categories)
    if split.columns:
        out["columns"] = _mapping(split.columns)
    return out


def _mapping(columns: Mapping[str, Any], one: Callable[[Any], str] | None = None) -> str:
    """Digests values by name; those that are computed by what they are computed from."""
    if isinstance(columns, Lazy):
        made_of = columns.made_of
        if not isinstance(made_of, str):
            made_of = "".join(_mapping(mapping, one) for mapping in made_of)
        return _sha(json.dumps([sorted(columns), made_of]).encode())
    return _sha(json.dumps([[name, (one or _column)(columns[name])] for name in sorted(columns)]).encode())


def _column(column: Column) -> str:
    if isinstance(column, Ragged):
        return _arrays(column.indptr, column.values)
    if isinstance(column, np.ndarray):
        return _arrays(column)
    digest = hashlib.sha256()
    for start in range(0, len(column), _TEXTS):
        digest.update(json.dumps(list(column[start : start + _TEXTS])).encode())
    return digest.hexdigest()


def _arrays(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------------------- pictures


@functools.singledispatch
def _pictures(source: Any) -> str:
    """Digests the pictures of a source; this one, of any other, decodes them all."""
    digest = hashlib.sha256()
    for row in range(len(source)):
        digest.update(_arrays(np.asarray(source[row])).encode())
    return digest.hexdigest()


@_pictures.register
def _(source: NoPictures) -> str:
    return "none"


@_pictures.register
def _(source: Cached) -> str:
    return _pictures(source.source)


@_pictures.register
def _(source: joined.JoinedImages) -> str:
    return _sha("".join(_pictures(part) for part in source.parts).encode())


@_pictures.register
def _(source: synthetic.Column) -> str:
    return _sha(synthetic.made_of(source.shop, source.split).encode())


@_pictures.register
def _(source: pasted.Pasted) -> str:
    return _sha(f"{source.seed} {source.name} {_pictures(source.source)} {_pictures(source.others)}".encode())


@_pictures.register
def _(source: FileImages) -> str:
    def chunk(start: int) -> bytes:
        digest = hashlib.sha256()
        for row in range(start, min(start + _CHUNK, len(source))):
            digest.update(json.dumps(source.relative_paths[row]).encode())
            try:
                size = source.status(row).st_size  # also sees that the file lies under the root
                digest.update(_sampled(os.path.join(source.root, source.relative_paths[row]), size, 2))
            except (InputError, OSError) as error:
                errors.raise_shortage(error, os.path.join(source.root, source.relative_paths[row]))
                digest.update(b"unreadable")
        return digest.digest()

    with futures.ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        return _sha(b"".join(pool.map(chunk, range(0, len(source), _CHUNK))))


@_pictures.register
def _(source: RecordImages) -> str:
    digest = hashlib.sha256(_arrays(source.rows).encode())
    files = sorted(pathlib.Path(source.folder).glob(f"*-{source.split}*"))
    for file in files:
        digest.update(json.dumps(file.name).encode() + _sampled(file, file.stat().st_size, _BLOCKS))
    return digest.hexdigest()


def _sampled(path: Any, size: int, blocks: int) -> bytes:
    """Returns a file's size and blocks of it, evenly spaced from its beginning to its end."""
    file = os.open(path, os.O_RDONLY)  # much faster than open() for a hundred thousand small files
    try:
        if size <= blocks * _ENDS:
            return b"%d:" % size + os.pread(file, size, 0)
        starts = [(size - _ENDS) * number // (blocks - 1) for number in range(blocks)]
        return b"%d:" % size + b"".join(os.pread(file, _ENDS, start) for start in starts)
    finally:
        os.close(file)
