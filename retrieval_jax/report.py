"""Writes the report of a work directory: one HTML page that needs no network, no JavaScript and no other file.

It shows the scores, the training curves, the mined attributes, random and worst retrieval rows, and predicted against
mined attributes. A section whose data is missing says so in one sentence. The same work directory gives the same bytes.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("report")

import functools
import html
import json
import math
import pathlib
import re
import string

import numpy as np

from retrieval_jax.attributes.vocabulary import Vocabulary, load_targets
from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.pages import charts as report_charts
from retrieval_jax.pages import rows as report_rows
from retrieval_jax.pages import scores as report_scores
from retrieval_jax.pages.rows import COLUMNS, rows_picture
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, list_stages, matching_stages
from retrieval_jax.workdir import VERBS, as_path, members, plain, read_record

__all__ = ["rows_picture", "run"]

MAX_BYTES = 5_000_000
PICTURES = ((128, 88), (96, 80), (64, 70))  # longest side in px, JPEG quality; the first that fits MAX_BYTES is taken
escape = html.escape


def run(config, workdir) -> dict:
    """Writes `report.html` into a work directory and prints its path.

    Args:
      config: the experiment; reads the blocks data and report: `rows` (per list of pictures), `seed` (of the random
        ones), `stage` (which ranking is shown: "stage" or "model/stage"; empty for the trained network's last).
      workdir: folder that the other verbs filled; what they have not written yet is named as missing on the page.

    Returns:
      {"path": of the page, "bytes": its size}.

    Raises:
      InputError: the chosen ranking is missing or of another catalogue, or `rows` makes the page larger than 5 MB.
    """
    workdir = as_path(workdir)
    catalog = loading.load(config["data"])
    scores = atomic.read_json(workdir / "metrics.json")["stages"] if (workdir / "metrics.json").exists() else []
    stages = [record for verb in VERBS[:-1] if (record := read_record(workdir, verb))]
    template = string.Template(pathlib.Path(__file__).with_name("report_page.html").read_text("utf-8"))
    table = report_scores.table(scores) or _absent(
        "there is no metrics.json; the verb evaluate writes it where the catalogue tells which listings are relevant."
    )
    fixed = [
        _header(config, catalog, scores, stages),
        _section("Scores", table),
        _curve_section(config, workdir),
        _mining_section(config, workdir),
    ]
    for longest_side, quality in PICTURES:
        picture = functools.cache(functools.partial(_picture, catalog, longest_side, quality))
        body = "\n".join(
            [
                *fixed,
                _retrieval_section(config, workdir, catalog, picture),
                _attribute_section(config, workdir, catalog, picture),
                _appendix(config, stages),
            ]
        )
        page = template.substitute(title=escape(_name(config)), body=body).encode("utf-8")
        if len(page) < MAX_BYTES:
            break
    else:
        raise InputError(
            f"the report would have {len(page):,} bytes, more than {MAX_BYTES:,}, even with pictures of "
            f"{longest_side} px: lower config.report.rows (now {config['report']['rows']})"
        )
    path = workdir / "report.html"
    atomic.write_bytes(path, page)
    print(path)
    return {"path": str(path), "bytes": len(page)}


# ---- Header: what ran, on what, how well -----------------------------------------------------------------------------


def _header(config, catalog, scores, stages) -> str:
    """The name, one line of facts, and the numbers that a reader remembers."""
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
        ("images_per_second", "{:,.0f} pictures a second"),
    ):
        if summary.get(key):
            facts.append(text.format(summary[key]) if summary[key] != 1 else text.format(1).removesuffix("s"))
    facts.append(_machine(last.get("hardware") or {}))
    if last.get("commit"):
        commit, edited, _ = last["commit"].partition("+")
        facts.append(f"commit {commit[:12]}{' with changes' if edited else ''}")
    facts.append(max((record["finished"][:10] for record in stages), default=""))
    tiles = []
    best = report_scores.best_stage(scores)
    if best:
        words = f"{report_scores.label(best['model'])}, {report_scores.label(best['stage'])}"
        tiles += [
            (f"{100 * best[key]:.1f} %", f"{report_scores.metric_name(key)} · {words}")
            for key in (report_scores.headline(scores), "recall@1")
            if best.get(key) is not None
        ]
    if catalog.gallery is not None:
        tiles.append((f"{len(catalog.gallery):,}", "gallery listings searched"))
    if stages:
        tiles.append(
            (
                _duration(sum(record["seconds"] for record in stages)),
                f"from {stages[0]['verb']} to {stages[-1]['verb']}",
            )
        )
    boxes = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span></div>' for value, words in tiles
    )
    line = escape(" · ".join(filter(None, facts)))
    return (
        f'<header><h1>{escape(_name(config))}</h1>\n<p class="facts">{line}</p>\n'
        f'<div class="tiles">{boxes}</div></header>'
    )


def _machine(hardware: dict) -> str:
    found = (hardware.get("devices") or {}).items()
    devices = [f"{count} × {kind}" for kind, count in found if kind.lower() != "cpu"]
    if devices:
        return ", ".join(devices)
    return f"{hardware['processor']}, {hardware.get('cores', '?')} cores" if hardware.get("processor") else ""


# ---- Curves and attributes -------------------------------------------------------------------------------------------


def _curve_section(config, workdir) -> str:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return _section("Training curves", _absent(f"there is no metrics.jsonl; {_elsewhere(config)}."))
    series: dict[str, dict[int, float]] = {}
    not_finite = 0
    for line in path.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
            step = record["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # the last line of a run that was killed while it wrote
        for name, value in record.items():
            if name in ("step", "time", "epoch") or not isinstance(value, (int, float, type(None))):
                continue
            if value is None or not math.isfinite(value):  # the writer puts null for a number that is not finite
                not_finite += 1
            else:
                series.setdefault(name, {})[step] = value
    curves = {name: sorted(points.items()) for name, points in sorted(series.items())}
    losses = {name: points for name, points in curves.items() if "loss" in name}
    scores = {
        name: [(step, 100 * value) for step, value in points]
        for name, points in curves.items()
        if name not in losses and re.search("@|accuracy|precision|recall", name) and "_se" not in name
    }
    charts = report_charts.curves("Loss", losses, "step", "loss")
    charts += report_charts.curves("Scores while training", scores, "step", "percent")
    body = f'<div class="charts">{charts}</div>' if charts else _absent("metrics.jsonl has neither losses nor scores.")
    if not_finite:
        body += f'<p class="note">{not_finite:,} logged values were not finite numbers and are not drawn.</p>'
    rest = [
        report_charts.curves(name, {name: points}, "step", "")
        for name, points in curves.items()
        if name not in losses and name not in scores
    ]
    if rest:
        body += (
            f'<details><summary>More logged values: {len(rest)}</summary><div class="charts">{"".join(rest)}</div>'
            "</details>"
        )
    return _section("Training curves", body)


def _mining_section(config, workdir) -> str:
    file = workdir / "attributes" / "vocabulary.json"
    if not file.exists():
        return _section("Mined attributes", _absent(f"there is no vocabulary; {_elsewhere(config)}."))
    vocabulary = Vocabulary.load(file)
    counts = np.asarray(vocabulary.counts)
    if not len(counts):
        return _section("Mined attributes", _absent(f"no word was seen more than {vocabulary.threshold} times."))
    order = np.argsort(-counts, kind="stable")
    targets = [_targets(workdir, split, vocabulary) for split in ("train", "val")]
    per_title = np.concatenate([np.diff(found[0]) for found in targets if found] or [np.zeros(0, np.int64)])
    ranked = list(zip(range(1, len(counts) + 1), counts[order].tolist(), strict=True))
    charts = report_charts.curves(
        "Titles per attribute, most frequent first", {"titles": ranked}, "rank of the attribute", "titles", log=True
    )
    mean = ""
    if len(per_title):
        charts += report_charts.bars("Attributes per title", np.bincount(per_title), "attributes of a title", "titles")
        mean = f" A title has {per_title.mean():.2f} of them on average; {_percent(per_title == 0)} have none."
    top = "".join(
        f'<li><span>{escape(vocabulary.tokens[i])}</span><small class="quiet">{counts[i]:,}</small>'
        f"{_meter(counts[i] / counts.max())}</li>"
        for i in order[:24]
    )
    rarest = ", ".join(vocabulary.tokens[i] for i in order[::-1][:12])
    return _section(
        "Mined attributes",
        f"<p>{len(counts):,} attributes were seen more than {vocabulary.threshold:,} times in "
        f'{vocabulary.num_titles:,} titles.{mean}</p><div class="charts">{charts}</div>'
        f'<h3>The most frequent</h3><ul class="top">{top}</ul>'
        f'<p class="note">The rarest: {escape(rarest)}.</p>',
    )


def _attribute_section(config, workdir, catalog, picture) -> str:
    title = "Predicted against mined attributes"
    file = workdir / "embeddings" / "trained" / "val_attributes.npz"
    if not file.exists() or not (workdir / "attributes" / "val.npz").exists() or catalog.val is None:
        return _section(
            title,
            _absent(
                "no predicted attributes of the val split have mined ones beside them; "
                f"the task predicts none, or {_elsewhere(config)}."
            ),
        )
    vocabulary = Vocabulary.load(workdir / "attributes" / "vocabulary.json")
    tokens, targets = vocabulary.tokens, _targets(workdir, "val", vocabulary)
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        rows, label_ids, probabilities = arrays["rows"], arrays["label_ids"], arrays["probabilities"]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    label_ids = np.take_along_axis(label_ids, order, 1)
    probabilities = np.take_along_axis(probabilities, order, 1)
    mined = [targets[1][targets[0][row] : targets[0][row + 1]].tolist() for row in rows.tolist()]
    named = [i for i, labels in enumerate(mined) if labels]
    if not named:
        return _section(title, _absent("no listing of the val split has a mined attribute."))
    depth = min(COLUMNS, label_ids.shape[1])
    first = _percent([label_ids[i, 0] in mined[i] for i in named])
    covered = _percent([np.isin(mined[i], label_ids[i, :depth]).mean() for i in named])
    chosen = _choose(named, config["report"]["rows"], config["report"]["seed"])
    largest = max(float(probabilities[chosen].max(initial=0)), 1e-9)
    cards = []
    for i in chosen:
        shown = list(zip(label_ids[i, :8].tolist(), probabilities[i, :8].tolist(), strict=True))
        predicted = "".join(_attribute(tokens[label], label in mined[i], p, p / largest) for label, p in shown)
        real = "".join(_attribute(tokens[label], label in [label for label, _ in shown]) for label in mined[i])
        item = report_rows.item_html(catalog, "val", int(rows[i]), picture)
        cards.append(
            f'<div class="card">{item}<div class="lists">'
            f'<div><h4>predicted</h4><ul class="labels">{predicted}</ul></div>'
            f'<div><h4>mined</h4><ul class="labels">{real}</ul></div></div></div>'
        )
    return _section(
        title,
        "<p>Listings of the val split, which is not trained on, picked at random. The first guess "
        f"is in the title for {first} of {len(named):,} listings; the first {depth} hold {covered} of a "
        "title's attributes on average. A tick marks agreement; bars grow with "
        f'probability, the largest is full.</p><div class="cards">{"".join(cards)}</div>',
    )


def _attribute(token: str, agrees: bool, probability: float | None = None, share: float = 0) -> str:
    number = "" if probability is None else f'<small class="quiet">{probability:.2f}</small>{_meter(share)}'
    start = '<li class="agree">' if agrees else "<li>"
    return f'{start}<span title="{escape(token)}">{"✓ " * agrees}{escape(token)}</span>{number}</li>'


# ---- Retrieval rows --------------------------------------------------------------------------------------------------


def _retrieval_section(config, workdir, catalog, picture) -> str:
    folder = _ranking_folder(config, workdir)
    if folder is None or catalog.query is None or catalog.gallery is None:
        return _section("Retrieval", _absent("there is no ranking; the verb search writes rankings of a gallery."))
    ranking, truth, count = Ranking.load(folder), catalog.truth, config["report"]["rows"]
    report_rows.check(catalog, ranking, folder)
    names = [report_scores.label(name) for name in (folder.parent.name, folder.name)]
    words = (
        f"{', '.join(names)}: the query on the left, its {COLUMNS} best gallery listings beside it, best first; "
        "scores are in the tooltips. "
    )
    if truth is None:
        words += "Nobody told which listings are relevant: none is marked, and there is no list of the worst."
        recall, queries = None, list(range(len(ranking)))
    else:
        words += "A tick and a solid green frame: relevant. A cross and a dashed red frame: not relevant."
        recall = np.asarray(metrics.per_query(ranking, truth)["mar@10"])
        queries = np.flatnonzero(~np.isnan(recall)).tolist()
    parts = [("Random queries", "", _choose(queries, count, config["report"]["seed"]), False)]
    if truth is not None:
        zero = sum(recall[row] == 0 for row in queries)
        parts.append(
            (
                "Worst queries",
                f"Lowest recall among the first {COLUMNS}, ties by id; {zero:,} of "
                f"{len(queries):,} queries find nothing there. Below each, up to three listings that it missed.",
                sorted(queries, key=lambda row: (recall[row], ranking.query_ids[row]))[:count],
                True,
            )
        )
    body = f"<p>{escape(words)}</p>"
    relevant = report_rows.relevant_rows(ranking, truth, [row for part in parts for row in part[2]])
    for heading, note, rows, with_missed in parts:
        body += f"\n<h3>{heading}</h3>" + (f'<p class="note">{note}</p>' if note else "")
        body += "\n".join(
            report_rows.row_html(catalog, ranking, row, relevant.get(row), with_missed, picture) for row in rows
        )
    return _section("Retrieval", body)


def _ranking_folder(config, workdir):
    """The ranking that is shown: config.report.stage, else the last stage of the trained network; None without any."""
    there = list_stages(workdir) if (workdir / "rankings" / "rankings.json").exists() else []
    if not there:
        return None
    fitting = matching_stages(there, config["report"]["stage"], "config.report.stage")
    model, stage = next((entry for entry in reversed(fitting) if entry[0] == "trained"), fitting[-1])
    return workdir / "rankings" / model / stage


# ---- Small parts -----------------------------------------------------------------------------------------------------


def _appendix(config, stages) -> str:
    lines = ""
    for record in stages:
        cells = (_duration(record["seconds"]), _duration(record["cpu_seconds"]), record["finished"][:16])
        cells = "".join(f'<td class="number">{escape(cell.replace("T", " "))}</td>' for cell in cells)
        lines += f"<tr><td>{record['verb']}</td>{cells}</tr>"
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in ("Time", "CPU time", "Finished (UTC)"))
    table = (
        (
            f'<div class="scroll"><table><thead><tr><th scope="col">Stage</th>{head}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div>"
        )
        if stages
        else _absent("no finished stage is recorded here.")
    )
    settings = escape(json.dumps(plain(config), indent=2, ensure_ascii=False))
    return _section(
        "How it was made",
        f"{table}<details><summary>The whole configuration</summary><pre>{settings}</pre></details>"
        "<footer>Written by retrieval_jax.report. This page loads nothing from anywhere.</footer>",
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>"


def _absent(sentence: str) -> str:
    return f'<p class="quiet">Not shown: {escape(sentence)}</p>'


def _elsewhere(config) -> str:
    """Why a work directory has nothing mined or trained."""
    if members(config):
        return f"the members, {', '.join(members(config))}, have it in their own work directories"
    return "nothing was mined or trained in this work directory yet"


def _meter(share: float) -> str:
    return f'<div class="meter"><i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></div>'


def _picture(catalog, longest_side, quality, split_name, row) -> str:
    return report_rows.data_uri(catalog.split(split_name).images[row], longest_side, quality)


def _name(config) -> str:
    return str(config.get("name") or "report")


def _choose(rows, count, seed) -> list[int]:
    return sorted(rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:count])


def _percent(values) -> str:
    return f"{100 * np.mean(values):.1f} %"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _targets(workdir, split, vocabulary):
    """(indptr, label_ids) of a split's mined attributes, or None."""
    file = workdir / "attributes" / f"{split}.npz"
    return load_targets(file, vocabulary.hash) if file.exists() else None
