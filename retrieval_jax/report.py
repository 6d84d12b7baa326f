"""Writes the report of a work directory: one HTML page that needs no network, no JavaScript and no other files.

It shows scores by stage and slice, recall and precision curves, training curves, mined attributes, random, worst and
most improved queries, outfits, hubs, near-duplicates, a map of the embeddings, predicted attributes, and what
everything cost. A section without data says so in one sentence. The same work directory always gives the same bytes.

With --compare, the page is of two runs of one catalogue instead: the verdict of `retrieval-jax compare`, both sides'
curves, the settings that differ, and the queries that differ most.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("report")

import functools
import pathlib

import ml_collections

from retrieval_jax import looks
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import fields as field_lib
from retrieval_jax.data import loading, saved_boxes
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.duplicates import thumbnails
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.index import attribute
from retrieval_jax.pages import (
    attributes,
    chosen,
    compared,
    cost,
    edits,
    explained,
    fields,
    joined,
    outfits,
    overview,
    retrieval,
    rows,
    score_table,
    templates,
    training,
)
from retrieval_jax.pages.parts import Section, absent, choose
from retrieval_jax.pages.rows import COLUMNS, rows_picture
from retrieval_jax.postprocess import choosing, fused
from retrieval_jax.scoring import baselines, comparing, metrics, written
from retrieval_jax.scoring import edits as edit_scores
from retrieval_jax.scoring.ranking import Ranking, list_stages, matching_stages
from retrieval_jax.workdir import VERBS, as_path, checks, members, plain, read_record, sides, smoke_run

__all__ = ["main", "rows_picture", "run"]

MAX_BYTES = 5_000_000
PICTURES = ((128, 88), (96, 80), (64, 70))  # longest side in px, JPEG quality; the first that fits MAX_BYTES is used
MOST_CURVES = 6
FOOTER = "Written by retrieval_jax.report. This page loads nothing from elsewhere and runs no scripts."


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
    stages = [record for verb in VERBS[:-1] if (record := read_record(workdir, verb))]
    train = next((record["summary"] for record in stages if record["verb"] == "train"), {})
    table = score_table.table(scores, written.chance(workdir), names) or absent(
        "there is no metrics.json; the verb evaluate writes it."
        if catalog.truth is not None
        else "the catalogue has no ground truth: nothing says which listings show the same product, so nothing can be "
        "scored. The rows below show what is found."
    )
    model = (config.get("train") or {}).get("model") or {}
    warnings = [f"Warning: {train['warning']}"] if train.get("warning") else []
    warnings += filter(None, [baselines.sentence(written.better_without_training(workdir))])
    warning = smoke_run(config) or ". ".join(warnings)
    header = overview.header(_name(config), catalog, model, members(config), scores, names, stages, warning)
    shown = _shown(config, workdir, catalog)
    boxes = _boxes(workdir, catalog) if shown and shown[0] == sides.MODEL else None  # those of no other model
    above = [
        Section("Scores", table),
        *_slices(scores, names, shown),
        *edits.sections(written.edits(workdir)),
        *_chosen_sections(workdir),
        *_depth_sections(workdir, catalog, shown),
        training.section(_logged(workdir), train.get("in_training_of", ()), _elsewhere(config)),
        attributes.mined_section(workdir, _elsewhere(config)),
        *fields.sections(written.attributes(workdir)),
    ]
    below = [*_conditions_sections(config, catalog, shown), *_fusion_sections(config, workdir, catalog)]
    judged = looks.judged(config, workdir, catalog)
    for longest_side, quality in PICTURES:
        picture = functools.cache(functools.partial(_picture, catalog, longest_side, quality, boxes=boxes))
        sections = [
            *above,
            *_retrieval_sections(config, workdir, catalog, shown, picture, boxes is not None),
            *outfits.sections(judged, catalog, picture, config["report"]),
            *below,
            attributes.predicted_section(config["report"], workdir, catalog, picture, _elsewhere(config)),
            cost.section(stages, plain(config)),
        ]
        page = templates.page(_name(config), header, sections, FOOTER).encode("utf-8")
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


# ---- What the search finds -------------------------------------------------------------------------------------------


def _shown(config, workdir, catalog) -> tuple[str, str, Ranking] | None:
    """Returns model, stage and ranking to show, by default the last stage of the main model; None without rankings."""
    stages = list_stages(workdir) if (workdir / "rankings" / "rankings.json").exists() else []
    if not stages or catalog.query is None or catalog.gallery is None:
        return None
    matching = matching_stages(stages, config["report"]["stage"], "config.report.stage")
    main = next((name for name in score_table.MAIN if name in dict(matching)), "")
    model, stage = next((entry for entry in reversed(matching) if entry[0] == main), matching[-1])
    return model, stage, _ranking(workdir, catalog, model, stage)


def _ranking(workdir, catalog, model: str, stage: str) -> Ranking:
    folder = workdir / "rankings" / model / stage
    ranking = Ranking.load(folder)
    rows.check(catalog, ranking, folder)
    return ranking


def _words(model: str, stage: str) -> str:
    return f"{score_table.label(model)}, {score_table.label(stage)}"


def _slices(scores, names, shown) -> list[Section]:
    stage = next((one for one in scores if shown and (one["model"], one["stage"]) == shown[:2]), None)
    return retrieval.slice_section(stage, score_table.headline(scores, names))


def _depth_sections(workdir, catalog, shown) -> list[Section]:
    """Returns the section of curves by depth: of every stage, those of the model shown first."""
    if shown is None or catalog.truth is None:
        return []
    stages = sorted(list_stages(workdir), key=lambda entry: entry[0] != shown[0])[:MOST_CURVES]
    return retrieval.curve_section(
        {_words(*entry): _ranking(workdir, catalog, *entry) for entry in stages}, catalog.truth
    )


def _retrieval_sections(config, workdir, catalog, shown, picture, boxed) -> list[Section]:
    if shown is None:
        return [Section("Retrieval", absent("there is no ranking; the verb search writes rankings of a gallery."))]
    model, stage, ranking = shown
    settings, before, changes = config["report"], None, None
    others = [entry for entry in list_stages(workdir) if entry != (model, stage)]
    if others and catalog.truth is not None:  # the plain search of the same model, else the first model's
        other = next((entry for entry in others if entry[0] == model), others[0])
        before = _words(*other), _ranking(workdir, catalog, *other)
    if edit_scores.there(catalog):
        asked = edit_scores.of_catalog(catalog, tuple(edit_scores.settings(config)["kept"]), field_lib.read)
        changes = functools.partial(edit_scores.notes, asked)
    name = _words(model, stage)
    found = retrieval.row_section(
        catalog,
        ranking,
        name,
        picture,
        count=settings["rows"],
        seed=settings["seed"],
        before=before,
        changes=changes,
        boxed=boxed,
    )
    sections = [found, *retrieval.hub_section(catalog, ranking, name, picture)]
    return sections + _duplicate_sections(workdir, catalog, shown, picture) + _map_sections(workdir, catalog, model)


def _duplicate_sections(workdir, catalog, shown, picture) -> list[Section]:
    found = written.near_duplicates(workdir)
    sentences = [
        thumbnails.sentence(split, found[split])
        for split in ("query", "train")
        if split in found and "not_checked" not in found[split]
    ]
    scores, names = written.stages(workdir), written.metrics(workdir)
    stage = next((one for one in scores if (one["model"], one["stage"]) == shown[:2]), {})
    key, others = score_table.headline(scores, names), stage.get("without_near_duplicates") or {}
    without = ""
    if stage.get(key) is not None and others.get(key) is not None:
        without = (
            f"{score_table.metric_name(key)} of the other queries: {100 * others[key]:.2f} %, of all "
            f"{100 * stage[key]:.2f} % ({_words(*shown[:2])})."
        )
    return retrieval.duplicate_section(catalog, found, sentences, without, picture)


def _map_sections(workdir, catalog, model: str) -> list[Section]:
    """Returns the map of a model's gallery embeddings, or of the last model's that has some: an ensemble has none."""
    models = [model, *(name for name, _ in reversed(list_stages(workdir)))]
    folders = [(name, workdir / "embeddings" / name / "gallery") for name in models]
    model, folder = next(((name, folder) for name, folder in folders if folder.exists()), ("", None))
    if folder is None:
        return []
    found = Embeddings.load(folder)
    if found.ids != Ids.of(catalog.gallery.ids):
        raise InputError(f"{folder} is of another gallery than the catalogue's: run embed and search again")
    where = spread(len(found.vectors), retrieval.MAP_VECTORS)
    small = functools.partial(_picture, catalog, 72, 70)
    return retrieval.map_section(catalog, found.vectors[where], where, score_table.label(model), small)


def _chosen_sections(workdir) -> list[Section]:
    """Returns the section about chosen search steps; nothing where none were chosen."""
    found = []
    for folder in sorted((workdir / "rankings").glob("*/" + choosing.FILE)):
        choice = choosing.load(folder.parent)
        found.append((folder.parent.name, choosing.table(choice), choice["why"], choice["notes"]))
    return chosen.sections(found)


def _logged(workdir) -> list[dict] | None:
    path = workdir / "metrics.jsonl"
    return list(documents.lines(path)) if path.exists() else None


def _conditions_sections(config, catalog, shown) -> list[Section]:
    """Returns the section about the conditions of the search; nothing where there were none."""
    kwargs = plain(config["search"].get("index_kwargs") or {})
    fields_ = kwargs.get("fields")
    if config["search"].get("index") != "attribute" or shown is None or not isinstance(fields_, (list, tuple)):
        return []
    ranking, given = shown[2], attribute.parse(kwargs.get("conditions"))
    columns = [kwargs.get(name) for name in ("conditions_column", "words_column")]
    texts, words = ([""] * len(ranking) if not name else catalog.query.column(name) for name in columns)
    ids = catalog.gallery.ids
    made = field_lib.of_split(catalog.gallery, fields_, ids=ids)
    table = attribute.build(made, len(ids))
    found, values, where = [], table.values(), "conditions of the query "
    every = [
        attribute.of_query(given, *own, values, where + ranking.query_ids[row])
        for row, own in enumerate(zip(texts, words, strict=True))
    ]
    if not any(every):
        return []
    for query in choose(range(len(ranking)), config["report"]["rows"], config["report"]["seed"]):
        shown, asked = ranking.item_rows[query][:COLUMNS], every[query]
        shown = shown[shown >= 0]
        why = [[reason.to_json() for reason in each] for each in attribute.reasons(table, asked, shown)]
        found.append((ranking.query_ids[query], list(zip((ids[int(row)] for row in shown), why, strict=True))))
    text = f"{given}; beside that each query has its own" if any(columns) else str(given)
    return explained.sections(text, found)


def _fusion_sections(config, workdir, catalog) -> list[Section]:
    """Returns the section about the weights of a fusion and what each member gave to results; nothing without one."""
    made = fused.load(workdir)
    if made is None or catalog.gallery is None:
        return []
    rows.check(catalog, made.fused, "ensemble")
    queries = choose(range(len(made.fused)), config["report"]["rows"], config["report"]["seed"])
    found = []
    if made.method != "scores":
        ids = Ids.of(catalog.gallery.ids)
        for query in queries:
            why = [one.to_json() for one in made.explain(query, ids, joined.SHOWN)]
            found.append((rows.name_of(catalog.query, rows.query_row(catalog, made.fused, query)), why))
    return joined.sections(made.weights, made.why, found, lambda row: rows.name_of(catalog.gallery, row))


# ---- Two runs --------------------------------------------------------------------------------------------------------


def main(given) -> None:
    """Writes the page of two runs, for `retrieval-jax report --compare`.

    Args:
      given: the options, as `retrieval_jax.__main__` parses them: compare (the work directories, the baseline first),
        stages (what to compare of each), out (path of the page).

    Raises:
      InputError: options that only the report of one run has, no such rankings, or two catalogues.
    """
    for name in ("config", "workdir", "again"):
        if getattr(given, name):
            raise InputError(f"report --compare takes two work directories, and no --{name}")
    folders = [as_path(folder) for folder in given.compare]
    configs = [ml_collections.ConfigDict(workdirs.read_config(folder)) for folder in folders]
    catalog = loading.load(configs[0].data)
    if catalog.truth is None:
        raise InputError(f"the catalogue of {folders[0]} has no ground truth, so nothing can be compared")
    stages = given.stages or ("", "")
    settings = comparing.settings(configs[0], catalog, field_lib.read)
    half = metrics.selection_half(
        catalog.truth.query_ids, (configs[0].get("evaluate") or {}).get("selection_share", 0.5)
    )
    found = {}
    for name, part in (("all queries", None), ("report half", ~half)):
        if part is None or catalog.truth.num_relevant[part].any():
            found[name] = comparing.compare(
                [folders[1]],
                [folders[0]],
                catalog.truth,
                stage=stages[1],
                old_stage=stages[0],
                chosen=part,
                **settings,
            )
    sides = []
    for side, folder, config in zip(("old", "new"), folders, configs, strict=True):
        model, stage = found["all queries"][side]["stages"][0].split("/")
        sides.append(
            compared.Side(
                name=f"{folder.name} ({_words(model, stage)})" if stages[0] != stages[1] else folder.name,
                what=f"{folder}, {_words(model, stage)}",
                ranking=_ranking(folder, catalog, model, stage),
                settings=plain(config),
                logged=_logged(folder),
                records=[record for verb in VERBS[:-1] if (record := read_record(folder, verb))],
            )
        )
    count = (configs[0].get("report") or {}).get("rows", 12)
    for longest_side, quality in PICTURES:
        picture = functools.cache(functools.partial(_picture, catalog, longest_side, quality))
        page = compared.page(found, *sides, catalog, picture, count).encode("utf-8")
        if len(page) < MAX_BYTES:
            break
    else:
        raise InputError(
            f"the page would take {len(page):,} bytes, more than {MAX_BYTES:,}, even with pictures of "
            f"{longest_side} px: lower report.rows (now {count}) in {folders[0] / 'config.json'}"
        )
    path = given.out or folders[1] / f"compared_with_{folders[0].name}.html"
    atomic.write_bytes(pathlib.Path(path), page)
    print(found["all queries"]["verdict"])
    print(path)


# ---- Small parts -----------------------------------------------------------------------------------------------------


def _elsewhere(config) -> str:
    """Returns why a work directory has nothing mined or trained."""
    if members(config):
        return f"the members {', '.join(members(config))} have it in their own work directories"
    return "nothing has been mined or trained in this work directory yet"


def _boxes(workdir, catalog):
    """Returns where the network looked in query pictures, [n, 4]; None where it was not asked or sees all of them."""
    file = workdir / "embeddings" / sides.MODEL / saved_boxes.FILE
    return saved_boxes.load(file, Ids.of(catalog.query.ids).sha256()) if catalog.query and file.exists() else None


def _picture(catalog, longest_side, quality, split_name, row, boxes=None) -> str:
    """Returns a data URI; "" for a split without pictures."""
    images = catalog.split(split_name).images
    if isinstance(images, NoPictures):
        return ""
    box = boxes[row] if boxes is not None and split_name == "query" else None
    return rows.data_uri(images[row], longest_side, quality, box)


def _name(config) -> str:
    return str(config.get("name") or "report")
