"""Click logs: what is counted, what is set aside by which rule, and what is written."""

import gzip
import json
import pathlib

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference
from retrieval_jax.__main__ import main
from retrieval_jax.data import loading
from retrieval_jax.data.clicks import importing, normalising, reading, writing
from retrieval_jax.data.clicks.importing import Rules
from retrieval_jax.errors import InputError

T0 = 1_700_000_000.0


def balance(found):
    counts = found.counts
    assert counts["read"] == sum(counts["used"].values()) + sum(counts["set_aside"].values())
    return counts


def query(number, text, session="s", time=T0, **more):
    return {"query_id": f"q{number}", "client_id": session, "user_query": text, "timestamp": time * 1000, **more}


def event(number, action, product, session="s", position=None, time=T0 + 1, **more):
    details = {"object": {"object_id": product}}
    details |= {} if position is None else {"position": {"ordinal": position}}
    record = {"action_name": action, "query_id": f"q{number}", "session_id": session, "timestamp": time * 1000}
    return {**record, "event_attributes": details, **more}


def load(tmp_path, records, ids=None, rules=None, name="log.ndjson"):
    file = tmp_path / name
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return importing.load([file], ids, rules)


def test_clicks_and_impressions_are_joined_to_their_query(tmp_path):
    found = load(
        tmp_path,
        [
            {"index": {"_index": "ubi_queries"}},
            query(1, "Red  SHOES"),
            event(1, "impression", "a", position=0),
            event(1, "impression", "b", position=1),
            event(1, "click", "b", position=1),
            query(2, "red shoes", session="t"),
            event(2, "click", "b", session="t", position=0),
            event(2, "add_to_cart", "b", session="t", position=0, time=T0 + 2),
            event(2, "scroll", "b", session="t"),
        ],
    )
    counts = balance(found)
    assert list(found.queries) == ["red shoes"]
    b, a = found.queries["red shoes"]["b"], found.queries["red shoes"]["a"]
    assert (b.count, b.shown, a.count, a.shown, a.position) == (2, 2, 0, 1, 1)  # an ordinal 0 counts from 0
    # Too few clicks for an estimate: 1 / place, so a click at place 2 counts twice.
    assert found.propensities.method == "power law" and b.corrected == pytest.approx(2 + 1)
    assert b.weight == pytest.approx(np.log1p(3), abs=1e-6)
    assert counts["set_aside"] == {"bulk action": 1, "another action": 1, "repeated click in a search": 1}
    assert counts["used"] == {"queries": 2, "impressions": 2, "clicks": 2, "wrong": 0}


def test_every_rule_sets_aside_what_it_says(tmp_path):
    found = load(
        tmp_path,
        [
            query(1, "shoes", time=T0 + 500),
            event(1, "click", "a"),  # 499 s before its query
            event(1, "click", "a", time=T0 + 470),  # within the tolerance for clocks
            query(2, " \u200b\x00 ", session="t"),
            query(3, "x" * 300, session="t"),
            query(4, "bags", session="t"),
            event(4, "click", "gone", session="t"),
            event(4, "click", "", session="t"),
            event(5, "click", "a", session="t"),
            event(4, "click", "a", session="t"),
            event(4, "click", "a", session="t"),  # the same event again
            {"action_name": "click", "event_attributes": {"object": {"object_id": "a"}}},
        ],
        ids={"a": "gallery"},
    )
    assert balance(found)["set_aside"] == {
        "click before its query": 1,
        "empty query": 1,
        "query too long": 1,
        "not in the catalogue": 1,
        "no product": 1,
        "unknown query": 1,
        "duplicate event": 1,
        "no query": 1,
    }
    assert {one["reason"] for one in found.set_aside} == set(found.counts["set_aside"])
    assert found.counts["used"]["clicks"] == 2


def test_robots_are_set_aside_with_all_they_did(tmp_path):
    people = [query(n, f"word{n}", session=f"s{n}") for n in range(5)]
    people += [event(n, "click", "a", session=f"s{n}") for n in range(5)]
    fast = [query(100 + n, f"w{n}", session="fast", time=T0 + n / 10) for n in range(70)]
    many = [query(1000 + n, f"w{n}", session="many", time=T0 + 100 * n) for n in range(210)]
    counts = balance(load(tmp_path, [*people, *fast, *many]))
    assert counts["set_aside"] == {"robot": 280} and counts["used"]["clicks"] == 5
    # In a log with one session the session does not tell shoppers apart: only the rate says that it is a robot.
    assert balance(load(tmp_path, many))["set_aside"] == {}
    assert balance(load(tmp_path, fast))["set_aside"] == {"robot": 70}


