"""eProduct's layout: every bad row gets its sentence, counts reconcile, a good catalogue loads whole.

Longer than 400 lines: one class of fault per test, which read side by side.
"""

import csv
import pathlib

import cv2
import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict

import reference
from retrieval_jax.attributes import statistics, vocabulary
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.data.tables import row_checks
from retrieval_jax.errors import InputError

LABELLED = ["UUID", "AUCT_TITL", "META_CATEG_ID", "CATEG_LVL2_ID", "LEAF_CATEG_ID", "IMAGE_PATH"]
BARE = ["UUID", "IMAGE_PATH"]
CLEAN = {
    "train": [
        ["t1", "red shoes", "0", "2", "10", "train/t1.jpg"],
        ["t2", "blue hat, wool", "1", "3", "9", "train/t2.jpg"],
        ["t3", 'a "red" hat', "1", "3", "11", "train/t3.png"],
    ],
    "val": [["v1", "red hat", "1", "3", "9", "val/v1.jpg"]],
    "query": [["q1", "query/q1.jpg"], ["q2", "query/q2.jpg"], ["both", "query/both.jpg"]],
    "index": [["g1", "index/g1.jpg"], ["g2", "index/g2.jpg"], ["both", "index/both.jpg"], ["g3", "index/g3.jpg"]],
    "ground_truth": [["q1", "g2 g1"], ["q2", "g3"]],
}
COLUMNS = {
    "train": LABELLED,
    "val": LABELLED,
    "query": BARE,
    "index": BARE,
    "ground_truth": ["QUERY_UUID", "INDEX_UUIDS"],
}


def _picture(path: pathlib.Path, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 6, 3), value, np.uint8))


