"""Every published config, shrunk by :runlocal, goes the whole way: mine to report, predecessors and members first."""

import json
import pathlib
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

from retrieval_jax import run, workdir
from retrieval_jax.postprocess import new_queries, quality
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir import command_line

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
# The ensemble comes last: its members have run by then and are skipped.
NAMES = sorted((file.stem for file in CONFIGS.glob("eproduct_*.py")), key=lambda name: ("ensemble" in name, name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of all runs; little time in the compiler."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield tmp_path_factory.mktemp("runs")
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize("name", NAMES)
def test_published_config_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    assert config.name == name
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)
    stages = {(stage["model"], stage["stage"]) for stage in json.loads((folder / "metrics.json").read_text())["stages"]}
    assert ("ensemble" if "ensemble" in name else "trained", "reranking") in stages
    assert (folder / "report.html").exists()
    if name == "eproduct_v2l_self_supervised":
        counts = workdir.read_record(folder, "train")["summary"]["warm_start"]
        assert counts["from"].endswith("eproduct_v2l_categories-runlocal") and counts["tensors_taken"] > 5


@pytest.mark.parametrize("name", ["text_picture", "zero_shot_text", "text_query_published"])
def test_config_of_typed_queries_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)
    stages = {(one["model"], one["stage"]): one for one in json.loads((folder / "metrics.json").read_text())["stages"]}
    found = stages["trained", "cosine"]
    assert set(found["slices"]["kind"]) == {"broad", "narrow", "misspelt", "unseen"} and found["ndcg@10"] > 0
    assert name == "text_picture" or {("lexical", "bm25"), ("ensemble", "fusion")} < set(stages)
    if name == "text_query_published":  # the pre-training ran first, and left its tokens and its network
        counts = workdir.read_record(folder, "train")["summary"]["warm_start"]
        assert counts["from"].endswith("text_query_published-stage=masked,runlocal") and counts["tensors_taken"] > 10
        texts = [(one / "text" / "tokenizer.json").read_bytes() for one in (folder, pathlib.Path(counts["from"]))]
        assert texts[0] == texts[1]


def test_config_of_the_last_stage_runs_in_seconds(runs):
    pytest.importorskip("lightgbm", reason="pip install -r requirements-ranking.txt")
    config = command_line.load_config(CONFIGS / "embedded_quality.py", "runlocal")
    folder = runs / workdir.default_name("embedded_quality", "runlocal")
    run.run(config, folder, CONFIGS)
    before, after = (Ranking.load(folder / "rankings" / "trained" / stage) for stage in ("chosen", "quality"))
    np.testing.assert_array_equal(np.sort(before.item_rows, 1), np.sort(after.item_rows, 1))
    ranker = quality.load(folder / "rankings" / "trained")
    assert ranker.columns == quality.COLUMNS and 0 <= ranker.weight <= 1
    assert (
        "reads prices and other numbers"
        in new_queries.of_run(folder, json.loads((folder / "config.json").read_text()))[1]
    )


@pytest.mark.parametrize(
    "name", ["embedded_clicks", pytest.param("clicks_published", marks=pytest.mark.long), "users_photos"]
)
def test_config_of_clicks_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)
    stages = {(one["model"], one["stage"]) for one in json.loads((folder / "metrics.json").read_text())["stages"]}
    if name == "users_photos":  # nothing is trained
        assert ("colour", "cosine") in stages
        return
    assert ("trained", "cosine") in stages and config.train.task_kwargs.titles_first == 0
    assert (folder / "embeddings" / "trained" / "query_boxes.npz").exists()


@pytest.mark.parametrize("name", ["embedded_small_query", "small_query_published"])
def test_config_of_a_small_query_network_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)  # the gallery's run goes first
    assert (runs / workdir.default_name(*config.search.gallery_from.run.split(":")) / "checkpoints").exists()
    (stage,) = json.loads((folder / "metrics.json").read_text())["stages"]
    assert (stage["model"], stage["stage"]) == ("trained", "cosine")


@pytest.mark.parametrize("choice", ["", "24_12-c5x2_24-m3x2_48-c3x2"])
def test_config_of_a_super_net_runs_in_seconds(choice, runs):
    argument = ",".join(filter(None, ["runlocal", choice and f"choice={choice}"]))
    config = command_line.load_config(CONFIGS / "embedded_nas.py", argument)
    folder = runs / workdir.default_name("embedded_nas", argument)
    run.run(config, folder, CONFIGS)
    found = workdir.read_record(folder, "train")["summary"]
    assert (found["parameters"] < 60_000) == bool(choice)


