"""Writes the report of a work directory: one HTML page that needs no network, no JavaScript and no other files.

It shows scores, training curves, mined attributes, random and worst retrieval results, and predicted against mined
attributes. A section without data says so in one sentence. The same work directory always gives the same bytes.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("report")

import collections
import functools
import html
import json
import math
import pathlib
import re
import string

import numpy as np

from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import fields as field_lib
from retrieval_jax.data import loading
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.index import attribute
from retrieval_jax.pages import attributes, charts, chosen, edits, explained, fields, joined, rows, score_table
from retrieval_jax.pages.parts import absent, choose, duration, machine, section
from retrieval_jax.pages.rows import COLUMNS, rows_picture
from retrieval_jax.postprocess import choosing, fused
from retrieval_jax.scoring import edits as edit_scores
from retrieval_jax.scoring import metrics, written
from retrieval_jax.scoring.ranking import Ranking, list_stages, matching_stages
from retrieval_jax.workdir import VERBS, as_path, checks, members, plain, read_record, smoke_run

__all__ = ["rows_picture", "run"]

MAX_BYTES = 5_000_000
PICTURES = ((128, 88), (96, 80), (64, 70))  # longest side in px, JPEG quality; the first that fits MAX_BYTES is used
_UNKNOWN = "model_flops_utilisation"  # earlier versions logged it as null where it is unknown, as on a CPU
escape = html.escape


def check(config, workdir) -> None:
    """Raises an InputError for settings that cannot be; writes nothing.

    Args:
      config: the whole config.
      workdir: not read.
    """
    del workdir
    checks.check(config)


def run(config, workdir) -> dict:
    """Writes `report.html` into a work directory and prints its path.

    Args:
      config: the experiment; reads the blocks data and report: `rows` (per list of pictures), `seed` (of random
        choices), `stage` (ranking to show: "stage" or "model/stage"; empty for the trained network's last).
      workdir: folder that the other verbs filled; the page names what they have not written yet.

    Returns:
      {"path": path of the page, "bytes": its size}.

    Raises:
      InputError: the chosen ranking is missing or of a different catalogue, or `rows` makes the page exceed 5 MB.
    """
    workdir = as_path(workdir)
    catalog = loading.load(config["data"])
    scores, names = written.stages(workdir), written.metrics(workdir)
    chance = written.chance(workdir)
    stages = [record for verb in VERBS[:-1] if (record := read_record(workdir, verb))]
    template = string.Template((pathlib.Path(__file__).parent / "pages" / "report.html").read_text("utf-8"))
    table = score_table.table(scores, chance, names) or absent(
        "there is no metrics.json; the verb evaluate writes it."
        if catalog.truth is not None
        else "the catalogue has no ground truth: nothing says which listings show the same product, so nothing can be "
        "scored. The rows below show what is found."
    )
    fixed = [
        _header(config, catalog, scores, names, stages),
        section("Scores", table),
        *edits.sections(written.edits(workdir)),
        _chosen_section(workdir),
        _curve_section(config, workdir, stages),
        attributes.mined_section(workdir, _elsewhere(config)),
        *fields.sections(written.attributes(workdir)),
    ]
    conditions = _conditions_section(config, workdir, catalog) + _fusion_section(config, workdir, catalog)
    for longest_side, quality in PICTURES:
        picture = functools.cache(functools.partial(_picture, catalog, longest_side, quality))
        body = "\n".join(
            [
                *fixed,
                _retrieval_section(config, workdir, catalog, picture),
                conditions,
                attributes.predicted_section(config["report"], workdir, catalog, picture, _elsewhere(config)),
                _appendix(config, stages),
            ]
        )
        page = template.substitute(title=escape(_name(config)), body=body).encode("utf-8")
        if len(page) < MAX_BYTES:
            break
    else:
        raise InputError(
            f"the report would take {len(page):,} bytes, more than {MAX_BYTES:,}, even with pictures of "
            f"{longest_side} px: lower config.report.rows (now {config['report']['rows']})"
        )
    path = workdir / "report.html"
    atomic.write_bytes(path, page)
    print(path)
    return {"path": str(path), "bytes": len(page)}


# ---- Header: what ran, on what, how well -----------------------------------------------------------------------------


def _header(config, catalog, scores, names, stages) -> str:
    """Returns the page header: name, one line of facts, and the headline numbers."""
    train = next((record for record in stages if record["verb"] == "train"), {})
    summary = train.get("summary", {})
    last = train or (stages[-1] if stages else {})
    lengths = [f"{len(split):,} {name}" for name in catalogs.SPLITS if (split := getattr(catalog, name)) is not None]
    facts = [f"{catalog.name}: {', '.join(lengths)} listings"]
    model = (config.get("train") or {}).get("model") or {}
    if members(config):
        facts.append(f"ensemble of {', '.join(members(config))}")
    elif model:
        facts.append(" ".join(["network", *(str(model[key]) for key in ("name", "variant") if model.get(key))]))
    for key, text in (
        ("parameters", "{:,} parameters"),
        ("steps", "{:,} steps"),
        ("epochs", "{:g} epochs"),
        ("images_per_second", "{:,.0f} pictures per second in training"),
    ):
        if summary.get(key):
            facts.append(text.format(summary[key]) if summary[key] != 1 else text.format(1).removesuffix("s"))
    facts.append(machine(last.get("hardware") or {}))
    if last.get("commit"):
        commit, edited, _ = last["commit"].partition("+")
        facts.append(f"commit {commit[:12]}{' with changes' if edited else ''}")
    facts.append(max((record["finished"][:10] for record in stages), default=""))
    tiles = []
    best = score_table.best_stage(scores, names)
    if best:
        words = f"{score_table.label(best['model'])}, {score_table.label(best['stage'])}"
        tiles += [
            (f"{100 * best[key]:.1f} %", f"{score_table.metric_name(key)} · {words}")
            for key in dict.fromkeys((score_table.headline(scores, names), names[1] if names[1:] else "recall@1"))
            if best.get(key) is not None
        ]
    if catalog.gallery is not None:
        tiles.append((f"{len(catalog.gallery):,}", "gallery listings searched"))
    if stages:
        tiles.append(
            (
                duration(sum(record["seconds"] for record in stages)),
                _timed(stages),
            )
        )
    boxes = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span></div>' for value, words in tiles
    )
    line = escape(" · ".join(filter(None, facts)))
    warning = f'<p class="note">Warning: {escape(summary["warning"])}.</p>\n' if summary.get("warning") else ""
    if sentence := smoke_run(config):
        warning = f'<p class="note">{escape(sentence[0].upper() + sentence[1:])}.</p>\n'
    return (
        f'<header><h1>{escape(_name(config))}</h1>\n<p class="facts">{line}</p>\n{warning}'
        f'<div class="tiles">{boxes}</div></header>'
    )


def _timed(stages) -> str:
    """Returns what the sum of the times is of."""
    text = f"of work, from {stages[0]['verb']} to {stages[-1]['verb']}"
    sessions = max(record.get("sessions", 1) for record in stages)
    return text + (f"; train in {sessions} sessions" if sessions > 1 else "")


# ---- Curves ----------------------------------------------------------------------------------------------------------


def _chosen_section(workdir) -> str:
    """Returns the section about chosen search steps; "" where none were chosen."""
    found = []
    for folder in sorted((workdir / "rankings").glob("*/" + choosing.FILE)):
        choice = choosing.load(folder.parent)
        found.append((folder.parent.name, choosing.table(choice), choice["why"], choice["notes"]))
    return chosen.chosen_section(found)


def _curve_section(config, workdir, stages) -> str:
    train = next((record for record in stages if record["verb"] == "train"), {})
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return section("Training curves", absent(f"there is no metrics.jsonl; {_elsewhere(config)}."))
    series: dict[str, dict[int, float]] = {}
    not_finite = collections.Counter()
    for record in documents.lines(path):
        if not isinstance(step := record.get("step"), int):
            continue
        for name, value in record.items():
            if name in ("step", "time", "epoch") or not isinstance(value, (int, float, type(None))):
                continue
            if value is None or not math.isfinite(value):  # the metric writer logs non-finite values as null
                not_finite[name] += name != _UNKNOWN
            else:
                series.setdefault(name, {})[step] = value
    curves = {name: sorted(points.items()) for name, points in sorted(series.items())}
    losses = {name: points for name, points in curves.items() if "loss" in name}
    scores = {
        name: [(step, 100 * value) for step, value in points]
        for name, points in curves.items()
        if name not in losses and re.search("@|accuracy|precision|recall", name) and "_se" not in name
    }
    drawn = charts.curves("Loss", losses, "step", "loss")
    drawn += charts.curves("Scores while training", scores, "step", "percent")
    body = f'<div class="charts">{drawn}</div>' if drawn else absent("metrics.jsonl has neither losses nor scores.")
    if scores:
        of = train.get("summary", {}).get("in_training_of", ())
        what = "; ".join(of) or "a part of the queries and of the gallery"
        body += (
            f'<p class="note">Scores while training are of {escape(what)}. They show how the training went; they are '
            "not those of the table, which are of all queries and the whole gallery.</p>"
        )
    if not_finite.total():
        listed = ", ".join(f"{count:,} of {name}" for name, count in not_finite.items() if count)
        body += f'<p class="note">Non-finite values, which are not drawn: {escape(listed)}.</p>'
    rest = [
        charts.curves(name, {name: points}, "step", "")
        for name, points in curves.items()
        if name not in losses and name not in scores
    ]
    if rest:
        body += (
            f'<details><summary>More logged values: {len(rest)}</summary><div class="charts">{"".join(rest)}</div>'
            "</details>"
        )
    return section("Training curves", body)


# ---- Retrieval rows --------------------------------------------------------------------------------------------------


def _retrieval_section(config, workdir, catalog, picture) -> str:
    folder = _ranking_folder(config, workdir)
    if folder is None or catalog.query is None or catalog.gallery is None:
        return section("Retrieval", absent("there is no ranking; the verb search writes rankings of a gallery."))
    ranking, truth, count = Ranking.load(folder), catalog.truth, config["report"]["rows"]
    rows.check(catalog, ranking, folder)
    names = [score_table.label(name) for name in (folder.parent.name, folder.name)]
    words = (
        f"{', '.join(names)}: the query on the left and its {COLUMNS} best gallery listings, best first; scores are "
        "in the tooltips. "
    )
    if truth is None:
        words += "Without a ground truth no listing is marked as relevant, and there is no list of worst queries."
        recall, queries = None, list(range(len(ranking)))
    else:
        words += "Tick and solid green frame: relevant. Cross and dashed red frame: not relevant."
        recall = np.asarray(metrics.per_query(ranking, truth)["mar@10"])
        queries = np.flatnonzero(~np.isnan(recall)).tolist()
    parts = [("Random queries", "", choose(queries, count, config["report"]["seed"]), False)]
    if truth is not None:
        zero = sum(recall[row] == 0 for row in queries)
        parts.append(
            (
                "Worst queries",
                f"Lowest recall among the first {COLUMNS}, ties by id; {zero:,} of "
                f"{len(queries):,} queries find nothing there. Below each, up to three relevant listings it missed.",
                sorted(queries, key=lambda row: (recall[row], ranking.query_ids[row]))[:count],
                True,
            )
        )
    body = f"<p>{escape(words)}</p>"
    relevant = rows.relevant_rows(ranking, truth, [row for part in parts for row in part[2]])
    changes = None
    if edit_scores.there(catalog):
        asked = edit_scores.of_catalog(catalog, tuple(edit_scores.settings(config)["kept"]), field_lib.read)
        changes = functools.partial(edit_scores.notes, asked)
        body += f"<p>{escape(rows.EDITS)}</p>"
    for heading, note, shown, with_missed in parts:
        body += f"\n<h3>{heading}</h3>" + (f'<p class="note">{note}</p>' if note else "")
        body += "\n".join(
            rows.row_html(catalog, ranking, row, relevant.get(row), with_missed, picture, changes) for row in shown
        )
    return section("Retrieval", body)


def _conditions_section(config, workdir, catalog) -> str:
    """Returns the section about the conditions of the search; "" where there were none."""
    kwargs, folder = plain(config["search"].get("index_kwargs") or {}), _ranking_folder(config, workdir)
    fields = kwargs.get("fields")
    if config["search"].get("index") != "attribute" or folder is None or not isinstance(fields, (list, tuple)):
        return ""
    ranking, given = Ranking.load(folder), attribute.parse(kwargs.get("conditions"))
    columns = [kwargs.get(name) for name in ("conditions_column", "words_column")]
    texts, words = ([""] * len(ranking) if not name else catalog.query.column(name) for name in columns)
    rows.check(catalog, ranking, folder)
    ids = catalog.gallery.ids
    made = field_lib.of_split(catalog.gallery, fields, ids=ids)
    table = attribute.build(made, len(ids))
    found, values, where = [], table.values(), "conditions of the query "
    every = [
        attribute.of_query(given, *own, values, where + ranking.query_ids[row])
        for row, own in enumerate(zip(texts, words, strict=True))
    ]
    if not any(every):
        return ""
    for query in choose(range(len(ranking)), config["report"]["rows"], config["report"]["seed"]):
        shown, asked = ranking.item_rows[query][:COLUMNS], every[query]
        shown = shown[shown >= 0]
        why = [[reason.to_json() for reason in each] for each in attribute.reasons(table, asked, shown)]
        found.append((ranking.query_ids[query], list(zip((ids[int(row)] for row in shown), why, strict=True))))
    text = f"{given}; beside that each query has its own" if any(columns) else str(given)
    return explained.explained_section(text, found)


def _fusion_section(config, workdir, catalog) -> str:
    """Returns the section about the weights of a fusion and what each member gave to results; "" without a fusion."""
    made = fused.load(workdir)
    if made is None or catalog.gallery is None:
        return ""
    rows.check(catalog, made.fused, "ensemble")
    shown = choose(range(len(made.fused)), config["report"]["rows"], config["report"]["seed"])
    found = []
    if made.method != "scores":
        ids = Ids.of(catalog.gallery.ids)
        for query in shown:
            why = [one.to_json() for one in made.explain(query, ids, joined.SHOWN)]
            found.append((rows.name_of(catalog.query, rows.query_row(catalog, made.fused, query)), why))
    return joined.joined_section(made.weights, made.why, found, lambda row: rows.name_of(catalog.gallery, row))


def _ranking_folder(config, workdir):
    """Returns the folder of the ranking to show, by default the last stage of the main model; None without rankings."""
    stages = list_stages(workdir) if (workdir / "rankings" / "rankings.json").exists() else []
    if not stages:
        return None
    matching = matching_stages(stages, config["report"]["stage"], "config.report.stage")
    main = next((name for name in score_table.MAIN if name in dict(matching)), "")
    model, stage = next((entry for entry in reversed(matching) if entry[0] == main), matching[-1])
    return workdir / "rankings" / model / stage


# ---- Small parts -----------------------------------------------------------------------------------------------------


def _appendix(config, stages) -> str:
    lines = ""
    for record in stages:
        cells = (duration(record["seconds"]), duration(record["cpu_seconds"]), record["finished"][:16])
        cells = "".join(f'<td class="number">{escape(cell.replace("T", " "))}</td>' for cell in cells)
        sessions = record.get("sessions", 1)
        name = record["verb"] + (f" ({sessions} sessions)" if sessions > 1 else "")
        lines += f"<tr><td>{name}</td>{cells}</tr>"
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in ("Time", "CPU time", "Finished (UTC)"))
    table = (
        (
            f'<div class="scroll"><table><thead><tr><th scope="col">Stage</th>{head}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div>"
            '<p class="note">Time is what the clock on the wall showed, CPU time that of all cores together, worker '
            "processes included. Of a training that was resumed they are sums: of each earlier session up to its last "
            "checkpoint, and of the whole last one. Of other verbs they are of the session that finished.</p>"
        )
        if stages
        else absent("no stage has finished here.")
    )
    settings = escape(json.dumps(plain(config), indent=2, ensure_ascii=False))
    return section(
        "How this was made",
        f"{table}<details><summary>Full configuration</summary><pre>{settings}</pre></details>"
        "<footer>Written by retrieval_jax.report. This page loads no external resources.</footer>",
    )


def _elsewhere(config) -> str:
    """Returns why a work directory has nothing mined or trained."""
    if members(config):
        return f"the members {', '.join(members(config))} have it in their own work directories"
    return "nothing has been mined or trained in this work directory yet"


def _picture(catalog, longest_side, quality, split_name, row) -> str:
    """Returns a data URI; "" for a split without pictures."""
    images = catalog.split(split_name).images
    return "" if isinstance(images, NoPictures) else rows.data_uri(images[row], longest_side, quality)


def _name(config) -> str:
    return str(config.get("name") or "report")
