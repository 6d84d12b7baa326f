"""The result of a search (Ranking) and the ground truth it is scored against (Truth)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import file_sha256, load_npy


class _Info(TypedDict):
    """ranking.json."""

    gallery_sha256: str
    sha256: NotRequired[dict[str, str]]


class _Stage(TypedDict):
    """An entry of rankings.json: the names of two folders, and of the search step that made the ranking."""

    model: documents.FileName
    stage: documents.FileName
    step: NotRequired[str | None]


class _Stages(TypedDict):
    """rankings.json."""

    stages: list[_Stage]


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """The gallery rows found for every query, best first.

    Attributes:
      query_ids: Q ids.
      item_rows: [Q, k] int64, rows of the gallery; -1 where fewer than k were found.
      scores: [Q, k] float32, higher is better; -inf where item_rows is -1.
      gallery_sha256: fingerprint of the gallery's ids (`Ids.sha256`), so that rows are not read against the wrong
        gallery; "" if unknown.

    Raises:
      InputError: shapes that do not match, rows that are not integers, non-finite scores, or padding before the end.
    """

    query_ids: Sequence[str]
    item_rows: np.ndarray
    scores: np.ndarray
    gallery_sha256: str = ""

    __repr__ = brief.line

    def __post_init__(self):
        ids = Ids.of(self.query_ids)
        rows = arguments.array(self.item_rows, "item_rows", "Ranking", ("queries", "k"), kind="integers")
        scores = arguments.array(self.scores, "scores", "Ranking", ("queries", "k"))
        rows = rows.astype(np.int64, copy=False)
        with np.errstate(over="ignore"):
            scores = scores.astype(np.float32, copy=False)
        arguments.text(self.gallery_sha256, "gallery_sha256", "Ranking")
        if rows.ndim != 2 or rows.shape != scores.shape or len(ids) != len(rows):
            raise InputError(
                f"a ranking needs rows and scores of shape [queries, k]: got {len(ids)} queries, rows {rows.shape}, "
                f"scores {scores.shape}"
            )
        padding = rows < 0
        bad = (
            (np.isnan(scores) | (scores == np.inf)).any(1)
            | (rows < -1).any(1)
            | (padding != (scores == -np.inf)).any(1)
            | (padding[:, :-1] & ~padding[:, 1:]).any(1)
        )
        if bad.any():
            query = int(bad.argmax())
            raise InputError(
                f"the ranking of query {query} ({ids[query]}) is invalid: scores must be finite, and padding (row -1, "
                "score -inf) must come last"
            )
        for name, value in (("query_ids", ids), ("item_rows", rows), ("scores", scores)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.item_rows)

    @property
    def k(self) -> int:
        """Results per query, padding included."""
        return self.item_rows.shape[1]

    def save(self, folder: str | os.PathLike, **info) -> pathlib.Path:
        """Writes the folder atomically; `info` (JSON-serialisable) goes into its ranking.json."""

        def fill(new: pathlib.Path) -> None:
            atomic.write_npy(new / "item_rows.npy", self.item_rows)
            atomic.write_npy(new / "scores.npy", self.scores)
            self.query_ids.save(new, "query_")
            sums = {file.name: file_sha256(file) for file in sorted(new.iterdir())}
            text = {"queries": len(self), "k": self.k, "gallery_sha256": self.gallery_sha256, "sha256": sums, **info}
            atomic.write_text(new / "ranking.json", json.dumps(text, indent=1))

        return versions.replace(folder, "ranking.json", fill)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Ranking:
        """Loads a ranking that `save` wrote, and verifies the checksums of its files.

        Raises:
          InputError: a missing or damaged file; the message names it.
        """
        return versions.read(folder, "ranking.json", cls._load)

    @classmethod
    def _load(cls, folder: pathlib.Path) -> Ranking:
        info = documents.read(
            folder / "ranking.json",
            _Info,
            remedy="run search again",
            missing="run search first (`retrieval-jax search`)",
        )
        sums = info.get("sha256", {})  # version 0.2 wrote none
        for name in ("query_ids.npy", "query_id_offsets.npy", "item_rows.npy", "scores.npy"):
            file = folder / name
            if name in sums and file.exists() and file_sha256(file) != sums[name]:
                raise InputError(f"{file} has changed since it was written: run search again")
        return cls(
            Ids.load(folder, "query_"),
            load_npy(folder / "item_rows.npy", mmap=False, dtypes=("int64",), ndim=2),
            load_npy(folder / "scores.npy", mmap=False, dtypes=("float32",), ndim=2),
            info["gallery_sha256"],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth: the relevant gallery rows of every query, as one flat array split by `indptr` (CSR).

    Rows are kept ascending and distinct per query. The gallery rows with the query's own id and with the id that it is
    about are not answers and are dropped (`Ids.left_out`). Grades say how relevant a row is; a row that is given twice
    keeps its highest grade. Rows whose grade is 0 or below were judged and found not relevant: they move to
    `rated_zero`.

    Attributes:
      query_ids: Q ids.
      gallery_ids: G ids.
      indptr: [Q + 1] int64; the rows of query q are rows[indptr[q]:indptr[q + 1]].
      rows: [indptr[-1]] int64.
      grades: [indptr[-1]] float32, above 0, one per row; None where every relevant row is equally so.
      rated_zero: int64 [n, 2], (query, gallery row) that were judged not relevant, ascending; None where only relevant
        rows are known. `metrics.per_query` can leave unrated rows out of a ranking by it.

    Raises:
      InputError: rows outside the gallery, invalid offsets, or grades that are not finite numbers, one per row.
    """

    query_ids: Sequence[str]
    gallery_ids: Sequence[str]
    indptr: np.ndarray
    rows: np.ndarray
    grades: np.ndarray | None = None
    rated_zero: np.ndarray | None = None

    __repr__ = brief.line

    def __post_init__(self):
        for name in ("query_ids", "gallery_ids"):
            object.__setattr__(self, name, _texts(getattr(self, name), name))
        indptr = arguments.array(self.indptr, "indptr", "Truth", ("Q + 1",), kind="integers").astype(np.int64)
        rows = arguments.array(self.rows, "rows", "Truth", ("n",), kind="integers").astype(np.int64)
        if (
            indptr.shape != (len(self.query_ids) + 1,)
            or rows.ndim != 1
            or indptr[0] != 0
            or indptr[-1] != len(rows)
            or (np.diff(indptr) < 0).any()
        ):
            raise InputError(
                f"the truth of {len(self.query_ids)} queries needs {len(self.query_ids) + 1} ascending offsets from 0 "
                f"to {len(rows)}"
            )
        queries = np.repeat(np.arange(len(self.query_ids)), np.diff(indptr))
        grades = np.ones(len(rows), np.float32) if self.grades is None else _grades(self.grades, len(rows))
        if self.rated_zero is not None:
            zeros = arguments.array(self.rated_zero, "rated_zero", "Truth", ("n", 2), kind="integers").astype(np.int64)
            if zeros.size and not 0 <= zeros[:, 0].min() <= zeros[:, 0].max() < len(self.query_ids):
                raise InputError(f"rated_zero of a truth refers to queries outside of its {len(self.query_ids)}")
            queries, rows = np.append(queries, zeros[:, 0]), np.append(rows, zeros[:, 1])
            grades = np.append(grades, np.zeros(len(zeros), np.float32))
        outside = (rows < 0) | (rows >= len(self.gallery_ids))
        if outside.any():
            where = int(outside.argmax())
            raise InputError(
                f"the truth of query {self.query_ids[int(queries[where])]} refers to gallery row {rows[where]}, but "
                f"the gallery has {len(self.gallery_ids)} rows"
            )
        keys = queries * max(1, len(self.gallery_ids)) + rows
        order = np.lexsort((-grades, keys))  # by query, then row; of repeats, the highest grade first
        keys, first = np.unique(keys[order], return_index=True)
        grades = grades[order[first]]
        queries, rows = np.divmod(keys, max(1, len(self.gallery_ids)))
        left_out = list(Ids.of(self.query_ids).left_out())
        own = np.fromiter(
            (self.gallery_ids[row] in left_out[q] for q, row in zip(queries.tolist(), rows.tolist(), strict=True)),
            bool,
            len(rows),
        )
        zero, chosen = ~own & (grades <= 0), ~own & (grades > 0)
        if zero.any() or self.rated_zero is not None:
            object.__setattr__(self, "rated_zero", np.stack([queries[zero], rows[zero]], axis=1))
        counts = np.bincount(queries[chosen], minlength=len(self.query_ids))
        object.__setattr__(self, "indptr", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        object.__setattr__(self, "rows", rows[chosen])
        if self.grades is not None:
            object.__setattr__(self, "grades", grades[chosen])

    @classmethod
    def from_lists(
        cls, query_ids: Sequence[str], gallery_ids: Sequence[str], relevant: Iterable[Iterable[str]]
    ) -> Truth:
        """Returns the truth from lists of gallery ids.

        Args:
          query_ids: Q ids.
          gallery_ids: G distinct ids.
          relevant: per query, in order, the ids of its relevant gallery listings (may be empty or repeat).

        Raises:
          InputError: an unknown or duplicate gallery id, or not one list per query.
        """
        query_ids, gallery_ids = _texts(query_ids, "query_ids"), _texts(gallery_ids, "gallery_ids")
        row_of = {item: row for row, item in enumerate(gallery_ids)}
        if len(row_of) != len(gallery_ids):
            raise InputError(
                f"{len(gallery_ids) - len(row_of)} of the gallery's {len(gallery_ids)} ids are repeats: make ids "
                "distinct"
            )
        indptr, rows = [0], []
        for number, items in enumerate(arguments.sequence(relevant, "relevant", "Truth")):
            for item in arguments.sequence(items, f"relevant[{number}]", "Truth") if number < len(query_ids) else ():
                item = item if isinstance(item, str) else str(item)
                if item not in row_of:
                    raise InputError(
                        f"the truth of query {query_ids[number]} (row {number}) refers to {item!r}, which is not in "
                        "the gallery"
                    )
                rows.append(row_of[item])
            indptr.append(len(rows))
        if len(indptr) != len(query_ids) + 1:
            raise InputError(f"{len(query_ids)} queries, but {len(indptr) - 1} lists of relevant ids: give one each")
        return cls(query_ids, gallery_ids, np.array(indptr, np.int64), np.array(rows, np.int64))

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def about(self) -> Sequence[str]:
        """Ids of the listings that the queries are about, one per query; see `Ids.about`."""
        return self.query_ids.about if isinstance(self.query_ids, Ids) else self.query_ids

    def relevant(self, query: int) -> np.ndarray:
        """Returns the relevant gallery rows of query number `query`, ascending."""
        return self.rows[self.indptr[query] : self.indptr[query + 1]]

    def moved(self, query_ids: Sequence[str], gallery_ids: Sequence[str], chosen: np.ndarray | None = None) -> Truth:
        """Returns the truth of queries and a gallery in another order; what is not among them is dropped.

        Args:
          query_ids: ids of the queries, distinct.
          gallery_ids: ids of the gallery, distinct.
          chosen: bool [Q], which queries of this truth keep their relevant rows; all by default.
        """
        maps = []
        for old, new in ((self.query_ids, query_ids), (self.gallery_ids, gallery_ids)):
            place = {name: row for row, name in enumerate(new)}
            maps.append(np.fromiter((place.get(name, -1) for name in old), np.int64, len(old)))
        query_to, row_to = maps
        if chosen is not None:
            query_to = np.where(arguments.array(chosen, "chosen", "Truth", (len(self),), kind="flags"), query_to, -1)
        query, row = query_to[np.repeat(np.arange(len(self)), self.num_relevant)], row_to[self.rows]
        order = np.argsort(query, kind="stable")
        order = order[(query[order] >= 0) & (row[order] >= 0)]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(query[order], minlength=len(query_ids)))])
        zero = self.rated_zero
        if zero is not None:
            zero = np.stack([query_to[zero[:, 0]], row_to[zero[:, 1]]], axis=1)
            zero = zero[(zero >= 0).all(1)]
        grades = None if self.grades is None else self.grades[order]
        return Truth(query_ids, gallery_ids, indptr.astype(np.int64), row[order], grades, zero)

    @property
    def num_relevant(self) -> np.ndarray:
        """Number of relevant gallery rows per query, [Q] int64."""
        return np.diff(self.indptr)


