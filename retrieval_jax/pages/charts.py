"""Charts of the report as inline SVG; colours come from the page's style, so they follow dark mode."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 12, 40
MAX_POINTS = 240


def curves(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, log: bool = False
) -> str:
    """Draws curves over common axes.

    Args:
      title: caption of the figure.
      series: {name: [(x, y), ...] ascending in x}, finite; more than 240 points are drawn as means of neighbours.
      x_label, y_label: axis labels.
      log: makes both axes logarithmic and leaves out points that are not positive.

    Returns:
      A <figure> element; "" if there is nothing to draw.
    """
    series = {name: [(x, y) for x, y in points if not log or (x > 0 and y > 0)] for name, points in series.items()}
    every = [point for points in series.values() for point in points]
    if not every:
        return ""
    turn = math.log10 if log else float
    whole = all(x == int(x) for x, _ in every)
    x_ticks, x_low, x_high = _axis([turn(x) for x, _ in every], log, tight=True, whole=whole)
    y_ticks, y_low, y_high = _axis([turn(y) for _, y in every], log)

    def place_x(x):
        return LEFT + (turn(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(y):
        return HEIGHT - BOTTOM - (turn(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(_named(place_x, x_ticks, log), _named(place_y, y_ticks, log), x_label, y_label)]
    legend = []
    for i, (name, points) in enumerate(series.items()):
        if not points:
            continue
        color = f"c{i % 6}"
        drawn = _thin(points, log)
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in drawn)
        parts.append(f'<path class="{color}" d="M{path}"/>')
        if len(points) <= 30:
            parts += [
                f'<circle class="{color}" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3">'
                f"<title>{html.escape(name)}, {x:,g}: {y:,.4g}</title></circle>"
                for x, y in points
            ]
        if len(series) > 1 or not log:
            legend.append(
                f'<li><svg viewBox="0 0 24 8" aria-hidden="true"><path class="{color}" d="M0 4H24"/></svg>'
                f"{html.escape(name)} <b>{points[-1][1]:.4g}</b></li>"
            )
    summary = f"{title}: " + "; ".join(
        f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in series.items() if points
    )
    foot = f'<ul class="legend">{"".join(legend)}</ul>' if legend else ""
    return _figure(title, summary, parts, foot)


def bars(title: str, heights: Sequence[int], x_label: str, y_label: str) -> str:
    """Draws a histogram of integers: `heights[i]` is the count of the value i.

    Args:
      title: caption of the figure.
      heights: counts; the last 0.5 % of the mass, the long tail, is merged into one last bar.
      x_label, y_label: axis labels.

    Returns:
      A <figure> element.
    """
    heights = np.asarray(heights, dtype=np.int64)
    last = int(np.searchsorted(np.cumsum(heights), 0.995 * heights.sum()))
    tail = int(heights[last + 1 :].sum())
    shown = np.append(heights[: last + 1], tail) if tail else heights[: last + 1]
    names = [str(i) for i in range(last + 1)] + ([f"{last + 1}+"] if tail else [])
    y_ticks, _, y_high = _axis([0.0, float(shown.max())], False)
    wide = (WIDTH - LEFT - RIGHT) / len(shown)

    def place_y(y):
        return HEIGHT - BOTTOM - y / y_high * (HEIGHT - TOP - BOTTOM)

    every = math.ceil(len(shown) / 12)
    x_marks = [(LEFT + (i + 0.5) * wide, names[i]) for i in range(0, len(shown), every)]
    parts = [_frame(x_marks, _named(place_y, y_ticks), x_label, y_label, vertical=False)]
    parts += [
        f'<rect class="bar" x="{LEFT + i * wide + 1:.1f}" y="{place_y(h):.1f}" width="{max(wide - 2, 1):.1f}" '
        f'height="{HEIGHT - BOTTOM - place_y(h):.1f}"><title>{names[i]}: {h:,}</title></rect>'
        for i, h in enumerate(shown.tolist())
    ]
    return _figure(title, f"{title}: most often {int(np.argmax(shown))}", parts, "")


def _figure(title, summary, parts, foot) -> str:
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(summary)}">{"".join(parts)}</svg>{foot}</figure>'
    )


def _frame(x_marks, y_marks, x_label, y_label, vertical=True) -> str:
    """Returns grid lines, tick labels and axis labels."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for x, text in x_marks:
        if vertical:
            parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{text}</text>')
    for y, text in y_marks:
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>')
    parts.append(
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">'
        f"{html.escape(y_label)}</text>"
    )
    return "".join(parts)


def _axis(values, log, tight=False, whole=False):
    """Returns ticks in data units and the ends of an axis, the latter as logarithms on a logarithmic axis."""
    low, high = min(values), max(values)
    if log:
        low, high = math.floor(low + 1e-9), max(math.ceil(high - 1e-9), math.floor(low) + 1)
        return [10.0**e for e in range(low, high + 1)], low, high
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5)
    if whole:
        step = max(1.0, math.ceil(step))
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)], low, high


def _thin(points, log):
    """Returns at most MAX_POINTS points: means of neighbours, or points evenly spaced in log x."""
    if len(points) <= MAX_POINTS:
        return points
    if log:
        keep = np.unique(np.round(np.geomspace(1, len(points), MAX_POINTS)).astype(int) - 1)
        return [points[i] for i in keep]
    groups = np.array_split(np.asarray(points, dtype=np.float64), MAX_POINTS)
    return [tuple(group.mean(axis=0)) for group in groups]


def _named(place, ticks, log=False):
    """Returns (position, text) of ticks, with one unit for all of them; on a logarithmic axis each has its own."""
    return [(place(tick), _short(tick, abs(tick) if log else max(map(abs, ticks)))) for tick in ticks]


def _short(value: float, largest: float) -> str:
    if value:
        for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if largest >= unit:
                return f"{value / unit:.4g}{name}"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"