def _csv(path: pathlib.Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _eproduct(root: pathlib.Path, **changed: list[list[str]]) -> pathlib.Path:
    """Writes a small catalogue in eProduct's layout; every picture that a clean row names exists."""
    for name, rows in (CLEAN | changed).items():
        _csv(root / "metadata" / f"{name}.csv", [COLUMNS.get(name, ["LEVEL", "ID", "NAME"]), *rows])
    for rows in (rows for name, rows in CLEAN.items() if name != "ground_truth"):
        for row in rows:
            _picture(root / "Images" / row[-1])
    return root


def _load(root, set_aside_path=None, **kwargs):
    config = ConfigDict({"source": "eproduct", "kwargs": {"root": str(root)} | kwargs})
    return loading.load(config, set_aside_path=set_aside_path)


def _reconcile(counts: dict) -> None:
    for count in counts.values():
        for part in [count, *count["files"].values()]:
            assert part["read"] == part["kept"] + sum(part["set_aside"].values())
        assert count["read"] == sum(part["read"] for part in count["files"].values())


def test_eproduct_layout(tmp_path):
    loaded = _load(_eproduct(tmp_path / "shop"), tmp_path / "work" / "set_aside.csv")
    assert loaded.name == "shop" and loaded.category_levels == ("META_CATEG_ID", "CATEG_LVL2_ID", "LEAF_CATEG_ID")
    assert loaded.category_names == (["0", "1"], ["2", "3"], ["9", "10", "11"])  # by number, not by text
    assert loaded.train.ids == ["t1", "t2", "t3"]
    assert loaded.train.titles == ["red shoes", "blue hat, wool", 'a "red" hat']
    assert loaded.train.categories.tolist() == [[0, 0, 1], [1, 1, 0], [1, 1, 2]]
    assert loaded.train.categories.dtype == np.int32
    assert loaded.gallery.ids == ["g1", "g2", "both", "g3"] and loaded.gallery.titles is None
    assert loaded.query.categories is None and loaded.split("query") is loaded.query
    image = loaded.gallery.images[3]
    assert image.shape == (8, 6, 3) and image.dtype == np.uint8
    assert len(loaded.gallery) == len(loaded.gallery.images) == 4
    assert loaded.truth.indptr.tolist() == [0, 2, 3, 3] and loaded.truth.rows.tolist() == [0, 1, 3]
    assert loaded.set_aside == [] and loaded.counts["train"]["read"] == 3
    assert (tmp_path / "work" / "set_aside.csv").read_text() == "file,row,id,reason,sentence\n"
    _reconcile(loaded.counts)


def test_query_parts_and_missing_truth(tmp_path):
    root = _eproduct(tmp_path)
    rows = [[f"p{i}", "query/q1.jpg"] for i in range(11)]
    (root / "metadata" / "query.csv").unlink()
    (root / "metadata" / "ground_truth.csv").unlink()
    for i, row in enumerate(rows, 1):
        _csv(root / "metadata" / f"query_part{i}.csv", [BARE, row])
    loaded = _load(root)
    assert loaded.query.ids == [f"p{i}" for i in range(11)] and loaded.truth is None  # part 10 after part 9
    with pytest.raises(InputError, match="no such file"):
        _load(root, ground_truth="metadata/truth.csv")
    _csv(root / "metadata" / "query_part3.csv", [BARE, ["p0", "query/q1.jpg"]])
    with pytest.raises(InputError, match=r"part3.csv, row 2 \(id p0\): .*same as in row 2 of metadata/query_part1.csv"):
        _load(root)


def test_declared_categories_have_names(tmp_path):
    names = [
        ["META_CATEG_ID", "0", "Shoes"],
        ["META_CATEG_ID", "1", "Hats"],
        ["META_CATEG_ID", "5", "Bags"],
        ["CATEG_LVL2_ID", "2", "b"],
        ["CATEG_LVL2_ID", "3", "c"],
        *(["LEAF_CATEG_ID", str(i), f"leaf {i}"] for i in (11, 10, 9)),
    ]
    loaded = _load(_eproduct(tmp_path, categories=names))
    assert loaded.category_names == (["Shoes", "Hats", "Bags"], ["b", "c"], ["leaf 9", "leaf 10", "leaf 11"])
    assert loaded.train.categories[:, 2].tolist() == [1, 0, 2]
    with pytest.raises(InputError, match="LEAF_CATEG_ID '10' does not occur in metadata/categories.csv") as caught:
        _load(_eproduct(tmp_path, categories=[row for row in names if row[1] != "10"]))
    assert "(unknown category 1)" in str(caught.value)
    with pytest.raises(InputError, match="categories.csv, row 10 .*must be one of META_CATEG_ID"):
        _load(_eproduct(tmp_path, categories=[*names, ["LEVEL9", "1", "x"]]))
    with pytest.raises(InputError, match=r"categories.csv, row 10 \(id 9\): LEAF_CATEG_ID already has this id"):
        _load(_eproduct(tmp_path, categories=[*names, ["LEAF_CATEG_ID", "9", "x"]]))


def _good(split: str, number: int) -> list[str]:
    return {
        "train": [f"n{number}", "new shoes", "0", "2", "10", "train/t1.jpg"],
        "val": [f"n{number}", "new hat", "1", "3", "9", "val/v1.jpg"],
        "index": [f"n{number}", "index/g1.jpg"],
        "query": [f"n{number}", "query/q1.jpg"],
        "ground_truth": ["both", "g1"],
    }[split]


def _with(split: str, **cells: str) -> list[str]:
    row = _good(split, 7)
    for column, value in cells.items():
        row[COLUMNS[split].index(column)] = value
    return row


BAD_ROWS = {
    "empty id": ("train", _with("train", UUID=""), "row 5: the id is empty; give"),
    "blank in id": ("index", _with("index", UUID="a b"), "row 6 (id a b): the id 'a b' contains a blank"),
    "duplicate id": (
        "train",
        _with("train", UUID="t2"),
        "row 5 (id t2): the id is the same as in row 3 of metadata/train.csv",
    ),
    "duplicate id, gallery": ("index", _with("index", UUID="g1"), "row 6 (id g1): the id is the same as in row 2"),
    "id in two splits": ("train", _with("train", UUID="q1"), "row 5 (id q1): the query split also has this id"),
    "id in two splits, val": ("train", _with("train", UUID="v1"), "row 5 (id v1): the val split also has this id"),
    "empty title": ("train", _with("train", AUCT_TITL="  "), "row 5 (id n7): the title is empty"),
    "unknown category": (
        "val",
        _with("val", LEAF_CATEG_ID="77"),
        "row 3 (id n7): LEAF_CATEG_ID '77' does not occur in the train split",
    ),
    "category is not a whole number": (
        "val",
        _with("val", META_CATEG_ID="shoes"),
        "row 3 (id n7): META_CATEG_ID is 'shoes', but category ids",
    ),
    "category is not a whole number, train": (
        "train",
        _with("train", META_CATEG_ID="1.5"),
        "META_CATEG_ID is '1.5', but",
    ),
    "empty category": ("train", _with("train", CATEG_LVL2_ID=""), "row 5 (id n7): CATEG_LVL2_ID is empty"),
    "empty image path": ("query", _with("query", IMAGE_PATH=" "), "row 5 (id n7): the path of the picture is empty"),
    "missing image file": (
        "index",
        _with("index", IMAGE_PATH="index/x.jpg"),
        "row 6 (id n7): missing image file: index/x.jpg (looked in /",
    ),
    "truncated image file": (
        "index",
        _with("index", IMAGE_PATH="cut.jpg"),
        "row 6 (id n7): truncated image file: cut.jpg",
    ),
    "not an image file": (
        "val",
        _with("val", IMAGE_PATH="text.jpg"),
        "row 3 (id n7): not an image file: text.jpg (it is an HTML, XML or SVG page); replace",
    ),
    "image too large": ("val", _with("val", IMAGE_PATH="large.jpg"), "image too large: large.jpg (900 x 1000 pixels"),
    "path leaves the root": (
        "train",
        _with("train", IMAGE_PATH="../secret.jpg"),
        "row 5 (id n7): path leaves the root: ../secret.jpg (it has '..'); give",
    ),
    "path leaves the root, absolute": (
        "train",
        _with("train", IMAGE_PATH="/etc/passwd"),
        "/etc/passwd (it is absolute)",
    ),
    "path leaves the root, link": ("train", _with("train", IMAGE_PATH="link.jpg"), "link.jpg (a link leads elsewhere)"),
    "wrong number of fields": (
        "train",
        [*_good("train", 7), "more"],
        "row 5 (id n7): the row has 7 fields, the header 6",
    ),
    "wrong number of fields, short": ("query", ["n7"], "row 5 (id n7): the row has 1 fields, the header 2"),
    "unknown query": ("ground_truth", ["q9", "g1"], "row 4 (id q9): 'q9' is not in the query split"),
    "unknown gallery listing": ("ground_truth", ["both", "g1 g9"], "row 4 (id both): 'g9' is not in the gallery split"),
    "no relevant listing": ("ground_truth", ["both", " "], "row 4 (id both): the row has no gallery listing"),
    "duplicate id, truth": ("ground_truth", ["q1", "g1"], "row 4 (id q1): the id is the same as in row 2"),
}


def _odd_files(root: pathlib.Path) -> None:
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    (root / "secret.jpg").write_bytes(whole)
    (root / "Images" / "cut.jpg").write_bytes(whole[:-99])
    (root / "Images" / "text.jpg").write_bytes(b"<html>not found</html>")
    (root / "Images" / "link.jpg").symlink_to(root / "secret.jpg")
    cv2.imwrite(str(root / "Images" / "large.jpg"), np.zeros((1000, 900), np.uint8))


@pytest.mark.parametrize("case", BAD_ROWS)
def test_every_bad_row_has_its_sentence(tmp_path, case):
    split, row, sentence = BAD_ROWS[case]
    reason = case.split(",")[0]
    root = _eproduct(tmp_path / "shop", **{split: [*CLEAN[split], row]})
    _odd_files(root)
    report = tmp_path / "set_aside.csv"
    with pytest.raises(InputError) as caught:  # strict by default
        _load(root, report, max_pixels=800_000)
    for part in (
        f"metadata/{split}.csv, row {len(CLEAN[split]) + 2}",
        sentence,
        f"({reason} 1)",
        f"1 of {len(CLEAN[split]) + 1} rows are bad",
        "max_bad_share",
        str(report),
    ):
        assert part in str(caught.value)
    loaded = _load(root, report, max_pixels=800_000, max_bad_share=0.5)
    name = {"index": "gallery"}.get(split, split)
    assert loaded.counts[name]["set_aside"] == {reason: 1} and loaded.counts[name]["kept"] == len(CLEAN[split])
    _reconcile(loaded.counts)
    with open(report, newline="", encoding="utf-8") as file:
        (listed,) = csv.DictReader(file)
    assert (listed["file"], listed["reason"]) == (f"metadata/{split}.csv", reason)
    assert int(listed["row"]) == len(CLEAN[split]) + 2
    assert listed["sentence"] == loaded.set_aside[0]["sentence"] and sentence in listed["sentence"]
    for kept in ("train", "val", "query", "gallery"):
        assert loaded.split(kept).ids == [row[0] for row in CLEAN["index" if kept == "gallery" else kept]]
    assert loaded.truth.indptr.tolist() == [0, 2, 3, 3] and loaded.truth.rows.tolist() == [0, 1, 3]


def test_shares_are_per_file_and_counts_reconcile(tmp_path):
    rng = np.random.default_rng(0)
    train = [_good("train", i) for i in range(200)]
    broken = rng.choice(200, 20, replace=False)
    for place, row in enumerate(broken):
        train[row] = list(train[row])
        train[row][[1, 5, 4][place % 3]] = ["", "train/none.jpg", ""][place % 3]
    root = _eproduct(tmp_path, train=train, val=[["v", "hat", "0", "2", "10", "val/v1.jpg"]])
    loaded = _load(root, max_bad_share=0.1)
    count = loaded.counts["train"]
    assert count["set_aside"] == {"empty title": 7, "missing image file": 7, "empty category": 6}
    assert count["kept"] == 180
    assert sorted(entry["row"] for entry in loaded.set_aside) == sorted((broken + 2).tolist())
    assert loaded.train.ids == [f"n{i}" for i in range(200) if i not in broken]
    assert len(loaded.train.titles) == len(loaded.train.images) == len(loaded.train.categories) == 180
    _reconcile(loaded.counts)
    with pytest.raises(
        InputError,
        match=r"train.csv: 20 of 200 rows are bad \(empty title 7, missing image file 7, "
        r"empty category 6\)",
    ) as caught:
        _load(root, max_bad_share=0.0999)
    assert str(caught.value).count("metadata/train.csv, row") == 10


def test_truth_of_listings_set_aside_is_not_held_against_its_file(tmp_path):
    root = _eproduct(tmp_path, ground_truth=[["q1", "g2 g1"], ["q2", "g3"], ["both", "g3 g1"]])
    (root / "Images" / "index" / "g3.jpg").unlink()
    (root / "Images" / "query" / "q1.jpg").unlink()
    loaded = _load(root, max_bad_share=0.34)
    assert loaded.counts["ground_truth"]["set_aside"] == {
        "its gallery listings were set aside": 1,
        "its query was set aside": 1,
    }
    assert loaded.query.ids == ["q2", "both"] and loaded.truth.indptr.tolist() == [0, 0, 1]
    assert [loaded.gallery.ids[row] for row in loaded.truth.rows] == ["g1"]
    _reconcile(loaded.counts)


def test_missing_columns_list_existing_and_near_ones(tmp_path):
    root = _eproduct(tmp_path)
    text = (root / "metadata" / "train.csv").read_text()
    (root / "metadata" / "train.csv").write_text(text.replace("AUCT_TITL", "AUCT_TITLE"))
    with pytest.raises(InputError, match="missing column 'AUCT_TITL'.*UUID, AUCT_TITLE, .*mean 'AUCT_TITLE'"):
        _load(root, max_bad_share=1.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"UUID,IMAGE_PATH\n", "there are no rows"),
        (b"UUID,UUID,IMAGE_PATH\n1,2,3\n", "the header names UUID twice"),
        (b'UUID,IMAGE_PATH\nq1,query/q1.jpg\nq2,"query/q2.jpg\nq3,x.jpg\n', "row 3: not CSV"),
    ],
)
def test_unreadable_files_are_refused_whatever_the_share(tmp_path, content, says):
    root = _eproduct(tmp_path)
    (root / "metadata" / "query.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"metadata/query.csv.*{says}"):
        _load(root, max_bad_share=1.0)


def test_row_numbers_are_lines_of_the_file(tmp_path):
    root = _eproduct(tmp_path)
    (root / "metadata" / "train.csv").write_bytes(
        b"\xef\xbb\xbf" + ",".join(LABELLED).encode() + b'\r\nt1,"two\r\nlines",0,2,10,train/t1.jpg\r\n\r\n'
        b"t2,caf\xe9,0,2,9,train/t2.jpg\r\nt3,,0,2,11,train/t1.jpg\r\nt4,x,1,3,9,train/t1.jpg\r\n"
    )
    loaded = _load(root, max_bad_share=0.5)
    assert [(bad["row"], bad["reason"]) for bad in loaded.set_aside] == [(5, "not UTF-8 text"), (6, "empty title")]
    assert loaded.train.titles == ["two\r\nlines", "x"]


def test_arguments(tmp_path):
    with pytest.raises(InputError, match="there is no source 'eproducts'; did you mean eproduct"):
        loading.load({"source": "eproducts", "kwargs": {}})
    with pytest.raises(InputError, match="source 'eproduct' has no argument 'rot'; did you mean root"):
        loading.load({"source": "eproduct", "kwargs": {"rot": "x"}})
    with pytest.raises(InputError, match="kwargs has no 'root'; the source 'eproduct' takes root, max_bad_share"):
        loading.load({"source": "eproduct", "kwargs": {}})
    with pytest.raises(InputError, match="is not a folder"):
        _load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="none of train.csv"):
        _load(tmp_path)
    root = _eproduct(tmp_path / "shop")
    with pytest.raises(InputError, match="a share from 0 to 1, not 5"):
        _load(root, max_bad_share=5)
    (root / "metadata" / "val.csv").unlink()
    with pytest.raises(InputError, match="has no split 'val'; it has train, query, gallery"):
        _load(root).split("val")


