"""Writes what a click log says as tables that a catalogue reads."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

from retrieval_jax.data.clicks import normalising
from retrieval_jax.data.clicks.importing import Clicks
from retrieval_jax.data.tables import set_aside_file
from retrieval_jax.files import atomic


def write(found: Clicks, folder: str | os.PathLike, ids: Mapping[str, str] | None = None) -> dict:
    """Writes a log as tables of a catalogue; no session, user or time is in them.

        queries.jsonl   text, clicked, count, position, weight, wrong, part: for config.data.kwargs.tables.queries
        query.jsonl     id, query: the held-out queries, a query split without pictures
        truth.jsonl     query, gallery, grade: the listings that were clicked for them, graded by their weights, and
                        those that were judged wrong and never clicked, of grade 0
        set_aside.csv, clicks.json   what was left out and why, and all counts

    Of searches by photo, in the place of the first three:

        clicks.jsonl    photo, clicked, unclicked, clicked_position, unclicked_position (0: unknown): a page of listings
                        of one split, for config.data.kwargs.tables.clicks

    Args:
      found: as of `importing.load`.
      folder: created where missing; below config.data.kwargs.root, so that a config can name the files.
      ids: {id of a listing: its split}: a row has listings of one split, and the truth those of the gallery.

    Returns:
      The content of clicks.json: the counts, and "written": {"train", "val", "query": queries with a click}, or, of
      searches by photo, {split of the listings: pages with a click}.
    """
    if found.pages is not None:
        return _save(found, folder, *_pages(found, ids))
    lines, held, truth = [], [], []
    written = dict.fromkeys(normalising.PARTS, 0)
    for text, listings in sorted(found.queries.items()):
        part = found.parts[text]
        order = sorted(listings, key=lambda name: (-listings[name].corrected, -listings[name].count, name))
        split_of = {name: "" if ids is None else ids[name] for name in order}
        if part == "query":
            clicked = [name for name in order if listings[name].count and split_of[name] in ("", "gallery")]
            name = "q" + hashlib.sha256(text.encode()).hexdigest()[:12]
            if clicked:
                held.append({"id": name, "query": text})
                truth += [{"query": name, "gallery": one, "grade": listings[one].weight} for one in clicked]
                wrong = [one for one in order if listings[one].wrong and not listings[one].count]
                wrong = [one for one in wrong if split_of[one] in ("", "gallery")]
                truth += [{"query": name, "gallery": one, "grade": 0.0} for one in wrong]
                written[part] += 1
            continue
        has = False
        for split in dict.fromkeys(split_of.values()):
            own = [name for name in order if split_of[name] == split]
            if any(listings[name].count for name in own):
                has = True
                columns = "count", "position", "weight", "wrong"
                row = {name: [getattr(listings[one], name) for one in own] for name in columns}
                row["position"] = [max(place, 0) for place in row["position"]]
                lines.append({"text": text, "clicked": own, **row, "part": part})
        written[part] += has
    more = {
        "without_clicks": len(found.queries) - sum(written.values()),
        "propensities": None
        if found.propensities is None
        else {
            "method": found.propensities.method,
            "informative": found.propensities.informative,
            "looks": [round(float(look), 4) for look in found.propensities.looks],
        },
    }
    return _save(found, folder, {"queries": lines, "query": held, "truth": truth}, {"written": written, **more})


def _pages(found: Clicks, ids: Mapping[str, str] | None) -> tuple[dict[str, list], dict]:
    """Returns the rows of clicks.jsonl, and how many pages were written of each split."""
    lines, written = [], collections.Counter()
    for photo, listings in found.pages:
        splits = {name: "" if ids is None else ids[name] for name in listings}
        for split in dict.fromkeys(splits.values()):
            own = sorted((place <= 0, place, name) for name, (place, _) in listings.items() if splits[name] == split)
            row = {"photo": photo}
            for column, wanted in (("clicked", True), ("unclicked", False)):
                row[column] = [name for _, _, name in own if listings[name][1] == wanted]
                row[f"{column}_position"] = [max(listings[name][0], 0) for name in row[column]]
            if row["clicked"]:
                lines.append(row)
                written[split] += 1
    return {"clicks": lines}, {"written": dict(written)}


def _save(found: Clicks, folder: str | os.PathLike, tables: Mapping[str, list], more: Mapping) -> dict:
    """Writes tables, what was set aside and the counts; returns the counts."""
    folder, about = pathlib.Path(folder), {**found.counts, **more}
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic.write_text(folder / f"{name}.jsonl", content)
    set_aside_file.write(folder / "set_aside.csv", found.set_aside)
    atomic.write_json(folder / "clicks.json", about)
    return about
