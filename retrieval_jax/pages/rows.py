"""Retrieval rows as pictures, a query and its results: HTML for the report, PNG for a README."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from markupsafe import Markup

from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.pages.templates import render
from retrieval_jax.scoring.ranking import Ranking, Truth

COLUMNS = 10
QUERY = "query"  # text column of typed queries
WORDS = "words"  # text column of edits: what to change in the listing whose picture is the query's
EDITS = (
    "Each query is the picture of a listing, which is never a result, and the words beneath it. Under a result stand "
    "the field that the words edit, with a tick where its value is as asked, and the fields that should stay."
)
BOXES = "The rectangle on a query is where the network looked, which it has learned without boxes."
MISSED = 3  # relevant listings shown that were not found


def rows_picture(
    catalog, ranking: Ranking, truth: Truth | None, query_rows: Sequence[int], path, columns: int = COLUMNS
) -> None:
    """Draws retrieval rows as one PNG: each query, then its best results, framed green with a tick or red with a cross.

    Args:
      catalog: `Catalog` with the pictures of queries and gallery.
      ranking: `Ranking` over that catalogue's gallery.
      truth: which gallery rows are relevant; None draws grey frames without marks.
      query_rows: rows of `ranking` to draw, top to bottom.
      path: path of the PNG; a cell is 96 px wide.
      columns: results per query.

    Raises:
      InputError: a ranking of a different catalogue, or a path that cannot be written.
    """
    cell, gap = 96, 8
    relevant = relevant_rows(ranking, truth, query_rows)
    height, width = len(query_rows) * (cell + gap) + gap, (columns + 1) * (cell + gap) + 3 * gap
    sheet = np.full((height, width, 3), 255, np.uint8)
    for line, row in enumerate(query_rows):
        top = gap + line * (cell + gap)
        _paste(sheet, catalog.query.images[query_row(catalog, ranking, row)], top, gap, cell, (31, 95, 191), None)
        found = [item for item in ranking.item_rows[row][:columns].tolist() if item >= 0]
        for rank, item in enumerate(found):
            hit = None if truth is None else item in relevant[row]
            color = {None: (150, 150, 150), True: (24, 121, 78), False: (196, 67, 43)}[hit]
            left = 3 * gap + (rank + 1) * (cell + gap)
            _paste(sheet, catalog.gallery.images[item], top, left, cell, color, hit)
    if not cv2.imwrite(str(path), sheet[:, :, ::-1]):
        raise InputError(f"cannot write the picture {path}: check that its folder exists and its name ends in .png")


def check(catalog, ranking: Ranking, name) -> None:
    """Raises InputError unless the ranking called `name` is of this catalogue's gallery."""
    if ranking.gallery_sha256 and ranking.gallery_sha256 != Ids.of(catalog.gallery.ids).sha256():
        raise InputError(f"the ranking {name} was made from a different gallery than the catalogue's: run search again")
    if ranking.item_rows.size and ranking.item_rows.max() >= len(catalog.gallery):
        raise InputError(
            f"the ranking {name} refers to gallery row {ranking.item_rows.max()}, but the catalogue's gallery has "
            f"{len(catalog.gallery)} rows: run search again"
        )


def query_row(catalog, ranking: Ranking, row: int) -> int:
    """Returns the catalogue's query row for a row of the ranking: the same row, checked by id."""
    if row >= len(catalog.query) or str(catalog.query.ids[row]) != ranking.query_ids[row]:
        raise InputError(
            f"row {row} of the ranking is query {ranking.query_ids[row]!r}, which is not row {row} of the "
            "catalogue's queries: the ranking was made from a different catalogue; run search again"
        )
    return row


def relevant_rows(ranking: Ranking, truth: Truth | None, rows: Sequence[int]) -> dict[int, set[int]]:
    """Returns {row of the ranking: its relevant gallery rows}; {} without truth."""
    if truth is None:
        return {}
    position = {identity: i for i, identity in enumerate(truth.query_ids)}
    return {
        row: set(truth.relevant(position[ranking.query_ids[row]]).tolist())
        if ranking.query_ids[row] in position
        else set()
        for row in rows
    }


