"""Writes submissions in the format of the eProduct challenge."""

from __future__ import annotations

import csv
import io
import os
import pathlib
from collections.abc import Sequence

from retrieval_jax import arguments
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.scoring.ranking import Ranking

SUBMISSION_DEPTH = 10


def write_submission(
    file: str | os.PathLike, ranking: Ranking, gallery_ids: Sequence[str], depth: int = SUBMISSION_DEPTH
) -> None:
    """Writes eProduct's submission CSV: no header, one line per query: query_uuid,id1 id2 ... id10.

    Args:
      file: path of the CSV; written atomically.
      ranking: [Q, k]; repeated rows are written once, the listing that a query is about never.
      gallery_ids: G ids, the gallery of the ranking.
      depth: results per query; fewer if the ranking has fewer.

    Raises:
      InputError: the ranking is of a different gallery, or an id contains whitespace, which the format cannot express.
    """
    gallery_ids = Ids.of(gallery_ids)
    arguments.instance(ranking, Ranking, "ranking", "submission")
    file = pathlib.Path(arguments.path(file, "file", "submission"))
    if not file.name or file.is_dir() or not file.parent.is_dir():
        raise InputError(f"submission: {file} is not a file in a folder that exists")
    depth = arguments.integer(depth, "depth", "submission")
    if ranking.item_rows.size and ranking.item_rows.max() >= len(gallery_ids):
        raise InputError(
            f"the ranking refers to gallery row {ranking.item_rows.max()}, but the gallery has {len(gallery_ids)} "
            "rows: search this catalogue again"
        )
    if ranking.gallery_sha256 and ranking.gallery_sha256 != gallery_ids.sha256():
        raise InputError(
            "the ranking was made from a different gallery than the catalogue's (ids or their order differ): embed "
            "and search again"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ids = ranking.query_ids
    for query, left_out, rows in zip(ids, ids.left_out(), ranking.item_rows.tolist(), strict=True):
        found = dict.fromkeys(gallery_ids[row] for row in rows if row >= 0)
        chosen = [item for item in found if item not in left_out][:depth]
        for item in chosen:
            if item.split() != [item]:
                raise InputError(
                    f"gallery id {item!r} is empty or contains whitespace, which separates ids in a submission: "
                    "rename it"
                )
        writer.writerow([query, " ".join(chosen)])
    atomic.write_bytes(file, text.getvalue().encode("utf-8"))
