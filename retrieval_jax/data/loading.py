"""Loads the catalogue that a config's data block describes."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrieval_jax import pairs, paths
from retrieval_jax.data.catalog import Catalog
from retrieval_jax.errors import InputError
from retrieval_jax.files import remote

SOURCES = ("synthetic", "eproduct", "table", "tfds", "joined", "fashion_iq", "fashion200k", "pasted", "polyvore")
# Modules of sources whose loaders are not in tables.loading.
_ROOMS = {
    "joined": "joined",
    "pasted": "pasted",
    "tfds": "records.tfds_datasets",
    "fashion_iq": "edits.fashion_iq",
    "fashion200k": "edits.fashion200k",
    "polyvore": "outfits.polyvore",
}
_shared: dict[str, Catalog] | None = None  # what was loaded since `shared` was entered


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Makes `load` read each catalogue only once inside the context: every verb of a run sees the same one."""
    global _shared
    before, _shared = _shared, {} if _shared is None else _shared
    try:
        yield
    finally:
        _shared = before


def load(
    config_data: Mapping, *, set_aside_path: str | pathlib.Path | None = None, leave_out: Sequence = ()
) -> Catalog:
    """Loads the catalogue that a config's data block describes.

    Args:
      config_data: has `source`, one of SOURCES, `kwargs`, its arguments, and `leave_out`, a CSV of listings to leave
        out ("" for none).
      set_aside_path: CSV that receives the bad rows (file, row, id, reason, sentence); None writes none.
      leave_out: further listings to leave out, `left_out.Listed`.

    Returns:
      The `Catalog`.

    Raises:
      InputError: unknown source or argument, unreadable file, missing column, or more bad rows than max_bad_share.
    """
    if _shared is None or leave_out:
        return _load(config_data, set_aside_path, leave_out)
    block = {name: config_data.get(name) for name in ("source", "kwargs", "leave_out")}
    key = json.dumps(_plain(block), sort_keys=True, default=str)
    if key not in _shared:
        _shared[key] = _load(config_data, set_aside_path, leave_out)
    elif set_aside_path is not None and config_data["source"] != "synthetic":
        listed = importlib.import_module("retrieval_jax.data.tables.set_aside_file")
        listed.write(set_aside_path, _shared[key].set_aside)
    return _shared[key]


def _load(config_data: Mapping, set_aside_path: Any, leave_out: Sequence) -> Catalog:
    source = config_data["source"]
    kwargs = paths.expanded_text(_plain(config_data.get("kwargs") or {}))
    if isinstance(kwargs.get("root"), str) and "://" in kwargs["root"]:
        url, kwargs["root"] = kwargs["root"], str(remote.local_folder(kwargs["root"]))
        remote.pull(kwargs["root"])  # everything the first time, later what has changed
        if not any(not child.name.startswith(".") for child in pathlib.Path(kwargs["root"]).iterdir()):
            raise InputError(f"config.data.kwargs.root: {url} contains no files; correct the address")
    if source not in SOURCES:
        raise InputError(f"config.data.source: there is no source {source!r}{pairs.near(source, SOURCES)}")
    # Imported here, so that only the source in use is loaded.
    if file := config_data.get("leave_out"):
        leave_out = [*importlib.import_module("retrieval_jax.data.tables.left_out").read(file), *leave_out]
    if source == "synthetic":
        if leave_out:
            raise InputError(
                "config.data.leave_out: the embedded catalogue has no files to leave rows out of; set it to ''"
            )
        return importlib.import_module("retrieval_jax.data.shop.loading").load(**kwargs)
    module = _ROOMS.get(source, "tables.loading")
    loader = getattr(importlib.import_module(f"retrieval_jax.data.{module}"), f"load_{source}")
    takes = dict(inspect.signature(loader).parameters)
    for ours in ("leave_out", "set_aside_path"):
        del takes[ours]  # not for kwargs
    pairs.check_arguments(source, kwargs, takes, "config.data.kwargs", "source")
    if missing := [name for name, one in takes.items() if one.default is one.empty and name not in kwargs]:
        raise InputError(f"config.data.kwargs has no {missing[0]!r}; the source {source!r} takes {', '.join(takes)}")
    return loader(**kwargs, leave_out=leave_out, set_aside_path=set_aside_path)


def _plain(block: Any) -> Any:
    """Turns nested ConfigDicts into dicts: loaders take plain keyword arguments."""
    return {key: _plain(value) for key, value in block.items()} if hasattr(block, "items") else block