def test_unchecked_images_fail_when_read(tmp_path):
    root = _eproduct(tmp_path)
    (root / "Images" / "index" / "g2.jpg").write_bytes(b"\xff\xd8\xff")
    loaded = _load(root, check_images=False)
    with pytest.raises(InputError, match="row 1 of the pictures: .*g2.jpg"):
        loaded.gallery.images[1]


# --------------------------------------------------------------------------------------------------------- data info


def test_data_info(tmp_path):
    loaded = _load(_eproduct(tmp_path))
    made = vocabulary.build(statistics.count([loaded.train.titles, loaded.val.titles]).tokens, 4, 1)
    info = info_lib.of_split(loaded.train, made)
    assert info.label_names == made.tokens == ["hat", "red"] and info.label_counts.tolist() == [3, 3]
    assert info.num_listings == 4 and info.vocabulary_hash == made.hash
    assert info.category_names == loaded.category_names
    assert [counts.tolist() for counts in info.category_counts] == [[1, 2], [1, 2], [1, 1, 1]]
    bare = info_lib.of_split(loaded.train)
    assert (bare.label_names, bare.num_listings, bare.vocabulary_hash) == ([], 3, "")
    loaded.train.categories[0, 0] = -1
    assert info_lib.of_split(loaded.train).category_counts[0].tolist() == [0, 2]


