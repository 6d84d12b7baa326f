"""Finds near-duplicate pictures: train against val, query, gallery and itself, and queries against the gallery.

    python -m retrieval_jax.leaks --config=configs/fashion_best.py --workdir=runs/leaks
    python -m retrieval_jax.run --config=configs/fashion_best.py --config.data.leave_out=runs/leaks/leave_out.csv

Reads every picture once, at the smallest size its file format allows, and writes leaks.csv (the pairs) and
leave_out.csv (train listings with nearly the same picture in one of config.leaks.leave_out_of) to the work directory.
The second file may be edited by hand; nothing is left out until config.data.leave_out names it.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("leaks")

import copy
import csv
import io
import pathlib
from typing import Any

import numpy as np
import tqdm

from retrieval_jax import output, pairs
from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import loading
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.duplicates import hashes
from retrieval_jax.duplicates.thumbnails import EXAMPLES, WARN_SHARE
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, remote

PAIRS = (("train", "val"), ("train", "query"), ("train", "gallery"), ("query", "gallery"), ("train", "train"))
KINDS = ("same", "mirrored", "altered")
AT_LEAST = 56  # px that a reduced picture keeps, seven per thumbnail cell: 500 px are decoded at 1/8 scale
_BLOCK = 4096


def run(config: Any, workdir: Any) -> dict:
    """Finds near-duplicates in a catalogue and writes them down.

    Args:
      config: data, and leaks: max_difference, mirrored, altered (see `hashes.find`), leave_out_of (splits whose
        pictures train must not share).
      workdir: folder that receives leaks.csv and leave_out.csv.

    Returns:
      {"found": {"train-val": see `describe`, ...}, "left_out": number of train listings on the list}.

    Raises:
      InputError: the catalogue or a picture cannot be read, or leave_out_of names a split that train is not compared
        with.
    """
    settings, workdir = config.leaks, pathlib.Path(workdir)
    known = [other for one, other in PAIRS if one == "train"]
    if unknown := [name for name in settings.leave_out_of if name not in known]:
        raise InputError(
            f"config.leaks.leave_out_of: train is not compared with {unknown[0]!r}{pairs.near(unknown[0], known)}"
        )
    catalog = loading.load(config.data)
    splits = {name: split for name in catalogs.SPLITS if (split := getattr(catalog, name))}
    thumbnails = {name: read(split) for name, split in splits.items()}
    tables, found, leaked = {}, {}, []
    for one, other in PAIRS:
        if one not in splits or other not in splits:
            continue
        if other not in tables:
            tables = {other: hashes.Table(thumbnails[other])}
        own = _own_rows(splits[one], splits[other])  # a listing of both splits is not its own duplicate
        result = hashes.find(
            thumbnails[one],
            tables[other],
            settings.max_difference,
            own,
            mirrored=settings.mirrored,
            altered=settings.altered,
        )
        entry, rows = describe(result, splits[one], splits[other], settings.max_difference)
        found[f"{one}-{other}"] = entry
        leaked += rows
        print(f"leaks: {sentence(one, other, entry)}", flush=True)

    workdir.mkdir(parents=True, exist_ok=True)
    _write(workdir / "leaks.csv", ("split", "id", "other_split", "other_id", "kind", "difference", "aligned"), leaked)
    listed = leave_out(leaked, settings.leave_out_of)
    _write(workdir / "leave_out.csv", ("split", "id", "reason"), listed)
    for name in ("leaks.csv", "leave_out.csv"):
        remote.push(workdir, below=name)
    total = len(splits.get("train", ()))
    print(
        f"leaks: {len(leaked):,} pairs in {workdir / 'leaks.csv'}; "
        f"--config.data.leave_out={workdir / 'leave_out.csv'} leaves out {len(listed):,} of {total:,} train listings"
    )
    return {"found": found, "left_out": len(listed)}


def _own_rows(one: catalogs.Split, other: catalogs.Split) -> np.ndarray:
    """Returns the row of the second split that is the same listing, for every listing of the first; -1 for none.

    A query that is about a listing has its picture.
    """
    places = {item: row for row, item in enumerate(other.ids)}
    ids = Ids.of(one.ids)
    return np.array([places.get(a, places.get(own, -1)) for a, own in zip(ids.about, ids, strict=True)], np.int64)


def read(split: catalogs.Split) -> np.ndarray:
    """Returns the thumbnails of a split's pictures, uint8 [n, 192]; large JPEGs are decoded at a reduced size."""
    pictures, out = Noted(_reduced(split.images)), []
    with tqdm.tqdm(total=len(split), desc=f"leaks: {split.name}", unit="picture", mininterval=1) as bar:
        for start in range(0, len(split), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(split)))
            out.append(pictures.notes(rows)[1])
            bar.update(len(rows))
    return np.concatenate(out)


