"""TREC's text files: judgements (qrels) and rankings (runs), for other evaluation tools and from them.

A qrels line is `query 0 listing grade`, a run line `query Q0 listing rank score tag`, both separated by blanks.
trec_eval sorts a run by score, compared as float32, and equal scores by id backwards, whatever the rank column says. So
`write_run` lowers a score that is not below the one before it to the next smaller float32: the order that is written is
the order that every tool scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import atomic
from retrieval_jax.files.opening import opened
from retrieval_jax.scoring.ranking import Ranking, Truth


def write_qrels(file: str | os.PathLike, truth: Truth) -> None:
    """Writes the judgements of a truth, those of grade 0 too; without grades, relevant rows have grade 1.

    Args:
      file: path of the file.
      truth: the ground truth.

    Raises:
      InputError: an id with a blank, or a grade that is not a whole number, which the format cannot hold.
    """
    arguments.instance(truth, Truth, "truth", "write_qrels")
    grades = np.ones(len(truth.rows)) if truth.grades is None else truth.grades
    if (grades != np.round(grades)).any():
        raise InputError(
            "write_qrels: the truth has grades that are not whole numbers, and the format has whole ones: scale them"
        )
    queries, items = _names(truth.query_ids, "query"), _names(truth.gallery_ids, "gallery")
    query, row = np.repeat(np.arange(len(truth)), truth.num_relevant), truth.rows
    if truth.rated_zero is not None:
        query, row = np.append(query, truth.rated_zero[:, 0]), np.append(row, truth.rated_zero[:, 1])
        grades = np.append(grades, np.zeros(len(truth.rated_zero)))
    order = np.lexsort((row, query))
    lines = (f"{queries[query[at]]} 0 {items[row[at]]} {int(grades[at])}\n" for at in order.tolist())
    atomic.write_text(file, "".join(lines))


def read_qrels(
    file: str | os.PathLike, query_ids: Sequence[str], gallery_ids: Sequence[str]
) -> tuple[Truth, dict[str, int]]:
    """Reads judgements as the truth of some queries and a gallery.

    Args:
      file: path of the file; a grade below 0 counts as 0.
      query_ids: Q ids.
      gallery_ids: G distinct ids.

    Returns:
      The `Truth`, with grades, and how many lines there were: {"read", "used", "unknown query", "unknown listing"};
      read = the sum of the others.

    Raises:
      InputError: the file is missing, or a line does not have four fields with a whole number at the end.
    """
    query_of, row_of = _rows_of(query_ids, "query"), _rows_of(gallery_ids, "gallery")
    counts = {"read": 0, "used": 0, "unknown query": 0, "unknown listing": 0}
    found: list[tuple[int, int, float]] = []
    for number, fields in _lines(file, 4, "query 0 listing grade"):
        counts["read"] += 1
        query, _, item, grade = fields
        try:
            value = float(int(grade))
        except ValueError:
            raise InputError(
                f"{file}, line {number}: the grade is {short(grade)!r}, not a whole number; correct it"
            ) from None
        if query not in query_of or item not in row_of:
            counts["unknown query" if query not in query_of else "unknown listing"] += 1
            continue
        counts["used"] += 1
        found.append((query_of[query], row_of[item], max(value, 0.0)))
    return of_triples(query_ids, gallery_ids, np.array(found, np.float64).reshape(-1, 3)), counts


def of_triples(query_ids: Sequence[str], gallery_ids: Sequence[str], triples: np.ndarray) -> Truth:
    """Returns the truth of judgements, [n, 3] float64: query, gallery row, grade (0: judged not relevant)."""
    triples = triples[np.argsort(triples[:, 0], kind="stable")]
    counts = np.bincount(triples[:, 0].astype(np.int64), minlength=len(query_ids))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Truth(query_ids, gallery_ids, indptr, triples[:, 1].astype(np.int64), triples[:, 2].astype(np.float32))


def write_run(
    file: str | os.PathLike, ranking: Ranking, gallery_ids: Sequence[str], tag: str = "retrieval_jax"
) -> None:
    """Writes a ranking as a TREC run; see the module about equal scores.

    Args:
      file: path of the file.
      ranking: [Q, k] results.
      gallery_ids: G ids.
      tag: name of the run, one word.

    Raises:
      InputError: an id or a tag with a blank, or a ranking of another gallery.
    """
    arguments.instance(ranking, Ranking, "ranking", "write_run")
    (tag,) = _names([arguments.text(tag, "tag", "write_run")], "tag")
    queries, items = _names(ranking.query_ids, "query"), _names(gallery_ids, "gallery")
    if ranking.item_rows.size and ranking.item_rows.max() >= len(items):
        raise InputError(f"write_run: the ranking refers to row {ranking.item_rows.max()} of {len(items)} listings")
    lines = []
    for query, rows, scores in zip(queries, ranking.item_rows, ranking.scores, strict=True):
        last = np.float32(np.inf)
        for rank, (row, score) in enumerate(zip(rows[rows >= 0].tolist(), scores[rows >= 0], strict=True), start=1):
            last = score if score < last else np.nextafter(last, np.float32(-np.inf))
            lines.append(f"{query} Q0 {items[row]} {rank} {last!s} {tag}\n")
    atomic.write_text(file, "".join(lines))


def read_run(file: str | os.PathLike, query_ids: Sequence[str], gallery_ids: Sequence[str]) -> Ranking:
    """Reads a TREC run as a ranking: by score, equal scores by rank, then by id.

    Args:
      file: path of the file.
      query_ids: Q ids; those that the run does not have get an empty ranking.
      gallery_ids: G distinct ids.

    Raises:
      InputError: the file is missing, a line is not one of a run, or names an unknown query or listing.
    """
    query_of, row_of = _rows_of(query_ids, "query"), _rows_of(gallery_ids, "gallery")
    found: list[list[tuple]] = [[] for _ in query_of]
    for number, (query, _, item, rank, score, _) in _lines(file, 6, "query Q0 listing rank score tag"):
        for what, name, known in (("query", query, query_of), ("listing", item, row_of)):
            if name not in known:
                raise InputError(f"{file}, line {number}: there is no {what} {short(name)!r} in this catalogue")
        try:
            value, place = float(score), int(rank)
        except ValueError:
            value, place = np.nan, 0
        if not np.isfinite(np.float32(value)):
            raise InputError(
                f"{file}, line {number}: rank {short(rank)!r} and score {short(score)!r} must be a whole number and a "
                "finite one; correct them"
            )
        found[query_of[query]].append((-np.float32(value), place, item))
    width = max(map(len, found), default=0)
    rows, scores = np.full((len(found), width), -1, np.int64), np.full((len(found), width), -np.inf, np.float32)
    for query, entries in enumerate(found):
        for at, (score, _, item) in enumerate(sorted(entries)):
            rows[query, at], scores[query, at] = row_of[item], -score
    return Ranking(query_ids, rows, scores, Ids.of(gallery_ids).sha256())


def _names(ids: Sequence[str], what: str) -> list[str]:
    """Returns ids as they are written; raises InputError for one that blanks would split, or that is empty."""
    names = list(Ids.of(ids))
    if wrong := next((name for name in names if len(name.split()) != 1 or name != name.strip()), None):
        raise InputError(f"TREC's files separate fields by blanks, and a {what} id is {short(wrong)!r}: rename it")
    return names


def _rows_of(ids: Sequence[str], what: str) -> dict[str, int]:
    rows = {name: row for row, name in enumerate(Ids.of(ids))}
    if len(rows) != len(ids):
        raise InputError(f"{len(ids) - len(rows)} of {len(ids)} {what} ids are repeats: make ids distinct")
    return rows


def _lines(file: str | os.PathLike, count: int, form: str) -> Iterator[tuple[int, list[str]]]:
    """Yields (number, fields) of the lines that are not blank."""
    try:
        stream = opened(file)
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            try:
                fields = line.decode("utf-8-sig" if number == 1 else "utf-8").split()
            except UnicodeDecodeError:
                raise InputError(f"{file}, line {number} is not UTF-8 text; save the file as UTF-8") from None
            if fields and len(fields) != count:
                raise InputError(f"{file}, line {number} has {len(fields)} fields, expected {count}: {form}")
            if fields:
                yield number, fields
