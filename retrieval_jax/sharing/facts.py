"""Collects what an exported model records about its run: data, scores, whitening and chosen steps."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.postprocess import new_queries, walk
from retrieval_jax.scoring import written
from retrieval_jax.workdir import hashes, settings, sides

SEARCH, WHITENING, VOCABULARY = "search.json", "whitening.npz", "vocabulary.json"
_SCORES = ("mar@10_capped", "recall@1", "map@10", "ndcg@10", "precision@10")
_REMEDY = "run the verbs of the work directory again"


def of_data(workdir: pathlib.Path, config: Any) -> dict[str, Any]:
    """Returns what a model was trained and scored on: the source, the catalogue, and rows of each split.

    Args:
      workdir: the work directory.
      config: the settings.
    """
    kept = {}
    if (file := workdir / "attributes" / "summary.json").exists():
        rows = documents.read(file, dict[str, Any], remedy=_REMEDY).get("rows", {})
        kept = {name: counts["kept"] for name, counts in rows.items() if name in ("train", "val", "query", "gallery")}
    gallery = _gallery(workdir, config)
    kwargs = settings.plain(config.data.get("kwargs") or {})
    return {
        "source": config.data.source,
        "catalogue": gallery.meta.get("catalogue", "") if gallery is not None else "",
        "splits": kept,
        # the embedded catalogue is made from these; paths of other sources are the publisher's own business
        "kwargs": kwargs if config.data.source == "synthetic" else {},
    }


def write(folder: pathlib.Path, workdir: pathlib.Path, space: str, config: Any) -> list[str]:
    """Writes vocabulary.json, and search.json with whitening.npz if the run was searched with this checkpoint.

    search.json: {"steps": of the search, with those that "chosen" stands for; "why": they were chosen; "stages":
    [{"stage", "steps"}], those that apply to new queries, with all steps that lead to each; "whitening": file or null;
    "num_queries"; "scores": [{"model", "stage", name, name_low, name_high, ...}]}.

    Args:
      folder: of the exported model, not yet described.
      workdir: the work directory.
      space: that of the exported checkpoint; results of another one are left out.
      config: the settings.

    Returns:
      What was left out, as sentences.
    """
    if (vocabulary := workdir / "attributes" / VOCABULARY).exists():
        shutil.copyfile(vocabulary, folder / VOCABULARY)
    gallery = _gallery(workdir, config)
    if gallery is None or hashes.read_record(workdir, "search") is None:
        return ["the run has not been searched, so the folder has no whitening, steps or scores"]
    if gallery.meta.get("space") != space:
        return ["the run was searched with another checkpoint, so the folder has no whitening, steps or scores"]
    plain = settings.plain(config)
    taken, why = new_queries.taken(workdir, plain)
    steps = [list(step) for one in taken for step in one.steps]
    joined = next((place for place, (name, _) in enumerate(steps) if name in walk.JOINS), len(steps))
    stages, note = new_queries.of_run(workdir, plain)
    fitted = next((stage.whitening for stage in stages if stage.whitening is not None), None)
    if fitted is not None and fitted.info.get("space") != space:
        stages, note = [stage for stage in stages if stage.whitening is None], "the whitening is of another checkpoint"
        fitted = None
    if fitted is not None:
        fitted.save(folder / WHITENING)
    rows = written.stages(workdir) if hashes.read_record(workdir, "evaluate") is not None else []
    wanted = [f"{name}{end}" for name in _SCORES for end in ("", "_low", "_high")]
    scores = [
        {key: row[key] for key in ("model", "stage", *wanted) if row.get(key) is not None}
        for row in rows
        if row["model"] == sides.MODEL
    ]
    found = {
        "steps": steps[:joined],  # a joining step needs other models, which are not in the folder
        "why": why,
        "stages": [{"stage": stage.name, "steps": [list(step) for step in stage.steps]} for stage in stages[1:]],
        "whitening": WHITENING if fitted is not None else None,
        "num_queries": rows[0]["num_scored"] if rows else 0,
        "scores": scores,
    }
    atomic.write_json(folder / SEARCH, found)
    notes = [] if scores else ["the run has not been evaluated, so the folder has no scores"]
    return notes + ([note] if note else [])


def whitened_stage(workdir: pathlib.Path, space: str, config: Any) -> new_queries.Stage:
    """Returns the last stage of a run's search whose vectors are whitened, as it was fitted.

    Args:
      workdir: the work directory.
      space: that of the exported checkpoint.
      config: the settings.

    Raises:
      InputError: the search of this checkpoint has no whitening that applies to a new query.
    """
    stages, note = new_queries.of_run(workdir, settings.plain(config))
    found = [stage for stage in stages if stage.whitening is not None]
    if not found:
        raise InputError(
            f"{workdir} has no whitening to fold into the program{f' ({note})' if note else ''}: search it with the "
            "step 'whitening' first, or export without --whitened"
        )
    if found[-1].whitening.info.get("space") != space:
        raise InputError(
            f"the whitening of {workdir} was fitted on vectors of another checkpoint: run embed and search again, or "
            "export without --whitened"
        )
    return found[-1]


def _gallery(workdir: pathlib.Path, config: Any) -> Embeddings | None:
    """Returns the gallery's embeddings, None if they are missing or cannot be read."""
    try:
        return Embeddings.load(workdir / "embeddings" / sides.of(config)["gallery"].folder / "gallery")
    except InputError:
        return None