def rows(made: Sequence[dict]) -> Markup:
    """Returns rows of a query and its results, from `row`."""
    return render("rows.html", rows=made)


def row(
    catalog,
    ranking: Ranking,
    place: int,
    relevant: set[int] | None,
    picture: Callable,
    *,
    with_missed: bool = False,
    changes: Callable[[int, int], Sequence[tuple[str, str, bool]]] | None = None,
    label: str = "",
    others: Sequence[tuple[str, Ranking]] = (),
) -> dict:
    """Returns one query with its best results and, on request, the relevant listings missing from them.

    Args:
      catalog: `Catalog` of the ranking.
      ranking: the ranking.
      place: row of the ranking.
      relevant: the query's relevant gallery rows; None marks nothing.
      picture: (split name, row) -> data URI.
      with_missed: adds up to three relevant listings that were missed, with their ranks.
      changes: (row of the ranking, gallery row) -> what the result changed and kept (see `scoring.edits.notes`); None
        where queries are not edits.
      label: what stands above the results; "" for nothing.
      others: further rankings of the same queries and gallery, with their labels, whose results are shown below.

    Returns:
      What `rows` shows.
    """
    strips = [
        {"label": label, "few": False, "entries": results(catalog, ranking, place, relevant, picture, changes)},
        *(
            {"label": name, "few": False, "entries": results(catalog, other, place, relevant, picture, changes)}
            for name, other in others
        ),
    ]
    found = {item for item in ranking.item_rows[place][:COLUMNS].tolist() if item >= 0}
    left_out = sorted(relevant - found) if with_missed and relevant else []
    if left_out:
        ranks = {item: rank + 1 for rank, item in enumerate(ranking.item_rows[place].tolist())}
        left_out.sort(key=lambda item: ranks.get(item, ranking.k + 1))
        places = [(one, f"at rank {ranks[one]}" if one in ranks else f"beyond rank {ranking.k}") for one in left_out]
        entries = [
            item(catalog, "gallery", one, picture, "missed", note, note_shown=True) for one, note in places[:MISSED]
        ]
        text = f"Missed: {len(left_out)} of {len(relevant)} relevant"
        strips.append({"label": text, "few": True, "entries": entries})
    hits = "" if relevant is None else f"{sum(one in relevant for one in found)} of {len(relevant)} found"
    query = item(catalog, "query", query_row(catalog, ranking, place), picture, "query", hits, note_shown=True)
    return {"query": query, "strips": strips}


def results(
    catalog, ranking: Ranking, place: int, relevant: set[int] | None, picture: Callable, changes: Callable | None = None
) -> list[dict]:
    """Returns the best results of a query as items; see `row`."""
    items = []
    for rank, found in enumerate(ranking.item_rows[place][:COLUMNS].tolist()):
        if found >= 0:
            kind = "" if relevant is None else "relevant" if found in relevant else "other"
            note = f"rank {rank + 1}, score {ranking.scores[place][rank]:.4f}"
            changed = () if changes is None else changes(place, found)
            items.append(item(catalog, "gallery", found, picture, kind, note, changed=changed))
    return items


def item(
    catalog,
    split_name: str,
    place: int,
    picture: Callable,
    kind: str = "",
    note: str = "",
    note_shown: bool = False,
    changed: Sequence[tuple[str, str, bool]] = (),
) -> dict:
    """Returns one picture with its title, or with its category and id if the split has no titles; the text alone of
    a listing or typed query without a picture.

    Args:
      catalog: `Catalog` that holds the listing.
      split_name: split of the listing.
      place: its row in the split.
      picture: (split name, row) -> data URI, "" where the split has no pictures.
      kind: "query", "relevant", "other" (not relevant), "missed" or "" (no mark): sets frame, badge and alt text.
      note: shown in the tooltip, and under the picture if `note_shown`.
      note_shown: see note.
      changed: what the listing changed and kept, as (kind, text, whether it is as asked); shown under the picture.

    Returns:
      What pictures.html shows.
    """
    split = catalog.split(split_name)
    identity, category, title = str(split.ids[place]), "", _title(split, place)
    if split.categories is not None and split.categories.shape[1] and split.categories[place, -1] >= 0:
        category = str(catalog.category_names[-1][split.categories[place, -1]])
    under = ([category] if title else [_shorten(identity)] if category else []) + ([note] if note_shown else [])
    badge, spoken = {
        "relevant": ("✓", "relevant: "),
        "other": ("✗", "not relevant: "),
        "missed": ("✓", "missed: "),
        "query": ("query", "query: "),
    }.get(kind, ("", ""))
    if kind == "query" and WORDS in split.columns:
        spoken = "query, this picture with the change: "
    return {
        "kind": kind,
        "tooltip": "\n".join(text for text in (title, category, identity, note) if text),
        "picture": picture(split_name, place),
        "spoken": spoken + (title or category or identity) + "".join(f"; {_spoken(*one)}" for one in changed),
        "badge": badge,
        "named": bool(title or category),
        "name": title or category or _shorten(identity),
        "under": [text for text in under if text],
        "changed": [(good, _change(*one[:2], good)) for *one, good in changed],
    }


