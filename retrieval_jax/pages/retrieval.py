"""Sections of the report about what is found: curves, slices, rows of pictures, hubs, near-duplicates, a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from retrieval_jax.pages import charts, maps, rows, score_table
from retrieval_jax.pages.parts import Section, absent, choose, heading, joined, note, reading, side_by_side
from retrieval_jax.pages.rows import COLUMNS
from retrieval_jax.pages.templates import render
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

SLICES = 12  # of one kind shown, the worst
LEAST_QUERIES = 20  # of a slice among many
HUBS = 10
MAP_PICTURES = 200
MAP_VECTORS = 400  # that the plane of the map is fitted to


# ------------------------------------------------------------------------------------------------------------- curves


def depth_curves(ranking: Ranking, truth: Truth) -> tuple[list[tuple[int, float]], list[tuple[float, float]]]:
    """Returns recall by depth, [(k, percent)], and precision by recall, [(percent, percent)], of k = 1 to the last.

    Both are means over the queries with a relevant listing; results that are missing count as misses.

    Args:
      ranking: [Q, k] results.
      truth: ground truth for the same queries.
    """
    scored = truth.num_relevant > 0
    found = np.cumsum(metrics.hits(ranking, truth)[scored], 1)
    depths = np.arange(1, found.shape[1] + 1)
    recall = 100 * (found / truth.num_relevant[scored][:, None]).mean(0)
    precision = 100 * (found / depths).mean(0)
    return list(zip(depths.tolist(), recall.tolist(), strict=True)), list(
        zip(recall.tolist(), precision.tolist(), strict=True)
    )


def curve_section(rankings: Mapping[str, Ranking], truth: Truth) -> list[Section]:
    """Returns the section of recall by depth and of precision by recall; nothing where no query can be scored.

    Args:
      rankings: {name: ranking}; those that are equal are drawn once.
      truth: ground truth of their queries.
    """
    if not rankings or not (truth.num_relevant > 0).any():
        return []
    made = {name: depth_curves(ranking, truth) for name, ranking in rankings.items()}
    drawn = charts.curves("Recall at k", {name: one[0] for name, one in made.items()}, "k", "percent")
    drawn += charts.curves(
        "Precision and recall",
        {name: one[1] for name, one in made.items()},
        "recall, percent",
        "precision, percent",
        ends=False,
    )
    text = (
        "Means over the queries that have a relevant listing; a point per number of results, from one to the "
        "last. Recall divides by all relevant listings of a query, precision by the number of results."
    )
    return [Section("Recall and precision", joined(side_by_side(drawn), note(text)))]


def slice_section(stage: Mapping[str, Any] | None, key: str) -> list[Section]:
    """Returns the section of scores by slice, an empty list without slices.

    Args:
      stage: an entry of the "stages" of metrics.json.
      key: the score to show.
    """
    drawn, cut = [], False
    for kind, found in (stage or {}).get("slices", {}).items():
        there = {name: one for name, one in found.items() if one.get(key) is not None}
        if len(there) > SLICES:
            cut = True
            there = {name: one for name, one in there.items() if one.get("num_scored", 0) >= LEAST_QUERIES}
            worst = sorted(there, key=lambda name: (there[name][key], name))[:SLICES]
            there = {name: there[name] for name in worst}
        if len(there) > 1:
            lines = [_interval("all queries", stage, key), *(_interval(name, one, key) for name, one in there.items())]
            drawn.append(charts.intervals(f"By {kind}", lines, f"{score_table.metric_name(key)}, percent"))
    if not drawn:
        return []
    text = f"{score_table.label(stage['model'])}, {score_table.label(stage['stage'])}; bars are 95 % intervals."
    if cut:
        text += f" Of many slices, the {SLICES} worst with at least {LEAST_QUERIES} queries; metrics.json has all."
    return [Section("Scores by slice", joined(side_by_side(*drawn), note(text)))]


def _interval(name: str, one: Mapping[str, Any], key: str) -> tuple[str, float, float, float, str]:
    value, low, high = (
        100 * (one.get(key + end) if one.get(key + end) is not None else one[key]) for end in ("", "_low", "_high")
    )
    count = f", {one['num_scored']:,.0f} queries" if one.get("num_scored") else ""
    return name, value, low, high, f"{name}: {value:.1f} % ({low:.1f} to {high:.1f}){count}"


# --------------------------------------------------------------------------------------------------- rows of pictures


def row_section(
    catalog,
    ranking: Ranking,
    name: str,
    picture: Callable,
    *,
    count: int,
    seed: int,
    before: tuple[str, Ranking] | None = None,
    changes: Callable | None = None,
    boxed: bool = False,
) -> Section:
    """Returns the section of random, worst, most improved and most worsened queries.

    Args:
      catalog: `Catalog` of the ranking; its truth may be None.
      ranking: what is shown.
      name: what the ranking is of, in words.
      picture: (split name, row) -> data URI.
      count: rows of a list; half of it of those that compare.
      seed: of the choice of random queries.
      before: name and ranking of what `ranking` is compared with; None for no comparison.
      changes: see `rows.row`.
      boxed: whether the query pictures have a box drawn on them.
    """
    truth = catalog.truth
    words = (
        f"{name}: the query on the left and its {COLUMNS} best gallery listings, best first; scores are in the "
        "tooltips. "
    )
    if truth is None:
        words += "Without a ground truth no listing is marked as relevant, and there is no list of worst queries."
        body = [reading(words), note(rows.BOXES if boxed else ""), heading("Random queries")]
        shown = choose(range(len(ranking)), count, seed)
        body.append(rows.rows([rows.row(catalog, ranking, row, None, picture, changes=changes) for row in shown]))
        return Section("Retrieval", joined(*body))
    words += "Tick and solid green frame: relevant. Cross and dashed red frame: not relevant."
    body = [Markup("<p>{}</p>").format(words)]
    if changes is not None:
        body.append(Markup("<p>{}</p>").format(rows.EDITS))
    if boxed:
        body.append(Markup("<p>{}</p>").format(rows.BOXES))
    recall = _recall(ranking, truth)
    queries = np.flatnonzero(~np.isnan(recall)).tolist()
    worst = sorted(queries, key=lambda row: (recall[row], ranking.query_ids[row]))[:count]
    nothing = sum(recall[row] == 0 for row in queries)
    lists = [
        ("Random queries", "", choose(queries, count, seed), {}),
        (
            "Worst queries",
            f"Lowest recall among the first {COLUMNS}, ties by id; {nothing:,} of {len(queries):,} queries find "
            f"nothing there. Below each, up to {rows.MISSED} relevant listings it missed.",
            worst,
            {"with_missed": True},
        ),
    ]
    if before is not None:
        lists += _moved(ranking, name, before, truth, (count + 1) // 2)
    relevant = rows.relevant_rows(ranking, truth, [row for *_, shown, _ in lists for row in shown])
    for title, text, shown, more in lists:
        if shown:
            made = [rows.row(catalog, ranking, row, relevant[row], picture, changes=changes, **more) for row in shown]
            body += [heading(title), note(text), rows.rows(made)]
    return Section("Retrieval", joined(*body))


def _recall(ranking: Ranking, truth: Truth) -> np.ndarray:
    return np.asarray(metrics.per_query(ranking, truth)["mar@10"])


def _moved(ranking: Ranking, name: str, before: tuple[str, Ranking], truth: Truth, count: int) -> list[tuple]:
    """Returns the lists of the queries that gained and lost most recall, in the form of `row_section`'s lists."""
    gain = _recall(ranking, truth) - _recall(before[1], truth)
    more = {"label": name, "others": (before,)}
    lists = []
    for title, sign in (("Most improved", 1), ("Most worsened", -1)):
        moved = [row for row in range(len(ranking)) if sign * gain[row] > 0]
        shown = sorted(moved, key=lambda row: (-sign * gain[row], ranking.query_ids[row]))[:count]
        text = (
            f"Largest {'gain' if sign > 0 else 'loss'} of recall among the first {COLUMNS} against {before[0]}; it "
            f"{'rises' if sign > 0 else 'falls'} for {len(moved):,} of {int((~np.isnan(gain)).sum()):,} queries."
        )
        lists.append((title, text, shown, more))
    return lists


