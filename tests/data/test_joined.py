"""Several catalogues as one: every listing of train once, categories by name, pictures from where they lie."""

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax.data import info as info_lib
from retrieval_jax.data import joined, loading, pipeline
from retrieval_jax.data.examples import Examples, Pictures
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError

SMALL = {"num_val": 4, "num_query": 5, "num_gallery": 9, "image_size": 16}
SHOP = {"source": "synthetic", "kwargs": {**SMALL, "seed": 0, "num_train": 30}}
MARKET = {"source": "synthetic", "kwargs": {**SMALL, "seed": 1, "num_train": 12}}


def load(set_aside_path=None, **kwargs):
    kwargs = {"catalogs": {"shop": SHOP, "market": MARKET}, "search": "shop", **kwargs}
    return loading.load(ConfigDict({"source": "joined", "kwargs": kwargs}), set_aside_path=set_aside_path)


def test_train_and_val_hold_every_listing_of_both_and_the_rest_is_of_one(tmp_path):
    both = load(tmp_path / "set_aside.csv", same_categories=True)
    shop, market = loading.load(SHOP), loading.load(MARKET)
    assert (tmp_path / "set_aside.csv").read_text().startswith("file,row,id")
    for split, total in (("train", 42), ("val", 8)):
        one, parts = both.split(split), (market.split(split), shop.split(split))
        assert len(one) == len(one.images) == len(one.titles) == total
        assert list(one.ids) == [
            f"{name}/{listing}" for name, part in zip(("market", "shop"), parts, strict=True) for listing in part.ids
        ]
        assert one.sources.tolist() == [0] * len(parts[0]) + [1] * len(parts[1])
        rows = [(part, row) for part in parts for row in range(len(part))]
        for row, (part, own) in enumerate(rows):
            assert one.titles[row] == part.titles[own] and np.array_equal(one.images[row], part.images[own])
            for level, names in enumerate(both.category_names):
                assert names[one.categories[row, level]] == part.category_names[level][part.categories[own, level]]
    assert both.category_levels == shop.category_levels
    assert list(both.gallery.ids) == list(shop.gallery.ids) and both.truth.rows.tolist() == shop.truth.rows.tolist()
    for level, names in enumerate(both.category_names):
        assert [names[code] for code in both.gallery.categories[:, level]] == [
            shop.category_names[level][code] for code in shop.gallery.categories[:, level]
        ]


def test_every_catalogue_leaves_out_its_own_list(tmp_path):
    (tmp_path / "Images").mkdir()
    for row in range(3):
        cv2.imwrite(str(tmp_path / "Images" / f"{row}.jpg"), np.full((8, 8, 3), row, np.uint8))
    (tmp_path / "train.csv").write_text("id,image\na,0.jpg\nb,1.jpg\nc,2.jpg\n")
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,b,a leak\n")
    table = {
        "source": "table",
        "leave_out": str(tmp_path / "list.csv"),
        "kwargs": {"root": str(tmp_path), "image_root": "Images", "files": {"train": "train.csv"}},
    }
    both = load(catalogs={"shop": SHOP, "table": table})
    assert list(both.train.ids)[30:] == ["table/a", "table/c"]
    (tmp_path / "both.csv").write_text("split,id,reason\ntrain,table/c,\n")
    both = loading.load(
        ConfigDict(
            {
                "source": "joined",
                "leave_out": str(tmp_path / "both.csv"),
                "kwargs": {"catalogs": {"shop": SHOP, "table": table}, "search": "shop"},
            }
        )
    )
    assert list(both.train.ids)[30:] == ["table/a"]


def test_batches_have_the_shares_of_the_catalogues():
    train = load().train
    [batch] = pipeline.train_batches(
        Examples({"image": Pictures(train.images), "source": train.sources}),
        transform=(("resize", {}),),
        image_size=(16, 16),
        batch_size=40,
        seed=0,
        num_steps=1,
        sampling="mixed",
        sampling_kwargs={"weights": (3, 1)},
    )
    assert batch["source"].sum() == 10 and np.array_equal(train.sources[batch["row"]], batch["source"])
    assert len(set(batch["row"][batch["source"] == 0].tolist())) == 12  # the smaller one, more than twice


