"""The page that shows what mining decided and how to overrule it: one self-contained HTML file."""

import html
from collections.abc import Mapping, Sequence

import polars as pl

from retrieval_jax.attributes.choosing import Decisions

SHOWN = 400  # rows per section; decisions.csv has them all
escape = html.escape

_STYLE = """
:root { --paper: #fff; --ink: #1b1f24; --quiet: #5b6470; --line: #dfe3e8; --card: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e8eaed; --quiet: #a2abb6; --line: #343a43; --card: #1d2127; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1220px; margin: 0 auto; padding: 28px 20px 56px; }
h2 { font-size: 20px; margin: 40px 0 6px; padding-top: 14px; border-top: 1px solid var(--line); }
p { max-width: 96ch; } .quiet, th { color: var(--quiet); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: baseline; }
td.number { text-align: right; } td.title { max-width: 44ch; color: var(--quiet); overflow-wrap: anywhere; }
code { background: var(--card); padding: 1px 5px; border-radius: 4px; white-space: pre; } b { font-weight: 600; }
"""

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
    kinds: pl.DataFrame | None = None,
) -> str:
    """Returns the page as HTML.

    Args:
      decisions: from `choosing.decide`.
      num_titles: number of titles counted.
      threshold: config.mine.threshold.
      switches: names of the switches that were on.
      examples: {word: a title that contains it}.
      kinds: frame (word, kind, score) from `kinds.guess`, or None.

    Returns:
      HTML; all words and titles are escaped, nothing external is loaded, and the same input gives the same bytes.
    """
    table = decisions.table
    kind_of = {word: f"{kind} {score:.2f}" for word, kind, score in kinds.rows()} if kinds is not None else {}
    body = [
        "<h1>Mined attributes</h1>",
        f"<p>{len(decisions.tokens):,} attributes from {num_titles:,} titles; another {decisions.rarer:,} words were "
        f"seen {threshold:,} times or less and are not attributes. Switches on: "
        f"{escape(', '.join(switches) or 'none')}.</p>",
        "<p>To overrule a decision, copy the line shown next to it into a file such as <code>overrules.csv</code>, "
        "name the file in <code>config.mine.overrules</code> and mine in a new work directory; if only the file has "
        "changed, <code>mine --again</code> is enough. The lines are <code>keep,word</code>, <code>drop,word</code>, "
        "<code>split,word</code> (undoes a merge or a phrase) and <code>merge,word,target</code>. All decisions are in "
        "<code>decisions.csv</code>.</p>",
        _counts(table),
    ]
    for heading, text, decision, rules, line in _SECTIONS:
        rows = table.filter(pl.col("rule").is_in(rules) if rules else ~pl.col("rule").is_in(["overrules"]))
        rows = rows.filter(pl.col("decision") == decision) if decision else rows
        if not len(rows):
            continue
        rows = rows.sort("occurrences", "word", descending=[True, False])
        cut = f" The {SHOWN} most frequent of {len(rows):,}." if len(rows) > SHOWN else f" {len(rows):,} of them."
        body.append(f"<h2>{heading}</h2><p class='quiet'>{text}{cut}</p>")
        head = [
            "word",
            *(["counts as"] if decision == "merged" else []),
            "seen",
            "in titles",
            "why",
            *(["kind"] if kind_of else []),
            "a title",
            *(["to overrule"] if line else []),
        ]
        body.append("<div class='scroll'><table><tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>")
        for word, made, _, target, why, occurrences, titles in rows.head(SHOWN).rows():
            cells = [f"<td><b>{escape(word)}</b>{'' if decision else ' ' + made}</td>"]
            if decision == "merged":
                cells.append(f"<td>{escape(target)}</td>")
            cells += [f"<td class='number'>{number:,}</td>" for number in (occurrences, titles)]
            cells.append(f"<td>{escape(why)}</td>")
            if kind_of:
                cells.append(f"<td>{escape(kind_of.get(word, ''))}</td>")
            example = examples.get(word, "")
            example = example[:160] + ("…" if len(example) > 160 else "")
            cells.append(f"<td class='title'>{escape(example)}</td>")
            if line:
                cells.append(f"<td><code>{escape(line.format(_cell(word)))}</code></td>")
            body.append("<tr>" + "".join(cells) + "</tr>")
        body.append("</table></div>")
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Mined attributes</title>\n<style>{_STYLE}</style>\n</head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body>\n</html>\n"
    )


def _counts(table: pl.DataFrame) -> str:
    """Returns the table of how many words each switch decided on."""
    rows = table.group_by("rule", "decision").agg(pl.len(), pl.col("occurrences").sum()).sort("rule", "decision")
    cells = "".join(
        f"<tr><td>{rule}</td><td>{decision}</td><td class='number'>{number:,}</td><td class='number'>{seen:,}</td></tr>"
        for rule, decision, number, seen in rows.rows()
    )
    return "<table><tr><th>decided by</th><th>decision</th><th>words</th><th>seen</th></tr>" + cells + "</table>"


def _cell(word: str) -> str:
    return '"' + word.replace('"', '""') + '"' if any(mark in word for mark in ',"') else word
