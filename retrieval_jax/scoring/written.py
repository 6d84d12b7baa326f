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
    slices: NotRequired[dict[str, dict[str, dict[str, float | None]]]]
    without_near_duplicates: NotRequired[dict[str, float | None]]


class _File(TypedDict):
    """metrics.json."""

    stages: list[_Row]
    chance: NotRequired[dict[str, float | None]]


def read(workdir: str | os.PathLike) -> dict[str, Any]:
    """Returns metrics.json of a work directory, {} where nothing was scored.

    Args:
      workdir: the work directory.

    Raises:
      InputError: metrics.json is damaged.
    """
    file = pathlib.Path(workdir) / "metrics.json"
    if not file.exists():
        return {}
    content = documents.read(file, _File, remedy=_REMEDY)
    for row in content["stages"]:
        for name in row.keys() - _Row.__annotations__.keys():
            if not isinstance(row[name], (int, float, type(None))):
                raise InputError(f"{file}: {name!r} of {row['model']} {row['stage']} is not a number: {_REMEDY}")
    return content
