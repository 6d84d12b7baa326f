"""Embeddings written shard by shard: by several processes, on from where a killed run stopped, and only what is new.

    .<split>.partial/00000.npy                vectors of a finished shard, and beside them what they were made from:
                     00000.fingerprints.npy, and 00000.thumbnails.npy where that includes pictures
                     00000.json               the record of the shard, written last; without it the shard does not count
    <split>/                                  all of it once complete, see `embeddings`

A shard is a range of rows of the catalogue, so the whole is in the catalogue's order whoever wrote which part. It
depends on nothing but its own range: its batches start where it starts, so a run that was killed and resumed gives the
bytes of one that was not. What turns a listing into a vector (weights, views, sizes ...) has a name, the recipe:
vectors of another recipe are never reused, nor are those of a listing whose content changed, nor a shard whose checksum
is wrong.

Longer than 400 lines: one job, from its first shard to the record that completes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal, NotRequired, TypedDict

import numpy as np

from retrieval_jax import embeddings
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import file_sha256, load_npy

NEW, KEPT, CHANGED, DAMAGED = range(4)
_STATES = {"kept": KEPT, "new": NEW, "changed": CHANGED, "damaged": DAMAGED}
_PARTS = {"vectors": ".npy", "fingerprints": ".fingerprints.npy", "thumbnails": ".thumbnails.npy"}
_OPTIONAL = ("thumbnails",)  # embeddings of text have none
_SHA256 = {part: "sha256" if part == "vectors" else f"{part}_sha256" for part in _PARTS}  # keys of a shard's record
_THUMBNAIL = 192  # bytes of the thumbnail of one picture


class _Entry(TypedDict):
    """The record of a shard, <number>.json."""

    recipe: str
    dtype: str
    start: documents.Count
    rows: documents.Count
    ids_sha256: documents.Sha256
    earlier: str
    dim: documents.Count
    space: str
    counts: dict[Literal["kept", "new", "changed", "damaged"], documents.Count]
    sha256: documents.Sha256
    fingerprints_sha256: NotRequired[documents.Sha256]
    thumbnails_sha256: NotRequired[documents.Sha256]


@dataclasses.dataclass(frozen=True)
class Job:
    """One split to embed; the same on every process.

    Attributes:
      folder: where the embeddings go.
      ids: n ids, in the order of the catalogue.
      recipe: name of what turns a listing into a vector, see `recipe_name`.
      dtype: on disk, "float32" or "float16".
      shard_rows: rows per shard; the last may have fewer.
    """

    folder: pathlib.Path
    ids: Ids
    recipe: str
    dtype: str
    shard_rows: int

    @property
    def partial(self) -> pathlib.Path:
        """Folder of the shards until all of them are complete."""
        return _partial(self.folder)

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-len(self.ids) // self.shard_rows)

    def rows(self, shard: int) -> np.ndarray:
        """Returns the rows of a shard, ascending."""
        return np.arange(shard * self.shard_rows, min(len(self.ids), (shard + 1) * self.shard_rows))


def settle(folder: pathlib.Path) -> None:
    """Moves complete embeddings into place where a run was killed just before it did so; one process calls it, first.

    Args:
      folder: of the embeddings, see `Job`.
    """
    partial = _partial(folder)
    versions.settle(folder, "embeddings.json")
    atomic.sweep(folder.parent)
    atomic.sweep(partial, again=True)
    if (partial / "embeddings.json").exists():
        _put_in_place(partial, folder)


def _partial(folder: pathlib.Path) -> pathlib.Path:
    folder = atomic.resolved(folder) if folder.is_symlink() else folder  # its files are moved: on the same disk
    return folder.with_name(f".{folder.name}.partial")


def _put_in_place(partial: pathlib.Path, folder: pathlib.Path) -> None:
    for file in partial.glob("[0-9]*.json"):
        file.unlink()
    versions.commit(partial, folder, "embeddings.json")


class Earlier:
    """Embeddings of an earlier run, whose vectors may be reused if they are of the same recipe and intact."""

    def __init__(self, folder: pathlib.Path, recipe: str, dtype: str):
        """Opens them; `reason` says why none of them can be reused, "" if they can.

        Args:
          folder: of the embeddings; may be missing.
          recipe: the recipe that they must have.
          dtype: the dtype that they must be stored as.
        """
        self.reason, self.name, self.space, self.ids = "", "", "", Ids.of([])
        self._shards: list[dict] = []
        if not (folder / "embeddings.json").exists():
            self.reason = "there are no earlier vectors"
            return
        try:
            info, self.ids = embeddings.read_info(folder), Ids.load(folder)
            if info["meta"].get("recipe") != recipe:
                self.reason = "the earlier ones come from another network or other settings"
            elif info["dtype"] != dtype:
                self.reason = f"the earlier ones are stored as {info['dtype']}"
            elif self.ids.sha256() != info["ids_sha256"] or sum(s["rows"] for s in info["shards"]) != len(self.ids):
                self.reason = "the ids of the earlier ones are damaged"
        except InputError as error:
            self.reason = f"the earlier ones cannot be read ({error})"
        if self.reason:
            return
        self.folder, self._shards, self.space = folder, info["shards"], info["meta"].get("space") or ""
        self.name = file_sha256(folder / "embeddings.json")[:16]
        self._starts = np.cumsum([0] + [shard["rows"] for shard in self._shards])
        self._open: dict[int, dict[str, np.ndarray] | None] = {}
        # 16 bytes per id, not a dict of a million strings
        keys = _keys(self.ids)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the row of each id, int64 [n], -1 for an id that is not there."""
        if not len(self._shards) or not len(self.ids):
            return np.full(len(ids), -1)
        keys = _keys(ids)
        rows = self._order[np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)]
        return np.array(
            [row if self.ids[row] == item else -1 for row, item in zip(rows.tolist(), ids, strict=True)], np.int64
        )

    def intact(self, rows: np.ndarray) -> np.ndarray:
        """Returns which rows lie in shards whose checksums are right, bool [n]."""
        numbers = self._numbers(rows)
        return np.isin(numbers, [number for number in np.unique(numbers) if self._shard(int(number)) is not None])

    def notes(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns what was noted of intact rows: "fingerprints", and "thumbnails" where there are some, [n, ...]."""
        there = self._shard(int(self._numbers(rows[:1])[0]))
        return {part: self.take(part, rows) for part in there if part != "vectors"}

    def take(self, part: str, rows: np.ndarray) -> np.ndarray:
        """Returns "vectors" as stored, "fingerprints" or "thumbnails" of intact rows, [n, ...]."""
        numbers, out = self._numbers(rows), None
        for number in np.unique(numbers).tolist():
            here = numbers == number
            found = self._shard(number)[part][rows[here] - self._starts[number]]
            out = np.empty((len(rows), found.shape[1]), found.dtype) if out is None else out
            out[here] = found
        return out

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, rows, side="right") - 1

    def _shard(self, number: int) -> dict[str, np.ndarray] | None:
        if number not in self._open:
            entry = self._shards[number]
            self._open[number] = _read(self.folder, entry["file"], entry)
        return self._open[number]


def write(job: Job, earlier: Earlier, contents, embed, shards: Sequence[int], say: Callable[[str], None]) -> None:
    """Makes some shards of a split, one after the other; a shard that is already there and intact is left alone.

    Args:
      job: what to make.
      earlier: embeddings whose vectors may be reused.
      contents: of the split: `notes(rows)` and `unchanged(rows, notes)`, as `data.contents.Contents`.
      embed: function of (rows, shard number); returns (float32 [n, dim], name of their space).
      shards: numbers of the shards to make.
      say: called with a message for each shard that is discarded.

    Raises:
      InputError: a value that float16 cannot hold, or vectors of another dimension than the earlier ones.
    """
    job.partial.mkdir(parents=True, exist_ok=True)
    for number in shards:
        rows = job.rows(number)
        ids = job.ids[rows]
        what = {
            "recipe": job.recipe,
            "dtype": job.dtype,
            "start": int(rows[0]),
            "rows": len(rows),
            "ids_sha256": Ids.of(ids).sha256(),
            "earlier": earlier.name,
        }
        if _is_done(job, number, what, rows, contents, say):
            continue
        states = np.full(len(rows), NEW)
        at = earlier.find(ids)
        there = np.flatnonzero(at >= 0)
        good = earlier.intact(at[there]) if len(there) else np.zeros(0, bool)
        states[there[~good]] = DAMAGED
        there = there[good]
        if len(there):
            same = contents.unchanged(rows[there], earlier.notes(at[there]))
            states[there] = np.where(same, KEPT, CHANGED)
        array, space = None, earlier.space
        if (states != KEPT).any():
            vectors, space = embed(rows[states != KEPT], number)
            array = np.empty((len(rows), vectors.shape[1]), job.dtype)
            array[states != KEPT] = embeddings.as_stored(
                vectors,
                job.dtype,
                lambda row, todo=rows[states != KEPT]: f"{job.folder}: row {todo[row]} ({job.ids[int(todo[row])]})",
            )
        if (states == KEPT).any():
            taken = earlier.take("vectors", at[states == KEPT])
            array = np.empty((len(rows), taken.shape[1]), job.dtype) if array is None else array
            if array.shape[1] != taken.shape[1] or space != earlier.space:
                raise InputError(
                    f"{job.folder} has vectors of {taken.shape[1]} numbers in the space {earlier.space}, "
                    f"the network now gives {array.shape[1]} in {space}: remove the folder, embed again"
                )
            array[states == KEPT] = taken
        entry = {
            **what,
            "dim": array.shape[1],
            "space": space,
            "counts": {name: int((states == state).sum()) for name, state in _STATES.items()},
        }
        for part, values in {"vectors": array, **contents.notes(rows)}.items():
            entry |= _save(job.partial, number, part, values)
        atomic.write_json(job.partial / f"{number:05d}.json", entry)


def _is_done(job: Job, number: int, what: dict, rows: np.ndarray, contents, say: Callable[[str], None]) -> bool:
    """Returns whether a killed run left this shard whole, for this recipe and these listings with the same content."""
    file = job.partial / f"{number:05d}.json"
    if not file.exists():
        return False
    try:
        entry = documents.read(file, _Entry, remedy="run embed again")
        if any(entry[name] != value for name, value in what.items()):
            reason = "it has other listings, another network or other settings"
        elif (parts := _read(job.partial, f"{number:05d}.npy", entry)) is None:
            reason = "its checksums are wrong"
        elif not contents.unchanged(rows, {part: parts[part] for part in parts if part != "vectors"}).all():
            reason = "a listing of it changed"
        else:
            return True
    except (InputError, KeyError, TypeError) as error:
        reason = f"its record cannot be read ({error!r})"
    file.unlink()
    say(f"shard {number} of the killed run is discarded: {reason}")
    return False


def finish(job: Job, meta: dict, earlier: Earlier) -> dict[str, int]:
    """Joins the shards of all processes after the last one is written; one process calls it.

    Args:
      job: what was made.
      meta: provenance, JSON-able; "space", "recipe" and "dim" are added.
      earlier: what vectors were reused from.

    Returns:
      Counts of listings. now: all of them = kept + new + changed + damaged; before: in the earlier embeddings = kept +
      changed + damaged + removed, 0 where those could not be used.

    Raises:
      InputError: a shard is missing, or the shards do not fit each other.
    """
    entries, counts = [], dict.fromkeys(_STATES, 0)
    for number in range(job.count):
        file = job.partial / f"{number:05d}.json"
        if not file.exists():
            raise InputError(f"{file} is missing: do all processes write to the same folder? Run embed again")
        entry = documents.read(file, _Entry, remedy="run embed again")
        same = entries[0] if entries else entry
        for name in ("recipe", "space", "dim"):
            if entry[name] != (job.recipe if name == "recipe" else same[name]):
                raise InputError(
                    f"{file}: the {name} is {entry[name]!r}, which differs from the other shards: the processes "
                    "ran with different weights, settings or code; run embed again"
                )
        for name in _STATES:
            counts[name] += entry["counts"][name]
        entries.append(entry)
    counts["removed"] = int((~np.isin(_keys(earlier.ids), _keys(job.ids))).sum()) if earlier.name else 0
    counts["before"], counts["now"] = len(earlier.ids) if earlier.name else 0, len(job.ids)
    if (
        counts["kept"] + counts["new"] + counts["changed"] + counts["damaged"] != counts["now"]
        or counts["kept"] + counts["changed"] + counts["damaged"] + counts["removed"] != counts["before"]
    ):
        raise InputError(f"{job.folder}: the counts of listings do not add up ({counts}): does an id occur twice?")
    job.ids.save(job.partial)
    shards = [
        {
            "file": f"{number:05d}.npy",
            "rows": entry["rows"],
            **{key: entry[key] for key in _SHA256.values() if key in entry},
        }
        for number, entry in enumerate(entries)
    ]
    wanted = {
        f"{number:05d}{end}"
        for number, entry in enumerate(entries)
        for part, end in _PARTS.items()
        if _SHA256[part] in entry
    }
    for file in job.partial.iterdir():  # leftovers of other settings or processes
        if file.name not in wanted | {"ids.npy", "id_offsets.npy"} and file.suffix != ".json":
            file.unlink()
    atomic.write_json(
        job.partial / "embeddings.json",
        {
            "format": embeddings.FORMAT,
            "rows": len(job.ids),
            "dim": entries[0]["dim"],
            "dtype": job.dtype,
            "ids_sha256": job.ids.sha256(),
            "shards": shards,
            "meta": {**meta, "space": entries[0]["space"], "recipe": job.recipe, "dim": entries[0]["dim"]},
        },
    )
    _put_in_place(job.partial, job.folder)
    return counts


def thumbnails(folder: pathlib.Path, ids: Ids) -> np.ndarray | None:
    """Returns the thumbnails of embedded pictures, uint8 [n, 192], one per listing.

    Args:
      folder: of the embeddings; may be missing.
      ids: the listings wanted.

    Returns:
      None where the folder has other listings, or none or several pictures per listing (embeddings of text have none).
    """
    if not (pathlib.Path(folder) / "embeddings.json").exists():
        return None
    return versions.read(folder, "embeddings.json", lambda place: _thumbnails(place, ids))


def _thumbnails(folder: pathlib.Path, ids: Ids) -> np.ndarray | None:
    if Ids.load(folder) != ids:
        return None
    shards = embeddings.read_info(folder)["shards"]
    if not all("thumbnails_sha256" in shard for shard in shards):
        return None
    parts = [
        load_npy(folder / shard["file"].replace(".npy", _PARTS["thumbnails"]), mmap=True, ndim=2) for shard in shards
    ]
    return np.concatenate(parts) if all(part.shape[1] == _THUMBNAIL for part in parts) else None


def _save(folder: pathlib.Path, number: int, part: str, values: np.ndarray) -> dict[str, str]:
    """Writes one file of a shard, whole even if the process or the machine crashes; returns its checksum."""
    file = folder / f"{number:05d}{_PARTS[part]}"
    atomic.write_npy(file, values)
    return {_SHA256[part]: file_sha256(file)}


def _read(folder: pathlib.Path, name: str, entry: dict) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a shard, memory-mapped; None unless all have the checksums of its record."""
    found = {}
    for part, end in _PARTS.items():
        file = folder / name.replace(".npy", end)
        wanted = entry.get(_SHA256[part])
        if wanted is None and part in _OPTIONAL:
            continue
        try:
            if wanted is None or file_sha256(file) != wanted:
                return None
            found[part] = load_npy(file, mmap=True, ndim=2)
        except (OSError, InputError):
            return None
        if len(found[part]) != entry["rows"]:
            return None
    return found


def _keys(ids: Sequence[str]) -> np.ndarray:
    """Returns a 64-bit number for each id."""
    digests = b"".join(hashlib.blake2b(str(item).encode(), digest_size=8).digest() for item in ids)
    return np.frombuffer(digests, np.uint64)


def recipe_name(recipe: dict) -> str:
    """Returns the short name of a recipe.

    Args:
      recipe: JSON-able; all that a vector depends on beside the listing itself.
    """
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
