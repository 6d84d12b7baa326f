"""Preparing a catalogue: the result is the same after any interruption; no bad picture is kept or lost silently.

Longer than 400 lines: one prepared catalogue is damaged in every way.
"""

import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image

import tfds_generated
from retrieval_jax import prepare
from retrieval_jax.data import digest, loading
from retrieval_jax.data.pictures import decoding, headers
from retrieval_jax.data.records import shards
from retrieval_jax.errors import InputError
from retrieval_jax.files import lock

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDE = 32


def picture(number: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


# height, width and extension of the pictures, cycled
SIZES = [(64, 48, "jpg"), (32, 40, "jpg"), (20, 30, "png"), (400, 300, "jpg"), (33, 90, "png"), (24, 24, "webp")]


def shop(root: pathlib.Path, num_train: int = 20) -> pathlib.Path:
    """Writes a catalogue of tables, with pictures of many sizes and formats."""
    (root / "Images").mkdir(parents=True)
    number = 0
    for split, rows in (("train", num_train), ("query", 6), ("gallery", 14)):
        lines = [["id", "image", "title", "kind", "product"]]
        for row in range(rows):
            height, width, ending = SIZES[row % len(SIZES)]
            name = f"{split}{row}.{ending}"
            cv2.imwrite(str(root / "Images" / name), picture(number, height, width))
            lines.append([f"{split}-{row}", name, f'ein „{row}“ títle, "red"', f"kind {row % 3}", f"p{row % 5}"])
            number += 1
        write(root / f"{split}.csv", lines)
    return root


def write(path: pathlib.Path, lines: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def read(path: pathlib.Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def table(root, **kwargs) -> ConfigDict:
    columns = {"title": "title", "categories": ("kind",), "product": "product"}
    return ConfigDict(
        {
            "data": {
                "source": "table",
                "kwargs": {
                    "root": str(root),
                    "files": {split: f"{split}.csv" for split in ("train", "query", "gallery")},
                    "image_root": "Images",
                    "columns": columns,
                }
                | kwargs,
            }
        }
    )


def synthetic(**sizes) -> ConfigDict:
    sizes = {"num_train": 70, "num_val": 10, "num_query": 12, "num_gallery": 60, "image_size": 40} | sizes
    return ConfigDict({"data": {"source": "synthetic", "kwargs": sizes}})


def run(config, out, **kwargs) -> dict:
    return prepare.run(config, out, **{"side": SIDE, "processes": 1, "shard_rows": 8} | kwargs)


def load(out, set_aside_path=None, **kwargs):
    return loading.load({"source": "tfds", "kwargs": {"root": str(out)} | kwargs}, set_aside_path=set_aside_path)


def same(found, wanted) -> None:
    """Asserts that two catalogues are equal except for the pictures."""
    assert found.name == wanted.name and found.category_levels == wanted.category_levels
    assert found.category_names == wanted.category_names
    for name in ("train", "val", "query", "gallery"):
        if getattr(wanted, name) is None:
            assert getattr(found, name) is None
            continue
        one, other = found.split(name), wanted.split(name)
        assert list(one.ids) == list(other.ids) and len(one.images) == len(other.images)
        assert (one.titles is None) == (other.titles is None)
        assert one.titles is None or list(one.titles) == list(other.titles)
        assert (one.categories is None) == (other.categories is None)
        assert one.categories is None or np.array_equal(one.categories, other.categories)
        assert one.categories is None or one.categories.dtype == np.int32
    if wanted.truth is not None:
        assert np.array_equal(found.truth.indptr, wanted.truth.indptr)
        assert np.array_equal(found.truth.rows, wanted.truth.rows)


def files(out: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.glob("*.array_record-*")}


def close(found: np.ndarray, source: np.ndarray, side: int = SIDE) -> None:
    """Asserts that a prepared picture matches its original, downscaled if larger."""
    scale = min(1.0, side / min(source.shape[:2]))
    size = round(source.shape[1] * scale), round(source.shape[0] * scale)
    assert found.shape == (size[1], size[0], 3) and min(found.shape[:2]) <= side
    wanted = cv2.resize(source, size, interpolation=cv2.INTER_AREA) if scale < 1 else source
    assert np.abs(found.astype(int) - wanted).mean() < 6


def test_a_prepared_catalogue_equals_the_original(tmp_path):
    config = table(shop(tmp_path / "shop"))
    original = loading.load(config.data)
    summary = run(config, tmp_path / "out")
    found = load(tmp_path / "out", tmp_path / "set_aside.csv")
    same(found, original)
    assert found.counts == original.counts and found.set_aside == []
    assert (tmp_path / "set_aside.csv").read_text() == "file,row,id,reason,sentence\n"
    as_is = 0
    for split in ("train", "query", "gallery"):
        for row in range(len(original.split(split))):
            before, after = original.split(split).images.read(row), found.split(split).images.read(row)
            image = decoding.decode(before)
            if before == after:
                as_is += 1
                assert min(image.shape[:2]) <= SIDE
            else:
                assert after.startswith(headers.JPEG)
                assert min(image.shape[:2]) > SIDE or before.startswith(b"RIFF")  # WebP is always re-encoded
            close(found.split(split).images[row], image)
    assert summary["pictures"] == {"as_is": as_is, "written": 40 - as_is, "made_now": 40} and as_is == 14
    assert summary["files"] == {"kept": 0, "made": 6} and summary["splits"]["gallery"]["kept"] == 14

    # It is also a plain tfds dataset, including class names.
    records = tfds.builder_from_directory(tmp_path / "out").as_data_source("train")
    one = records[4]
    assert one["id"] == b"train-4" and one["row"] == 4 and one["title"].decode() == original.train.titles[4]
    assert one["image"].shape[0] == SIDE and len(records) == 20 and "tensorflow" not in sys.modules
    assert records.dataset_info.features["category_0"].int2str(one["category_0"]) == "kind 1"
    with pytest.raises(InputError, match="has its own columns and splits"):
        load(tmp_path / "out", columns={"title": "title"})


def test_further_columns_and_tables_travel(tmp_path):
    root = shop(tmp_path / "shop")
    attributes = [["id", "colour", "tags", "weight", "y0", "x0", "y1", "x1", "about"]]
    attributes += [[f"train-{row}", "red", "a|b", row, 0, 0, 0.5, 1, f"text {row}"] for row in range(10)]
    write(root / "attributes.csv", attributes)
    write(root / "edits.csv", [["reference", "words", "targets"], ["train-1", "in red", "train-2 train-4"]])
    write(root / "outfits.csv", [["listings"], ["train-3 train-5"], ["train-2 train-1 train-5"]])
    write(root / "photo.csv", [["id", "image"], ["p", "query0.jpg"], ["r", "query1.jpg"]])
    write(root / "clicks.csv", [["photo", "clicked", "unclicked"], ["r", "gallery-2", ""], ["p", "gallery-1", ""]])
    config = table(root)
    with config.data.kwargs.unlocked():
        config.data.kwargs.files["photo"] = "photo.csv"
        kinds = {"colour": ("colour", "category"), "tags": ("tags", "list"), "weight": ("weight", "number")}
        kinds |= {"box": (("y0", "x0", "y1", "x1"), "number"), "about": ("about", "text")}
        config.data.kwargs.columns.update({name: (*kind, "attributes.csv") for name, kind in kinds.items()})
        config.data.kwargs.tables = {name: f"{name}.csv" for name in ("edits", "outfits", "clicks")}
    original = loading.load(config.data)
    run(config, tmp_path / "out")
    found = load(tmp_path / "out")
    same(found, original)
    before, after = digest.of(original), digest.of(found)
    assert before["train"]["columns"] == after["train"]["columns"] and before["catalogue"] == after["catalogue"]
    assert list(found.photo.ids) == ["p", "r"] and len(found.photo.images) == 2
    assert found.table("clicks", "gallery").rows_of["photo"] == "photo"
    # rows follow their listings where a picture falls on the way, and fall with them
    for name in ("train4.png", "train0.jpg"):
        (root / "Images" / name).write_bytes((root / "Images" / name).read_bytes()[:100])
    config.data.kwargs.check_images = False
    config.data.kwargs.max_bad_share = 0.2
    run(config, tmp_path / "less")
    found = load(tmp_path / "less")
    assert found.train.ids[:3] == ["train-1", "train-2", "train-3"] and found.train.columns["weight"][0] == 1
    assert len(found.table("edits", "train")) == 0  # one of its targets is gone
    assert found.table("outfits", "train").columns["listings"].tolist() == [[2, 3, -1], [1, 0, 3]]
    about = json.loads((tmp_path / "less" / "catalogue" / "catalogue.json").read_text())
    assert about["tables"]["edits/train"] == {
        "rows_of": {"targets": "train", "reference": "train"},
        "read": 1,
        "kept": 0,
    }


def test_queries_about_listings_are_counted(tmp_path, capsys):
    config = table(shop(tmp_path / "shop"))
    names = list(loading.load(config.data).query.ids)
    rows = [["id", "reference"], [names[0], "gallery-0"], *([name, "sold"] for name in names[1:])]
    write(tmp_path / "shop" / "about.csv", rows)
    with config.data.kwargs.unlocked():
        config.data.kwargs.columns["reference"] = ("reference", "text", "about.csv")
    counts = {"queries": 6, "in_gallery": 1, "elsewhere": 5, "none": 0, "without_answer": 0}
    assert run(config, tmp_path / "out")["references"] == counts
    assert "1 of 6 are about a gallery listing, 5 about one that the gallery lacks" in capsys.readouterr().out
    assert list(load(tmp_path / "out").query.ids.about) == [name for _, name in rows[1:]]


def test_what_is_computed_on_demand_is_left_behind(tmp_path, capsys):
    run(synthetic(), tmp_path / "out")
    assert "computed on demand, so left behind: colour, second_colour, " in capsys.readouterr().out
    found = load(tmp_path / "out")
    assert found.photo is None and not found.tables and not found.train.columns


def test_loading_by_name_from_the_tfds_data_dir(tmp_path):
    run(synthetic(), tmp_path / "my_shop" / "1.0.0")
    found = loading.load({"source": "tfds", "kwargs": {"name": "my_shop", "data_dir": str(tmp_path)}})
    original = loading.load(synthetic().data)
    same(found, original)
    close(found.val.images[3], original.val.images[3])
    assert tfds.builder("my_shop", data_dir=tmp_path).info.splits["train"].num_examples == 70


def test_a_tfds_dataset_can_be_prepared(tmp_path):
    tfds_generated.prepare(tfds_generated.StanfordOnlineProducts, tmp_path, "parquet")
    config = ConfigDict(
        {
            "data": {
                "source": "tfds",
                "kwargs": {
                    "name": "stanford_online_products",
                    "data_dir": str(tmp_path),
                    "splits": {"train": "train", "query": "test", "gallery": "test"},
                    "columns": {"categories": ("super_class_id",), "product": "class_id"},
                },
            }
        }
    )
    run(config, tmp_path / "out")
    same(load(tmp_path / "out"), loading.load(config.data))
    before = files(tmp_path / "out")
    assert run(config, tmp_path / "out")["files"] == {"kept": 6, "made": 0} and files(tmp_path / "out") == before


def test_only_changed_files_are_remade(tmp_path):
    root, out = shop(tmp_path / "shop"), tmp_path / "out"
    config = table(root)
    run(config, out)
    whole = files(out)
    times = {name: (out / name).stat().st_mtime_ns for name in whole}

    def remade() -> list[str]:
        """Prepares again; returns the new files."""
        summary = run(config, out)
        new = sorted(name for name in files(out) if (out / name).stat().st_mtime_ns != times.get(name))
        times.update({name: (out / name).stat().st_mtime_ns for name in new})
        assert summary["files"] == {"kept": len(files(out)) - len(new), "made": len(new)}
        same(load(out), loading.load(config.data))
        return new

    first, last = "shop-train.array_record-00000-of-00003", "shop-train.array_record-00002-of-00003"
    assert remade() == []
    data = bytearray(whole[first])  # a damaged file of the same size
    data[len(data) // 2] ^= 1
    (out / first).write_bytes(data)
    times[first] = (out / first).stat().st_mtime_ns
    assert remade() == [first] and files(out) == whole
    (out / last).unlink()
    with pytest.raises(InputError, match=f"{last} is missing"):
        load(out)
    assert remade() == [last] and files(out) == whole
    cv2.imwrite(str(root / "Images" / "gallery9.jpg"), picture(99, 60, 50))
    assert remade() == ["shop-gallery.array_record-00001-of-00002"]
    lines = read(root / "train.csv")
    lines[1][2] = "another title"
    write(root / "train.csv", lines)
    assert remade() == [first]
    write(root / "train.csv", lines[:12])  # fewer rows give other files, and the old ones are removed
    assert remade() == [f"shop-train.array_record-0000{i}-of-00002" for i in range(2)]
    assert len(files(out)) == 5 and len(list((out / "catalogue" / "shards").iterdir())) == 5
    for changed in ({"side": 48}, {"quality": 80}):
        with pytest.raises(InputError, match=f"started with {next(iter(changed))} .* instead of"):
            run(config, out, **changed)
    (out / "catalogue" / "catalogue.json").unlink()
    with pytest.raises(InputError, match="not completely prepared.*again"):
        load(out)


def test_raising_max_pixels_prepares_the_pictures_that_were_too_large(tmp_path):
    root, out = shop(tmp_path / "shop"), tmp_path / "out"
    small = {"check_images": False, "max_bad_share": 0.3, "max_pixels": 100_000}
    run(table(root, **small), out)
    assert load(out).counts["train"]["set_aside"] == {"image too large": 3}  # 400 x 300
    run(table(root, **small | {"max_pixels": 120_000}), out)  # as the message advises
    same(load(out), loading.load(table(root).data))


def test_unusable_pictures_are_counted(tmp_path):
    root, out = shop(tmp_path / "shop"), tmp_path / "out"
    for name in ("train3.jpg", "gallery1.jpg", "query0.jpg"):
        file = root / "Images" / name
        file.write_bytes(file.read_bytes()[:-100])
    (root / "Images" / "train7.jpg").unlink()
    lines = read(root / "train.csv")
    lines[1][2] = " "  # and one row that is bad in the table itself
    write(root / "train.csv", lines)
    with pytest.raises(InputError, match="1 of 20 rows are bad"):
        run(table(root, check_images=False), out)
    config = table(root, check_images=False, max_bad_share=0.2)
    original = loading.load(config.data)
    summary = run(config, out)
    found = load(out, tmp_path / "again.csv")
    count = found.counts["train"]
    before = [original.query.ids.index(query) for query in found.query.ids]
    answers = {
        "read": len(original.truth.rows),
        "kept": len(found.truth.rows),
        "queries_without": sum(
            len(original.truth.relevant(old)) > 0 == len(found.truth.relevant(row)) for row, old in enumerate(before)
        ),
    }
    assert summary["answers"] == answers and answers["kept"] < answers["read"]
    assert not any("files" in found.counts[split] for split in ("train", "query", "gallery"))
    assert count["set_aside"] == {"empty title": 1, "truncated image file": 1, "unreadable picture": 1}
    for split in ("train", "query", "gallery"):
        count = found.counts[split]
        assert count["read"] == count["kept"] + sum(count["set_aside"].values())
        assert count["kept"] == len(found.split(split))
    set_aside = {row["id"]: row["sentence"] for row in found.set_aside}
    assert set(set_aside) == {"train-0", "train-3", "train-7", "gallery-1", "query-0"}
    assert "train3.jpg" in set_aside["train-3"] and "truncated" in set_aside["train-3"]
    assert (out / "set_aside.csv").read_text() == (tmp_path / "again.csv").read_text()
    assert found.query.ids == [i for i in original.query.ids if i != "query-0"]
    for row, query in enumerate(found.query.ids):  # the same truth, minus the unusable listings
        wanted = [original.gallery.ids[i] for i in original.truth.relevant(original.query.ids.index(query))]
        assert [found.gallery.ids[i] for i in found.truth.relevant(row)] == [i for i in wanted if i != "gallery-1"]
    for row in range(len(found.train)):
        close(found.train.images[row], original.train.images[original.train.ids.index(found.train.ids[row])])
    with pytest.raises(InputError, match=r"1 pictures of the query split .*of 6 rows may be.*\n.*query0.jpg"):
        run(table(root, check_images=False, max_bad_share=0.16), tmp_path / "strict")
    assert "query-0" in (tmp_path / "strict" / "set_aside.csv").read_text()


def test_records_in_the_wrong_file_are_detected(tmp_path):
    run(synthetic(), tmp_path / "one")
    name = "synthetic-gallery.array_record-0000{}-of-00008"
    (tmp_path / "one" / name.format(1)).write_bytes((tmp_path / "one" / name.format(2)).read_bytes())
    about = json.loads((tmp_path / "one/catalogue/catalogue.json").read_text())
    for shard in about["splits"]["gallery"]:
        shard["bytes"] = (tmp_path / "one" / shard["file"]).stat().st_size
    (tmp_path / "one/catalogue/catalogue.json").write_text(json.dumps(about))
    found = load(tmp_path / "one")
    found.gallery.images[0]
    with pytest.raises(InputError, match="record 8 .*is not the listing of row 8"):
        found.gallery.images[8]
    assert run(synthetic(), tmp_path / "one")["files"]["made"] == 1
    load(tmp_path / "one").gallery.images[8]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"side": 0}, "--side=0"),
        ({"quality": 101}, "--quality=101"),
        ({"shard_rows": 0}, "--shard_rows=0"),
        ({"out": "s3://bucket/x"}, "local folder"),
        ({"out": "full"}, "not a prepared catalogue"),
    ],
)
def test_bad_arguments_are_rejected(tmp_path, change, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    out = change.pop("out", "out")
    with pytest.raises(InputError, match=message):
        run(synthetic(), out if "://" in out else tmp_path / out, **change)
    assert (tmp_path / "full" / "thesis.tex").exists()
    with pytest.raises(InputError, match="one by one"):
        run(ConfigDict({"data": {"source": "joined", "kwargs": {}}}), tmp_path / "out")


def test_a_run_that_failed_before_its_first_file_decides_nothing(tmp_path):
    with pytest.raises(InputError, match="no_such_split|num_query"):
        run(synthetic(num_query=-1), tmp_path / "out", quality=50)
    summary = run(synthetic(), tmp_path / "out")
    assert summary["files"]["made"] and load(tmp_path / "out").name


def test_a_second_run_is_locked_out(tmp_path):
    (tmp_path / "catalogue" / "shards").mkdir(parents=True)
    (tmp_path / "catalogue" / "settings.json").write_text(json.dumps({"side": SIDE, "quality": 90, "shard_rows": 8}))
    with lock.held(tmp_path / "catalogue", "prepare"), pytest.raises(InputError, match="in use by prepare"):
        run(synthetic(), tmp_path)


# ---------------------------------------------------------------------------------------------- the command line


MANY = {"num_train": 300}  # enough to kill it before it ends


def command(out, *arguments) -> list[str]:
    sizes = [f"--config.data.kwargs.{name}={value}" for name, value in synthetic(**MANY).data.kwargs.items()]
    return [
        sys.executable,
        "-m",
        "retrieval_jax.prepare",
        "--config=configs/quickstart.py:runlocal",
        *sizes,
        f"--out={out}",
        f"--side={SIDE}",
        "--shard_rows=8",
        *arguments,
    ]


def children(pid: int) -> set[int]:
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()
    return {int(word) for word in text.split()}


def command_of(pid: int) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def running(out, complete: int) -> tuple[subprocess.Popen, list[int]]:
    """Starts the command with two processes; returns it and their pids once `complete` files exist."""
    started = subprocess.Popen(
        command(out, "--processes=2"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while len(list(out.glob("catalogue/shards/*.json"))) < complete and time.monotonic() < end:
        assert started.poll() is None, started.stderr.read()
        time.sleep(0.01)
    workers = [pid for pid in children(started.pid) if b"spawn_main" in command_of(pid)]
    assert len(workers) == 2
    return started, workers


def test_a_killed_run_with_two_processes_resumes(tmp_path):
    run(synthetic(**MANY), tmp_path / "whole")
    out = tmp_path / "out"
    started, workers = running(out, 2)  # kill one of the decoding processes
    os.kill(workers[0], signal.SIGKILL)
    errors = started.communicate(timeout=120)[1]
    assert started.returncode == 1 and "a process that prepared pictures died" in errors and "Traceback" not in errors

    started, workers = running(out, 6)  # kill the main process
    started.send_signal(signal.SIGKILL)
    started.communicate()
    complete = len(list(out.glob("catalogue/shards/*.json")))
    assert 6 <= complete < len(files(tmp_path / "whole"))
    with pytest.raises(InputError, match="not completely prepared"):
        load(out)
    end = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, workers)), "worker processes outlive the killed main process"

    done = subprocess.run(command(out, "--processes=2"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{complete} kept from earlier" in done.stdout and "picture/s" in done.stderr  # tqdm
    assert files(out) == files(tmp_path / "whole")  # byte for byte, for any number of processes
    assert not list(out.glob(".*.part"))
    same(load(out), loading.load(synthetic(**MANY).data))


def test_the_command_line_reports_a_missing_argument(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_jax.prepare", "--config=configs/quickstart.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "--out=FOLDER" in done.stderr and "Traceback" not in done.stderr


CONFIG = """
from retrieval_jax.settings import arguments, quickstart
from ml_collections import ConfigDict
from PIL import Image


def get_config():
    config = quickstart.experiment("prepared", arguments.parse("runlocal"))
    config.train.task_kwargs.loss = "softmax"
    config.data.source = "tfds"
    config.data.kwargs = ConfigDict({{"root": {root!r}}})
    config.data.image_size = (32, 32)
    config.mine.threshold = 4
    config.embed.batch_size = 32
    config.report.rows = 2
    return config
"""


@pytest.mark.long
def test_the_whole_pipeline_on_a_prepared_catalogue(tmp_path):
    sizes = {"num_train": 96, "num_val": 16, "num_query": 16, "num_gallery": 64}
    run(synthetic(**sizes), tmp_path / "prepared")
    (tmp_path / "shop.py").write_text(CONFIG.format(root=str(tmp_path / "prepared")))
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    arguments = [f"--config={tmp_path}/shop.py", f"--workdir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_jax.run", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "run" / "metrics.json").read_text())["stages"]
    assert {"histogram", "trained"} <= {stage["model"] for stage in stages}
    assert all(0 <= stage["mar@10"] <= 1 and stage["num_queries"] == 16 for stage in stages)


class Held:
    """A source of encoded pictures in memory."""

    max_pixels = 1_000_000

    def __init__(self, *pictures: bytes):
        self.read = pictures.__getitem__


def encoded(kind: str, height: int, width: int, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(1, height, width)).convert(mode).save(file, kind, **options)
    return file.getvalue()


ON_ITS_SIDE = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF's orientation


@pytest.mark.parametrize(
    "data, shape, as_is",
    [
        (encoded("JPEG", 60, 90), (32, 48), False),
        (encoded("JPEG", 1200, 32), (1200, 32), True),
        (encoded("JPEG", 300, 400, exif=ON_ITS_SIDE), (43, 32), False),
        (encoded("JPEG", 20, 30, exif=ON_ITS_SIDE), (30, 20), False),  # not every reader rotates it
        (encoded("JPEG", 20, 20, "CMYK"), (20, 20), False),  # not every reader supports it
        (encoded("JPEG", 20, 20, "L"), (20, 20), True),
        (encoded("PNG", 20, 20), (20, 20), True),
        (encoded("PNG", 20, 20, "RGBA"), (20, 20), False),
        (encoded("PNG", 20, 20, "P"), (20, 20), False),
        (encoded("GIF", 64, 20, "P"), (64, 20), False),
        (encoded("JPEG", 60, 90) + b"\0" * 9, (32, 48), False),
        (encoded("JPEG", 1, 1), (1, 1), True),
    ],
)
def test_pictures_are_resized_or_copied(data, shape, as_is):
    after, kept, size = shards.fitted(Held(data), 0, SIDE, 90)
    assert decoding.decode(after).shape == (*shape, 3) and kept == as_is == (after == data) and size == len(data)
    assert np.abs(decoding.decode(after).astype(int).mean((0, 1)) - decoding.decode(data).mean((0, 1))).max() < 8


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "not an image file"),
        (encoded("JPEG", 20, 20)[:-60], "truncated image file"),
        (encoded("PNG", 1001, 1000), "image too large"),
    ],
)
def test_bad_pictures_are_rejected(data, reason):
    with pytest.raises(decoding.BadImage) as caught:
        shards.fitted(Held(data), 0, SIDE, 90)
    assert caught.value.reason == reason
