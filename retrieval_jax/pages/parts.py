"""Building blocks of the pages: sections, tables, meters, percentages, random choices."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from retrieval_jax.pages.templates import render


class Section(NamedTuple):
    """A section of a page.

    Attributes:
      title: its heading, and its name in the navigation.
      body: HTML.
    """

    title: str
    body: Markup

    @property
    def place(self) -> str:
        """The section's id in the page, such as "training-curves"."""
        return re.sub("[^a-z0-9]+", "-", self.title.lower()).strip("-")


def joined(*parts: str | Markup) -> Markup:
    """Returns the body of a section: its parts, one below the other; text is escaped, what is empty left out."""
    return Markup("\n").join(part for part in parts if part)


def absent(sentence: str) -> Markup:
    """Returns the paragraph that stands in for a section without data."""
    return Markup('<p class="muted">Not shown: {}</p>').format(sentence)


def reading(sentence: str) -> Markup:
    """Returns the paragraph that says what a table or chart shows; "" for ""."""
    return Markup('<p class="reading">{}</p>').format(sentence) if sentence else Markup("")


def note(sentence: str) -> Markup:
    """Returns a paragraph in small print; "" for ""."""
    return Markup('<p class="note">{}</p>').format(sentence) if sentence else Markup("")


def heading(title: str) -> Markup:
    """Returns a heading within a section."""
    return Markup("<h3>{}</h3>").format(title)


def side_by_side(*charts: Markup) -> Markup:
    """Returns charts, as many side by side as there is room for."""
    return Markup('<div class="charts">{}</div>').format(Markup("").join(charts))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str | Markup]],
    label: str,
    *,
    numbers: Collection[int] = (),
    words: Collection[int] = (),
    best: Collection[tuple[int, int]] = (),
    first: Collection[int] = (),
) -> Markup:
    """Returns a table that scrolls sideways on narrow screens.

    Args:
      head: names of the columns.
      rows: texts of the cells, which are escaped unless they are `Markup`; the first cell names the row.
      label: what the table is of, for screen readers.
      numbers: columns that are aligned to the right.
      words: columns whose text may wrap.
      best: (row, column) of cells to mark.
      first: rows with a line above them.
    """
    return render("table.html", head=head, rows=rows, label=label, numbers=numbers, words=words, best=best, first=first)


def meter(share: float) -> Markup:
    """Returns a bar filled to a share of its width."""
    width = f"{100 * min(max(share, 0), 1):.1f}"
    return Markup(
        '<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="{}" height="4"/></svg>'
    ).format(width)


def choose(rows: Sequence[int], count: int, seed: int) -> list[int]:
    """Returns `count` rows sampled at random, ascending."""
    return sorted(rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:count])


def percent(values) -> str:
    """Returns the mean of values as a percentage."""
    return f"{100 * np.mean(values):.1f} %"


def duration(seconds: float) -> str:
    """Returns a time span in the units a reader would choose."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def machine(hardware: dict) -> str:
    """Returns the devices of a run, or the processor of one without, from its record; "" if unknown."""
    found = (hardware.get("devices") or {}).items()
    devices = [f"{count} × {kind}" for kind, count in found if kind.lower() != "cpu"]
    if devices:
        return ", ".join(devices)
    return f"{hardware['processor']}, {hardware.get('cores', '?')} cores" if hardware.get("processor") else ""
