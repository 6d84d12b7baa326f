"""The page that shows what mining decided and how to overrule it: one self-contained HTML file.

Its script searches and sorts the tables, and collects the lines of what is overruled by a click; without it, the tables
and the lines are there all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl
from markupsafe import Markup

from retrieval_jax.attributes.choosing import Decisions
from retrieval_jax.pages import parts, templates

SHOWN = 1000  # rows per section; decisions.csv has them all
PICTURED = 40  # rows per section with a picture
EXAMPLE = 160  # characters of a title
FOOTER = "Written by retrieval_jax.mine. This page loads nothing from elsewhere."

# (heading, explanation, decision, rules, line that overrules it: {} is the word)
_SECTIONS = (
    ("Merged", "Words that count as another word.", "merged", None, "split,{}"),
    (
        "Phrases",
        "Words that occur together so often that the pair is an attribute of its own, in addition to its parts.",
        "kept",
        ("phrases",),
        "split,{}",
    ),
    (
        "Parts of phrases, dropped",
        "Words that would duplicate the label of their phrase.",
        "dropped",
        ("phrases",),
        "keep,{}",
    ),
    (
        "Dropped: uninformative",
        "Words that are frequent enough but say nothing about the picture or the category.",
        "dropped",
        ("uninformative",),
        "keep,{}",
    ),
    (
        "Kept, though rare",
        "Words below the threshold that indicate a category.",
        "kept",
        ("rare", "categories"),
        "drop,{}",
    ),
    ("Overruled by a person", "From config.mine.overrules.", None, ("overrules",), ""),
    ("Kept by the threshold, most frequent first", "All other attributes.", "kept", ("threshold",), "drop,{}"),
)


def page(
    decisions: Decisions,
    *,
    num_titles: int,
    threshold: int,
    switches: Sequence[str],
    examples: Mapping[str, str],
    pictures: Mapping[str, str] | None = None,
    kinds: pl.DataFrame | None = None,
) -> str:
    """Returns the page as HTML.

    Args:
      decisions: from `choosing.decide`.
      num_titles: number of titles counted.
      threshold: config.mine.threshold.
      switches: names of the switches that were on.
      examples: {word: a title that contains it}.
      pictures: {word: the picture of that listing, as a data URI}, of some words; see `pictured`.
      kinds: frame (word, kind, score) from `kinds.guess`, or None.

    Returns:
      HTML; all words and titles are escaped, nothing external is loaded, and the same input gives the same bytes.
    """
    kind_of = {word: f"{kind} {score:.2f}" for word, kind, score in kinds.rows()} if kinds is not None else {}
    header = templates.render(
        "mined_header.html",
        attributes=len(decisions.tokens),
        titles=num_titles,
        rarer=decisions.rarer,
        threshold=threshold,
        switches=", ".join(switches) or "none",
    )
    sections = [parts.Section("Decisions", _counts(decisions.table))]
    for heading, text, decision, line, rows in _chosen(decisions.table):
        cut = f"the {SHOWN:,} most frequent of {len(rows):,}" if len(rows) > SHOWN else f"{len(rows):,} of them"
        body = _table(heading, rows.head(SHOWN), decision, line, examples, pictures or {}, kind_of)
        sections.append(parts.Section(heading, parts.joined(parts.note(f"{text} Shown: {cut}."), body)))
    return templates.page("Mined attributes", header, sections, FOOTER, "mined.js")


def pictured(decisions: Decisions) -> list[str]:
    """Returns the words whose example is shown with its picture: the most frequent of every section."""
    return list(
        dict.fromkeys(word for *_, rows in _chosen(decisions.table) for word in rows["word"].head(PICTURED).to_list())
    )


def _chosen(table: pl.DataFrame) -> Iterator[tuple[str, str, str | None, str, pl.DataFrame]]:
    """Yields heading, explanation, decision, line and rows, most frequent first, of every section that has some."""
    for heading, text, decision, rules, line in _SECTIONS:
        rows = table.filter(pl.col("rule").is_in(rules) if rules else ~pl.col("rule").is_in(["overrules"]))
        rows = rows.filter(pl.col("decision") == decision) if decision else rows
        if len(rows):
            yield heading, text, decision, line, rows.sort("occurrences", "word", descending=[True, False])


def _table(
    heading: str,
    rows: pl.DataFrame,
    decision: str | None,
    line: str,
    examples: Mapping[str, str],
    pictures: Mapping[str, str],
    kind_of: Mapping[str, str],
) -> Markup:
    merged = decision == "merged"
    head = ["word", *(["counts as"] if merged else []), "seen", "in titles", "why", *(["kind"] if kind_of else [])]
    head += ["a title", *(["to overrule"] if line else [])]
    cells = []
    for word, made, _, target, why, occurrences, titles in rows.rows():
        name = Markup("<b>{}</b>{}").format(word, "" if decision else f" {made}")
        if word in pictures:
            name = Markup('<img class="thumb" src="{}" alt="">').format(pictures[word]) + name
        row = [name, *([target] if merged else []), f"{occurrences:,}", f"{titles:,}", why]
        row += [kind_of.get(word, "")] if kind_of else []
        example = examples.get(word, "")
        row.append(example[:EXAMPLE] + ("…" if len(example) > EXAMPLE else ""))
        row += [Markup("<code>{}</code>").format(line.format(_cell(word)))] if line else []
        cells.append(row)
    numbers = [place for place, name in enumerate(head) if name in ("seen", "in titles")]
    words = [place for place, name in enumerate(head) if name in ("why", "a title")]
    return parts.table(head, cells, heading, numbers=numbers, words=words)


def _counts(table: pl.DataFrame) -> Markup:
    """Returns the table of how many words each switch decided on."""
    rows = table.group_by("rule", "decision").agg(pl.len(), pl.col("occurrences").sum()).sort("rule", "decision")
    cells = [[rule, decision, f"{number:,}", f"{seen:,}"] for rule, decision, number, seen in rows.rows()]
    return parts.table(["decided by", "decision", "words", "seen"], cells, "Decisions", numbers=(2, 3))


def _cell(word: str) -> str:
    return '"' + word.replace('"', '""') + '"' if any(mark in word for mark in ',"') else word
