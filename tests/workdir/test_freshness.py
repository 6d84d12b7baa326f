"""Edited data is noticed: what can run again does, what a network has learned from is refused, each with the reason."""

import csv
import os
import shutil

import cv2
import numpy as np
import pytest

from fake_verbs import fake_verb, make_config
from retrieval_jax import workdir
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.workdir import freshness

ROWS = {
    "train": [("a", "red shoe", "a.png", "shoes"), ("b", "blue hat", "b.png", "hats")],
    "val": [("v", "grey hat", "a.png", "hats")],
    "query": [("q", "red shoe", "a.png", "shoes")],
    "gallery": [("g", "red shoe", "b.png", "shoes"), ("h", "hat", "a.png", "hats")],
}


def write_shop(root, **rows):
    root.mkdir(exist_ok=True)
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        if not (root / name).exists():
            cv2.imwrite(str(root / name), np.full((4, 4, 3), 9 * number, np.uint8))
    for split, lines in {**ROWS, **rows}.items():
        with (root / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "title", "image", "kind"), *lines])
    return root


def config_of(root, **changed):
    config = make_config(**{"data.source": "table", **changed})
    config.data.kwargs = {
        "root": str(root),
        "files": {split: f"{split}.csv" for split in ROWS},
        "columns": {"title": "title", "categories": ("kind",)},
    }
    return config


def run_all(config, folder, only=workdir.VERBS):
    """What run.py does, with verbs that only write a file; returns the reason of every verb that ran."""
    workdir.prepare(config, folder)
    data, reasons = workdir.Data(config, folder), {}
    for verb in only:
        if (reason := workdir.reason_to_run(config, folder, verb, data)) is not None:
            reasons[verb] = reason
            workdir.run_stage(config, folder, verb, fake_verb(verb), data)
    return reasons


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


@pytest.fixture
def loads(monkeypatch):
    """The catalogues that were read."""
    made, load = [], loading.load
    monkeypatch.setattr(loading, "load", lambda block: made.append(block) or load(block))
    return made


def test_nothing_is_read_while_names_sizes_and_times_are_the_same(shop, tmp_path, loads):
    config = config_of(shop)
    assert tuple(run_all(config, tmp_path / "run")) == workdir.VERBS and len(loads) == 1
    assert run_all(config, tmp_path / "run") == {} and len(loads) == 1
    os.utime(shop / "train.csv", (1, 1))
    os.utime(shop / "a.png", (1, 1))
    assert run_all(config, tmp_path / "run") == {} and len(loads) == 2  # touched, read, and the same


def test_edited_titles_are_mined_again_where_nothing_was_trained(shop, tmp_path):
    config = config_of(shop)
    run_all(config, tmp_path / "run", ("mine",))
    write_shop(shop, train=[("a", "red shoes", "a.png", "shoes"), *ROWS["train"][1:]])
    assert run_all(config, tmp_path / "run", ("mine",)) == {"mine": "train titles changed"}


