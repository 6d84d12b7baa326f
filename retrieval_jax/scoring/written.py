"""Reads the scores that evaluate wrote (metrics.json)."""

from __future__ import annotations

import os
import pathlib
from typing import Any, NotRequired, TypedDict

from retrieval_jax.errors import InputError
from retrieval_jax.files import documents

_REMEDY = "run evaluate again"


class _Row(TypedDict):
    """Scores of one stage; further keys are numbers."""

    model: str
    stage: str
    num_scored: documents.Count
    num_queries: documents.Count
    selection: NotRequired[dict[str, float | None]]
    report: NotRequired[dict[str, float | None]]
    slices: NotRequired[dict[str, dict[str, dict[str, float | None]]]]
    without_near_duplicates: NotRequired[dict[str, float | None]]


class _Calibration(TypedDict):
    """How often predictions of each probability are right."""

    ece: float
    count: list[documents.Count]
    probability: list[float | None]
    right: list[float | None]


class _Attributes(TypedDict):
    """Scores of a split's predicted attributes; further keys are numbers."""

    num_listings: documents.Count
    set_f1: float
    majority: NotRequired[dict[str, float]]
    unseen: NotRequired[dict[str, float]]
    true_unseen: NotRequired[dict[str, float]]
    calibration: NotRequired[_Calibration]


class _EditStage(TypedDict):
    """Scores of edits at one stage; further keys are numbers."""

    model: str
    stage: str
    slices: NotRequired[dict[str, dict[str, dict[str, float | None]]]]


class _Edits(TypedDict):
    """Scores of edits."""

    counts: dict[str, documents.Count]
    names: list[str]
    stages: list[_EditStage]
    chance: NotRequired[dict[str, Any]]
    similarity_of: NotRequired[str]
    similarity_not_measured: NotRequired[str]


class _Example(TypedDict):
    """Two pictures that are nearly the same."""

    query: NotRequired[str]
    train: NotRequired[str]
    gallery: str
    difference: float


class _Duplicates(TypedDict):
    """How many listings of a split have a near-duplicate in the gallery, or why that is unknown."""

    not_checked: NotRequired[str]
    listings: NotRequired[documents.Count]
    compared: NotRequired[documents.Count]
    found: NotRequired[documents.Count]
    relevant: NotRequired[documents.Count]
    examples: NotRequired[list[_Example]]


class _NearDuplicates(TypedDict):
    """Near-duplicates across splits, see `evaluate.near_duplicates`."""

    not_checked: NotRequired[str]
    query: NotRequired[_Duplicates]
    train: NotRequired[_Duplicates]


class _Better(TypedDict):
    """A model without training that is better, see `baselines.better`."""

    metric: str
    model: str
    stage: str
    than: list[str]
    score: float
    than_score: float
    difference: float
    low: float
    high: float


class _File(TypedDict):
    """metrics.json."""

    stages: list[_Row]
    metrics: NotRequired[list[str]]
    chance: NotRequired[dict[str, float]]
    attributes: NotRequired[dict[str, _Attributes]]
    edits: NotRequired[_Edits]
    near_duplicates: NotRequired[_NearDuplicates]
    better_without_training: NotRequired[_Better]


def _part(workdir: str | os.PathLike, name: str, nothing: Any) -> tuple[pathlib.Path, Any]:
    """Returns the file, and a part of it; `nothing` without the file or the part."""
    file = pathlib.Path(workdir) / "metrics.json"
    return file, documents.read(file, _File, remedy=_REMEDY).get(name, nothing) if file.exists() else nothing


def stages(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the scores of a work directory, one dict per stage; none where nothing was scored.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    file, rows = _part(workdir, "stages", [])
    for row in rows:
        for name in row.keys() - _Row.__annotations__.keys():
            if not isinstance(row[name], (int, float, type(None))):
                raise InputError(f"{file}: {name!r} of {row['model']} {row['stage']} is not a number: {_REMEDY}")
    return rows


def metrics(workdir: str | os.PathLike) -> list[str]:
    """Returns the names of the scores that config.evaluate.metrics chose; none for those of pictures.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    return _part(workdir, "metrics", [])[1]


def chance(workdir: str | os.PathLike) -> dict[str, float]:
    """Returns the scores to expect of a gallery in random order; empty where nothing was scored.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    return _part(workdir, "chance", {})[1]


def better_without_training(workdir: str | os.PathLike) -> dict[str, Any]:
    """Returns the model without training that is better than the trained one (see `baselines.better`); {} without one.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    return _part(workdir, "better_without_training", {})[1]


def attributes(workdir: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Returns the scores of predicted attributes by split; empty where none were predicted.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    file, found = _part(workdir, "attributes", {})
    for split, scores in found.items():
        for name in scores.keys() - _Attributes.__annotations__.keys():
            if not isinstance(scores[name], (int, float)):
                raise InputError(f"{file}: {name!r} of the attributes of {split} is not a number: {_REMEDY}")
    return found


def edits(workdir: str | os.PathLike) -> dict[str, Any]:
    """Returns the scores of edits (see `edits.evaluate`); empty where queries are not edits.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    file, found = _part(workdir, "edits", {})
    for row in found.get("stages", ()):
        for name in row.keys() - _EditStage.__annotations__.keys():
            if not isinstance(row[name], (int, float, type(None))):
                raise InputError(f"{file}: {name!r} of the edits of {row['stage']} is not a number: {_REMEDY}")
    return found


def near_duplicates(workdir: str | os.PathLike) -> dict[str, Any]:
    """Returns what is known of near-duplicate pictures across splits; empty where they were not looked for.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    file, found = _part(workdir, "near_duplicates", {})
    if "not_checked" in found:
        return {}
    for split in ("query", "train"):
        needed = {"listings", "compared", "found", "examples"} - found.get(split, {"not_checked": ""}).keys()
        if needed and "not_checked" not in found.get(split, {"not_checked": ""}):
            raise InputError(f"{file}: near_duplicates of {split} has no {sorted(needed)[0]!r}: {_REMEDY}")
    return found
