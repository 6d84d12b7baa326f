"""Pictures shared between splits: found, written down, and left out of train with every row accounted for."""

import csv

import cv2
import fsspec
import ml_collections
import numpy as np
import pytest

import shop_exports
from retrieval_jax import leaks, prepare
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import joined, loading
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.settings import base

COUNTS = {"train": 60, "val": 10, "query": 12, "gallery": 20}


@pytest.fixture
def config(tmp_path):
    """A catalogue of files: train 0 to 3 share pictures with val 0, query 1, gallery 2 (mirrored) and train 4."""
    rng = np.random.default_rng(0)
    pictures = {
        split: [
            cv2.resize(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (64, 80), interpolation=cv2.INTER_CUBIC)
            for _ in range(count)
        ]
        for split, count in COUNTS.items()
    }
    train = pictures["train"]
    train[0], train[1], train[3] = pictures["val"][0], pictures["query"][1], train[4]
    train[2] = pictures["gallery"][2][:, ::-1]
    train[5] = cv2.convertScaleAbs(pictures["gallery"][5], alpha=0.88)
    for split, some in pictures.items():
        rows = [f"{split[0]}{row},{split[0]}{row}.jpg,a title" for row in range(len(some))]
        for row, picture in enumerate(some):
            cv2.imwrite(str(tmp_path / f"{split[0]}{row}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90 - row % 7])
        (tmp_path / f"{split}.csv").write_text("\n".join(["id,image,title", *rows]) + "\n")
    config = base.defaults()
    config.data.source = "table"
    config.data.kwargs = ml_collections.ConfigDict(
        {"root": str(tmp_path), "files": {split: f"{split}.csv" for split in COUNTS}, "columns": {"title": "title"}}
    )
    return config


def test_leaks_are_found_and_left_out_and_the_rows_reconcile(config, tmp_path, capsys):
    config.leaks.altered = True
    summary = leaks.run(config, tmp_path / "run")
    with (tmp_path / "run" / "leaks.csv").open(encoding="utf-8") as file:
        pairs = {(row["id"], row["other_id"]): row["kind"] for row in csv.DictReader(file)}
    assert pairs == {
        ("t0", "v0"): "same",
        ("t1", "q1"): "same",
        ("t2", "g2"): "mirrored",
        ("t5", "g5"): "altered",
        ("t3", "t4"): "same",
        ("t4", "t3"): "same",
    }
    assert summary["left_out"] == 3 and summary["found"]["train-gallery"]["mirrored"] == 1
    out = capsys.readouterr().out
    assert "WARNING: 2 of 60 train listings (3.3 %) have nearly the same picture in gallery (1 mirrored, 1 alt" in out
    assert "0 of 12 query listings (0.0 %) have nearly the same picture in gallery" in out
    listed = tmp_path / "run" / "leave_out.csv"
    assert f"--config.data.leave_out={listed} leaves out 3 of 60 train listings" in out

    config.data.leave_out = str(listed)
    catalog = loading.load(config.data, set_aside_path=tmp_path / "set_aside.csv")
    counts = catalog.counts["train"]
    assert (counts["read"], counts["kept"]) == (60, 57) == (60, len(catalog.train))
    assert counts["set_aside"] == {"left out by config.data.leave_out": 3} == counts["files"]["train.csv"]["set_aside"]
    assert not {"t0", "t1", "t2"} & set(catalog.train.ids) and len(catalog.gallery) == 20
    assert "train.csv, row 3 (id t1): same picture as query listing q1" in (tmp_path / "set_aside.csv").read_text()
    assert leaks.run(config, tmp_path / "again")["left_out"] == 0
    config.data.leave_out, config.leaks.leave_out_of = "", ("train",)
    leaks.run(config, tmp_path / "again")
    assert (tmp_path / "again" / "leave_out.csv").read_text().splitlines()[1].startswith("train,t4,same picture as tr")


def test_bad_lists_are_rejected(config, tmp_path):
    config.data.leave_out = str(tmp_path / "list.csv")
    for content, words in (
        ("", "list.csv: the file is empty"),
        ("split,id\n", "missing column 'reason'"),
        ("split,id,reason\ntrain,t1,\n\ntrain,x,\n", "list.csv, row 4: there is no listing 'x' in the split 'train'"),
        ("split,id,reason\nquery,t1,\n", "no listing 't1' in the split 'query'"),
        ("split,id,reason\ntrain,t1,a,b\n", "list.csv, row 2.*the row has 4 fields, the header 3"),
    ):
        (tmp_path / "list.csv").write_text(content)
        with pytest.raises(InputError, match=f"config.data.leave_out.*{words}"):
            loading.load(config.data)
    config.data.leave_out = str(tmp_path / "none.csv")
    with pytest.raises(InputError, match="config.data.leave_out.*there is no such file"):
        loading.load(config.data)
    config.data.kwargs.leave_out = config.data.leave_out
    config.data.leave_out = ""
    with pytest.raises(InputError, match="source 'table' has no argument 'leave_out'"):
        loading.load(config.data)
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,t1,\n")
    config.data = {"source": "synthetic", "kwargs": {}, "leave_out": str(tmp_path / "list.csv")}
    with pytest.raises(InputError, match="embedded catalogue"):
        loading.load(config.data)
    config.leaks.leave_out_of = ("gallry",)
    with pytest.raises(InputError, match="not compared with 'gallry'; did you mean gallery"):
        leaks.run(config, tmp_path)


@pytest.mark.parametrize(
    "content", ["split,id,reason\n", "\ufeffreason;id;split\r\nmine;t1;train\r\nno;t2;train\r\n\r\n"]
)
def test_a_list_may_be_empty_or_come_from_a_spreadsheet(config, tmp_path, content):
    (tmp_path / "list.csv").write_text(content, encoding="utf-8")
    config.data.leave_out = str(tmp_path / "list.csv")
    catalog, left = loading.load(config.data), content.count("train")
    assert len(catalog.train) == catalog.counts["train"]["kept"] == 60 - left == 60 - len(catalog.set_aside)


def test_listings_are_left_out_of_the_right_joined_catalogue(config, tmp_path):
    one = {"source": "table", "kwargs": config.data.kwargs.to_dict()}
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,b/t0,\nval,a/v1,\ngallery,g2,mine\n")
    data = {
        "source": "joined",
        "kwargs": {"catalogs": {"a": one, "b": one}, "search": "b"},
        "leave_out": str(tmp_path / "list.csv"),
    }
    catalog = loading.load(data)
    assert {name: count["set_aside"] for name, count in catalog.counts.items() if count["set_aside"]} == {
        name: {"left out by config.data.leave_out": 1} for name in ("b train", "a val", "b gallery")
    }
    assert set(catalog.train.ids) == {f"{name}/t{row}" for name in "ab" for row in range(60)} - {"b/t0"}
    assert len(catalog.val) == 19 and "a/v1" not in catalog.val.ids and "g2" not in catalog.gallery.ids
    for line in ("train,c/t0,", "train,t0,", "train,a/x,", "gallery,a/g1,"):
        (tmp_path / "list.csv").write_text(f"split,id,reason\n{line}\n")
        with pytest.raises(InputError, match="row 2: there is no listing"):
            loading.load(data)


def test_neither_row_of_a_duplicate_id_is_kept(config, tmp_path):
    with (tmp_path / "train.csv").open("a") as file:
        file.write("t0,t0.jpg,a title\n")
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,t0,mine\n")
    config.data.kwargs.max_bad_share = 0.1
    config.data.leave_out = str(tmp_path / "list.csv")
    catalog = loading.load(config.data)
    assert catalog.counts["train"]["set_aside"] == {"duplicate id": 1, "left out by config.data.leave_out": 1}
    assert "t0" not in catalog.train.ids and len(catalog.train) == 59


def test_pictures_of_every_source_are_read_at_reduced_size(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((900, 1200, 3), 60, np.uint8))
    files = sources.FileImages(tmp_path, ["a.jpg"])
    assert leaks._reduced(files)[0].shape == (113, 150, 3) and files[0].shape == (900, 1200, 3)
    both = leaks._reduced(joined.JoinedEncoded([files, sources.FileImages(tmp_path, ["a.jpg", "a.jpg"])]))
    assert [both[row].shape for row in range(3)] == [(113, 150, 3)] * 3
    drawn = [np.zeros((8, 8, 3), np.uint8)]
    assert leaks._reduced(drawn) is drawn


def test_results_are_uploaded_to_a_url(config, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_JAX_CACHE", str(tmp_path / "cache"))
    there = f"memory://shop-{tmp_path.name}/leaks"
    leaks.run(config, workdirs.as_path(there))
    files = fsspec.filesystem("memory")
    names = {file.rpartition("/")[2] for file in files.find(there.removeprefix("memory:/"))}
    assert {"leaks.csv", "leave_out.csv"} <= names, names


def test_nothing_can_be_left_out_of_a_prepared_catalogue(config, tmp_path):
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,t1,\n")
    config.data.leave_out = str(tmp_path / "list.csv")
    (tmp_path / "t2.jpg").write_bytes((tmp_path / "t2.jpg").read_bytes()[:-100])
    config.data.kwargs.check_images, config.data.kwargs.max_bad_share = False, 1 / 60  # t1 does not count as bad
    prepare.run(config, tmp_path / "prepared", side=32, processes=1)
    data = {"source": "tfds", "kwargs": {"root": str(tmp_path / "prepared")}}
    assert len(loading.load(data).train) == 58 and "t1" not in loading.load(data).train.ids
    with pytest.raises(InputError, match="is used as a whole: prepare it again into another folder, with --config.da"):
        loading.load(data | {"leave_out": str(tmp_path / "list.csv")})


def test_a_listing_of_two_splits_is_not_a_leak_of_itself(tmp_path, capsys):
    table, _ = shop_exports.write(shop_exports.torgovlya(shop_exports.products(9)), tmp_path)
    config = base.defaults()
    config.data.source = "table"
    config.data.kwargs = {"root": str(tmp_path), "files": table.name, "image_root": "pictures"}
    assert leaks.run(config, tmp_path / "run")["left_out"] == 0
    assert "listings (0.0 %) have nearly the same picture in gallery" in capsys.readouterr().out
