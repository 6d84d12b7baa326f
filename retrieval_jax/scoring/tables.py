"""Prints scores as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import rich.box
import rich.console
import rich.table

from retrieval_jax.duplicates import thumbnails
from retrieval_jax.scoring import edits

SHOWN_SLICES = 12  # a longer table is not printed
CHANCE = "(random order)"
MAIN = "mar@10_capped"  # the score of pictures that intervals are printed of


def print_scores(rows: list[dict], names: Sequence[str] = ()) -> None:
    """Prints the score table: one line per model and stage, in percent.

    Args:
      rows: the "stages" of metrics.json.
      names: of the scores to print, config.evaluate.metrics; () for those of pictures. The interval is of the first.
    """
    counts = rows[0] if rows else {"num_scored": 0, "num_queries": 0}
    title = f"{counts['num_scored']} of {counts['num_queries']} queries have a relevant listing"
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
    columns = tuple(names) or ("mar@10", "mar@10_capped", "recall@1", "map@10", "ndcg@10", "precision@10")
    main = names[0] if names else MAIN
    for name in ("model", "stage"):
        table.add_column(name, no_wrap=True)
    for name in (*columns, f"{names[0] if names else 'capped'}, 95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["model"], row["stage"], *(_number(row.get(name)) for name in columns), _interval(row, main))
    show(table)


def print_chance(chance: dict[str, float], gallery: int) -> None:
    """Prints what the scores are to be compared with.

    Args:
      chance: see `metrics.chance`.
      gallery: number of listings in it.
    """
    if chance:
        listed = ", ".join(f"{name} {_number(value)}" for name, value in chance.items())
        print(f"evaluate: by chance, with the {gallery:,} gallery listings in random order: {listed}")


def print_slices(row: dict, names: Sequence[str] = ()) -> None:
    """Prints the scores of one stage's slices: by number of relevant listings, and by the coarsest category level.

    Tables of more than `SHOWN_SLICES` rows are left out; metrics.json has all slices.

    Args:
      row: one of the "stages" of metrics.json.
      names: see `print_scores`.
    """
    columns, main = tuple(names) or ("mar@10_capped", "recall@1", "ndcg@10"), names[0] if names else MAIN
    short = [(kind, found) for kind, found in row["slices"].items() if 1 < len(found) <= SHOWN_SLICES]
    for kind, found in short[:2]:
        table = rich.table.Table(title=f"{row['model']} {row['stage']} by {kind}", box=rich.box.SIMPLE_HEAD)
        for name in (kind, "queries", *columns, f"{names[0] if names else 'capped'}, 95 %"):
            table.add_column(name, justify="left" if name == kind else "right", no_wrap=True)
        for name, scores in found.items():
            numbers = (_number(scores[column]) for column in columns)
            table.add_row(name, f"{scores['num_scored']:,}", *numbers, _interval(scores, main))
        show(table)


def print_references(counts: dict[str, int]) -> None:
    """Prints how many queries are about a listing.

    Args:
      counts: "references" of metrics.json; {} where none is.
    """
    if counts:
        print(
            f"evaluate: {counts['in_gallery']:,} of {counts['queries']:,} queries are about a gallery listing, which "
            f"is left out of their results; {counts['elsewhere']:,} are about a listing that the gallery lacks, "
            f"{counts['none']:,} about no other listing"
        )
        if lost := counts.get("without_answer"):
            print(f"evaluate: {lost:,} queries are not scored, as the only right answer is the listing they are about")


def print_edits(found: dict) -> None:
    """Prints the scores of edits: one line per model and stage, then the last stage by slices.

    Args:
      found: "edits" of metrics.json; {} where queries are not edits.
    """
    if not found:
        return
    names, last, random = found["names"], found["stages"][-1], found["chance"]
    lines = [
        ((row["model"], row["stage"]), row) for row in (*found["stages"], {"model": CHANCE, "stage": "", **random})
    ]
    print(f"evaluate: {edits.sentence(found['counts'])}")
    groups = [("edits", ("model", "stage"), lines)]
    for kind, slices in last["slices"].items():
        if 1 < len(slices) <= SHOWN_SLICES:
            rows = [((name, CHANCE if chance else ""), scores) for name, row in slices.items()
                    for chance, scores in ((False, row), (True, random["slices"][kind][name]))]  # fmt: skip
            groups.append((f"edits: {last['model']} {last['stage']} by {kind}", (kind, ""), rows))
    for title, heads, rows in groups:
        table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
        for name in heads:
            table.add_column(name, no_wrap=True)
        for name in names:  # the rest of the names is in the sentence below
            short = name.replace("similarity_distinct", "distinct").replace("near_duplicates", "duplicates")
            table.add_column(short, justify="right", no_wrap=True)
        for cells, row in rows:
            table.add_row(*cells, *(_number(row.get(name)) for name in names))
        show(table)
    print(f"evaluate: {edits.likeness(found)}")


def show(table: rich.table.Table, width: int = 120) -> None:
    """Prints a table of names from the data: nothing in them is markup, an emoji's name or a style.

    Args:
      table: its cells are plain text.
      width: least number of columns of the terminal that is assumed.
    """
    plain = {"markup": False, "emoji": False, "highlight": False, "color_system": None}
    rich.console.Console(width=max(width, rich.console.Console().width), **plain).print(table)


def _number(value) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _interval(scores: dict, name: str) -> str:
    """Returns the interval of a score, or its standard error if an earlier version wrote no interval."""
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    if low is not None:
        return f"{100 * low:.1f} to {100 * high:.1f}"
    error = scores.get(f"{name}_se")
    return "-" if error is None else f"± {100 * error:.2f} (se)"


def print_duplicates(found: dict, row: dict) -> None:
    """Prints how many near-duplicates there are, with examples, and what they change in the scores.

    Args:
      found: from `evaluate.find_duplicates`.
      row: the submitted stage, with "without_near_duplicates" if there are any.
    """
    if "not_checked" in found:
        print(f"evaluate: near-duplicates were not checked: {found['not_checked']}")
        return
    for name in [name for name in ("query", "train") if name in found]:
        entry = found[name]
        if "not_checked" in entry:
            print(f"evaluate: near-duplicates of {name} listings were not checked: {entry['not_checked']}")
        else:
            print(f"evaluate: {thumbnails.sentence(name, entry)}")
    if "without_near_duplicates" in row:
        scores = (_number(entry["mar@10_capped"]) for entry in (row, row["without_near_duplicates"]))
        print(f"evaluate: mar@10_capped {' with and '.join(scores)} without those queries")


def print_attributes(found: dict[str, dict]) -> None:
    """Prints the scores of predicted attributes, one table per split.

    Args:
      found: "attributes" of metrics.json.
    """
    for split, scores in found.items():
        title = f"attributes of {scores['num_listings']:,} {split} listings"
        table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
        for name in ("field", "precision", "recall", "F1", "majority"):
            table.add_column(name, justify="left" if name == "field" else "right", no_wrap=True)
        names = [name.removesuffix("_precision") for name in scores if name.endswith("_precision")]
        for name in names:
            rates = (_number(scores[f"{name}_{rate}"]) for rate in ("precision", "recall", "f1"))
            table.add_row(name, *rates, _number(scores.get("majority", {}).get(name)))
        table.add_row("all", *(_number(scores[rate]) for rate in ("precision", "recall", "f1")), "")
        show(table)
        ece = scores.get("calibration", {}).get("ece")
        error = "" if ece is None else f", expected calibration error {ece:.3f}"
        print(f"evaluate: attributes of {split}: F1 of a listing's set {_number(scores.get('set_f1'))}{error}")
