"""From a composed query to results with reasons: by vectors, by BM25, by both, or by conditions alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import brief
from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.index import attribute, exact
from retrieval_jax.index.attribute import Conditions
from retrieval_jax.index.attribute.table import to_rows
from retrieval_jax.postprocess import fusion, new_queries
from retrieval_jax.postprocess.new_queries import Stage
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.server.gallery import Gallery

FUSED = 200  # results of vectors and of BM25 each that are fused
LESS = 0.5  # how much "less like this" takes away
VECTORS, BM25, FUSION, NOTHING = "cosine", "bm25", "fusion", "nothing"


@dataclasses.dataclass(frozen=True, eq=False)
class Query:
    """What is searched for.

    Attributes:
      conditions: checked.
      k: results.
      offset: results to skip.
      parts: (name, vector [D] of the stage's space, weight); the query is their weighted sum. Empty for no vectors.
      words: searched by BM25; "" for none.
      weight: of the words beside vectors.
      like, unlike: ids of listings that the query is made of as well; they are never results.
    """

    conditions: Conditions
    k: int
    offset: int = 0
    parts: tuple[tuple[str, np.ndarray, float], ...] = ()
    words: str = ""
    weight: float = 1.0
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()

    __repr__ = brief.line


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked(Query):
    """A query whose listings are looked up.

    Attributes:
      left_out: rows of `like` and `unlike`, whose vectors are among the parts.
    """

    left_out: tuple[int, ...] = ()

    __repr__ = brief.line

    @property
    def needed(self) -> int:
        """Results to find, with those that are skipped or left out."""
        return self.offset + self.k + len(self.left_out)


@dataclasses.dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
      row: of the gallery.
      place: from 1.
      score: None where nothing was compared.
      parts: {name: (similarity, weight, share)}.
      reasons: one per condition.
      moved: places that re-ranking moved it up; None without re-ranking.
    """

    row: int
    place: int
    score: float | None
    parts: dict[str, tuple[float, float, float]]
    reasons: tuple[attribute.Reason, ...]
    moved: int | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """The results of a query.

    Attributes:
      hits: best first.
      matches: listings that meet the required and excluded conditions.
      scored_by: one of VECTORS, BM25, FUSION and NOTHING.
      note: what was not as asked; "" for nothing.
    """

    hits: list[Hit]
    matches: int
    scored_by: str
    note: str


def of_networks(stage: Stage, raw: dict[str, np.ndarray], weight: float) -> list[tuple[str, np.ndarray, float]]:
    """Returns the parts of a query that networks embedded.

    Args:
      stage: what is searched.
      raw: {"picture", "words": [D]}, or {"edited": [2, D]}, the picture alone and with the words.
      weight: of words beside a picture.
    """
    if "edited" in raw:
        alone, both = stage.vectors(raw["edited"], "query")
        return [("picture", alone, 1.0), ("words", both - alone, weight)]
    return [
        (name, stage.vectors(vector[None], "query")[0], weight if name == "words" and "picture" in raw else 1.0)
        for name, vector in raw.items()
    ]


def _asked(gallery: Gallery, stage: Stage, query: Query) -> _Asked:
    """Looks up the listings of a query; raises InputError for one that the gallery lacks, or that is both."""
    parts, rows, vectors = list(query.parts), [], gallery.vectors(stage)
    for name, ids, sign in (("like", query.like, 1.0), ("unlike", query.unlike, -LESS)):
        for listing in dict.fromkeys(ids):
            if listing not in gallery.row_of:
                raise InputError(f"{name}: the gallery has no listing {listing!r}: give the id of a result")
            if listing in query.like and listing in query.unlike:
                raise InputError(f"the listing {listing!r} is in like and in unlike: remove it from one of them")
            rows.append(gallery.row(listing))
            of_each = sign / len(dict.fromkeys(ids))
            parts.append((f"{name} {listing}", vectors.block(rows[-1], rows[-1] + 1)[0], of_each))
    given = {field.name: getattr(query, field.name) for field in dataclasses.fields(query)}
    return _Asked(**{**given, "parts": tuple(parts)}, left_out=tuple(rows))


def run(key: tuple[Gallery, Stage], queries: list[Query]) -> list[Answer | Exception]:
    """Searches for several requests at once, for `batching.Batcher`.

    Args:
      key: the gallery, and the stage to search it by.
      queries: of the requests.

    Returns:
      An answer for each, or the error that is its own.
    """
    gallery, stage = key
    out: list[Answer | Exception] = []
    with exact.one_thread(True):  # others answer requests meanwhile
        asked = [_tried(_asked, gallery, stage, query) for query in queries]
        there = [query for query in asked if isinstance(query, _Asked)]
        found = _by_vectors(gallery, stage, [query for query in there if query.parts])
        titles = _by_words(gallery, [query for query in there if query.words])
        for query in asked:
            by_words = None if isinstance(query, Exception) else titles.get(query)
            if error := next((one for one in (query, by_words) if isinstance(one, Exception)), None):
                out.append(error)
            else:
                out.append(_tried(_answer, gallery, stage, query, found.get(query), by_words))
    return out


def _tried(function, *given):
    """Returns what a function returns, or the error that is an answer."""
    try:
        return function(*given)
    except (InputError, RunFailed) as error:
        return error


def _by_vectors(gallery: Gallery, stage: Stage, queries: list[_Asked]) -> dict[_Asked, tuple]:
    """Returns {query: rows, scores and relaxed clauses of each}, best first."""
    if not queries:
        return {}
    sums = np.stack([_sum(query) for query in queries])
    deep = max(new_queries.DEPTH if stage.reranking is not None else 0, *map(_deep, queries))
    result = gallery.index(stage).find(sums, min(deep, len(gallery)), [query.conditions for query in queries])
    found = {}
    for place, query in enumerate(queries):
        rows = result.ranking.item_rows[place]
        there = rows >= 0
        found[query] = rows[there], result.ranking.scores[place][there], result.relaxed[place][there]
    return found


def _by_words(gallery: Gallery, queries: list[_Asked]) -> dict[_Asked, tuple[np.ndarray, np.ndarray] | Exception]:
    """Returns {query: rows and scores of BM25 among the matches}, best first: as many as it takes; or its error."""
    found, together = {}, []
    for query in queries:
        # Preferred conditions reorder all titles that have one of the words: too many to hold for several at once.
        if not query.parts and query.conditions.preferred:
            found |= _of_words(gallery, [query], len(gallery))
        else:
            together.append(query)
    if together:
        found |= _of_words(gallery, together, min(len(gallery), max(map(_deep, together))))
    return found


def _of_words(gallery: Gallery, queries: list[_Asked], k: int) -> dict:
    masks, words = [_mask(gallery, query.conditions) for query in queries], [query.words for query in queries]
    ranking = _tried(lambda: gallery.lexical().search(words, k, among=masks))
    if isinstance(ranking, Exception):
        return dict.fromkeys(queries, ranking)
    there = ranking.item_rows >= 0
    return {
        query: (ranking.item_rows[place][there[place]], ranking.scores[place][there[place]])
        for place, query in enumerate(queries)
    }


def _mask(gallery: Gallery, conditions: Conditions) -> np.ndarray | None:
    if not (conditions.required or conditions.excluded):
        return None
    mask = np.zeros(len(gallery), bool)
    mask[to_rows(gallery.matching(conditions))] = True
    return mask


def _deep(query: _Asked) -> int:
    return max(query.needed, FUSED if query.words else 0)


def _sum(query: _Asked) -> np.ndarray:
    total = sum(weight * vector for _, vector, weight in query.parts)
    length = float(np.linalg.norm(total))
    return np.asarray(total / length if length > 1e-9 else query.parts[0][1], np.float32)


def _answer(gallery: Gallery, stage: Stage, query: _Asked, found, by_words) -> Answer:
    matching = gallery.matching(query.conditions)
    moved, fused = {}, {}
    if query.words and found is None:
        rows, scores, relaxed = _in_tiers(gallery, query, *by_words)
        scored_by = BM25
    elif query.words:
        rows, scores, fused = _fused(gallery, query, found[:2], by_words)
        rows, scores, relaxed = _in_tiers(gallery, query, rows, scores)
        scored_by = FUSION
    elif found is not None:
        (rows, scores, relaxed), scored_by = found, VECTORS
        if stage.reranking is not None and not query.conditions.preferred and len(rows) > 1:
            rows, scores, moved = _reranked(gallery, stage, query, rows, scores)
    else:
        rows = to_rows(matching)
        rows, scores, relaxed = _in_tiers(gallery, query, rows, None)
        scored_by = NOTHING
    page = slice(query.offset, query.offset + query.k)
    if query.left_out:
        kept = (rows[:, None] != np.array(query.left_out)).all(1)
        rows, relaxed, scores = rows[kept], relaxed[kept], None if scores is None else scores[kept]
    rows, relaxed, scores = rows[page], relaxed[page], None if scores is None else scores[page]
    parts = _parts(gallery, stage, query, rows, scored_by, fused)
    reasons = attribute.reasons(gallery.table, query.conditions, rows)
    hits = [
        Hit(
            int(row),
            query.offset + place + 1,
            None if scores is None else float(scores[place]),
            parts[place],
            reasons[place],
            moved.get(int(row)),
        )
        for place, row in enumerate(rows.tolist())
    ]
    matches = len(matching) - sum(row in matching for row in set(query.left_out))
    return Answer(hits, matches, scored_by, _note(query, matches, len(hits), relaxed))


def _fused(gallery: Gallery, query: _Asked, *found) -> tuple[np.ndarray, np.ndarray, dict]:
    """Returns rows and scores of vectors and BM25 fused, and {row: what each gave}."""
    rankings = []
    for rows, scores in found:
        rows, scores = rows[:FUSED], scores[:FUSED]
        pad = FUSED - len(rows)
        rows = np.pad(rows, (0, pad), constant_values=-1)[None]
        scores = np.pad(np.asarray(scores, np.float32), (0, pad), constant_values=-np.inf)[None]
        rankings.append(Ranking(["0"], rows, scores, ""))
    weights = np.array([1.0, query.weight]) / (1.0 + query.weight)
    fused = fusion.min_max(rankings, 2 * FUSED, weights=weights.tolist(), gallery_ids=gallery.embeddings.ids)
    _, row, parts = fusion.contributions(rankings, "min_max")
    gave = dict(zip(row.tolist(), parts.tolist(), strict=True))
    there = fused.item_rows[0] >= 0
    return fused.item_rows[0][there], fused.scores[0][there], gave


def _reranked(gallery, stage, query, rows, scores) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    before = {row: place for place, row in enumerate(rows.tolist())}
    ranking = Ranking(["0"], rows[None], np.asarray(scores, np.float32)[None], gallery.embeddings.ids.sha256())
    after = stage.rerank(_sum(query), gallery.vectors(stage), ranking)
    rows, scores = after.item_rows[0], after.scores[0]
    return rows, scores, {row: before[row] - place for place, row in enumerate(rows.tolist())}


def _in_tiers(gallery: Gallery, query: _Asked, rows: np.ndarray, scores: np.ndarray | None) -> tuple:
    """Returns rows, scores and relaxed clauses of each, those that meet more preferred clauses first."""
    preferred = query.conditions.preferred
    relaxed, met = np.full(len(rows), len(preferred)), None
    if not preferred:
        return rows, scores, relaxed
    for number, clause in enumerate(preferred):
        meets = gallery.table.of_clause(clause)
        met = meets if met is None else met & meets
        relaxed[np.isin(rows, to_rows(met))] = len(preferred) - number - 1
    order = np.argsort(relaxed, kind="stable")
    return rows[order], None if scores is None else scores[order], relaxed[order]


def _parts(gallery: Gallery, stage: Stage, query: _Asked, rows, scored_by: str, fused: dict) -> list[dict]:
    """Returns {name: (similarity, weight, share)} of every result."""
    if scored_by == NOTHING:
        return [{} for _ in rows]
    if scored_by == BM25:
        return [{"words": (1.0, 1.0, 1.0)} for _ in rows]
    vectors = np.asarray(gallery.vectors(stage).vectors[rows], np.float32)
    names, weights = [name for name, _, _ in query.parts], np.array([weight for _, _, weight in query.parts])
    similar = np.stack([vectors @ vector for _, vector, _ in query.parts], 1).astype(np.float64)
    gave = np.abs(similar * weights)
    if scored_by == FUSION:  # what the vectors gave is divided among their parts
        by_vectors, by_words = np.array([fused[row] for row in rows.tolist()]).reshape(-1, 2).T
        gave *= (by_vectors / np.where(gave.sum(1) > 0, gave.sum(1), 1.0))[:, None]
        names, weights = [*names, "words"], np.append(weights, query.weight)
        gave, similar = np.c_[gave, query.weight * by_words], np.c_[similar, by_words]
    total = gave.sum(1, keepdims=True)
    shares = gave / np.where(total > 0, total, 1.0)
    return [
        dict(zip(names, zip(values, weights.tolist(), given, strict=True), strict=True))
        for values, given in zip(similar.tolist(), shares.tolist(), strict=True)
    ]


def _note(query: _Asked, matches: int, count: int, relaxed: np.ndarray) -> str:
    parts = []
    if most := int(relaxed.max(initial=0)):
        named = ", ".join(f"'{clause}'" for clause in query.conditions.preferred[::-1][:most])
        parts.append(f"too few listings meet all preferred conditions, so these were relaxed, in this order: {named}")
    if count < query.k and query.offset + count >= matches and query.conditions:
        listings = f"{matches:,} listing{'' if matches == 1 else 's'}" if matches else "no listing"
        parts.append(f"what is required is met by {listings}")
    elif count < query.k and not query.offset and query.words and not query.parts:
        parts.append("no other title has one of the words" if count else "no title has one of the words")
    return "; ".join(parts)