# --------------------------------------------------------------------------------------------------- the real catalogue


def test_the_real_catalogue(tmp_path):
    root = reference.fashion_root()
    loaded = _load(root, tmp_path / "set_aside.csv")
    assert [len(loaded.split(name)) for name in ("train", "val", "query", "gallery")] == [24669, 932, 2189, 7016]
    assert [len(names) for names in loaded.category_names] == [7, 46, 142] and loaded.set_aside == []
    _reconcile(loaded.counts)
    with open(root / "metadata" / "ground_truth.csv", newline="") as file:
        truth = {row["QUERY_UUID"]: row["INDEX_UUIDS"].split() for row in csv.DictReader(file)}
    for place, query in enumerate(loaded.query.ids):
        rows = loaded.truth.rows[loaded.truth.indptr[place] : loaded.truth.indptr[place + 1]]
        assert sorted(loaded.gallery.ids[row] for row in rows) == sorted(truth[query])
    with open(root / "metadata" / "train.csv", newline="") as file:
        for row, listing in enumerate(csv.DictReader(file)):
            if row % 997 == 0:
                assert (loaded.train.ids[row], loaded.train.titles[row]) == (listing["UUID"], listing["AUCT_TITL"])
                leaf = loaded.train.categories[row, -1]
                assert str(leaf) == listing["LEAF_CATEG_ID"]  # the ids of this catalogue happen to count from 0
                assert loaded.train.images[row].shape[2] == 3


def test_rows_are_marked_once():
    rows = row_checks.Rows("train", pl.DataFrame({"id": ["a"]}), ["f"], np.zeros(1, np.int32), np.array([2]))
    rows.mark(0, "empty title", "first")
    rows.mark(0, "duplicate id", "second")
    assert rows.bad == {0: ("empty title", "f, row 2 (id a): first")} and rows.good().tolist() == [False]