def _change(kind: str, text: str, good: bool) -> str:
    """Returns a line under a result: the edited field with a tick or a cross, or a field that was kept or not."""
    return (("✓ " if good else "✗ ") if kind == "edited" else ("kept " if good else "other ")) + text


def _spoken(kind: str, text: str, good: bool) -> str:
    """Returns the same for the description of the picture."""
    if kind == "edited":
        return f"{text}, {'as asked' if good else 'not as asked'}"
    return f"{'kept' if good else 'other'} {text}"


def _title(split, row: int) -> str:
    """Returns a listing's title, the text of a typed query or the words of an edit; "" where it has none."""
    title = str(split.titles[row]) if split.titles is not None else ""
    columns = [name for name in (QUERY, WORDS) if split.name == "query" and name in split.columns]
    return title or next((text for name in columns if (text := str(split.columns[name][row]))), "")


def name_of(split, row: int) -> str:
    """Returns what people know a listing or a query by: its title or text, else its id."""
    return _title(split, row) or str(split.ids[row])


def data_uri(image: np.ndarray, longest_side: int, quality: int, box: np.ndarray | None = None) -> str:
    """Returns a picture as a JPEG data URI, downscaled but never enlarged.

    Args:
      image: uint8 [H, W, 3] RGB.
      longest_side: in px, at most.
      quality: of the JPEG.
      box: [4], ymin, xmin, ymax, xmax as shares, drawn as a rectangle, light on dark; None for none.
    """
    small = _shrink(image, longest_side)
    if box is not None:
        (height, width), small = small.shape[:2], np.ascontiguousarray(small).copy()
        top, left, bottom, right = (np.asarray(box) * (height, width, height, width)).astype(int).tolist()
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.rectangle(small, (left, top), (max(left, right - 1), max(top, bottom - 1)), colour, thickness)
    _, code = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(code).decode("ascii")


def _shorten(identity: str) -> str:
    return identity if len(identity) <= 12 else identity[:9] + "…"


def _shrink(image: np.ndarray, longest_side: int) -> np.ndarray:
    scale = longest_side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _paste(sheet, image, top, left, cell, color, hit) -> None:
    """Centres a picture in its cell, draws the frame, and a tick (hit) or a cross (miss) in the corner."""
    inner = cell - 8
    scale = inner / max(image.shape[:2])
    small = _shrink(image, inner) if scale <= 1 else cv2.resize(image, None, fx=scale, fy=scale)
    y, x = top + (cell - small.shape[0]) // 2, left + (cell - small.shape[1]) // 2
    sheet[y : y + small.shape[0], x : x + small.shape[1]] = small
    cv2.rectangle(sheet, (left + 1, top + 1), (left + cell - 2, top + cell - 2), color, 3)
    if hit is None:
        return
    cv2.rectangle(sheet, (left, top), (left + 19, top + 19), color, -1)
    for x0, y0, x1, y1 in [(4, 10, 8, 14), (8, 14, 15, 5)] if hit else [(5, 5, 14, 14), (5, 14, 14, 5)]:
        cv2.line(sheet, (left + x0, top + y0), (left + x1, top + y1), (255, 255, 255), 2, cv2.LINE_AA)
