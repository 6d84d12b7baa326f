"""Building blocks of the report page: sections, meters, percentages, random choices."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

escape = html.escape


def section(title: str, body: str) -> str:
    """Returns a section of the page; the body is HTML."""
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>"


def absent(sentence: str) -> str:
    """Returns the paragraph that stands in for a section without data."""
    return f'<p class="quiet">Not shown: {escape(sentence)}</p>'


def meter(share: float) -> str:
    """Returns a bar filled to a share of its width."""
    return f'<div class="meter"><i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></div>'


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