def replace_all(folder: str | os.PathLike, fill: Callable[[pathlib.Path], None]) -> None:
    """Replaces the rankings of a work directory once all new ones are complete.

    Each ranking is replaced in one step, then the list of them; those that are no longer listed are removed last. So a
    reader, or a kill in between, finds every ranking of the list whole.

    Args:
      folder: workdir/rankings.
      fill: writes rankings.json, the rankings below <model>/<stage> and other files of the models, into the empty
        folder that it is given.
    """
    folder = pathlib.Path(folder)
    new = atomic.filled(folder, fill)
    try:
        if not folder.exists():
            os.replace(new, atomic.resolved(folder))
            return
        rankings = {path.parent.relative_to(new) for path in new.rglob("ranking.json")}
        for name in sorted(rankings):
            versions.commit(new / name, folder / name, "ranking.json")
        files = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
        for name in sorted(files, key=lambda name: name.name == "rankings.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, folder / name)
        for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
            name = path.relative_to(folder)
            if path.is_dir():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
            elif name not in files and name.parent not in rankings:
                path.unlink(missing_ok=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _grades(grades, count: int) -> np.ndarray:
    """Returns grades as float32 [count]; raises InputError where they are not finite numbers, one per row."""
    with np.errstate(over="ignore"):
        grades = arguments.array(grades, "grades", "Truth", ("n",)).astype(np.float32)
    if grades.shape != (count,) or not np.isfinite(grades).all():
        raise InputError(f"a truth with {count} rows needs as many finite grades; got {list(grades.shape)}")
    return grades


def _texts(ids: Sequence[str], name: str) -> Sequence[str]:
    """Returns ids as texts; sequences of texts stay as they are, since lists are looked up faster than `Ids`."""
    ids = arguments.sequence(ids, name, "Truth")
    if isinstance(ids, (list, tuple, np.ndarray)) and not all(type(item) is str for item in ids):
        return list(Ids.of(ids))
    return ids


def list_stages(workdir: str | os.PathLike) -> list[tuple[str, str]]:
    """Returns (model, stage) of the rankings in a work directory, in the order of their creation.

    Args:
      workdir: the work directory.

    Raises:
      InputError: there are no rankings yet, or rankings.json is damaged.
    """
    return [(entry["model"], entry["stage"]) for entry in read_stages(workdir)]


def read_stages(workdir: str | os.PathLike) -> list[dict]:
    """Returns the entries of rankings.json; Args and Raises as of `list_stages`."""
    return documents.read(
        pathlib.Path(workdir) / "rankings" / "rankings.json",
        _Stages,
        remedy="run search again",
        missing="run `retrieval-jax search` with the same --config and --workdir first",
    )["stages"]


def matching_stages(stages: Sequence[tuple[str, str]], wanted: str, setting: str) -> list[tuple[str, str]]:
    """Returns the rankings that match a setting, in their order.

    Args:
      stages: (model, stage) of the existing rankings.
      wanted: "stage", "model/stage", or "" for all.
      setting: name of the setting, for the message.

    Raises:
      InputError: no ranking matches; the message lists the existing ones.
    """
    model, _, stage = str(wanted).rpartition("/")
    found = [entry for entry in stages if not wanted or (entry[1] == stage and model in ("", entry[0]))]
    if not found:
        known = ", ".join(map("/".join, stages))
        raise InputError(f"{setting} is {wanted!r}, but there is no such ranking (available: {known})")
    return found
