"""What stands at the top of the report: what ran, on what, how well, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from retrieval_jax.pages import score_table
from retrieval_jax.pages.parts import duration, machine
from retrieval_jax.pages.templates import render

SPLITS = ("train", "val", "query", "gallery")


def header(
    name: str,
    catalog,
    model: Mapping,
    members: Sequence[str],
    scores: Sequence[dict],
    names: Sequence[str],
    stages: Sequence[dict],
    warning: str,
) -> Markup:
    """Returns the header of the page: name, one line of facts, and the headline numbers.

    Args:
      name: of the experiment.
      catalog: its `Catalog`.
      model: config.train.model, {} where nothing is trained.
      members: the runs of an ensemble.
      scores, names: see `score_table.table`.
      stages: the records of the finished verbs, in their order.
      warning: what to know before believing the numbers, without a full stop; "" for nothing.
    """
    train = next((record for record in stages if record["verb"] == "train"), {})
    last = train or (stages[-1] if stages else {})
    lengths = [f"{len(split):,} {name}" for name in SPLITS if (split := getattr(catalog, name)) is not None]
    facts = [f"{catalog.name}: {', '.join(lengths)} listings"]
    if members:
        facts.append(f"ensemble of {', '.join(members)}")
    elif model:
        facts.append(" ".join(["network", *(str(model[key]) for key in ("name", "variant") if model.get(key))]))
    for key, text in (
        ("parameters", "{:,} parameters"),
        ("steps", "{:,} steps"),
        ("epochs", "{:g} epochs"),
        ("images_per_second", "{:,.0f} pictures per second in training"),
    ):
        if value := train.get("summary", {}).get(key):
            facts.append(text.format(value) if value != 1 else text.format(1).removesuffix("s"))
    facts.append(machine(last.get("hardware") or {}))
    if last.get("commit"):
        commit, edited, _ = last["commit"].partition("+")
        facts.append(f"commit {commit[:12]}{' with changes' if edited else ''}")
    facts.append(max((record["finished"][:10] for record in stages), default=""))
    return render(
        "header.html",
        name=name,
        facts=" · ".join(filter(None, facts)),
        warning=f"{warning[0].upper()}{warning[1:]}." if warning else "",
        tiles=_tiles(catalog, scores, names, stages),
    )


def _tiles(catalog, scores, names, stages) -> list[tuple[str, str]]:
    """Returns the headline numbers, each with what it is."""
    tiles, best = [], score_table.best_stage(scores, names)
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
        text = f"of work, from {stages[0]['verb']} to {stages[-1]['verb']}"
        sessions = max(record.get("sessions", 1) for record in stages)
        text += f"; train in {sessions} sessions" if sessions > 1 else ""
        tiles.append((duration(sum(record["seconds"] for record in stages)), text))
    return tiles