def test_one_session_cannot_vote_often(tmp_path):
    records = [query(99, "shoes", session="other"), event(99, "click", "b", session="other")]
    for n in range(10):
        records += [
            query(n, "shoes", time=T0 + 100 * n),
            event(n, "click", "a", time=T0 + 100 * n + 1),
        ]
    found = load(tmp_path, records, rules=Rules(repeats=3))
    assert found.queries["shoes"]["a"].count == 3
    assert balance(found)["set_aside"] == {"one session's repeats": 7}


def test_judgements_are_counted_apart_and_become_negatives_and_ratings_of_0(tmp_path):
    records = []
    for n, text in enumerate(["red tee", "mug"]):
        records += [query(n, text, session=f"s{n}"), event(n, "impression", "a", f"s{n}", 1)]
        records += [event(n, "impression", "b", f"s{n}", 2), event(n, "click", "a", f"s{n}", 1)]
        records += [event(n, "wrong", "c", f"s{n}", 3), event(n, "wrong", "c", f"s{n}", 3, time=T0 + 9)]
    records += [query(5, None, query_attributes={"picture_sha256": "0" * 64}), event(5, "wrong", "a")]
    rules = Rules(val_share=0.0, query_share=0.0)
    found = load(tmp_path, records, rules=rules)
    counts = balance(found)
    assert counts["used"] == {"queries": 2, "impressions": 4, "clicks": 2, "wrong": 2}
    assert counts["set_aside"] == {"judged wrong twice in a search": 2, "not by words alone": 2}
    one = found.queries["mug"]
    assert (one["c"].wrong, one["c"].shown, one["c"].count, one["a"].wrong) == (1, 0, 0, 0)
    before = load(tmp_path, [record for record in records if record.get("action_name") != "wrong"], rules=rules)
    assert before.propensities.looks.tolist() == found.propensities.looks.tolist()
    found.parts["mug"] = "query"
    writing.write(found, tmp_path / "out")
    (line,) = map(json.loads, (tmp_path / "out" / "queries.jsonl").read_text().splitlines())
    assert line["clicked"] == ["a", "b", "c"] and line["wrong"] == [0, 0, 1] and line["count"] == [1, 0, 0]
    truth = [json.loads(line) for line in (tmp_path / "out" / "truth.jsonl").read_text().splitlines()]
    assert [(one["gallery"], one["grade"] > 0) for one in truth] == [("a", True), ("c", False)]


@pytest.mark.parametrize("order", [["click", "wrong"], ["wrong", "click"], ["wrong", "click", "wrong"]])
def test_the_last_judgement_of_a_result_in_a_search_counts(tmp_path, order):
    records = [query(1, "mug"), event(1, "impression", "a", position=1), event(2, "click", "a"), query(2, "mug")]
    records += [event(1, kind, "a", position=1, time=T0 + 5 + n) for n, kind in enumerate(order)]
    found = load(tmp_path, records)
    one, wrong = found.queries["mug"]["a"], order[-1] == "wrong"
    assert (one.count, one.wrong) == ((1, 1) if wrong else (2, 0))  # the click of the other search stays
    left = {"judged otherwise later": 1, "judged wrong twice in a search": order.count("wrong") - 1}
    assert balance(found)["set_aside"] == {reason: count for reason, count in left.items() if count > 0}


def test_clocks_that_go_backwards_are_noted_and_change_nothing(tmp_path):
    records = [query(n, f"w{n}", time=T0 - 1000 * n) for n in range(4)]
    records += [event(n, "click", "a", time=T0 - 1000 * n + 1) for n in range(4)]
    records += [query(9, "late", session="t") | {"timestamp": "yesterday"}]
    counts = balance(load(tmp_path, records))
    assert counts["set_aside"] == {} and counts["used"]["clicks"] == 4
    assert counts["notes"] == {"clocks that went backwards": 6, "times that cannot be read": 1}


def test_flat_logs_in_csv_parquet_and_json_give_the_same(tmp_path):
    rows = {"query": ["Red shoes", "red shoes", "bag"], "sku": ["a", "a", "b"], "rank": [1, 3, 2]}
    frame = pl.DataFrame(rows)
    frame.write_csv(tmp_path / "log.csv")
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ndjson(tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress((tmp_path / "log.jsonl").read_bytes()))
    made = [importing.load([tmp_path / name]) for name in ("log.csv", "log.parquet", "log.jsonl", "log.jsonl.gz")]
    for found in made:
        balance(found)
        assert found.queries["red shoes"]["a"].count == 2 and found.queries["red shoes"]["a"].corrected == 4
        assert found.queries == made[0].queries
    with pytest.raises(InputError, match="missing column 'article'"):
        importing.load([tmp_path / "log.csv"], columns={"product": "article"})
    with pytest.raises(InputError, match="no such file"):
        importing.load([tmp_path / "lost.csv"])
    with pytest.raises(InputError, match="leave no queries"):
        Rules(val_share=0.5, query_share=0.5)