def differing_section(
    catalog, one: tuple[str, Ranking], other: tuple[str, Ranking], picture: Callable, count: int
) -> Section:
    """Returns the section of the queries on which two runs differ most.

    Args:
      catalog: `Catalog` of both, with a truth.
      one, other: name and ranking of each; gains are of `one` over `other`.
      picture: (split name, row) -> data URI.
      count: rows of a list.
    """
    lists = _moved(one[1], one[0], other, catalog.truth, count)
    relevant = rows.relevant_rows(one[1], catalog.truth, [row for *_, shown, _ in lists for row in shown])
    body = []
    for (_, text, shown, more), better in zip(lists, (one[0], other[0]), strict=True):
        made = [rows.row(catalog, one[1], row, relevant[row], picture, **more) for row in shown]
        body += [heading(f"Better by {better}"), note(text), rows.rows(made)] if made else []
    return Section("Queries that differ most", joined(*body) if body else absent("every query has the same recall."))


# ------------------------------------------------------------------------------------- hubs, near-duplicates, the map


def occurrences(ranking: Ranking, gallery: int, depth: int = COLUMNS) -> np.ndarray:
    """Returns in how many queries' first results each gallery row is, [gallery] int64."""
    first = ranking.item_rows[:, :depth]
    return np.bincount(first[first >= 0], minlength=gallery)


