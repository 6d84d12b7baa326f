"""What would stop a run later is found before its first verb writes, each problem with a sentence."""

import csv
import pathlib
import shutil

import cv2
import ml_collections
import numpy as np
import pytest

import tiny
from retrieval_jax import embed, evaluate, mine, plans, report, run, train, workdir
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.training import memory
from retrieval_jax.workdir import preflight, provenance

pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")
GIB = 2**30


def refusal(config, folder) -> str:
    """Returns the message of a run that is refused; nothing was written."""
    with pytest.raises(InputError) as caught:
        run.run(config, folder)
    assert not folder.exists()
    return str(caught.value)


def shop(root, *splits):
    """Makes a catalogue of tables with these splits and returns its config."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in splits:
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "title", "image", "product"])
            for row in range(12):
                cv2.imwrite(str(root / f"{name}{row}.png"), rng.integers(0, 256, (16, 16, 3), np.uint8))
                writer.writerow([f"{name}{row}", "red shoe" if row % 2 else "blue hat", f"{name}{row}.png", row])
    config = tiny.tiny_config()
    columns = {"id": "id", "title": "title", "image": "image", "product": "product"}
    kwargs = {"root": str(root), "files": {name: f"{name}.csv" for name in splits}, "columns": columns}
    config.train.task_kwargs.category_weight = 0.0
    config.data = ml_collections.ConfigDict(
        {"source": "table", "kwargs": kwargs, "image_size": (16, 16), "cache_bytes": 0}
    )
    return config


def test_missing_splits_are_found_before_mining(tmp_path):
    config = shop(tmp_path / "shop", "train")
    assert "has no split 'query'; it has train" in refusal(config, tmp_path / "run")


def test_a_network_that_cannot_be_built_is_found_before_mining(tmp_path):
    config = tiny.tiny_config()
    config.train.model.variant = "tinny"
    assert "unknown ConvNeXt variant 'tinny'" in refusal(config, tmp_path / "run")
    config = tiny.tiny_config()
    config.embed.predict_fn = "embed_imag"
    assert "no predict function 'embed_imag'; did you mean embed_image?" in refusal(config, tmp_path / "run")
    config = tiny.tiny_config()
    config.train.frozen = ("^bakbone/",)
    assert "config.train.frozen: '^bakbone/' matches no parameter" in refusal(config, tmp_path / "run")


def test_weights_that_are_not_there_are_found_before_mining(tmp_path):
    config = tiny.tiny_config()
    config.train.model = ml_collections.ConfigDict(
        {"name": "convnext", "variant": "tiny", "projection": 0, "kwargs": {}}
        | {
            "pretrained": {
                "name": "convnext_atto",
                "path": str(tmp_path / "w.safetensors"),
                "offline": True,
                "kwargs": {},
            }
        }
    )
    assert "w.safetensors does not exist" in refusal(config, tmp_path / "run")
    config.data.image_size = (32, 32)
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    assert "w.safetensors is not a readable safetensors file" in refusal(config, tmp_path / "run")
    config.train.model.pretrained.path = ""
    config.train.model.pretrained.name = "convnext_atto.d2_in1k"
    assert "from the hub" in refusal(config, tmp_path / "run")
    config = tiny.tiny_config()
    config.embed.models = ("pretrained",)
    assert "config.embed.pretrained.name is empty" in refusal(config, tmp_path / "run")


def test_several_problems_are_one_message(tmp_path):
    config = tiny.tiny_config()
    config.search.steps, config.embed.models = (("whitenin", {}),), ("trainned",)
    config.train.evaluations, config.train.eval_every_epochs = (("retreival", {}),), 1.0
    said = refusal(config, tmp_path / "run")
    assert said.startswith("3 things would stop this run, so nothing was started:\n- ")
    assert all(word in said for word in ("'whitenin'", "'trainned'", "'retreival'"))


def test_memory_of_a_step_is_estimated_by_tracing(tmp_path):
    config = tiny.tiny_config()
    with loading.shared():
        found = plans.plan(config, tmp_path)
        assert plans.plan(config, tmp_path) is found  # asked for twice, made once
        config.train.batch_size = 8
        assert plans.plan(config, tmp_path) is not found
    small, large = (plans.step_bytes(found, rows) for rows in (16, 64))
    assert 2 * small["activations"] < large["activations"] < 4 * small["activations"]  # a part is of the parameters
    assert large["batch"] == 4 * small["batch"] and large["parameters"] == small["parameters"]


def test_a_step_that_does_not_fit_is_refused_with_the_batch_that_does(tmp_path, monkeypatch):
    config = tiny.tiny_config()
    config.train.batch_size = 60
    found = plans.plan(config, tmp_path)
    monkeypatch.setattr(memory, "limit", lambda device: sum(plans.step_bytes(found, 20).values()))
    said = refusal(config, tmp_path / "run")
    assert "training would need" in said and "config.train.batch_size = 16 would fit" in said
    config.train.batch_size = 16
    train.check(config, tmp_path / "run")


def test_an_embedding_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    config = tiny.tiny_config()
    config.embed.image_size, config.embed.batch_size = (512, 512), 256
    monkeypatch.setattr(memory, "limit", lambda device: GIB // 8)
    with pytest.raises(InputError, match="lower config.embed.batch_size .now 256. or embed.image_size"):
        embed.check(config, tmp_path / "run")
    config.embed.image_size = (16, 16)
    embed.check(config, tmp_path / "run")


def test_a_full_disk_is_found_before_mining(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**26 + 1000))
    said = refusal(tiny.tiny_config(), tmp_path / "run")
    assert f"the disk of {tmp_path} has 64.0 MiB free, and this needs about" in said
    assert "checkpoints" in said and "config.train.keep_checkpoints = 1" in said and "embeddings" in said


def test_a_cache_that_does_not_fit_is_found_before_mining(tmp_path, monkeypatch):
    config = shop(tmp_path / "shop", "train", "query", "gallery")
    config.data.cache_bytes = GIB
    monkeypatch.setattr(provenance, "memory_bytes", lambda: 6000)
    monkeypatch.setattr(memory, "limit", lambda device: 100 * GIB)
    assert "config.data.cache_bytes is 1,073,741,824: the decoded pictures of train" in refusal(
        config, tmp_path / "run"
    )
    config.data.cache_bytes = 100  # which is then all that is kept
    train.check(config, tmp_path / "run")


def test_bad_rows_are_left_to_mine_which_lists_them(tmp_path):
    config = shop(tmp_path / "shop", "train", "query", "gallery")
    (tmp_path / "shop" / "train3.png").unlink()
    with pytest.raises(InputError, match="All 1 are listed in .*set_aside.csv"):
        run.run(config, tmp_path / "run")
    assert "train3" in (tmp_path / "run" / "set_aside.csv").read_text()
    with pytest.raises(InputError, match="too many bad rows"):  # no mine goes before it
        preflight.catalogue(ml_collections.ConfigDict({"data": config.data}), tmp_path / "run", "train")


def test_a_catalogue_is_read_once_and_its_bad_rows_are_listed_all_the_same(tmp_path, monkeypatch):
    config = shop(tmp_path / "shop", "train", "query", "gallery")
    (tmp_path / "shop" / "train3.png").unlink()
    config.data.kwargs.max_bad_share = 0.5
    reads = []
    plain = loading._load
    monkeypatch.setattr(loading, "_load", lambda *given: reads.append(given) or plain(*given))
    with loading.shared():
        loading.load(config.data)
        loading.load(config.data, set_aside_path=tmp_path / "set_aside.csv")
    assert len(reads) == 1 and "train3" in (tmp_path / "set_aside.csv").read_text()


def test_evaluate_needs_queries_and_does_not_load_jax(tmp_path):
    with pytest.raises(InputError, match="no split 'query'"):
        evaluate.check(shop(tmp_path / "shop", "gallery"), tmp_path / "run")
    text = pathlib.Path(preflight.__file__).read_text()
    assert "import jax" not in text


def test_the_memory_of_a_control_group_counts(tmp_path):
    (tmp_path / "own").write_text("0::/a/b\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1234\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    files = provenance._memory_limits(tmp_path / "own", tmp_path)
    assert tmp_path / "a" / "memory.max" in files and tmp_path / "a" / "b" / "memory.max" in files
    (tmp_path / "old").write_text("7:memory:/x\n3:cpu:/y\n")
    old = provenance._memory_limits(tmp_path / "old", tmp_path)
    assert tmp_path / "memory" / "x" / "memory.limit_in_bytes" in old and not [
        file for file in old if "y" in file.parts
    ]
    assert 0 < provenance.memory_bytes() < 2**50


def test_what_follows_the_catalogue_is_printed_and_too_few_steps_are_in_summary_and_report(tmp_path, capsys):
    config = tiny.tiny_config()
    config.train.batch_size = config.mine.threshold = config.train.warmup_epochs = None
    config.train.epochs = 0.5
    folder = workdir.prepare(config, tmp_path / "run")
    for verb, module in (("mine", mine), ("train", train)):
        record = workdir.run_stage(config, folder, verb, module.run)
    out = capsys.readouterr().out
    assert "mine: config.mine.threshold = 3: with 70 titles, the published 30 would keep few words or none" in out
    assert "train: config.train.batch_size = 16: 60 listings make 4 steps an epoch of it" in out
    assert "train: config.train.warmup_epochs = 0.025: a twentieth of the training" in out
    assert "train: warning: 2 steps of 16 for" in out and "too few to learn anything" in out
    assert record["summary"]["batch_size"] == 16 and record["summary"]["warning"].startswith("2 steps of 16")
    report.run(config, folder)
    assert "Warning: 2 steps of 16" in (folder / "report.html").read_text()
