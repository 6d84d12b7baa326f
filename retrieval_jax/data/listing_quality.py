"""What makes one listing better than another that shows the same: columns of numbers, sharp pictures, and clicks.

`of_split` reads the numbers that the last stage of a search orders by (`postprocess.quality`), `clicked` what it learns
from: how often a listing was clicked by those who looked at it.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence

import cv2
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.clicks import propensity
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Truth

SHARPNESS = "sharpness"  # measured where the split has no such column
PRIOR = 1.0  # looks at the average listing that are added to those of each: one click is not a certainty
_THREADS = 16


def sharpness(picture: np.ndarray) -> float:
    """Measures how sharp a picture is: the logarithm of 1 + the variance of its Laplacian.

    Args:
      picture: uint8 [H, W, 3] RGB.

    Returns:
      About 8 for a sharp picture; 0 for one without any edge.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(np.log1p(cv2.Laplacian(grey, cv2.CV_64F).var()))


def check(catalog: Catalog, names: Sequence[str]) -> None:
    """Raises an InputError where a catalogue has no clicks about queries and gallery, or not these columns; reads none.

    Args:
      catalog: see `clicked`.
      names: see `of_split`.
    """
    if "clicks/gallery" not in catalog.tables:
        raise InputError(
            "the last stage 'quality' learns from clicks, and this catalogue has none about its gallery: name a table "
            "'clicks' with the columns photo (ids of queries), clicked and unclicked in config.data.kwargs.tables "
            "(docs/clicked_search.md#the-last-stage-quality)"
        )
    for name in names:
        if name not in (SHARPNESS, *catalog.split("gallery").columns):
            raise _refused(catalog.split("gallery"), name, "no column")


def of_split(split: Split, names: Sequence[str], ids: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Returns columns of numbers, float32 [n] each, NaN where unknown.

    Args:
      split: of a `Catalog`.
      names: columns of the kind number; "sharpness" is measured from the pictures where the split has no such column.
      ids: of the listings, in the order wanted; None for all of the split, in its order.

    Raises:
      InputError: no such column, one that holds no numbers, or a listing that is not in the split.
    """
    rows = np.arange(len(split)) if ids is None else split.rows(ids)
    return {name: _column(split, name)[rows] for name in names}


def _column(split: Split, name: str) -> np.ndarray:
    if name == SHARPNESS and name not in split.columns:
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda row: sharpness(split.images[row]), range(len(split)))
            return np.fromiter(found, np.float32, len(split))
    column = split.columns[name] if name in split.columns else None
    if not isinstance(column, np.ndarray) or column.dtype.kind != "f" or column.ndim != 1:
        raise _refused(split, name, "no column" if column is None else "no numbers in the column")
    return column.astype(np.float32, copy=False)


def _refused(split: Split, name: str, what: str) -> InputError:
    numbers = [one for one in split.columns if one not in split.column_names]
    return InputError(
        f"the {split.name} split has {what} {name!r}{pairs.near(name, [SHARPNESS, *numbers])}; quality is ordered by "
        "columns of the kind 'number' (config.data.kwargs.columns)"
    )


def clicked(catalog: Catalog, chosen: np.ndarray | None = None) -> Truth:
    """Returns how likely a gallery listing is clicked by one who looks at it, after each query, from a log.

    Clicks per look: a click counts 1, a listing that was shown counts as many looks as its place gets
    (`clicks.propensity`, estimated from the same log), 1 where places are unknown.

    Args:
      catalog: with the table "clicks" about the gallery, whose photos are the queries.
      chosen: bool [queries], whose pages are read; all by default.

    Returns:
      `Truth` whose grades are these probabilities, above 0 for every listing that was shown; no other is rated.

    Raises:
      InputError: there is no such table, or nobody clicked.
    """
    check(catalog, ())
    found = catalog.table("clicks", "gallery")
    if found.rows_of["photo"] != "query":
        raise InputError(
            "the last stage 'quality' learns from clicks after queries, and the photos of the table 'clicks' are those "
            f"of the {found.rows_of['photo']} split: name the ids of queries in its column 'photo'"
        )
    table = found.columns
    queries, gallery = catalog.query, catalog.gallery
    parts = []
    for name in ("clicked", "unclicked"):
        listed: Ragged = table[name]
        places = table[f"{name}_position"].values if f"{name}_position" in table else np.full(len(listed.values), -1)
        asked = np.repeat(np.asarray(table["photo"]), np.diff(listed.indptr))
        parts.append((asked, listed.values, places, np.full(len(asked), float(name == "clicked"))))
    query, row, place, click = (np.concatenate(column) for column in zip(*parts, strict=True))
    known = (query >= 0) & (row >= 0)
    if chosen is not None:
        known &= np.asarray(chosen, bool)[query]
    query, row, place, click = query[known], row[known], place[known], click[known]
    if not click.any():
        raise InputError(
            "the last stage 'quality' learns from clicks, and nobody clicked after the queries of the selection half "
            "(config.evaluate.selection_share)"
        )
    pair = query.astype(np.int64) * len(gallery) + row
    placed = place >= 1
    looks = propensity.estimate(pair[placed], place[placed], np.ones(placed.sum()), click[placed]).of(place)
    keys, back = np.unique(pair, return_inverse=True)
    looked, clicks = np.bincount(back, looks), np.bincount(back, click)
    average = clicks.sum() / looked.sum()
    grades = np.minimum((clicks + PRIOR * average) / (looked + PRIOR), 1.0)
    query, row = np.divmod(keys, len(gallery))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=len(queries)))])
    unrated = np.zeros((0, 2), np.int64)  # lists can be condensed to what was shown
    return Truth(queries.ids, gallery.ids, indptr, row, grades.astype(np.float32), unrated)
