"""Clicks, outfits, typed queries and edits from files: what they become, and a sentence for every bad row."""

import cv2
import numpy as np
import polars as pl
import pytest

from retrieval_jax.data import digest, loading
from retrieval_jax.errors import InputError

LISTINGS = {
    "train": ["a", "b", "c", "missing", "d"],
    "val": ["v"],
    "query": ["q1", "q2"],
    "gallery": ["g1", "g2", "g3"],
    "photo": ["p1", "p2"],
}


@pytest.fixture
def shop(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    for split, ids in LISTINGS.items():
        rows = [f"{one},{'2' if one == 'missing' else '1'}.png\n" for one in ids]
        (tmp_path / f"{split}.csv").write_text("id,image\n" + "".join(rows))
    return tmp_path


def _load(root, name, rows, header=None, **kwargs):
    headers = {
        "clicks": "photo,clicked,unclicked",
        "outfits": "listings,compatible",
        "queries": "text,clicked,count,position",
        "edits": "reference,words,targets",
    }
    (root / f"{name}.csv").write_text("\n".join([header or headers[name], *rows]) + "\n")
    data = {
        "root": str(root),
        "files": {split: f"{split}.csv" for split in LISTINGS},
        "max_bad_share": 0.9,
        "tables": {name: f"{name}.csv"},
        **kwargs,
    }
    found = loading.load({"source": "table", "kwargs": data})
    count = found.counts[name]
    assert count["read"] == len(rows) == count["kept"] + sum(count["set_aside"].values())
    of_table = [row for row in found.set_aside if row["file"] == f"{name}.csv"]
    assert len(of_table) == sum(count["set_aside"].values())
    return found, [(row["row"], row["reason"]) for row in of_table], [row["sentence"] for row in of_table]


def _lists(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


def test_clicks(shop):
    found, bad, _ = _load(shop, "clicks", ["p2,a,b d", "p1,b missing,", "q1,g2 g1,g3", "p1,d c,missing"])
    assert set(found.tables) == {"clicks/train", "clicks/gallery"} and not bad
    train, gallery = found.table("clicks", "train"), found.table("clicks", "gallery")
    assert train.rows_of == {"photo": "photo", "clicked": "train", "unclicked": "train"}
    assert train.columns["photo"].tolist() == [1, 0, 0]
    # d is row 3 of the split: "missing", which has no picture, was set aside
    assert _lists(train.columns["clicked"]) == [[0], [1], [3, 2]] and _lists(train.columns["unclicked"]) == [
        [1, 3],
        [],
        [],
    ]
    assert gallery.rows_of["photo"] == "query" and gallery.columns["photo"].tolist() == [0]
    assert _lists(gallery.columns["clicked"]) == [[1, 0]]
    assert train.columns["clicked"].values.dtype == train.columns["photo"].dtype == np.int64
    assert found.photo.ids == ["p1", "p2"] and found.split("photo").images[0].shape == (4, 4, 3)


def test_places_of_clicks_are_beside_their_listings(shop):
    header = "photo,clicked,unclicked,clicked_position,unclicked_position"
    rows = ["p2,a,b d,3,1 2", "p1,b missing,c,1 2,", "p1,a,b,1 2,3", "p1,a,b,first,3", "p1,a,,1,"]
    found, bad, sentences = _load(shop, "clicks", rows, header=header)
    assert bad == [(4, "wrong number of values"), (5, "not a number")]
    assert "clicked_position has 2 values for 1 clicked listings" in sentences[0]
    train = found.table("clicks", "train").columns
    assert _lists(train["clicked"]) == [[0], [1], [0]] and _lists(train["clicked_position"]) == [[3], [1], [1]]
    assert _lists(train["unclicked"]) == [[1, 3], [2], []] and _lists(train["unclicked_position"]) == [[1, 2], [-1], []]


def test_outfits(shop):
    found, bad, sentences = _load(shop, "outfits", ["a b d,1", "c a,no", "b c,", "a a,1", "a missing,1", "a b,maybe"])
    table = found.table("outfits", "train")
    assert table.columns["listings"].tolist() == [[0, 1, 3], [2, 0, -1], [1, 2, -1]]
    assert table.columns["compatible"].tolist() == [1, 0, -1] and table.rows_of == {"listings": "train"}
    assert bad == [(5, "fewer than two listings"), (6, "its listings were set aside"), (7, "not yes or no")]
    assert "compatible is 'maybe'; give 1, 0, or nothing" in sentences[2]
    found, _, _ = _load(shop, "outfits", ["a b d"], header="listings")
    assert found.table("outfits", "train").columns["compatible"].tolist() == [-1]


def test_typed_queries_of_equal_text_are_one(shop):
    rows = ["red hat,a d,5 1,2 1", "mug,g1,,", "red hat,b,7,", "red hat,d,9,4", "red hat,c missing,1 50,1 1"]
    found, bad, _ = _load(shop, "queries", rows)
    table = found.table("queries", "train")
    assert table.columns["text"] == ["red hat"] and table.rows_of == {"clicked": "train"} and not bad
    assert _lists(table.columns["clicked"]) == [[3, 1, 0, 2]]
    assert _lists(table.columns["count"]) == [[10, 7, 5, 1]] and _lists(table.columns["position"]) == [[1, -1, 2, 1]]
    assert table.columns["count"].values.dtype == np.int32 == table.columns["position"].values.dtype
    gallery = found.table("queries", "gallery")
    assert gallery.columns["text"] == ["mug"] and _lists(gallery.columns["count"]) == [[1]]
    found, bad, sentences = _load(shop, "queries", ["x,a,many,", "x,a b,1,", "x,a,-1,", ",a,,", "x,,,", "x,b,2,0"])
    assert bad == [
        (2, "not a number"),
        (3, "wrong number of values"),
        (4, "not a number"),
        (5, "missing value"),
        (6, "missing value"),
    ]
    assert "queries.csv, row 2: count is 'many', not a whole number from 0" in sentences[0]
    assert "count has 1 values for 2 clicked listings" in sentences[1]
    assert _lists(found.table("queries", "train").columns["position"]) == [[-1]]
    found, _, _ = _load(shop, "queries", ["x,c a,0 0,1 2", "x,a b,0 1,2 3"])  # only shown: no clicks, but a place
    table = found.table("queries", "train").columns
    assert _lists(table["clicked"]) == [[1, 2, 0]] and _lists(table["count"]) == [[1, 0, 0]]
    assert _lists(table["position"]) == [[3, 1, 2]]
    found, _, _ = _load(shop, "queries", ["x,c a,1 0,0 2", "x,a,0,1"], header="text,clicked,count,wrong")
    table = found.table("queries", "train").columns
    assert _lists(table["clicked"]) == [[2, 0]] and _lists(table["wrong"]) == [[0, 3]]
    found, _, _ = _load(shop, "queries", ["x,a", "x,a", "x,b"], header="text,clicked")
    assert set(found.table("queries", "train").columns) == {"text", "clicked", "count"}
    assert _lists(found.table("queries", "train").columns["count"]) == [[2, 1]]


def test_weights_and_parts_of_typed_queries(shop):
    header = "text,clicked,weight,part"
    rows = ["x,a b,0.7 0,train", "x,a,0.7,val", "y,b,1e9,val", "v,b,,val", "z,b,1,dev", "w,a b,1,train"]
    found, bad, sentences = _load(shop, "queries", rows, header=header)
    table = found.table("queries", "train").columns
    assert table["text"] == ["x", "v"] and table["part"] == ["train", "val"]
    np.testing.assert_allclose(table["weight"][1], [np.log(2)], rtol=1e-6)  # not said: log(1 + count)
    # The clicks that weights are logarithms of add up: log(1 + 2 (exp(.7) - 1)).
    np.testing.assert_allclose(table["weight"][0], [np.log1p(2 * np.expm1(0.7)), 0.0], rtol=1e-6)
    assert [reason for _, reason in bad] == ["not a number", "not a part", "wrong number of values"]
    assert any("weight is '1e9', not a number from 0 to 500" in sentence for sentence in sentences)


def test_edits(shop):
    rows = ["a,in red,b d", "q1,without stripes,g1", "q2,in wool,g3", "v,in blue,v"]
    found, bad, _ = _load(shop, "edits", rows)
    assert not bad and set(found.tables) == {"edits/train", "edits/gallery", "edits/val"}
    train, gallery = found.table("edits", "train"), found.table("edits", "gallery")
    assert train.columns["words"] == ["in red"] and _lists(train.columns["targets"]) == [[1, 3]]
    assert gallery.rows_of == {"reference": "query", "targets": "gallery"}
    assert gallery.columns["reference"].tolist() == [0, 1] and gallery.columns["words"] == [
        "without stripes",
        "in wool",
    ]


def test_bad_references_get_a_sentence(shop):
    rows = ["a,in red,b", "A,in red,b", "a,in red,b nobody", "a,in red,b g1", "missing,in red,a", ",in red,b", "a,,b"]
    found, bad, sentences = _load(shop, "edits", [*rows, "b,in red,missing", "b,x", "g1,in red,a"])
    assert [reason for _, reason in bad] == [
        "unknown listing",
        "unknown listing",
        "listings of several splits",
        "its listings were set aside",
        "missing value",
        "missing value",
        "its listings were set aside",
        "wrong number of fields",
        "unknown listing",
    ]
    assert sentences[0] == (
        "edits.csv, row 3 (id A): 'A' is not in the train split (there is 'a'); correct it or remove it"
    )
    assert sentences[1].startswith("edits.csv, row 4 (id a): 'nobody' is not in any split;")
    assert "no one split has all its listings" in sentences[2]
    assert "its reference is a bad row of the train split" in sentences[3]
    assert "reference is empty" in sentences[4] and "words is empty" in sentences[5]
    assert len(found.table("edits", "train")) == 1
    # rows that fell with a listing are held against no file: one bad row of train in five is allowed here
    (shop / "edits.csv").write_text("reference,words,targets\nmissing,in red,a\na,in blue,b\n")
    kept = _load(shop, "edits", ["missing,in red,a", "a,in blue,b"], max_bad_share=0.2)
    assert len(kept[0].table("edits", "train")) == 1
    with pytest.raises(InputError, match=r"edits.csv: 1 of 2 rows are bad \(unknown listing 1\)"):
        _load(shop, "edits", ["nobody,in red,a", "a,in blue,b"], max_bad_share=0.2)


def test_headers_are_mapped_and_files_may_be_json_or_parquet(shop):
    table = {"file": "edits.csv", "reference": "REFERENCE_UUID", "words": "WORDS", "targets": "TARGET_UUIDS"}
    found, bad, _ = _load(
        shop, "edits", ["train,a,red,b d"], "split,REFERENCE_UUID,WORDS,TARGET_UUIDS", tables={"edits": table}
    )
    assert not bad and _lists(found.table("edits", "train").columns["targets"]) == [[1, 3]]
    (shop / "queries.jsonl").write_text('{"text": "hat", "clicked": ["b", "a"], "count": [3, 2]}\n')
    pl.DataFrame({"listings": [["a", "b"]], "compatible": [True]}).write_parquet(shop / "outfits.parquet")
    tables = {"queries": "queries.jsonl", "outfits": "outfits.parquet", "edits": table}
    found, _, _ = _load(shop, "edits", ["train,a,red,b d"], "split,REFERENCE_UUID,WORDS,TARGET_UUIDS", tables=tables)
    assert _lists(found.table("queries", "train").columns["count"]) == [[3, 2]]
    assert found.table("outfits", "train").columns["compatible"].tolist() == [1]
    assert list(found.tables) == ["queries/train", "outfits/train", "edits/train"]
    before = digest.of(found)
    assert _lists(found.table("edits", "train").columns["targets"]) == [[1, 3]]
    found, _, _ = _load(shop, "edits", ["train,a,red,b c"], "split,REFERENCE_UUID,WORDS,TARGET_UUIDS", tables=tables)
    assert digest.differences(before, digest.of(found)) == ["catalogue: tables"]


@pytest.mark.parametrize(
    "tables, says",
    [
        ({"click": "clicks.csv"}, "tables: there is no table 'click'; did you mean clicks"),
        ({"clicks": 5}, "tables.clicks is 5: give a file, or dict"),
        ({"clicks": {"photo": "p"}}, "tables.clicks has no file"),
        (
            {"clicks": {"file": "clicks.csv", "photos": "p"}},
            "table 'clicks' has no argument 'photos'; did you mean photo",
        ),
        (
            {"clicks": {"file": "clicks.csv", "photo": "p"}},
            "missing column 'p' .our photo.*map it in config.data.kwargs.tables.clicks",
        ),
        ({"clicks": "../clicks.csv"}, "the file '../clicks.csv' leaves the root"),
        ({"clicks": "click.csv"}, "click.csv: there is no such file; did you mean 'clicks.csv'"),
        ({"queries": {"file": "clicks.csv", "text": "photo", "count": "n"}}, "missing column 'n' .our count"),
    ],
)
def test_what_cannot_be_a_table(shop, tables, says):
    with pytest.raises(InputError, match=says):
        _load(shop, "clicks", ["p1,a,b"], tables=tables)


def test_a_click_log_of_many_rows_is_read_fast(shop):
    rows = [f"query {row % 500},{'abcd'[row % 3]},1,{row % 10 + 1}" for row in range(20_000)]
    found, bad, _ = _load(shop, "queries", rows)
    table = found.table("queries", "train")
    assert not bad and len(table) == 500
    assert table.columns["count"].values.sum() == 20_000 and table.columns["position"].values.min() >= 1


def test_eproduct_has_tables_too(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "Images").mkdir()
    cv2.imwrite(str(tmp_path / "Images" / "1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "metadata" / "index.csv").write_text("UUID,IMAGE_PATH\ng,1.png\nh,1.png\n")
    (tmp_path / "metadata" / "photo.csv").write_text("UUID,IMAGE_PATH\np,1.png\n")
    (tmp_path / "clicks.csv").write_text("photo,clicked,unclicked\np,h,g\n")
    kwargs = {"root": str(tmp_path), "tables": {"clicks": "clicks.csv"}}
    loaded = loading.load({"source": "eproduct", "kwargs": kwargs})
    assert loaded.table("clicks", "gallery").rows_of["photo"] == "photo" and loaded.photo.ids == ["p"]
    assert _lists(loaded.table("clicks", "gallery").columns["clicked"]) == [[1]]
