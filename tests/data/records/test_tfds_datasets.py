"""Datasets that tfds prepared without TensorFlow: by name, with a map of columns; what is wrong gets its sentence."""

import concurrent.futures
import json
import multiprocessing
import pickle
import shutil
import sys

import numpy as np
import pytest

import tfds_generated
from retrieval_jax.data import loading
from retrieval_jax.data.pictures import decoding
from retrieval_jax.data.records import reading as records
from retrieval_jax.errors import InputError

SOP = {
    "splits": {"train": "train[:75%]", "val": "train[75%:]", "query": "test", "gallery": "test"},
    "columns": {"categories": ("super_class_id",), "product": "class_id"},
}
LISTINGS = {
    "splits": {"train": "train", "query": "test", "gallery": "more"},
    "columns": {"image": "photo", "id": "sku", "title": "name", "categories": "about/kind"},
}


@pytest.fixture(scope="module", params=["array_record", "parquet"])
def data_dir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tfds_generated.prepare(tfds_generated.StanfordOnlineProducts, folder, request.param)
    return folder


def load(set_aside_path=None, **kwargs):
    return loading.load({"source": "tfds", "kwargs": kwargs}, set_aside_path=set_aside_path)


def test_stanford_online_products_by_name(data_dir):
    loaded = load(name="stanford_online_products", data_dir=str(data_dir), **SOP)
    assert "tensorflow" not in sys.modules
    assert [len(loaded.train), len(loaded.val), len(loaded.query), len(loaded.gallery)] == [9, 3, 15, 15]
    assert set(loaded.train.ids) | set(loaded.val.ids) == {f"train-{i:02d}" for i in range(12)}
    assert loaded.category_levels == ("super_class_id",) and loaded.category_names == (["bicycle", "cabinet"],)
    # Each picture says which record it was, whatever the order that tfds shuffled them into.
    whose = {tfds_generated.picture(100_000 + number): number for number in range(15)}
    numbers = [whose[loaded.query.images.read(row)] for row in range(15)]
    assert sorted(numbers) == list(range(15)) != numbers
    assert loaded.query.categories[:, 0].tolist() == [(100 + number // 3) % 2 for number in numbers]
    for row, number in enumerate(numbers):  # the other two pictures of the product, not the query's own
        assert {numbers[i] for i in loaded.truth.relevant(row)} == {n for n in range(15) if n // 3 == number // 3} - {
            number
        }
    image = loaded.gallery.images[3]
    assert image.shape == (40, 50, 3) and np.array_equal(image, decoding.decode(loaded.gallery.images.read(3)))
    again = load(root=str(data_dir / "stanford_online_products" / "1.0.0"), **SOP)
    assert again.train.ids == loaded.train.ids and np.array_equal(again.truth.rows, loaded.truth.rows)


def _digests(images):
    return [hash_of(images.read(row)) for row in range(len(images))]


def hash_of(data: bytes) -> int:
    return int.from_bytes(data[-64:]) ^ len(data)


def test_other_processes_and_threads_read_the_same(data_dir):
    images = load(name="stanford_online_products", data_dir=str(data_dir), **SOP).query.images
    expected = _digests(images)
    assert len(set(expected)) == 15
    assert len(pickle.dumps(images)) < 4000  # a path, not the opened files
    fresh = pickle.loads(pickle.dumps(images))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: hash_of(fresh.read(row)), range(15))) == expected
    if images._records is not None and "ArrayRecord" in type(images._records).__name__:  # once is enough
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            assert pool.submit(_digests, images).result(timeout=120) == expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "stanford_online_product"}, "no dataset .* .available: stanford_online_products"),
        ({"name": None}, "either root"),
        ({"splits": {"train": "training"}}, "splits.train is 'training'; stanford_online_products has train, test"),
        ({"splits": {"train": "train[:x%]"}}, "splits.train"),
        ({"splits": {"learn": "train"}}, "splits has 'learn'.*available: train, val"),
        ({"columns": {"product": "class"}}, "no column 'class' .*class_id.*did you mean 'class_id'"),
        ({"columns": {"title": "image"}}, "'image' .*is Image of uint8, not text or a number"),
        ({"columns": {"image": "class_id"}}, "'class_id' .*is ClassLabel, not a picture"),
        ({"columns": {"label": "class_id"}}, "columns has 'label'; it takes image"),
        ({"columns": {"label": ("class_id", "list")}}, "columns.label: a column .* one value per record"),
        ({"columns": {"label": ("class", "text")}}, "no column 'class' .our label.*did you mean 'class_id'"),
        ({"label": "class_id"}, "source 'tfds' has no argument 'label'"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(data_dir, change, message):
    kwargs = {"name": "stanford_online_products", "data_dir": str(data_dir)} | SOP | change
    with pytest.raises(InputError, match=message):
        load(**{key: value for key, value in kwargs.items() if value is not None})


def test_tfrecord_gets_the_remedy(data_dir, tmp_path):
    folder = tmp_path / "stanford_online_products" / "1.0.0"
    shutil.copytree(data_dir / "stanford_online_products" / "1.0.0", folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(
        InputError,
        match="tfds build stanford_online_products --file_format=array_record.*tfds convert_"
        f"format --dataset_version_dir={folder} --out_file_format=array_record",
    ):
        load(name="stanford_online_products", data_dir=str(tmp_path), **SOP)
    with pytest.raises(InputError, match="no dataset_info.json"):
        load(root=str(tmp_path), **SOP)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="dataset_info.json is not readable JSON"):
        load(root=str(folder), **SOP)


def listings(folder, **changed):
    records_of = {"train": [{} for _ in range(6)], "test": [{}, {}], "more": [{}, {}, {}]}
    for split, number, record in changed.values():
        records_of[split][number] = record
    return tfds_generated.prepare(tfds_generated.GeneratedListings, folder, "array_record", records=records_of)


def test_ids_titles_and_nested_columns(tmp_path):
    loaded = load(root=str(listings(tmp_path)), **LISTINGS)
    by_id = dict(zip(loaded.train.ids, loaded.train.titles, strict=True))
    assert by_id == {f"train{i}": f"listing {i}" for i in range(6)}  # text, not bytes
    assert loaded.category_names == (["shirt", "shoe"],) and loaded.truth is None
    for row, listing in enumerate(loaded.train.ids):
        number = int(listing[5:])
        assert loaded.train.images.read(row) == tfds_generated.picture(number)
        assert loaded.category_names[0][loaded.train.categories[row, 0]] == ("shoe", "shirt")[number % 2]
    with pytest.raises(InputError, match="'words' .*several values"):
        load(
            root=str(tmp_path / "generated_listings/1.0.0"),
            **LISTINGS | {"columns": {"image": "photo", "title": "words"}},
        )
    with pytest.raises(InputError, match="'depth' .*is Image of uint16"):
        load(root=str(tmp_path / "generated_listings/1.0.0"), **LISTINGS | {"columns": {"image": "depth"}})


def test_bad_records_are_set_aside_and_counted(tmp_path):
    good = tfds_generated.picture(7)
    folder = listings(
        tmp_path,
        a=("train", 1, {"photo": good[:-40]}),
        b=("train", 2, {"photo": b"no picture"}),
        c=("train", 3, {"name": b"caf\xe9"}),
        d=("train", 4, {"sku": "train5"}),
        e=("more", 0, {"photo": b""}),
    )
    with pytest.raises(InputError, match="too many bad rows") as caught:
        load(root=str(folder), **LISTINGS)
    assert "generated_listings/1.0.0, split train" in str(caught.value)
    loaded = load(tmp_path / "set_aside.csv", root=str(folder), max_bad_share=0.8, **LISTINGS)
    assert loaded.counts["train"]["set_aside"] == {
        "duplicate id": 1,
        "not UTF-8 text": 1,
        "not an image file": 1,
        "truncated image file": 1,
    }
    assert loaded.counts["gallery"]["set_aside"] == {"not an image file": 1}
    for split in ("train", "query", "gallery"):
        count = loaded.counts[split]
        assert count["read"] == count["kept"] + sum(count["set_aside"].values())
        assert len(loaded.split(split)) == count["kept"]
        for row in range(count["kept"]):
            assert loaded.split(split).images[row].shape == (40, 50, 3)
    assert (tmp_path / "set_aside.csv").read_text().count("\n") == 6
    whole = load(root=str(folder), max_bad_share=0.8, check_images="decode", **LISTINGS)
    assert whole.counts == loaded.counts
    unseen = load(root=str(folder), max_bad_share=0.5, check_images=False, **LISTINGS)
    with pytest.raises(InputError, match=r"record \d of the split more in .*generated_listings"):
        for row in range(3):
            unseen.gallery.images[row]


def test_damaged_and_missing_files(tmp_path):
    folder = listings(tmp_path)
    loaded = load(root=str(folder), **LISTINGS)
    file = next(folder.glob("*-more.*"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="record 0 of the split more .*the file is damaged.*copy its files again"):
        loaded.gallery.images[0]
    file.unlink()
    with pytest.raises(InputError, match="-more.* is missing"):
        load(root=str(folder), **LISTINGS)
    file.write_bytes(whole)
    assert records.RecordImages(folder, "more", [0], "photo")[0].shape == (40, 50, 3)
    with pytest.raises(InputError, match="no encoded picture in its column 'sk'"):
        records.RecordImages(folder, "more", [0], "sk")[0]


def test_a_list_leaves_records_out(tmp_path):
    folder = listings(tmp_path)
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,train3,a leak\ngallery,more0,\n")
    data = {"source": "tfds", "kwargs": {"root": str(folder), **LISTINGS}, "leave_out": str(tmp_path / "list.csv")}
    loaded = loading.load(data)
    assert set(loaded.train.ids) == {f"train{i}" for i in (0, 1, 2, 4, 5)} and len(loaded.gallery) == 2
    for split in ("train", "gallery"):
        assert loaded.counts[split]["set_aside"] == {"left out by config.data.leave_out": 1}
    for row, listing in enumerate(loaded.train.ids):
        assert loaded.train.images.read(row) == tfds_generated.picture(int(listing[5:]))
    (tmp_path / "list.csv").write_text("split,id,reason\ntrain,train9,\n")
    with pytest.raises(InputError, match="no listing 'train9'"):
        loading.load(data)