def _reduced(source: Any) -> Any:
    if hasattr(source, "parts"):  # pictures of joined catalogues
        return type(source)([_reduced(part) for part in source.parts])
    if hasattr(source, "at_least"):
        source = copy.copy(source)
        source.at_least = AT_LEAST
    return source


def describe(result: hashes.Found, one: Any, other: Any, limit: float) -> tuple[dict, list[tuple]]:
    """Returns what was found between two splits: counts, overall and by kind, with examples; and rows of leaks.csv."""
    kinds = np.where(result.differences > limit, 2, result.mirrored.astype(int))
    rows = [
        (one.name, one.ids[first], other.name, other.ids[second], KINDS[kind], f"{plain:.4f}", f"{even:.4f}")
        for first, second, kind, plain, even in zip(
            result.rows.tolist(),
            result.others.tolist(),
            kinds.tolist(),
            result.differences,
            result.aligned,
            strict=True,
        )
    ]
    counts = {"listings": len(one), "compared": len(one), "found": len(rows)}
    counts |= {kind: int((kinds == number).sum()) for number, kind in enumerate(KINDS)}
    examples = [{"pair": (row[1], row[3]), "kind": row[4]} for row in rows[:EXAMPLES]]
    return {**counts, "proposed": result.proposed, "cut": result.cut, "examples": examples}, rows


def sentence(one: str, other: str, entry: dict) -> str:
    """Returns what was found between two splits, as a sentence; a WARNING from 1 % on."""
    share = entry["found"] / max(1, entry["compared"])
    kinds = ", ".join(f"{entry[kind]:,} {kind}" for kind in KINDS if entry[kind])
    where = f"in {other}" if one != other else "in another train listing"
    text = (
        f"{'WARNING: ' * (share >= WARN_SHARE)}{entry['found']:,} of {entry['compared']:,} {one} listings "
        f"({100 * share:.1f} %) have nearly the same picture {where}"
    )
    if entry["found"]:
        shown = ", ".join(" = ".join(example["pair"]) for example in entry["examples"][:2])
        text += f" ({kinds}); for example {shown}"
    return text


def leave_out(rows: list[tuple], leave_out_of: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Returns the train listings to leave out, those with the same or a mirrored picture, as (split, id, reason).

    Altered pictures are only reported. Of two train listings with the same picture, the one with the larger id is left
    out, unless the other one's nearest is a third listing.

    Args:
      rows: rows of leaks.csv.
      leave_out_of: splits whose pictures train must not share.
    """
    listed = {}
    for split, item, other, other_id, kind, difference, _ in rows:
        if split == "train" and other in leave_out_of and kind != "altered" and (other != "train" or item > other_id):
            listed.setdefault(item, ("train", item, f"{kind} picture as {other} listing {other_id} ({difference})"))
    return list(listed.values())


def _write(file: pathlib.Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *(map(output.cell, row) for row in rows)])
    atomic.write_bytes(file, text.getvalue().encode("utf-8"))


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    run(given.config, given.workdir)