def test_encoded_pictures_stay_encoded(tmp_path):
    for row in range(5):
        cv2.imwrite(str(tmp_path / f"{row}.jpg"), np.full((40, 30, 3), row * 50, np.uint8))
    files = sources.FileImages(tmp_path, [f"{row}.jpg" for row in range(5)])
    further = sources.FileImages(tmp_path, ["2.jpg"], max_pixels=5000)
    both = joined.JoinedEncoded([files, further])
    assert both.max_pixels == 5000 and len(both) == 6 and both.read(5) == both.read(2) == files.read(2)
    for row in range(6):
        np.testing.assert_array_equal(both.decode(both.read(row), row), both[row])
    with pytest.raises(IndexError):
        both[6]
    kw = {
        "transform": (("random_resized_crop", {}),),
        "image_size": (30, 20),
        "batch_size": 6,
        "seed": 0,
        "num_steps": 2,
    }
    for a, b in zip(
        pipeline.train_batches(Examples({"image": Pictures(both)}), crop_before_decoding=True, **kw),
        pipeline.train_batches(Examples({"image": Pictures(both)}), **kw),
        strict=True,
    ):
        np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize(
    "kwargs, words",
    [
        ({"catalogs": {"shop": SHOP}}, "catalogs has 1 catalogues: give two or more"),
        ({"search": "shops"}, "search: there is no catalogue 'shops'; did you mean shop"),
        (
            {"catalogs": {"shop": SHOP, "b": {"source": "synthetic", "weight": 2}}},
            "catalogue 'b' has no argument 'weight' .available: source",
        ),
        ({"catalogs": {"shop": SHOP, "b": {}}}, "catalogs.b has no source; give one of synthetic"),
        ({"weights": (1, 2)}, "source 'joined' has no argument 'weights' .available: catalogs, search, same"),
    ],
)
def test_what_cannot_be_joined_is_refused(kwargs, words):
    with pytest.raises(InputError, match=words):
        load(**kwargs)


def test_categories_of_different_catalogues_differ_unless_declared_the_same(tmp_path):
    for name, kind in (("a", "7"), ("b", "7"), ("c", "8")):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.jpg"), np.zeros((4, 4, 3), np.uint8))
        (tmp_path / name / "train.csv").write_text(f"id,image,kind,{name}\n1,1.jpg,{kind},5\n")
    a, b, c = (
        {
            "source": "table",
            "kwargs": {
                "root": str(tmp_path / name),
                "files": {"train": "train.csv"},
                "columns": {"categories": ("kind",)},
            },
        }
        for name in "abc"
    )
    apart = load(catalogs={"a": a, "b": b, "c": c}, search="b")
    assert apart.category_names == (["a/7", "b/7", "c/8"],) and apart.train.categories.tolist() == [[0], [1], [2]]
    same = load(catalogs={"a": a, "b": b, "c": c}, search="b", same_categories=True)
    assert same.category_names == (["7", "8"],) and same.train.categories.tolist() == [[0], [0], [1]]
    assert same.counts["b train"]["kept"] == 1 and same.train.titles is None and same.gallery is None
    assert info_lib.of_split(same.train).category_counts[0].tolist() == [2, 1]
    c["kwargs"]["columns"]["categories"] = ("kind", "c")
    with pytest.raises(InputError, match="different numbers of category levels: a 1, c 2; name as many"):
        load(catalogs={"a": a, "c": c}, search="a")
    del c["kwargs"]["columns"]["categories"]
    assert load(catalogs={"a": a, "c": c}, search="a").train.categories.tolist() == [[0], [-1]]


def test_categories_of_one_name_stay_apart_and_only_joined_files_are_counted(tmp_path):
    for name in "ab":
        root = tmp_path / name
        (root / "metadata").mkdir(parents=True)
        (root / "Images").mkdir()
        cv2.imwrite(str(root / "Images" / "1.jpg"), np.zeros((4, 4, 3), np.uint8))
        train = "".join(f"t{row},red,1,2,{row},1.jpg\n" for row in (3, 4, 5))
        levels = "".join(
            f"{level},{key},{title}\n"
            for level, key, title in (
                ("META_CATEG_ID", 1, "All"),
                ("CATEG_LVL2_ID", 2, "Some"),
                ("LEAF_CATEG_ID", 3, "Other"),
                ("LEAF_CATEG_ID", 4, "Other"),
            )
        )
        for file, content in (
            ("train", "UUID,AUCT_TITL,META_CATEG_ID,CATEG_LVL2_ID,LEAF_CATEG_ID,IMAGE_PATH\n" + train),
            ("categories", "LEVEL,ID,NAME\n" + levels),
            ("query", "UUID,IMAGE_PATH\nq1,1.jpg\nq2,2.jpg\n"),
            ("index", "UUID,IMAGE_PATH\ng1,1.jpg\n"),
            ("ground_truth", "QUERY_UUID,INDEX_UUIDS\nq1,g1\n"),
        ):
            (root / "metadata" / f"{file}.csv").write_text(content)
    catalogs = {
        name: {"source": "eproduct", "kwargs": {"root": str(tmp_path / name), "max_bad_share": 0.5}} for name in "ab"
    }
    both = load(tmp_path / "set_aside.csv", catalogs=catalogs, search="b")
    assert both.category_names[2] == ["a/Other", "a/Other", "b/Other", "b/Other"]
    assert both.train.categories[:, 2].tolist() == [0, 1, 2, 3]
    assert {name: (count["read"], count["kept"]) for name, count in both.counts.items()} == {
        "a train": (3, 2),
        "a categories": (4, 4),
        "b train": (3, 2),
        "b query": (2, 1),
        "b gallery": (1, 1),
        "b categories": (4, 4),
        "b ground_truth": (1, 1),
    }
    assert [(row["file"], row["id"]) for row in both.set_aside] == [
        ("a: metadata/train.csv", "t5"),
        ("b: metadata/train.csv", "t5"),
        ("b: metadata/query.csv", "q2"),
    ]
    assert (tmp_path / "set_aside.csv").read_text().count("\n") == 4
