"""Charts of the pages: drawn by matplotlib as SVG, whose colours come from the style sheet and follow dark mode.

What matplotlib writes is put in the page without ids, style attributes and references, so that several charts stand in
one page and a strict Content-Security-Policy lets them. Nothing runs in the browser: what is under the pointer is shown
by SVG's own titles.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from retrieval_jax.pages.templates import render

WIDTH, HEIGHT = 400, 240  # px
MAX_POINTS = 240
SHOWN_MARKS = 30  # a curve of at most this many points has a mark with a title at each
MAP_SIDE, AXIS = 400, 14  # px: of the map, and beside it for the names of its axes
NAME = 24  # characters of a row's name
# Colours of the style sheet, by the ones that stand for them while matplotlib draws.
_COLOURS = {f"#01020{i}": f"s{i}" for i in range(6)} | {"#010210": "line", "#010211": "muted", "#010212": "bar"}
_BY_NAME = {name: colour for colour, name in _COLOURS.items()}
_DASHES = ("-", (0, (7, 3)), (0, (2, 3)), (0, (9, 3, 2, 3)), (0, (4, 2)), (0, (5, 2)))
_KEPT = {"d", "x", "y", "transform", "cx", "cy", "r", "width", "height", "viewBox"}
_STYLES = {"stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "text-anchor", "opacity"}


def curves(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    log: bool = False,
    ends: bool = True,
) -> Markup:
    """Draws curves over common axes; those that are equal are drawn once, under all their names.

    Args:
      title: caption of the figure.
      series: {name: [(x, y), ...] ascending in x}, finite; more than 240 points are drawn as means of neighbours.
      x_label, y_label: axis labels.
      log: makes both axes logarithmic and leaves out points that are not positive.
      ends: whether the legend has the last value of each curve.

    Returns:
      A <figure> element; "" if there is nothing to draw.
    """
    together: dict[tuple, list[str]] = {}
    for name, points in series.items():
        if points := tuple((float(x), float(y)) for x, y in points if not log or (x > 0 and y > 0)):
            together.setdefault(points, []).append(name)
    if not together:
        return Markup("")
    figure, axes = _axes(x_label, y_label)
    legend, marks = [], {}
    for i, (points, names) in enumerate(together.items()):
        colour, text = i % 6, " = ".join(names)
        few = len(points) <= SHOWN_MARKS
        xs, ys = zip(*_thin(points, log), strict=True)
        axes.plot(
            xs,
            ys,
            color=_BY_NAME[f"s{colour}"],
            linestyle=_DASHES[colour],
            linewidth=2,
            marker="o" * few,
            gid=f"marks-{i}",
        )
        marks[f"marks-{i}"] = [f"{text}, {x:,g}: {y:,.4g}" for x, y in points] if few else []
        if len(together) > 1 or not log:
            legend.append({"colour": colour, "name": text, "last": f"{points[-1][1]:.4g}" if ends else ""})
    xs = [x for points in together for x, _ in points]
    if log:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(numticks=8))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, abs(value))))
    else:
        _linear(axes.xaxis, whole=all(x == int(x) for x in xs))
        _linear(axes.yaxis)
        axes.margins(x=0 if min(xs) < max(xs) else 0.05)
    summary = f"{title}: " + "; ".join(
        f"{' = '.join(names)} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for points, names in together.items()
    )
    return _figure(title, summary, _svg(figure, marks), legend)


def bars(title: str, heights: Sequence[int], x_label: str, y_label: str) -> Markup:
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
    figure, axes = _axes(x_label, y_label, vertical=False)
    titles = {}
    for i, bar in enumerate(axes.bar(range(len(shown)), shown, width=0.9, color=_BY_NAME["bar"])):
        bar.set_gid(f"bar-{i}")
        titles[f"bar-{i}"] = f"{names[i]}: {shown[i]:,}"
    every = math.ceil(len(shown) / 12)
    axes.set_xticks(range(0, len(shown), every), names[::every])
    axes.margins(x=0.01)
    _linear(axes.yaxis)
    return _figure(title, f"{title}: most often {int(np.argmax(shown))}", _svg(figure, {}, titles), [])


def intervals(title: str, rows: Sequence[tuple[str, float, float, float, str]], x_label: str) -> Markup:
    """Draws values with their intervals, a line per row.

    Args:
      title: caption of the figure.
      rows: (name, value, low, high, title of the mark), top to bottom.
      x_label: label of the axis of values.

    Returns:
      A <figure> element; "" without rows.
    """
    if not rows:
        return Markup("")
    figure, axes = _axes(x_label, "", height=70 + 18 * len(rows), left=128)
    marks = {}
    for i, (_, value, low, high, text) in enumerate(rows):
        axes.plot([low, high], [i, i], color=_BY_NAME["bar"], linewidth=5, solid_capstyle="butt")
        axes.plot([value], [i], color=_BY_NAME["s0"], marker="o", linestyle="none", gid=f"marks-{i}")
        marks[f"marks-{i}"] = [text]
    # Names are put in afterwards: matplotlib would read $...$ as mathematics, and lacks the letters of many languages.
    axes.set_yticks(range(len(rows)), [f"name-{i}" for i in range(len(rows))])
    names = {f"name-{i}": name if len(name) <= NAME else name[: NAME - 1] + "…" for i, (name, *_) in enumerate(rows)}
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _linear(axes.xaxis)
    summary = f"{title}: " + "; ".join(text for *_, text in rows)
    return _figure(title, summary, _svg(figure, marks, names=names), [])


def picture_map(
    title: str,
    points: np.ndarray,
    shown: Sequence[Mapping],
    groups: Sequence[str],
    note: str,
    labels: tuple[str, str] = ("", ""),
) -> Markup:
    """Draws pictures as points of a plane; the one under the pointer is shown beside it, with its title.

    Args:
      title: caption of the figure.
      points: [n, 2] places.
      shown: n dicts: picture (a data URI, "" for none) and title.
      groups: n names, a colour each; those after the five most frequent share one.
      note: what is to be seen, for those who do not see it.
      labels: of the two axes, "" for none.

    Returns:
      A <figure> element; "" without points.
    """
    if not len(points):
        return Markup("")
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")][:5].tolist()
    legend = [{"colour": i, "name": name, "last": ""} for i, name in enumerate(frequent)] if len(names) > 1 else []
    if len(names) > 5:
        legend.append({"colour": 5, "name": "others", "last": ""})
    low, high = points.min(0), points.max(0)
    places = 10 + AXIS + (points - low) / np.where(high > low, high - low, 1) * (MAP_SIDE - 20)
    dots = [
        {
            "x": f"{x:.1f}",
            "y": f"{MAP_SIDE + AXIS - y:.1f}",
            "colour": frequent.index(group) if group in frequent else 5,
            "lines": textwrap.wrap(one["title"], 20, max_lines=4, placeholder="…"),
            **one,
        }
        for (x, y), one, group in zip(places.tolist(), shown, groups, strict=True)
    ]
    svg = render("map.html", dots=dots, side=MAP_SIDE, axis=AXIS, labels=labels)
    size = (MAP_SIDE + AXIS + 150, MAP_SIDE + AXIS)
    return render("chart.html", title=title, summary=note, svg=svg, legend=legend, size=size, kind="map")


# ---------------------------------------------------------------------------------------------------------- the drawing


def _axes(x_label: str, y_label: str, vertical: bool = True, height: int = HEIGHT, left: int = 50):
    """Returns a figure and its axes, with lines of the grid; `vertical` has those across as well."""
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        axes = figure.add_axes((left / WIDTH, 42 / height, 1 - (left + 14) / WIDTH, 1 - 54 / height))
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.set(xlabel=x_label, ylabel=y_label, axisbelow=True)
    axes.grid(color=_BY_NAME["line"], linewidth=1, axis="both" if vertical else "y")
    axes.tick_params(length=0, pad=5)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set(color=_BY_NAME["muted"], linewidth=1)
    return figure, axes


def _linear(axis, whole: bool = False) -> None:
    axis.set_major_locator(MaxNLocator(nbins=5, steps=(1, 2, 2.5, 5, 10), integer=whole))
    largest = max(map(abs, axis.get_view_interval()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value, largest)))


def _figure(title: str, summary: str, svg: tuple[Markup, tuple[int, int]], legend: Sequence[Mapping]) -> Markup:
    return render("chart.html", title=title, summary=summary, svg=svg[0], size=svg[1], legend=legend, kind="chart")


def _svg(
    figure: Figure, marks: Mapping[str, Sequence[str]], titles: Mapping[str, str] | None = None, names: Mapping = {}
):
    """Returns the inside of a figure's <svg>, and its width and height.

    Args:
      figure: the figure.
      marks: {gid of a line: titles of its marks}.
      titles: {gid of anything else: its title}.
      names: {text: what is shown in its place}.
    """
    content, titles = io.BytesIO(), titles or {}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "charts", "path.simplify": False}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(content.getvalue())
    for place in root.iter():
        place.tag = place.tag.rpartition("}")[2]
        place.text = names.get(place.text, place.text)
    named = {place.get("id"): place for place in root.iter() if place.get("id")}
    for name, texts in marks.items():
        points = [(use.get("x"), use.get("y")) for use in named[name].iter("use")]
        style = next((use.get("style", "") for use in named[name].iter("use")), "")
        for x, y, text in zip(*zip(*points, strict=True), texts, strict=True) if texts else ():
            circle = ElementTree.SubElement(named[name], "circle", {"cx": x, "cy": y, "r": "3", "style": style})
            ElementTree.SubElement(circle, "title").text = text
    for name, text in titles.items():
        ElementTree.SubElement(named[name], "title").text = text
    _strip(root)
    return Markup("".join(ElementTree.tostring(child, "unicode") for child in root)), tuple(
        round(72 * inches) for inches in figure.get_size_inches()
    )


def _strip(parent: ElementTree.Element) -> None:
    """Removes what a page cannot hold twice or its policy refuses, in place; colours become classes."""
    for child in list(parent):
        if child.tag in ("defs", "use", "metadata"):
            parent.remove(child)
            continue
        _strip(child)
        style = dict(pair.split(":", 1) for pair in child.get("style", "").replace(" ", "").split(";") if ":" in pair)
        classes = [f"{what}-{_COLOURS[style[what]]}" for what in ("stroke", "fill") if style.get(what) in _COLOURS]
        attributes = {name: _round(child.get(name)) for name in child.keys() if name in _KEPT}
        attributes |= {name: value for name, value in style.items() if name in _STYLES}
        if child.tag == "path" and "fill-" not in " ".join(classes):
            attributes["fill"] = "none"
        if child.tag == "circle":
            attributes.pop("stroke-dasharray", None)
        if classes:
            attributes["class"] = " ".join(classes)
        child.attrib.clear()
        child.attrib.update(attributes)
        child.tail = None
        if child.tag == "g" and not attributes:
            child.text = None
            if not len(child):
                parent.remove(child)


def _round(text: str) -> str:
    """Returns an attribute with its numbers rounded to tenths of a pixel."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), " ".join(text.split()))


def _thin(points, log):
    """Returns at most MAX_POINTS points: means of neighbours, or points evenly spaced in log x."""
    if len(points) <= MAX_POINTS:
        return points
    if log:
        keep = np.unique(np.round(np.geomspace(1, len(points), MAX_POINTS)).astype(int) - 1)
        return [points[i] for i in keep]
    groups = np.array_split(np.asarray(points, dtype=np.float64), MAX_POINTS)
    return [tuple(group.mean(axis=0)) for group in groups]


def _short(value: float, largest: float) -> str:
    if value:
        for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if largest >= unit:
                return f"{value / unit:.4g}{name}"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"