def test_no_query_is_in_two_parts_whatever_the_order_of_its_words():
    texts = [f"word{n} other" for n in range(2000)]
    parts = [normalising.part_of(text, 0.1, 0.2) for text in texts]
    assert parts == [normalising.part_of(" ".join(reversed(text.split())), 0.1, 0.2) for text in texts]
    assert abs(parts.count("query") / 2000 - 0.2) < 0.03 and abs(parts.count("val") / 2000 - 0.1) < 0.03


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  Rote\tSchuhe ", "rote schuhe"),
        ("ＡＢＣ", "abc"),
        ("a\x00b\u202ec", "a bc"),
        ("\ud800x", "x"),
        ("नमस्ते", "नमस्ते"),
        ("می\u200cروم", "می\u200cروم"),
        ("红鞋", "红鞋"),
    ],
)
def test_queries_are_normalised(text, expected):
    assert normalising.normalised(text) == expected


LISTINGS = {f"g{n}": "gallery" for n in range(6)} | {f"t{n}": "train" for n in range(6)}


def test_what_is_written_is_read_as_tables_and_as_a_query_split(tmp_path):
    rng, records = np.random.default_rng(0), []
    for n in range(300):
        records.append(query(n, f"thing {n % 40}", session=f"s{n}"))
        for place in range(3):
            product = str(rng.choice(list(LISTINGS)))
            records.append(event(n, "impression", product, session=f"s{n}", position=place + 1))
            if rng.random() < 0.5:
                records.append(event(n, "click", product, session=f"s{n}", position=place + 1))
    found = load(tmp_path, records, LISTINGS, Rules(val_share=0.2, query_share=0.3))
    about = writing.write(found, tmp_path / "clicks", LISTINGS)
    assert sum(about["written"].values()) + about["without_clicks"] == len(found.queries)
    for split in ("train", "gallery"):
        ids = [name for name, where in LISTINGS.items() if where == split]
        lines = ["id,title", *(f"{name},title {name}" for name in ids)]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    catalog = loading.load(
        {
            "source": "table",
            "kwargs": {
                "root": str(tmp_path),
                "files": {"train": "train.csv", "query": "clicks/query.jsonl", "gallery": "gallery.csv"},
                "columns": {"image": "", "title": "title", "query": ("query", "text")},
                "ground_truth": "clicks/truth.jsonl",
                "tables": {"queries": "clicks/queries.jsonl"},
            },
        }
    )
    typed = set(catalog.query.columns["query"])
    assert len(typed) == about["written"]["query"] and catalog.truth.grades.min() > 0
    for split in ("train", "gallery"):
        table = catalog.table("queries", split)
        assert not typed & set(table.columns["text"]) and set(table.columns["part"]) == {"train", "val"}
        for row, text in enumerate(table.columns["text"]):
            ids = [catalog.split(split).ids[at] for at in table.columns["clicked"][row]]
            assert {found.parts[text]} == {table.columns["part"][row]}
            for name, count, weight in zip(ids, table.columns["count"][row], table.columns["weight"][row], strict=True):
                one = found.queries[text][name]
                assert one.count == count and one.weight == pytest.approx(weight, abs=1e-5)


def test_the_sample_of_user_behavior_insights():
    found = importing.load([reference.path("data/esci_clicks_ubi.ndjson.gz")])
    counts = balance(found)
    assert counts["read"] == 7842 and counts["set_aside"]["bulk action"] == 3921
    assert counts["used"]["impressions"] > 1900 and found.queries["laptop"]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["click", "q1", "a", "\ud800", "\x00", "2024-12-10T00:01:29.378Z", "9" * 500, [], {}, [1], {"a": 1}]
    ),
)
NAMES = ("action_name", "query_id", "user_query", "session_id", "client_id", "timestamp", "message_type", "message")


@given(
    st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from(NAMES), ODD),
            st.builds(
                lambda one, thing, place: one | {"event_attributes": {"object": thing, "position": place}},
                st.dictionaries(st.sampled_from(NAMES), ODD),
                st.one_of(ODD, st.dictionaries(st.just("object_id"), ODD)),
                st.one_of(ODD, st.dictionaries(st.just("ordinal"), ODD)),
            ),
            ODD,
            st.binary(max_size=20),
        ),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_records_are_they_are_counted(tmp_path, records):
    file = pathlib.Path(tmp_path) / "log.ndjson"
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    file.write_bytes(b"\n".join(line.replace(b"\n", b" ") for line in lines))
    found = importing.load([file])
    balance(found)
    writing.write(found, pathlib.Path(tmp_path) / "out")


