"""A whole run on the command line: every verb, then nothing, then from search on, then a refusal."""

import json
import os
import pathlib
import subprocess
import sys

from retrieval_jax import workdir

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = (
    "--config=configs/quickstart.py:runlocal",
    "--config.data.image_size=(32,32)",
    "--config.data.kwargs.image_size=32",
    "--config.data.kwargs.num_train=96",
    "--config.data.kwargs.num_val=16",
    "--config.data.kwargs.num_query=16",
    "--config.data.kwargs.num_gallery=64",
    "--config.mine.threshold=4",
    "--config.embed.batch_size=32",
    "--config.report.rows=2",
)


def run(folder, *arguments) -> subprocess.CompletedProcess:
    # level 0: much less time in the compiler
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "-m", "retrieval_jax.run", *SMALL, f"--workdir={folder}", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)


def finished(folder) -> dict:
    return {verb: workdir.read_record(folder, verb)["finished"] for verb in workdir.VERBS}


def test_a_whole_run_then_reruns(tmp_path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stderr
    for verb in workdir.VERBS:
        assert f"{verb}: runs, because it has not run yet" in first.stdout and f"{verb}: done in" in first.stdout
    assert f"ran {', '.join(workdir.VERBS)} in" in first.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    stages = {(stage["model"], stage["stage"]) for stage in metrics["stages"]}
    assert {("histogram", "cosine"), ("untrained", "cosine"), ("trained", "cosine"), ("trained", "chosen")} <= stages
    assert all(0 <= stage["mar@10"] <= 1 and stage["num_queries"] == 16 for stage in metrics["stages"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html") and "data:image" in page
    summary = workdir.read_record(tmp_path, "train")["summary"]
    assert summary["steps"] == 3 and summary["final_loss"] > 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any(name.endswith("recall@1") for line in lines for name in line)  # retrieval while training

    times = finished(tmp_path)
    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert all(f"{verb}: complete, skipped" in second.stdout for verb in workdir.VERBS)
    assert "ran nothing" in second.stdout and "chosen" in second.stdout and finished(tmp_path) == times

    third = run(tmp_path, "--config.search.k=50")
    assert third.returncode == 0, third.stderr
    assert "search: runs, because changed: search.k: 100 -> 50" in third.stdout
    assert "ran search, evaluate, report in" in third.stdout
    assert all(f"{verb}: complete, skipped" in third.stdout for verb in ("mine", "train", "embed"))
    assert {verb for verb, when in finished(tmp_path).items() if when == times[verb]} == {"mine", "train", "embed"}

    fewer = run(tmp_path, "--config.search.k=50", "--config.train.num_threads=1", "--config.data.cache_bytes=0")
    assert fewer.returncode == 0 and "ran nothing" in fewer.stdout, fewer.stdout + fewer.stderr
    before = (tmp_path / "config.json").read_bytes()
    refused = run(tmp_path, "--config.train.learning_rate=0.5")
    assert refused.returncode == 2
    assert "train.learning_rate: 0.003 -> 0.5" in refused.stderr and "Give another --workdir" in refused.stderr
    assert "Traceback" not in refused.stderr and (tmp_path / "config.json").read_bytes() == before
    assert run(tmp_path, "--config.search.k=50").stdout.count("complete, skipped") == 6  # the refusal changed nothing
