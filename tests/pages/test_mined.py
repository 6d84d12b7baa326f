"""The page of mined attributes: what it shows, that it is safe, and what its script does in a browser."""

import base64
import hashlib
import re

import polars as pl
import pytest

import chromium
from retrieval_jax.attributes import overrules
from retrieval_jax.attributes.choosing import Decisions
from retrieval_jax.attributes.words import Rules
from retrieval_jax.pages import mined

EVIL = "<img src=x onerror=alert(1)>\"&'"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest.fixture
def decisions():
    rows = [
        ("tshirt", "merged", "variants", "t-shirt", "same neighbours", 30, 20),
        ("red tape", "kept", "phrases", "", "often together", 40, 35),
        ('5"', "dropped", "uninformative", "", "says nothing", 9, 8),
        ("zebra", "kept", "threshold", "", "often enough", 1000, 900),
        ("apple", "kept", "threshold", "", "often enough", 200, 150),
        (EVIL, "kept", "threshold", "", EVIL, 50, 50),
    ]
    columns = ("word", "decision", "rule", "target", "why", "occurrences", "titles")
    return Decisions(["apple", "zebra"], Rules(), pl.DataFrame(rows, schema=columns, orient="row"), 7)


def page_of(decisions):
    return mined.page(
        decisions,
        num_titles=1200,
        threshold=5,
        switches=["phrases"],
        examples={"zebra": f"{EVIL} zebra", "apple": "x" * 500},
        pictures={"zebra": PIXEL},
    )


def test_everything_is_escaped_and_the_policy_allows_what_is_inline_alone(decisions):
    page = page_of(decisions)
    assert page.count("<script") == 1 and "<img src=x" not in page and "&lt;img src=x" in page and "http:" not in page
    script = re.search("<script>(.*?)</script>", page, re.DOTALL)[1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page and "unsafe" not in page.split("</head>")[0].split("<style>")[0]
    assert not re.search(r" (on[a-z]+|style)=", re.sub("&lt;.*?&gt;", "", page.split("</style>")[1]))
    assert page.count(PIXEL) == 1 and "x" * mined.EXAMPLE + "…" in page and "x" * (mined.EXAMPLE + 1) not in page
    assert mined.pictured(decisions) == ["tshirt", "red tape", '5"', "zebra", "apple", EVIL]


def test_search_sorting_and_overruling_by_clicks(decisions, tmp_path, tmp_path_factory):
    file = tmp_path / "mined.html"
    file.write_text(page_of(decisions))
    script = """(() => {
      const find = (id) => document.getElementById(id);
      const table = [...document.querySelectorAll("section")].at(-1).querySelector("table");
      const words = () => [...table.tBodies[0].rows].map((row) => row.querySelector("b").textContent);
      const heads = table.tHead.rows[0].cells;
      const out = {tools: !find("tools").hidden, picked: !find("picked").hidden, first: words()};
      heads[0].querySelector("button").click(); out.byWord = words(); out.sorted = heads[0].ariaSort;
      heads[1].querySelector("button").click(); out.bySeen = words();
      heads[1].querySelector("button").click(); out.bySeenUp = words();
      for (const button of document.querySelectorAll("td button")) button.click();
      document.querySelector("td button").click();
      find("from").value = "tee"; find("into").value = "t-shirt, short"; find("merge").click();
      out.lines = find("lines").value; out.count = find("count").textContent;
      find("search").value = "ZEBRA often"; find("search").dispatchEvent(new window.Event("input"));
      out.rows = [...document.querySelectorAll("tbody tr")].filter((row) => row.checkVisibility()).length;
      out.found = find("found").textContent; out.wide = document.documentElement.scrollWidth;
      return out;
    })()"""
    with chromium.page(tmp_path_factory.mktemp("profile")) as page:
        for width in (390, 1280):
            page.size(width)
            page.open(file.as_uri())
            found = page.run(script)
            assert found["tools"] and not found["picked"] and found["first"] == ["zebra", "apple", EVIL]
            assert found["byWord"][1:] == ["apple", "zebra"] and found["sorted"] == "ascending"
            assert found["bySeen"] == ["zebra", "apple", EVIL] and found["bySeenUp"] == [EVIL, "apple", "zebra"]
            assert found["count"] == "6 lines." and found["found"] == "1 of 6 rows" and found["wide"] <= width
        assert page.problems == []
    made = tmp_path / "overrules.csv"
    made.write_text(found["lines"])
    read = overrules.load(made)  # the lines are what mine reads; the first was clicked twice
    assert read.split == {"red tape"} and read.keep == {'5"'} and read.merge == {"tee": "t-shirt, short"}
    assert read.drop == {"zebra", "apple", EVIL}
