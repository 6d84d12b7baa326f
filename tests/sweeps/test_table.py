"""The table of a sweep: intervals over seeds, pairs with the first line, and its three files."""

import csv
import json

import numpy as np
import pytest

from ranked_runs import TRUTH, make_run
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import comparing
from retrieval_jax.sweeps import table
from retrieval_jax.sweeps.ranges import Line

ASKED = {"truth": TRUTH, "names": ["map@10", "recall@1"], "chosen": None, "graded": {}, "asked": None}
LINES = [Line(name, {"a.b": value}, ("a.b",)) for name, value in (("low", 1), ("high", 2), ("=odd|", "[x]"))]


@pytest.fixture
def finished(tmp_path):
    """Three lines of two seeds, the last of which has one unfinished."""
    qualities = (0.3, 0.6, 0.3)
    folders = [
        {seed: make_run(tmp_path / f"{line}{seed}", quality, 10 * line + seed) for seed in (0, 1)}
        for line, quality in enumerate(qualities)
    ]
    del folders[2][0]
    return folders


def test_the_interval_is_students():
    # 3.182446: t of .975 at 3 degrees of freedom, from any printed table
    values = [0.2, 0.3, 0.4, 0.7]
    half = 3.182446 * np.std(values, ddof=1) / 2
    assert table.interval(values) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-6)
    assert table.interval([0.2]) is None


def test_holm_by_hand():
    assert table.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert table.holm([0.9, 0.8]) == [1.0, 1.0] and table.holm([]) == []


def test_every_line_is_paired_with_the_first_by_seeds_that_both_have(finished):
    low, high, odd = table.rows(LINES, finished, ASKED)
    assert low["against_first"] is None and low["seeds"] == [0, 1] and low["settings"] == {"a.b": 1}
    compared = comparing.compare(list(finished[1].values()), list(finished[0].values()), **ASKED)["scores"]["map@10"]
    assert high["against_first"]["difference"] == compared["difference"] and high["against_first"]["p"] == compared["p"]
    assert high["scores"]["map@10"]["mean"] == pytest.approx(compared["new"])
    assert high["scores"]["recall@1"]["seeds"] and not high["against_first"]["noise"]
    assert odd["against_first"]["seeds"] == [1]
    one = comparing.compare([finished[2][1]], [finished[0][1]], **ASKED)["scores"]["map@10"]
    assert odd["against_first"]["difference"] == one["difference"] and odd["scores"]["map@10"]["low"] is None
    p = [row["against_first"]["p"] for row in (high, odd)]
    assert [row["against_first"]["p_holm"] for row in (high, odd)] == table.holm(p)


def test_a_line_that_cannot_be_scored_says_why(finished, tmp_path):
    rows = table.rows(LINES, [finished[0], {0: tmp_path / "nothing"}, {}], ASKED)
    assert "rankings.json not found" in rows[1]["problem"] and not rows[1]["scores"] and rows[2]["seeds"] == []
    with pytest.raises(InputError, match="none of the queries to compare"):
        table.rows(LINES, finished, ASKED | {"chosen": np.arange(len(TRUTH)) < 5})


def test_three_files_hold_the_same_lines(finished, tmp_path, capsys):
    rows = table.rows(LINES, finished, ASKED)
    table.write(tmp_path, rows, ASKED["names"], {"half": "all"})
    read = json.loads((tmp_path / "table.json").read_text())
    assert read["half"] == "all" and [line["name"] for line in read["lines"]] == ["low", "high", "=odd|"]
    with (tmp_path / "table.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [row["a.b"] for row in cells] == ["1", "2", "[x]"] and cells[2]["line"] == "'=odd|"
    assert float(cells[1]["difference"]) == rows[1]["against_first"]["difference"] and cells[0]["difference"] == ""
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 5 and r"| =odd\| |" in lines[4] and "| better |" in lines[3]
    table.show(rows, ASKED["names"], "all")
    shown = capsys.readouterr().out
    assert "…" not in shown and "=odd|" in shown and f"{100 * rows[1]['scores']['map@10']['mean']:.2f} ±" in shown
