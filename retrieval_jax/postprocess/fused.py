"""What each member gave to the results of a fusion: in Python, as JSON (`Explanation.to_json`), and for the report."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.errors import InputError
from retrieval_jax.files import documents
from retrieval_jax.index.attribute.explain import Explanation
from retrieval_jax.postprocess import fusion
from retrieval_jax.postprocess.ensemble import shares
from retrieval_jax.scoring.ranking import Ranking, read_stages


class _File(TypedDict, total=False):
    """fusion.json."""

    method: str
    constant: float
    names: list[str]
    weights: dict[str, float]
    why: str


@dataclasses.dataclass(frozen=True)
class Made:
    """A fusion in a work directory.

    Attributes:
      fused: the ranking.
      rankings: {member: its ranking}.
      weights: {member: weight}, summing to 1.
      method, constant: see `fusion.step`.
      why: how the weights were chosen; "" where they were given.
    """

    fused: Ranking
    rankings: Mapping[str, Ranking]
    weights: Mapping[str, float]
    method: str
    constant: float
    why: str = ""

    __repr__ = brief.line

    def explain(self, query: int, gallery_ids: Sequence[str], k: int | None = None) -> list[Explanation]:
        """Returns `explain` of the results of one query."""
        return explain(
            self.rankings,
            self.fused,
            query,
            gallery_ids,
            weights=self.weights,
            method=self.method,
            constant=self.constant,
            k=k,
        )


def load(workdir: str | os.PathLike) -> Made | None:
    """Loads the fusion that search made in a work directory; None where it made none.

    Args:
      workdir: the work directory.

    Raises:
      InputError: a file is missing or damaged.
    """
    folder = pathlib.Path(workdir) / "rankings"
    file = folder / "ensemble" / fusion.FILE
    if not file.exists():
        return None
    remedy = "run search again"
    about = documents.read(file, _File, remedy=remedy)
    last, fused = {}, None
    for entry in read_stages(workdir):
        if entry["model"] == "ensemble" and entry.get("step") == "fusion":
            fused = Ranking.load(folder / "ensemble" / entry["stage"])
        elif entry["model"] != "ensemble":
            last[entry["model"]] = folder / entry["model"] / entry["stage"]
    names = about.get("names", [])
    if fused is None:  # its stage is not among config.search.stages
        return None
    if not names or missing_of(names, last) or missing_of(names, about.get("weights", {})):
        raise InputError(f"{file} does not match the rankings beside it: {remedy}")
    rankings = {name: Ranking.load(last[name]) for name in names}
    return Made(fused, rankings, about["weights"], about["method"], about["constant"], about.get("why", ""))


def missing_of(names: Sequence[str], there: Mapping) -> list[str]:
    """Returns the names that a mapping does not have."""
    return [name for name in names if name not in there]


def explain(
    rankings: Mapping[str, Ranking],
    fused: Ranking,
    query: int,
    gallery_ids: Sequence[str],
    *,
    weights: Mapping[str, float],
    method: str = "reciprocal_rank",
    constant: float = 60.0,
    k: int | None = None,
) -> list[Explanation]:
    """Explains the results of a query: what each member gave to their scores.

    Args:
      rankings: {name: ranking} of the members that were fused.
      fused: the ranking that `fusion.step` made of them.
      query: number of the query.
      gallery_ids: of the gallery.
      weights: {name: weight}, as of fusion.json.
      method, constant: see `fusion.step`; "scores" needs vectors and cannot be explained by rankings alone.
      k: how many results; all by default.

    Returns:
      One `Explanation` per result, best first. Its parts are {name: (part, weight, share)}: a share is weight x part
      over the sum of these, which is the score; a member that did not find the listing gives 0.

    Raises:
      InputError: there is no such query, or rankings that do not match.
    """
    query = arguments.integer(query, "query", "explain", low=0, high=len(fused) - 1)
    method = arguments.choice(method, "method", "explain", tuple(name for name in fusion.METHODS if name != "scores"))
    fusion.check([fused, *rankings.values()], fused.k)
    one = [
        dataclasses.replace(
            ranking,
            query_ids=[ranking.query_ids[query]],
            item_rows=ranking.item_rows[query : query + 1],
            scores=ranking.scores[query : query + 1],
        )
        for ranking in rankings.values()
    ]
    _, row, parts = fusion.contributions(one, method, constant=constant)
    given = dict(
        zip(rankings, shares([weights.get(name, 0.0) for name in rankings], len(rankings)).tolist(), strict=True)
    )
    out = []
    for found, score in zip(fused.item_rows[query][:k].tolist(), fused.scores[query][:k].tolist(), strict=True):
        if found < 0:
            break
        place = int(np.searchsorted(row, found))
        if place == len(row) or row[place] != found:
            raise InputError(f"explain: result {found} of query {query} is in none of the rankings that were given")
        named = {name: (float(parts[place, number]), given[name]) for number, name in enumerate(rankings)}
        total = sum(part * weight for part, weight in named.values())
        shared = {
            name: (part, weight, part * weight / total if total else 0.0) for name, (part, weight) in named.items()
        }
        out.append(Explanation(str(gallery_ids[found]), found, score, (), shared))
    return out