@pytest.mark.parametrize("name", ["embedded_outfits", pytest.param("outfits_published", marks=pytest.mark.long)])
def test_config_of_outfits_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)
    logged = (folder / "metrics.jsonl").read_text()
    assert all(f'"{name}"' in logged for name in ("outfit_loss", "pseudo_loss", "consistency_loss"))
    assert "Completed looks" in (folder / "report.html").read_text("utf-8")


def test_config_of_street_photos_runs_in_seconds(runs):
    """From an archive as published: photos, masks of numbered labels, boxes of garments."""
    archive, rng = runs / "ccp", np.random.default_rng(0)
    for folder in ("photos", "masks"):
        (archive / folder).mkdir(parents=True)
    groups = {"jeans": "bottom", "shirt": "top", "shoes": "shoes"}
    (archive / "labels.json").write_text(json.dumps(["null", *groups]))
    lines = ["photo,label,group,width,height,x0,y0,x1,y1,pixels"]
    for photo in (f"{number:04d}" for number in range(60)):
        picture, mask = rng.integers(0, 256, (60, 40, 3), np.uint8), np.zeros((60, 40), np.uint8)
        for place, (label, group) in enumerate(groups.items()):
            top = 20 * place
            mask[top + 2 : top + 18, 4:36] = place + 1
            lines.append(f"{photo},{label},{group},40,60,4,{top + 2},35,{top + 17},512")
        cv2.imwrite(str(archive / f"photos/{photo}.jpg"), picture)
        cv2.imwrite(str(archive / f"masks/{photo}.png"), mask)
    (archive / "garments.csv").write_text("\n".join(lines) + "\n")
    script = CONFIGS.parent / "benchmarks" / "ccp_outfits.py"
    made = subprocess.run([sys.executable, script, archive, runs / "garments"], capture_output=True, text=True)
    assert "60 outfits" in made.stdout, made.stderr
    listed = {
        name: (runs / f"garments/{name}.csv").read_text().split() for name in ("train", "val", "gallery", "query")
    }
    photos = {name: {line.split(",")[0].partition("-")[0] for line in lines[1:]} for name, lines in listed.items()}
    assert sum(map(len, photos.values())) == len(set.union(*photos.values())) == 60  # none in two splits
    config = command_line.load_config(CONFIGS / "ccp_outfits.py", "runlocal")
    config.data.kwargs.root = str(runs / "garments")
    folder = runs / workdir.default_name("ccp_outfits", "runlocal")
    run.run(config, folder, CONFIGS)
    logged = (folder / "metrics.jsonl").read_text()
    assert all(f'"{name}"' in logged for name in ("pseudo_loss", "consistency_loss"))
    assert "Completed looks" in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["embedded_edits", "edits_published"])
def test_config_of_edits_runs_in_seconds(name, runs):
    config = command_line.load_config(CONFIGS / f"{name}.py", "runlocal")
    folder = runs / workdir.default_name(name, "runlocal")
    run.run(config, folder, CONFIGS)
    found = json.loads((folder / "metrics.json").read_text())
    stages = {(one["model"], one["stage"]): one for one in found["stages"]}
    assert set(stages["trained", "cosine"]["slices"]) >= {"kind", "phrasing", "combination"}
    assert 0 <= stages["trained", "cosine"]["hit@10"] <= 1
    edits = {(one["model"], one["stage"]): one for one in found["edits"]["stages"]}
    assert {"right@10", "kept@10", "both@10", "similarity@10"} <= set(edits["trained", "cosine"])


@pytest.mark.parametrize("name", [name for name in NAMES if "ensemble" not in name])
def test_published_config_is_the_published_recipe(name):
    train = command_line.load_config(CONFIGS / f"{name}.py").train
    assert train.model.pretrained.name and train.model.kwargs.drop_path and train.dtype == "bfloat16"
    assert train.batch_size % 8 == 0 and train.weight_decay == 1e-4 and train.ema_decay == 0.999
    from retrieval_jax.models import pretrained

    model = pretrained.model(train.model.pretrained.name, **train.model.pretrained.kwargs, **train.model.kwargs)
    side = train.model.pretrained.kwargs.img_size
    assert len(jax.tree.leaves(pretrained.shapes_of(model, (side, side)))) > 100
