"""Scores rankings against the ground truth (metrics.json) and writes a submission in eProduct's format.

Choices (number of steps, k1, ...) are made on the selection half of the queries and reported on the other half. A hash
of the id assigns a query to its half, so the halves are the same in every run and for every model.

Typed queries may have a truth with grades and scores of their own (config.evaluate.metrics, gain, unrated), and columns
whose values are slices ("kind" and config.evaluate.slices). Edits, "this shirt, but in denim", are also scored by what
they changed and kept (config.evaluate.edits).

Every mean comes with a 95 % interval (seeded bootstrap over queries) and with the means of slices of the queries: by
number of relevant listings and by category. Near-duplicate pictures between train and gallery, and between queries and
gallery, are counted and shown; nothing is removed.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("evaluate")

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np

from retrieval_jax import arguments
from retrieval_jax import workdir as work_directory
from retrieval_jax.data import fields, loading, saved_fields
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.duplicates import thumbnails
from retrieval_jax.embeddings import Embeddings, Ids, writer
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.scoring import attributes, baselines, edits, metrics, slices, step_effects, submission, tables
from retrieval_jax.scoring.ranking import Ranking, Truth, list_stages, matching_stages
from retrieval_jax.workdir import checks, preflight, sides

SLICED = ("mar@10", "mar@10_capped", "recall@1", "map@10", "precision@10", "ndcg@10")
SUMMARY = ("mar@10", "mar@10_capped", "recall@1", "map@10", "num_queries", "num_scored", "num_without_relevant")
DEFINITIONS = {
    "mar@K": "share of the relevant listings found among the first K, mean over queries (denominator: number of "
    "relevant listings)",
    "mar@K_capped": "the same with denominator min(K, number of relevant listings)",
    "recall@1": "share of queries whose first result is relevant",
    "map@K": "average precision of the first K over min(K, number of relevant listings), mean over queries",
    "ndcg@K": "discounted cumulative gain of the first K (a hit at rank p counts 1 / log2(p + 1)) over the best "
    "possible, mean over queries",
    "precision@K": "share of the first K that are relevant, mean over queries",
    "hit@K": "share of queries with any relevant listing among the first K (R@K of composed retrieval)",
    "mrr, mrr@K": "1 / rank of the first relevant result (among the first K), 0 without one, mean over queries",
    "recall@K": "with K above 1: mar@K, under the name that text retrieval uses",
    "map, ndcg": "of the whole list that was retrieved; map over the number of relevant listings, as trec_eval has it",
    "*_se": "standard error of the mean over queries",
    "*_low, *_high": "95 % interval of the mean: percentiles over bootstrap resamples of the queries",
    "slices": "the same over slices of the queries: by number of relevant listings, and by every category level (of "
    "the query or, if queries have no categories, of its first relevant listing)",
    "edits": "queries that ask for a listing with a change, by stage and by the values of kind and of "
    "config.evaluate.slices. right@K: share of the first K with the wanted value in the edited field and without the "
    "unwanted one; kept@K: share with the reference's values in the fields that should stay; both@K: share that is "
    "right and kept; similarity@K: mean cosine over pairs of the first K by an outside model (average intra-list "
    "similarity), similarity_distinct@K: without pairs of near-duplicate pictures, near_duplicates@K: their share",
    "references": "queries that are about a listing, which is never a result: in the gallery, elsewhere, none; "
    "without_answer: those whose only right answer is that listing",
    "near_duplicates": "listings whose picture, as 8 x 8 mean colours, differs from one on the other side by at most "
    "max_difference of its own contrast (root mean square); nothing is removed",
    "steps": "change in mar@10_capped by a step that trusts neighbours over the stage before it, query by query, with "
    "a bootstrap interval: all queries, those with one relevant listing, those with more",
    "attributes": "of predicted attributes, by split: precision, recall and F1 over all labels and per field where it "
    "is known; set_f1, the mean F1 of a listing's set; majority, the accuracy of train's most frequent value; "
    "calibration (expected calibration error, and bins); unseen, the share of listings with two values that no train "
    "listing has together, and true_unseen, the same of true labels",
    "num_scored": "queries with a relevant listing, over which the means are taken; num_queries = num_scored + "
    "num_without_relevant",
    "chance": "the scores to expect of a gallery in random order",
    "better_without_training": "the best model that is not trained, where it scores better than the trained one by "
    "more than chance (95 % interval of the difference, query by query)",
    "selection, report": "the same over two halves of the queries, by sha256 of the id: choices are made on "
    "selection and reported on report",
}


def score(
    ranking: Ranking,
    truth: Truth,
    ks: Sequence[int],
    selection: np.ndarray,
    parts: dict[str, dict[str, np.ndarray]] | None = None,
    draws: int = 0,
    names: Sequence[str] = (),
    gain: str = "exponential",
    unrated: str = "zero",
) -> dict:
    """Scores a ranking over all queries, over the two halves and over slices.

    Args:
      ranking: [Q, k] results.
      truth: ground truth for the same queries.
      ks: depths.
      selection: bool [Q], the selection half.
      parts: {kind: {slice: bool [Q]}}.
      draws: bootstrap draws for the intervals; 0 for none.
      names, gain, unrated: see `metrics.per_query`.

    Returns:
      `metrics.summary` of all queries, plus the same over the halves, "selection" and "report", and "slices": {kind:
      {slice: the scores `SLICED` and `names` over it}}.
    """
    each = metrics.per_query(ranking, truth, ks, names, gain=gain, unrated=unrated)
    selection = arguments.array(selection, "selection", "evaluate", (len(truth),), kind="flags")
    sliced = {name: each[name] for name in dict.fromkeys((*SLICED, *names)) if name in each}
    return {
        **metrics.summary(each, draws=draws),
        "selection": metrics.summary(each, selection, draws=draws),
        "report": metrics.summary(each, ~selection, draws=draws),
        "slices": {
            kind: {name: metrics.summary(sliced, chosen, draws=draws) for name, chosen in found.items()}
            for kind, found in (parts or {}).items()
        },
    }


def find_duplicates(config, workdir: pathlib.Path, catalog, truth: Truth) -> tuple[dict, np.ndarray]:
    """Finds queries and train listings that have a near-duplicate picture in the gallery.

    Args:
      config: evaluate.near_duplicates: max_difference (below 0 skips the check), train_listings (how many to sample).
      workdir: the work directory; queries' and gallery's thumbnails are read from the embeddings, train pictures from
        the catalogue.
      catalog: the catalogue of the work directory.
      truth: ground truth of the queries.

    Returns:
      {"max_difference": ..., "query": `thumbnails.of_queries`, "train": `thumbnails.of_train`}, with {"not_checked":
      why} in place of what could not be checked; and the rows of the queries that have one.
    """
    settings, nothing = dict(config.evaluate.get("near_duplicates", None) or {}), np.zeros(0, np.int64)
    limit, most = settings.get("max_difference", -1.0), settings.get("train_listings", 0)
    if limit < 0:
        return {"not_checked": "config.evaluate.near_duplicates.max_difference is below 0"}, nothing
    found = _thumbnails(config, workdir, {"query": truth.query_ids, "gallery": truth.gallery_ids})
    if found is None:
        why = "no model here has thumbnails of both queries and gallery: text has none; otherwise embed again"
        return {"not_checked": why}, nothing
    queries, gallery = found
    entry, rows = thumbnails.of_queries(queries, gallery, truth, limit)
    out = {"max_difference": limit, "query": entry}
    if catalog.train is not None and most > 0:
        chosen = np.sort(np.random.default_rng(0).permutation(len(catalog.train))[:most])
        ids = [catalog.train.ids[row] for row in chosen.tolist()]
        try:
            train = Noted(catalog.train.images).notes(chosen)[1]
            out["train"] = thumbnails.of_train(train, ids, len(catalog.train), gallery, truth.gallery_ids, limit)
        except InputError as error:  # a machine that only evaluates may not have the pictures
            out["train"] = {"not_checked": str(error)}
    return out, rows


def attribute_scores(workdir: pathlib.Path, catalog) -> dict:
    """Scores the attributes that embed predicted.

    Args:
      workdir: the work directory.
      catalog: its catalogue.

    Returns:
      {split: {"num_listings", the scores of `scoring.attributes.summary`, "majority" {field: accuracy}, "calibration",
      "unseen" and "true_unseen" {"field+field": share}}}, of the splits with predictions and known attributes.
    """
    folder, facts = (
        workdir / "embeddings" / sides.MODEL / saved_fields.FOLDER,
        workdir / "checkpoints" / "data_info.json",
    )
    if not folder.is_dir() or not facts.exists():
        return {}
    info = info_lib.load(facts)
    names, of_label, out = [field.name for field in info.fields], fields.field_of(info), {}
    single = [number for number, field in enumerate(info.fields) if not field.many]
    combinations = list(itertools.combinations(single, 2))
    train = None if catalog.train is None else fields.true_labels(catalog.train, info)[0]
    for name, split in catalog.splits().items():
        file = folder / f"{name}.npz"
        if not file.exists():
            continue
        chosen, probabilities = saved_fields.load(file, info, Ids.of(split.ids).sha256())
        true, known = fields.true_labels(split, info)
        if not known.any():
            continue
        counted, shown = attributes.counts(chosen, true, known, of_label), chosen & known[:, of_label]
        found = {"num_listings": len(split), **attributes.summary(counted, known, names)}
        if shown.any():
            found["calibration"] = attributes.calibration(probabilities[shown], true[shown])
        if train is not None:
            found["majority"] = {
                names[number]: share
                for number in single
                if (share := attributes.majority(train, true, of_label, number)) is not None
            }
            for key, labels in (("unseen", chosen), ("true_unseen", true)):
                shares = attributes.unseen(labels, train, of_label, combinations).T
                found[key] = {
                    "+".join(names[field] for field in pair): float(share[~np.isnan(share)].mean())
                    for pair, share in zip(combinations, shares, strict=True)
                    if not np.isnan(share).all()
                }
        out[name] = found
    return out


def _thumbnails(config, workdir: pathlib.Path, ids: dict[str, Sequence[str]]) -> list[np.ndarray] | None:
    """Returns the thumbnails of splits, {name: ids}, from a model of this run or of a member; None without them."""
    folders = [
        dict.fromkeys(sides.SPLITS, work_directory.member_folder(workdir, name) / "embeddings" / sides.MODEL)
        for name in work_directory.members(config)
    ]
    for model in (config.get("embed") or {}).get("models", ()):
        chosen = {split: side.folder if model == sides.MODEL else model for split, side in sides.of(config).items()}
        folders.append({split: workdir / "embeddings" / name for split, name in chosen.items()})
    for both in folders:
        found = [writer.thumbnails(both[split] / split, names) for split, names in ids.items()]
        if all(side is not None for side in found):
            return found
    return None


def edit_scores(config, workdir: pathlib.Path, catalog, rankings: dict, parts: dict) -> dict:
    """Scores edits by what they changed and kept, and by the similarity of their results.

    Args:
      config: evaluate.edits: kept (names of fields), similarity (model whose embeddings of the gallery are compared);
        evaluate.near_duplicates.
      workdir: the work directory.
      catalog: its catalogue.
      rankings: {(model, stage): `Ranking`}.
      parts: {kind: {slice: bool [Q]}}.

    Returns:
      See `edits.evaluate`, with "similarity_of" (a model) or "similarity_not_measured" (why); {} where queries are not
      edits.
    """
    if not edits.there(catalog):
        return {}
    settings = edits.settings(config)
    model, gallery_ids, of = settings["similarity"], Ids.of(catalog.gallery.ids), {}
    vectors, noted = None, _thumbnails(config, workdir, {"gallery": gallery_ids})
    if not model:
        of["similarity_not_measured"] = "config.evaluate.edits.similarity is empty"
    elif not (folder := workdir / "embeddings" / model / "gallery").exists():
        of["similarity_not_measured"] = f"the gallery is not embedded by {model!r}: add it to config.embed.models"
    elif (found := Embeddings.load(folder)).ids != gallery_ids:
        of["similarity_not_measured"] = f"{folder} is of another gallery: embed again"
    else:
        of["similarity_of"], vectors = model, found.vectors
    limit = dict(config.evaluate.get("near_duplicates", None) or {}).get("max_difference", -1.0)
    thumbs = None if noted is None or limit < 0 else noted[0]
    asked = edits.of_catalog(catalog, tuple(settings["kept"]), fields.read)
    return {**edits.evaluate(rankings, asked, parts, vectors, thumbs, limit), **of}


def check(config, workdir) -> None:
    """Raises an InputError for settings that cannot be, or a catalogue without queries or gallery; writes nothing.

    Args:
      config: the whole config.
      workdir: the work directory.
    """
    checks.check(config)
    metrics.parse(tuple(config.evaluate.get("metrics", ())), "config.evaluate.metrics")
    catalog = preflight.catalogue(config, workdir, *sides.SPLITS)
    if catalog is not None:
        slices.check_columns(catalog, tuple(config.evaluate.get("slices", ())))
        if edits.there(catalog):
            edits.check_kept(catalog, edits.settings(config)["kept"])


def run(config, workdir) -> dict:
    """Scores every ranking of the work directory and writes metrics.json and submission.csv.

    Args:
      config: data, evaluate.ks, metrics, gain, unrated, selection_share, submission_stage ("stage" or "model/stage"),
        slices, edits.
      workdir: the work directory, with rankings.

    Returns:
      Summary: the last stage's main scores, or {"scored": False, ...} without a truth.

    Raises:
      InputError: there are no rankings, or their queries or gallery are not the catalogue's.
    """
    checks.check(config)
    workdir = pathlib.Path(workdir)
    stages = list_stages(workdir)
    settings = config.evaluate
    submitted = matching_stages(stages, settings.submission_stage, "config.evaluate.submission_stage")[-1]
    catalog = loading.load(config.data)
    gallery_ids = Ids.of(catalog.split("gallery").ids)
    rankings = {stage: Ranking.load(workdir / "rankings" / stage[0] / stage[1]) for stage in stages}
    query_ids = Ids.of(catalog.split("query").ids)
    for stage, ranking in rankings.items():
        if ranking.query_ids != query_ids:
            raise InputError(
                f"the ranking {'/'.join(stage)} has {len(ranking)} queries, the catalogue {len(query_ids)}, or their "
                "order differs: embed and search this catalogue again"
            )
    submission.write_submission(workdir / "submission.csv", rankings[submitted], gallery_ids)
    print(f"evaluate: wrote {workdir / 'submission.csv'} from the stage {'/'.join(submitted)}")
    file = workdir / "metrics.json"
    trusting = step_effects.pairs(workdir)
    if catalog.truth is None:
        file.unlink(missing_ok=True)  # an existing one would be of other data
        for entry in trusting:
            print(f"evaluate: {step_effects.sentence(entry)}")
        print(
            f"evaluate: the catalogue {catalog.name} has no ground truth (nothing says which listings show the same "
            "product), so nothing is scored; the report shows what is found"
        )
        return {"scored": False, "submission_stage": "/".join(submitted)}

    truth = dataclasses.replace(
        catalog.truth, query_ids=Ids.of(catalog.truth.query_ids), gallery_ids=Ids.of(catalog.truth.gallery_ids)
    )
    ks = [arguments.integer(k, "ks", "evaluate") for k in arguments.sequence(settings.ks, "ks", "evaluate")]
    ks = sorted({*ks, 10})  # always include the published metric
    names = tuple(settings.get("metrics", ()))
    metrics.parse(names, "config.evaluate.metrics")
    graded = {"gain": settings.get("gain", "exponential"), "unrated": settings.get("unrated", "zero")}
    selection = metrics.selection_half(truth.query_ids, settings.selection_share)
    columns, draws = tuple(settings.get("slices", ())), settings.get("draws", 1000)
    parts = slices.of_catalog(catalog, truth, columns)
    rows = [
        {
            "model": stage[0],
            "stage": stage[1],
            **score(ranking, truth, ks, selection, parts, draws, names, **graded),
        }
        for stage, ranking in rankings.items()
    ]
    main = next(row for row in rows if (row["model"], row["stage"]) == tuple(submitted))
    duplicates, rows_found = find_duplicates(config, workdir, catalog, truth)
    if len(rows_found):
        clean = ~np.isin(np.arange(len(truth)), rows_found)
        each = metrics.per_query(rankings[submitted], truth, (10,), **graded)
        main["without_near_duplicates"] = metrics.summary(each, clean, draws=draws)
    chance = metrics.chance(truth)
    predicted = attribute_scores(workdir, catalog)
    by = {name: found for name, found in parts.items() if name in (slices.KIND, *columns)}
    edited = edit_scores(config, workdir, catalog, rankings, by)
    for entry in trusting:
        before, after = (rankings[entry["model"], entry[name]] for name in ("before", "stage"))
        entry.update(step_effects.effect(before, after, truth))
    headline = names[0] if names else "mar@10_capped"
    better = baselines.better(
        rows, headline, lambda stage: metrics.per_query(rankings[stage], truth, (10,), names, **graded)[headline]
    )
    atomic.write_json(
        file,
        {
            "stages": rows,
            **({"metrics": list(names), **graded} if names or truth.grades is not None else {}),
            "steps": trusting,
            "chance": chance,
            **({"better_without_training": better} if better else {}),
            "definitions": DEFINITIONS,
            "submission_stage": "/".join(submitted),
            "near_duplicates": duplicates,
            **({"attributes": predicted} if predicted else {}),
            **({"edits": edited} if edited else {}),
            **({"references": catalog.references} if catalog.references else {}),
        },
    )
    tables.print_scores(rows, names)
    tables.print_chance(chance, len(truth.gallery_ids))
    if not main["num_scored"]:
        print(
            f"evaluate: none of the {main['num_queries']:,} queries has a relevant listing in the gallery, so there "
            "is no score: do queries and gallery share products, or does the truth file name listings of this gallery?"
        )
    tables.print_slices(main, names)
    for entry in trusting:
        print(f"evaluate: {step_effects.sentence(entry)}")
    tables.print_duplicates(duplicates, main)
    tables.print_attributes(predicted)
    tables.print_references(catalog.references)
    tables.print_edits(edited)
    if sentence := work_directory.smoke_run(config) or baselines.sentence(better):
        print(f"evaluate: {sentence}")
    last = rows[-1]
    return {
        "scored": True,
        "model": last["model"],
        "stage": last["stage"],
        "submission_stage": "/".join(submitted),
        **{name: last[name] for name in (*names, *SUMMARY)},
    }