def test_lines_that_are_no_records_are_set_aside(tmp_path):
    file = tmp_path / "log.ndjson"
    long = b'{"user_query": "' + b"x" * (reading.LONGEST_LINE + 5) + b'"}'
    file.write_bytes(
        b"\n".join([b"\xff\xfe{}", b"{", b"[1]", long, b"[" * 100_000, b"", b'{"query_id": "q", "user_query": "ok"}'])
    )
    counts = balance(importing.load([file]))
    assert counts["set_aside"] == {"not UTF-8 text": 1, "not JSON": 2, "not an object": 1, "line too long": 1}
    cut = tmp_path / "cut.ndjson.gz"
    cut.write_bytes(gzip.compress(b'{"query_id": "q", "user_query": "ok"}\n' * 100)[:-20])
    with pytest.raises(InputError, match="not whole"):
        importing.load([cut])


def test_searches_by_photo_become_pages_that_a_catalogue_reads(tmp_path, capsys):
    for name, ids in (("gallery", "abcd"), ("photo", "xy"), ("train", "tu")):
        lines = ["id,title", *(f"{one},a title" for one in ids)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    kwargs = {
        "root": str(tmp_path),
        "files": {"train": "train.csv", "gallery": "gallery.csv", "photo": "photo.csv"},
        "columns": {"image": "", "title": "title"},
    }
    config = tmp_path / "shop.py"
    config.write_text(
        "from retrieval_jax.settings import base\n\n\ndef get_config():\n    config = base.defaults()\n"
        f"    config.data.source = 'table'\n    config.data.kwargs = {kwargs!r}\n    return config\n"
    )
    rows = [
        *(("1", "x", name, "impression", place) for place, name in enumerate("dcba", 1)),
        ("1", "x", "c", "click", 2),
        ("1", "x", "t", "click", ""),  # a listing of train on the same page
        ("2", "y", "a", "impression", 1),  # nothing was clicked
        ("3", "z", "a", "click", 1),  # no photo has this id
        ("4", "x", "b", "click", ""),
        ("4", "x", "lost", "click", ""),
    ]
    lines = ["search_id,photo,sku,action,position", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    out, log = tmp_path / "clicks", str(tmp_path / "log.csv")
    main(["import_clicks", log, f"--config={config}", f"--out={out}", "--photos", "--columns", "query=photo"])
    printed = capsys.readouterr().out
    assert "10 records = 8 used (0 queries, 5 impressions, 3 clicks, 0 judged wrong) + 2 set aside" in printed
    assert "set aside, unknown photo: 1" in printed and "pages with a click: 2 gallery, 1 train" in printed
    catalog = loading.load({"source": "table", "kwargs": {**kwargs, "tables": {"clicks": "clicks/clicks.jsonl"}}})
    table = catalog.table("clicks", "gallery")
    assert table.rows_of == {"photo": "photo", "clicked": "gallery", "unclicked": "gallery"}
    ids = catalog.gallery.ids
    found = [
        (catalog.photo.ids[photo], *("".join(ids[row] for row in listed) for listed in page))
        for photo, *page in zip(*(table.columns[name] for name in ("photo", "clicked", "unclicked")), strict=True)
    ]
    assert found == [("x", "c", "dba"), ("x", "b", "")]
    assert [row.tolist() for row in table.columns["clicked_position"]] == [[2], [-1]]
    assert [row.tolist() for row in table.columns["unclicked_position"]] == [[1, 3, 4], []]
    assert [row.tolist() for row in catalog.table("clicks", "train").columns["clicked"]] == [[0]]


def test_the_verb_prints_what_it_counted(tmp_path, capsys):
    (tmp_path / "gallery.csv").write_text("id,title\na,Red shoes\nb,Bag\n")
    config = tmp_path / "titles.py"
    config.write_text(
        "from retrieval_jax.settings import base\n\n\ndef get_config():\n    config = base.defaults()\n"
        "    config.data.source = 'table'\n    config.data.kwargs = dict(root="
        f"{str(tmp_path)!r}, files=dict(gallery='gallery.csv'), columns=dict(image='', title='title'))\n"
        "    return config\n"
    )
    (tmp_path / "log.csv").write_text("query,sku\nred shoes,a\nred shoes,lost\n,a\n")
    log, out = str(tmp_path / "log.csv"), tmp_path / "clicks"
    main(["import_clicks", log, f"--config={config}", f"--out={out}", "--columns", "product=sku"])
    printed = capsys.readouterr().out
    assert "3 records = 1 used (0 queries, 0 impressions, 1 clicks, 0 judged wrong) + 2 set aside" in printed
    assert "set aside, not in the catalogue: 1" in printed and "no click has a place" in printed
    assert json.loads((out / "clicks.json").read_text())["written"] == {"train": 1, "val": 0, "query": 0}
