"""Charts: points are where they belong, equal curves are drawn once, and nothing needs a style attribute or an id."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from retrieval_jax.pages import charts

EVIL = 'a<b> & "c"'


def parsed(chart):
    """Returns a chart's tree; it is well-formed, and keeps to what a page may hold."""
    tree = ElementTree.fromstring(chart)
    for place in tree.iter():
        assert {"style", "id", "href"}.isdisjoint(place.keys()) and place.tag not in ("defs", "use", "script", "style")
    return tree


def points_of(tree, colour=0):
    path = next(one for one in tree.iter("path") if one.get("class") == f"stroke-s{colour}")
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.get("d"))[1:]]


def test_curves_place_points():
    tree = parsed(charts.curves("title", {EVIL: [(0, 0.0), (10, 5.0), (20, 10.0)]}, "x", "y"))
    (x0, y0), (x1, y1), (x2, y2) = points_of(tree)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert x0 < x2 and y0 > y2
    titles = [one.findtext("title") for one in tree.iter("circle")]
    assert titles == [f"{EVIL}, 0: 0", f"{EVIL}, 10: 5", f"{EVIL}, 20: 10"]
    assert [(float(one.get("cx")), float(one.get("cy"))) for one in tree.iter("circle")] == points_of(tree)
    assert {"0", "5", "10", "15", "20", "x", "y"} <= {one.text for one in tree.iter("text")}


def test_logarithmic_axes_leave_out_what_is_not_positive():
    powers = [(10**i, 10.0 ** (4 - i)) for i in range(4)]
    xs = [x for x, _ in points_of(parsed(charts.curves("c", {"a": [*powers, (9000, 0)]}, "x", "y", log=True)))]
    assert len(xs) == 4 and np.allclose(np.diff(xs), xs[1] - xs[0], atol=0.11)


@pytest.mark.parametrize("points", [[(1, 0.0)], [(1, 3.0), (2, 3.0)], [(i, 1e-9 * i) for i in range(3000)]])
def test_flat_and_long_curves(points):
    chart = charts.curves("c", {"a": points}, "x", "y")
    assert "nan" not in chart.lower() and len(chart) < 10_000
    assert 1 <= len(points_of(parsed(chart))) <= charts.MAX_POINTS


def test_equal_curves_are_drawn_once_under_all_names():
    points = [(1, 1.0), (2, 2.0)]
    tree = parsed(charts.curves("c", {"mar": points, "capped": list(points), "other": [(1, 2.0)]}, "x", "y"))
    assert [one.get("class") for one in tree.iter("path") if "stroke-s0" in one.get("class", "")].count(
        "stroke-s0"
    ) == 1
    assert "mar = capped" in [one.tail.strip() for one in tree.iter("svg") if one.tail]


def test_nothing_to_draw():
    assert charts.curves("c", {"a": []}, "x", "y") == "" == charts.curves("c", {}, "x", "y")
    assert charts.intervals("c", [], "x") == "" == charts.picture_map("c", np.zeros((0, 2)), [], [], "")


def test_bars_merge_the_tail():
    tree = parsed(charts.bars("b", [0, 5, 1000] + [0] * 50 + [2], "x", "y"))
    assert [one.text for one in tree.iter("title")] == ["0: 0", "1: 5", "2: 1,000", "3+: 2"]


def test_intervals_are_drawn_as_wide_as_they_are():
    rows = [("all", 50.0, 45.0, 55.0, "all: 50"), ("$\\frac{<b>服装", 60.0, 40.0, 80.0, "few: 60")]
    tree = parsed(charts.intervals("by kind", rows, "percent"))
    lines = [one.get("d") for one in tree.iter("path") if one.get("class") == "stroke-bar"]
    ends = [[float(pair.split()[0]) for pair in re.split("[ML]", line)[1:]] for line in lines]
    assert (ends[1][1] - ends[1][0]) / (ends[0][1] - ends[0][0]) == pytest.approx(4, abs=0.05)
    assert [one.findtext("title") for one in tree.iter("circle")] == ["all: 50", "few: 60"]
    assert {"all", "$\\frac{<b>服装"} <= {one.text for one in tree.iter("text")}  # neither mathematics nor boxes


def test_a_map_shows_the_picture_and_title_of_each_dot():
    shown = [{"picture": "data:image/jpeg;base64,AAAA", "title": f"{EVIL} {i}"} for i in range(8)]
    places, groups = np.arange(16.0).reshape(8, 2), list("aabbcdef")
    chart = charts.picture_map("map", places, shown, groups, "eight dots", ("across", "up"))
    tree = ElementTree.fromstring(chart)
    dots = [one for one in tree.iter("g") if one.get("class") == "dot"]
    assert [dot.findtext("title") for dot in dots] == [one["title"] for one in shown]
    assert all(dot.find("g/image").get("href") == shown[0]["picture"] for dot in dots)
    assert [dot.find("circle").get("class") for dot in dots[:4]] == ["fill-s0", "fill-s0", "fill-s1", "fill-s1"]
    assert dots[-1].find("circle").get("class") == "fill-s5" and "others" in chart
    xs, ys = (np.array([float(dot.find("circle").get(name)) for dot in dots]) for name in ("cx", "cy"))
    assert np.allclose(np.diff(xs), np.diff(xs)[0], atol=0.11) and (np.diff(ys) < 0).all()
    width, height = map(float, tree.find("svg").get("viewBox").split()[2:])
    assert [text.text for text in tree.findall("svg/text")] == ["across", "up"]
    assert 0 < xs.min() and xs.max() < width and 0 < ys.min() and ys.max() < height
