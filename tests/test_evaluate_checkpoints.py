"""A run is followed: its scores, the best, the soups; checkpoints that vanish or are damaged, kills and restarts."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import tiny
from retrieval_jax import __main__ as door
from retrieval_jax import embed, evaluate, evaluate_checkpoints, inference, mine, search, tasks, train
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import info as info_lib
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import retrieval
from retrieval_jax.training import checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[1]
METRIC = "retrieval/mar@10_capped"
pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")


def config():
    """Twelve steps, a checkpoint and an evaluation every four, all checkpoints kept."""
    config = tiny.tiny_config()
    config.train.update({"eval_every_epochs": 16 / 15, "keep_checkpoints": 3, "learning_rate": 0.05, "ema_decay": 0.5})
    config.data.kwargs.update({"num_query": 24, "num_gallery": 40})
    config.embed.models = ("trained",)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a training of twelve steps that moved the parameters at random."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    workdirs.write_settings(config(), folder)
    (folder / "attributes").mkdir()
    (folder / "attributes" / "vocabulary.json").write_text("{}")
    workdirs.record(config(), folder, "mine", seconds=0, cpu_seconds=0)
    task, info = tasks.get("multilabel").make(config().train, tiny.INFO), tiny.INFO
    start = jax.device_get(jax.jit(task.init)(jax.random.key(0), tiny.tiny_batch()))
    rng, store = np.random.default_rng(0), checkpoints.Checkpoints(folder / "checkpoints", keep=3)

    def moved():
        return jax.tree.map(
            lambda leaf: jax.numpy.asarray(leaf + np.float32(0.3) * rng.normal(size=leaf.shape).astype(np.float32)),
            start,
        )

    for step in (4, 8, 12):
        store.save(
            step, {"params": moved(), "ema": moved()}, {"vocabulary_hash": info.vocabulary_hash, "num_steps": 12}
        )
    store.close()
    info_lib.save(folder / "checkpoints" / "data_info.json", info)
    workdirs.record(config(), folder, "train", seconds=0, cpu_seconds=0)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_time(folder):
    return [{name: value for name, value in line.items() if name != "time"} for line in lines(folder)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def scored(finished, tmp_path_factory):
    """(what watch returned, its folder) for the finished run, with soups of three."""
    out = tmp_path_factory.mktemp("scored") / "out"
    return evaluate_checkpoints.watch(finished, out, soup=3), out


def test_both_parameters_of_every_checkpoint_are_scored_and_the_best_is_the_highest(scored):
    summary, out = scored
    found = {line["step"]: line for line in lines(out) if f"ema/{METRIC}" in line}
    assert sorted(found) == [4, 8, 12] == summary["steps"]
    assert all(
        0 <= found[step][f"{which}/retrieval/{name}"] <= 1
        for step in found
        for which in ("ema", "params")
        for name in retrieval.SCORES
    )
    assert len({found[step][f"{which}/{METRIC}"] for step in found for which in ("ema", "params")}) > 2
    assert list((out / "tensorboard").iterdir())
    best = max(
        (found[step][f"{which}/{METRIC}"], -step, which == "ema") for step in found for which in ("ema", "params")
    )
    assert summary["best"] == {"step": -best[1], "which": "ema" if best[2] else "params", "score": best[0]}


@pytest.mark.long
def test_the_moving_averages_scores_are_those_that_the_training_wrote(tmp_path):
    workdirs.prepare(config(), tmp_path)
    for verb in (mine, train):
        workdirs.run_stage(config(), tmp_path, verb.__name__.rpartition(".")[2], verb.run)
    own = {line["step"]: line for line in lines(tmp_path) if METRIC in line}
    assert evaluate_checkpoints.watch(tmp_path, once=True)["steps"] == sorted(own) == [4, 8, 12]
    for line in lines(tmp_path / "checkpoint_scores"):
        for name in retrieval.SCORES:
            assert line[f"ema/retrieval/{name}"] == own[line["step"]][f"retrieval/{name}"]


def test_the_best_is_a_work_directory_in_which_embed_is_next(finished, scored):
    summary, out = scored
    best = summary["best"]
    model = inference.load(out / "best")
    wanted, _, _ = checkpoints.load_params(finished / "checkpoints", best["step"], best["which"])
    assert model.step == best["step"] and same(model.params, wanted)
    assert workdirs.reason_to_run(config(), out / "best", "mine") is None
    assert workdirs.reason_to_run(config(), out / "best", "train") is None
    assert workdirs.reason_to_run(config(), out / "best", "embed") == "it has not run yet"


def test_the_soups_are_means_and_the_greedy_one_is_no_worse_than_its_best_member(finished, scored):
    summary, out = scored
    raw = [checkpoints.load_params(finished / "checkpoints", step, "params")[0] for step in (4, 8, 12)]
    mean = jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), 0).astype(np.float32), *raw)
    assert same(inference.load(out / "soup_uniform").params, mean)
    alone = {line["step"]: line[f"params/{METRIC}"] for line in lines(out) if f"params/{METRIC}" in line}
    assert summary["soups"]["soup_uniform"]["members"] == [4, 8, 12]
    assert summary["soups"]["soup_greedy"]["score"] >= max(alone.values())
    assert any(f"soup_greedy/{METRIC}" in line for line in lines(out))


def test_again_scores_nothing_twice_and_says_the_same(finished, scored, tmp_path, monkeypatch):
    summary, out = scored
    again = shutil.copytree(out, tmp_path / "out")
    monkeypatch.setattr(checkpoints, "load_params", None)
    assert evaluate_checkpoints.watch(finished, again, soup=3)["best"] == summary["best"]
    assert lines(again) == lines(out)


def test_full_scores_are_those_of_embed_search_and_evaluate_on_the_selection_half(run):
    found = evaluate_checkpoints.watch(run, full=True)
    assert found["metric"] == "reranking/mar@10_capped"
    line = next(line for line in lines(run / "checkpoint_scores") if line["step"] == 12)
    for verb in (embed, search, evaluate):
        verb.run(config(), run)
    stages = json.loads((run / "metrics.json").read_text())["stages"]
    assert {stage["stage"] for stage in stages} == {"cosine", "whitening", "reranking"}
    for stage in stages:
        for name in retrieval.SCORES:
            assert line[f"ema/{stage['stage']}/{name}"] == pytest.approx(stage["selection"][name], abs=1e-9)


def test_a_checkpoint_that_vanishes_and_one_that_is_damaged_are_left_out(run, monkeypatch, capsys):
    real = checkpoints.load_params

    def vanishing(folder, step, which):
        if step == 4:
            shutil.rmtree(pathlib.Path(folder) / "4")  # the training's retention, after the listing
        return real(folder, step, which)

    monkeypatch.setattr(checkpoints, "load_params", vanishing)
    for file in (run / "checkpoints" / "8").rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    assert evaluate_checkpoints.watch(run)["steps"] == [12]
    said = capsys.readouterr().out
    assert "step 4 was deleted before it was read" in said and said.count("step 8 is skipped") == 1


@pytest.mark.parametrize("moment", ["before the best", "before the line", "while the best is put in place"])
def test_killed_at_a_moment_nothing_is_lost_and_nothing_twice(run, scored, moment, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args, **kwargs):
        raise Killed

    out = run / "checkpoint_scores"
    with monkeypatch.context() as patch:
        if moment == "before the best":
            patch.setattr(evaluate_checkpoints, "_keep", kill)
        else:
            patch.setattr(evaluate_checkpoints._Record, "write", kill)
        with pytest.raises(Killed):
            evaluate_checkpoints.watch(run)
    assert not lines(out)
    if moment != "before the best":
        shutil.rmtree(run / "checkpoints" / "4")  # gone in the meantime: the kept copy has its scores
        assert json.loads((out / "best" / "score.json").read_text())["step"] == 4
    if moment == "while the best is put in place":
        (out / "best").rename(out / ".best.new")
        (out / ".best.half").mkdir()
    evaluate_checkpoints.watch(run)
    wanted = [line for line in without_time(scored[1]) if f"ema/{METRIC}" in line]
    assert without_time(out) == wanted
    assert sorted(path.name for path in out.glob(".best*")) == []
    assert {
        name: json.loads((out / "best" / "score.json").read_text())[name] for name in ("step", "which", "score")
    } == scored[0]["best"]


FOLLOW = """
import sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
import tiny
from retrieval_jax import __main__ as door
from retrieval_jax.models.backbones import convnext
convnext.VARIANTS["tiny test"] = tiny.TINY
door.main(["evaluate_checkpoints", f"--workdir={sys.argv[1]}", "--poll_seconds=0.1"])
"""


def test_a_process_that_starts_before_the_run_is_killed_and_started_again(finished, scored, tmp_path):
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
    }
    run, out = tmp_path / "run", tmp_path / "run" / "checkpoint_scores"

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(run)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def save(step):  # as orbax does: complete, then renamed
        shutil.copytree(finished / "checkpoints" / str(step), run / "checkpoints" / f"{step}.tmp")
        (run / "checkpoints" / f"{step}.tmp").rename(run / "checkpoints" / str(step))

    process = start()
    assert "waits for a training in" in process.stdout.readline()
    shutil.copytree(
        finished,
        run,
        ignore=lambda folder, names: [
            name for name in names if name.isdigit() or (name == "train.json" and folder.endswith("stages"))
        ],
    )
    save(4)
    deadline = time.monotonic() + 600
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    save(8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with (out / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "ema/retr')  # a kill in the middle of a line
    process = start()
    shutil.rmtree(run / "checkpoints" / "4")
    save(12)  # the run's last: the process ends
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "step 4:" not in said and "step 8:" in said and "step 12:" in said
    assert without_time(out) == [line for line in without_time(scored[1]) if f"ema/{METRIC}" in line]
    best = json.loads((out / "summary.json").read_text())["best"]
    assert best == scored[0]["best"]


def test_refusals(finished, scored, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        door.main(["evaluate_checkpoints", f"--workdir={tmp_path / 'nothing'}", "--once"])
    assert stopped.value.code == 2 and "has no checkpoint to score" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(InputError, match=r"no score named 'recall'.*\(available: retrieval/recall@1"):
        evaluate_checkpoints.watch(finished, tmp_path / "out", metric="recall")
    with pytest.raises(InputError, match="holds other scores than reranking/mar@10_capped: give another --out"):
        evaluate_checkpoints.watch(finished, scored[1], full=True)
