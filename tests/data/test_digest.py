"""A catalogue's digest sees every edit of its content, and does not see where or when its files were written."""

import os
import shutil
import time

import cv2
import numpy as np
import pytest

from retrieval_jax.data import digest, loading
from retrieval_jax.data.catalog import Lazy, Split, Table
from retrieval_jax.data.examples import Ragged

SMALL = {"num_train": 12, "num_val": 4, "num_query": 5, "num_gallery": 9, "image_size": 16}


@pytest.fixture
def shop(tmp_path):
    root = tmp_path / "shop"
    (root / "Images").mkdir(parents=True)
    for row in range(4):
        cv2.imwrite(str(root / "Images" / f"{row}.png"), np.full((8, 6, 3), row * 20, np.uint8))
    (root / "train.csv").write_text("id,title,kind,image\na,red shoes,1,0.png\nb,blue hat,2,1.png\n")
    (root / "query.csv").write_text("id,image\nq,2.png\n")
    (root / "gallery.csv").write_text("id,image\ng,3.png\nh,2.png\n")
    (root / "truth.csv").write_text("query,gallery\nq,g\n")
    return root


def _load(root):
    kwargs = {
        "root": str(root),
        "image_root": "Images",
        "files": {name: f"{name}.csv" for name in ("train", "query", "gallery")},
        "columns": {"title": "title", "categories": ("kind",)},
        "ground_truth": "truth.csv",
    }
    return loading.load({"source": "table", "kwargs": kwargs})


def _edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def _picture(root, value):
    cv2.imwrite(str(root / "Images" / "1.png"), np.full((8, 6, 3), value, np.uint8))


def test_a_copy_elsewhere_with_other_times_has_the_same_digest(shop, tmp_path):
    before = digest.of(_load(shop))
    copied = tmp_path / "elsewhere" / "another name"
    shutil.copytree(shop, copied)
    for file in copied.rglob("*.*"):
        os.utime(file, (time.time() - 10_000,) * 2)
    assert digest.of(_load(copied)) == before and digest.differences(before, digest.of(_load(copied))) == []
    assert before["train"]["listings"] == 2 and "titles" not in before["gallery"]


@pytest.mark.parametrize(
    "edit, says",
    [
        (lambda root: _edit(root / "train.csv", "red", "rad"), ["train: titles"]),
        (lambda root: _edit(root / "train.csv", "hat,2", "hat,3"), ["catalogue: names"]),
        (lambda root: _edit(root / "train.csv", "hat,2", "hat,1"), ["train: categories", "catalogue: names"]),
        (lambda root: _edit(root / "train.csv", "\nb,", "\nc,"), ["train: ids"]),
        (lambda root: _edit(root / "query.csv", "2.png", "3.png"), ["query: pictures"]),
        (lambda root: _edit(root / "truth.csv", "q,g", "q,h"), ["catalogue: truth"]),
        (lambda root: (root / "truth.csv").write_text("query,gallery\nq,g h\n"), ["catalogue: truth"]),
        (lambda root: _picture(root, 21), ["train: pictures"]),
        (
            lambda root: _edit(root / "gallery.csv", "h,2.png\n", "h,2.png\ni,1.png\n"),
            ["gallery: listings, pictures, ids"],
        ),
    ],
)
def test_an_edit_is_seen_and_named(shop, edit, says):
    before = digest.of(_load(shop))
    edit(shop)
    assert digest.differences(before, digest.of(_load(shop))) == says


def test_a_large_file_is_sampled_at_both_ends(tmp_path):
    content = bytearray(100_000)
    found = set()
    for at in (None, 0, 4095, 99_999, 95_904):
        changed = bytearray(content)
        if at is not None:
            changed[at] = 1
        (tmp_path / "file").write_bytes(changed)
        found.add(digest._sampled(tmp_path / "file", len(content), 2))
    assert len(found) == 5


def test_the_embedded_catalogue_is_known_by_its_arguments_without_drawing(monkeypatch):
    before = digest.of(loading.load({"source": "synthetic", "kwargs": SMALL}))
    from retrieval_jax.data.shop import drawing

    monkeypatch.setattr(drawing, "photo", None)  # drawing would raise
    assert digest.of(loading.load({"source": "synthetic", "kwargs": SMALL})) == before
    other = digest.of(loading.load({"source": "synthetic", "kwargs": SMALL | {"seed": 1}}))
    assert "train: pictures" in digest.differences(before, other)[0]
    larger = digest.of(loading.load({"source": "synthetic", "kwargs": SMALL | {"num_train": 13}}))
    assert digest.differences(before, larger) == [
        "train: listings, pictures, columns",
        "photo: listings, pictures, columns",
        "catalogue: tables",
    ]


def test_joined_catalogues_are_digested_part_by_part(shop):
    table = {
        "source": "table",
        "kwargs": {"root": str(shop), "image_root": "Images", "files": {"train": "train.csv"}},
    }
    config = {
        "source": "joined",
        "kwargs": {"catalogs": {"a": table, "b": {"source": "synthetic", "kwargs": SMALL}}, "search": "b"},
    }
    before = digest.of(loading.load(config))
    assert digest.of(loading.load(config)) == before
    _picture(shop, 22)
    assert digest.differences(before, digest.of(loading.load(config))) == ["train: pictures"]


def test_columns_and_tables_are_part_of_it(shop):
    catalog = _load(shop)

    def changed(**columns):
        split = Split("train", ["a", "b"], None, None, catalog.train.images, columns=columns)
        return digest._split(split)["columns"]

    base = {"text": ["x", "y"], "colour": np.array([0, 1], np.int32), "parts": Ragged.of([[1], []])}
    found = {changed(**base), changed(**base | {"text": ["x", "z"]}), changed(**base | {"parts": Ragged.of([[], [1]])})}
    found.add(changed(**base | {"colour": np.array([0, 2], np.int32)}))
    found.add(changed(**{"words" if name == "text" else name: value for name, value in base.items()}))
    assert len(found) == 5 and changed(**base) in found
    before = digest.of(catalog)
    for table in (
        Table({"reference": np.array([0]), "words": ["in red"]}, {"reference": "train"}),
        Table({"reference": np.array([1]), "words": ["in red"]}, {"reference": "train"}),
        Table({"reference": np.array([1]), "words": ["in red"]}, {"reference": "gallery"}),
    ):
        catalog.tables = {"edits/train": table}
        after = digest.of(catalog)
        assert digest.differences(before, after) == ["catalogue: tables"]
        before = after


def test_what_is_computed_on_demand_is_known_by_what_it_is_made_of():
    def fail():
        raise AssertionError("it was computed")

    a, b = Lazy({"box": fail}, "seed 0"), Lazy({"box": fail}, "seed 1")
    assert digest._mapping(a) != digest._mapping(b)
    both = Lazy({"box": fail}, [a, {"box": np.zeros((1, 4), np.float32)}])
    assert digest._mapping(both) != digest._mapping(Lazy({"box": fail}, [b, {"box": np.zeros((1, 4), np.float32)}]))
    assert digest._mapping(both) != digest._mapping(Lazy({"box": fail}, [a, {"box": np.ones((1, 4), np.float32)}]))