@pytest.mark.parametrize(
    "train, says",
    [
        ([("a", "red shoes", "a.png", "shoes"), ROWS["train"][1]], "train titles changed"),
        ([("a", "red shoe", "c.png", "shoes"), ROWS["train"][1]], "train pictures changed"),
        ([("a", "red shoe", "a.png", "boots"), ROWS["train"][1]], "train categories changed"),
        ([*ROWS["train"], ("c", "cap", "c.png", "hats")], "train categories, ids, pictures and titles changed"),
    ],
)
def test_what_a_network_has_learned_from_is_refused_when_edited(shop, tmp_path, train, says):
    config, folder = config_of(shop), tmp_path / "run"
    run_all(config, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*.json")}
    write_shop(shop, train=train)
    with pytest.raises(InputError, match=f"{says} since mine ran there.*Bring the old data back.*rm -r -- "):
        run_all(config, folder)
    assert before == {file: file.read_bytes() for file in folder.rglob("*.json")}
    write_shop(shop)
    assert run_all(config, folder) == {}


def test_an_edited_gallery_is_embedded_again_and_nothing_before(shop, tmp_path):
    config, folder = config_of(shop), tmp_path / "run"
    run_all(config, folder)
    write_shop(shop, gallery=[*ROWS["gallery"], ("i", "a bag", "c.png", "bags")])  # also a category that is new
    reasons = run_all(config, folder)
    assert tuple(reasons) == workdir.VERBS[2:] and reasons["search"] == "embed ran again"
    assert reasons["embed"] == "gallery categories, ids, listings, pictures and titles changed"


def test_data_that_categories_are_predicted_from(shop):
    config = config_of(shop)
    assert not any(name.startswith("train/") for verb in ("embed", "search") for name in freshness.reads(config, verb))
    config.search.categories = {"mass": 0.9, "vote": "trained"}
    assert {"train/pictures", "train/categories"} < set(freshness.reads(config, "embed"))
    assert {"val/categories", "gallery/columns"} < set(freshness.reads(config, "search"))


def test_the_data_may_lie_in_another_place_where_its_content_is_the_same(shop, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"
    run_all(config_of(shop), folder)
    shutil.copytree(shop, moved)
    assert run_all(config_of(moved), folder) == {}
    write_shop(moved, train=[("a", "red shoes", "a.png", "shoes"), *ROWS["train"][1:]])
    with pytest.raises(InputError, match="train titles changed"):
        run_all(config_of(moved), folder)
    with pytest.raises(InputError, match="root"):
        run_all(config_of(tmp_path / "nowhere"), folder)
    for verb in ("mine", "train", "embed", "evaluate"):  # of a run before digests were kept
        workdir.record(config_of(shop), folder, verb, seconds=0, cpu_seconds=0)
    with pytest.raises(InputError, match="data.kwargs.root: .* -> "):
        run_all(config_of(moved), folder)


def test_data_that_is_gone_is_not_held_against_the_results(shop, tmp_path, capsys):
    run_all(config_of(shop), tmp_path / "run")
    shop.rename(tmp_path / "elsewhere")
    assert run_all(config_of(shop), tmp_path / "run") == {}
    assert capsys.readouterr().out.count(f"{shop} no longer exists") == 1


@pytest.mark.parametrize("setting", ["overrules", "statistics"])
def test_files_that_mine_reads_beside_the_catalogue_count(shop, tmp_path, setting):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "rules.csv").write_text("drop,blue\n")
    config = config_of(shop)
    config.mine[setting] = str(beside if setting == "statistics" else beside / "rules.csv")
    run_all(config, tmp_path / "run", ("mine",))
    (beside / "rules.csv").write_text("keep,blue\n")
    reason = run_all(config, tmp_path / "run", ("mine",))["mine"]
    assert reason == f"the content of config.mine.{setting} changed"


def test_a_run_whose_predecessor_was_trained_again_is_refused(shop, tmp_path):
    first, config = config_of(shop), config_of(shop, **{"train.init_from": "first"})

    def train(run_id):
        workdir.run_stage(first, tmp_path / "first", "train", lambda *_: {"run": run_id})

    train("one")
    run_all(config, tmp_path / "second")
    assert run_all(config, tmp_path / "second") == {}
    train("two")
    with pytest.raises(InputError, match="the network of config.train.init_from changed"):
        run_all(config, tmp_path / "second")


def test_a_side_of_the_search_from_a_run_that_was_trained_again_is_embedded_again(shop, tmp_path):
    first, config = config_of(shop), config_of(shop)
    config.search.query_from = {"run": "first", "step": 0, "which": "ema", "predict_fn": ""}
    with pytest.raises(InputError, match="embed needs the network of first .config.search.query_from."):
        workdir.require_earlier(config, tmp_path / "second", "embed")
    for run_id in ("one", "two"):
        workdir.run_stage(first, tmp_path / "first", "train", lambda *_, run_id=run_id: {"run": run_id})
        reasons = run_all(config, tmp_path / "second")
    assert reasons["embed"] == "the network of config.search.query_from changed" and "train" not in reasons
    config.search.query_from["which"] = "params"
    assert run_all(config, tmp_path / "second")["embed"] == ('changed: embed.sides.query.which: "ema" -> "params"')


def test_several_verbs_of_a_run_read_the_catalogue_once(shop):
    block = config_of(shop).data
    assert loading.load(block) is not loading.load(block)
    with loading.shared():
        assert loading.load(block) is loading.load(block)
        other = config_of(shop, **{"data.image_size": (9, 9)}).data
        assert loading.load(other) is loading.load(block)  # what the catalogue does not depend on
    with loading.shared():
        before = loading.load(block)
    assert loading.load(block) is not before


def test_places_and_stamps(shop, tmp_path):
    assert freshness.places(config_of(shop)) == [str(shop)]
    assert freshness.stamp(make_config()) == freshness.stamp(make_config(name="other")) is not None
    before = freshness.stamp(config_of(shop))
    assert before == freshness.stamp(config_of(shop))
    (shop / ".lock").write_text("")
    assert before == freshness.stamp(config_of(shop))
    write_shop(shop, train=ROWS["train"][:1])
    assert before != freshness.stamp(config_of(shop))
    for root in (tmp_path / "nowhere", "s3://bucket/shop"):
        assert freshness.stamp(config_of(root)) is None
    assert freshness.stamp(make_config(**{"data.source": "tfds"})) is None  # in the library's default folder


def test_in_words():
    assert freshness.in_words(["train/ids", "train/pictures", "train/titles", "catalogue/truth"]) == (
        "train ids, pictures and titles, catalogue truth changed"
    )
    assert freshness.in_words([]) == ""


def test_work_directories_and_loops_of_links_in_the_folder_of_the_data_do_not_count(shop, tmp_path):
    run_all(config_of(shop), shop / "runs" / "one")
    (shop / "loop").symlink_to("loop")
    before = freshness.stamp(config_of(shop))
    run_all(config_of(shop), shop / "runs" / "two")
    assert freshness.stamp(config_of(shop)) == before is not None
    (shop / "new.csv").write_text("id")
    assert freshness.stamp(config_of(shop)) != before