def hub_section(catalog, ranking: Ranking, name: str, picture: Callable) -> list[Section]:
    """Returns the section of the listings that are found by far more queries than others; nothing without queries.

    Args:
      catalog: `Catalog` of the ranking.
      ranking: the ranking.
      name: what the ranking is of, in words.
      picture: (split name, row) -> data URI.

    Source: hubs as skewness of the k-occurrences, Radovanovic et al., "Hubs in Space", JMLR 11, 2010.
    """
    if not len(ranking):
        return []
    counts = occurrences(ranking, len(catalog.gallery))
    spread = counts.std()
    skewness = float((((counts - counts.mean()) / spread) ** 3).mean()) if spread else 0.0
    order = np.lexsort((np.arange(len(counts)), -counts))[:HUBS]
    items = []
    for row in order.tolist():
        if counts[row]:
            text = f"for {counts[row]:,} queries"
            items.append(rows.item(catalog, "gallery", row, picture, note=text, note_shown=True))
    text = (
        f"{name}: a listing is among the first {COLUMNS} of {counts.mean():.1f} queries on average, and "
        f"{(counts == 0).mean():.0%} are there for no query. Skewness of these counts: {skewness:.1f} (0: even; "
        "high: a few hubs are found whatever is asked)."
    )
    return [Section("Hubs", joined(reading(text), render("strip.html", entries=items)))]


def duplicate_section(
    catalog, found: Mapping[str, Any], sentences: Sequence[str], without: str, picture: Callable
) -> list[Section]:
    """Returns the section of near-duplicate pictures across splits; nothing where they were not looked for.

    Args:
      catalog: `Catalog`.
      found: "near_duplicates" of metrics.json.
      sentences: what was found, in words.
      without: the scores without them, in words; "" where unknown.
      picture: (split name, row) -> data URI.
    """
    if not sentences:
        return []
    pairs, places = [], {}
    for split in ("query", "train"):
        for example in found.get(split, {}).get("examples", ()):
            entries = []
            for side in (split, "gallery"):
                if side not in places:
                    ids = getattr(catalog, side).ids if getattr(catalog, side) is not None else ()
                    places[side] = {str(name): row for row, name in enumerate(ids)}
                if (row := places[side].get(example[side])) is not None:
                    text = side if side == split else f"gallery, difference {example['difference']:.3f}"
                    entries.append(rows.item(catalog, side, row, picture, note=text, note_shown=True))
            if len(entries) == 2:
                pairs.append(entries)
    body = [*map(reading, sentences), note(without), render("pairs.html", pairs=pairs) if pairs else ""]
    return [Section("Near-duplicates", joined(*body))]


def plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns vectors on the plane of their largest variance, [n, 2], and the share of the variance that it has.

    Args:
      vectors: [n, dim].

    Source: principal component analysis; of each direction, the largest coordinate is positive.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred @ centred.T)  # n is small: no matrix of [dim, dim]
    points = directions[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0))
    signs = np.sign(points[np.abs(points).argmax(0), np.arange(points.shape[1])])
    return points * signs, float(values[:-3:-1].sum() / max(values.sum(), 1e-300))


def map_section(catalog, vectors: np.ndarray, where: np.ndarray, name: str, picture: Callable) -> list[Section]:
    """Returns the section with a map of the gallery's embeddings.

    Args:
      catalog: `Catalog`.
      vectors: [n, dim] embeddings of gallery listings.
      where: [n], their rows in the gallery.
      name: what the embeddings are of, in words.
      picture: (split name, row) -> data URI.
    """
    if len(vectors) < 3:
        return []
    points, share = plane(vectors)
    shown = np.unique(np.linspace(0, len(where) - 1, min(len(where), MAP_PICTURES)).astype(np.int64))
    gallery, groups = catalog.gallery, []
    for row in where[shown].tolist():
        code = -1 if gallery.categories is None or not gallery.categories.shape[1] else gallery.categories[row, 0]
        groups.append(str(catalog.category_names[0][code]) if code >= 0 else "unknown")
    entries = [
        {"picture": picture("gallery", row), "title": rows.name_of(gallery, row)} for row in where[shown].tolist()
    ]
    listed = f"{name}: {len(shown):,} gallery listings"
    hint = "Point at or tap a dot to see its picture." + " Colours are categories." * (len(set(groups)) > 1)
    text = (
        f"{listed} on the plane of largest variance (PCA of {len(vectors):,}), which has {share:.0%} of it: neighbours "
        f"here need not be neighbours there. {hint}"
    )
    labels = ("first principal component", "second principal component")
    parts = [reading(text), charts.picture_map("Map of the gallery", points[shown], entries, groups, text, labels)]
    if (laid := maps.umap(vectors)) is not None:
        text = (
            f"{listed}, laid out so that neighbours stay neighbours (UMAP of {len(vectors):,}); distances between "
            f"groups, and their sizes, say nothing. {hint}"
        )
        parts += [reading(text), charts.picture_map("Neighbours in the gallery", laid[shown], entries, groups, text)]
    return [Section("Map", joined(*parts))]
