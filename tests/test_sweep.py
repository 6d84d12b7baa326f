"""Sweeps: what is checked before anything starts, what runs, what is skipped, and jobs of Slurm."""

import json
import shlex

import pytest

from retrieval_jax import sweep
from retrieval_jax.__main__ import main
from retrieval_jax.errors import InputError
from retrieval_jax.files import lock
from retrieval_jax.sweeps import processes

CONFIG = """
from retrieval_jax.settings import base

def get_config():
    config = base.defaults()
    config.data.kwargs.update({"num_train": 60, "num_val": 10, "num_query": 8, "num_gallery": 20, "image_size": 16})
    config.data.image_size = (16, 16)
    config.train = None  # starts at embed
    config.embed.models = ("histogram",)
    config.search.steps = ()
    return config

def sweep():
    return {"grid": {"search.steps": [[], [["whitening", {}]]]}}
"""
LISTED = '[[line]]\nname = "cosine"\n[[line]]\nname = "whitened"\n"search.steps" = [["whitening", {}]]\n'


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "shop.py"
    file.write_text(CONFIG)
    return file


def run(config, *words, ranges=LISTED):
    (config.parent / "ranges.toml").write_text(ranges)
    out = config.parent / "out"
    main(["sweep", f"--config={config}", f"--ranges={config.parent / 'ranges.toml'}", f"--out={out}", *words])
    return out


def test_lines_run_once_and_one_that_was_stopped_goes_on(config, capsys):
    out = run(config, "--parallel=2")
    first = capsys.readouterr().out
    assert "2 of 2" in first and "whitened" in first and "2 runs in" in first
    found = json.loads((out / "table.json").read_text())
    assert [line["name"] for line in found["lines"]] == ["cosine", "whitened"]
    assert found["lines"][1]["against_first"]["verdict"] and found["lines"][0]["seeds"] == ["config"]
    scores = json.loads((out / "whitened" / "config" / "metrics.json").read_text())["stages"]
    assert found["lines"][1]["scores"]["recall@1"]["mean"] == pytest.approx(scores[-1]["recall@1"])

    stages = out / "whitened" / "config" / "stages"
    for verb in ("evaluate", "report"):
        (stages / f"{verb}.json").unlink()  # as if it had been killed there
    embedded = (stages / "embed.json").stat().st_mtime_ns
    run(config)
    second = capsys.readouterr().out
    assert "2 runs in 2 lines, 1 finished" in second and "1 of 1: whitened/config: done" in second
    assert (stages / "embed.json").stat().st_mtime_ns == embedded and (stages / "report.json").exists()
    run(config, "--slurm")
    third = capsys.readouterr().out
    assert "2 finished" in third and "submitted" not in third and "cosine" in third


def test_a_dry_run_prints_commands_and_writes_nothing(config, capsys):
    out = run(config, "--dry-run", "--config.search.k=30")
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert commands == [
        [
            "retrieval-jax",
            "run",
            f"--config={config}",
            "--config.search.k=30",
            *own,
            f"--workdir={out / name / 'config'}",
        ]
        for name, own in (("cosine", []), ("whitened", ["--config.search.steps=(('whitening', {}),)"]))
    ]
    assert not out.exists()


def test_the_ranges_can_be_the_configs_own(config, capsys):
    main(["sweep", f"--config={config}", f"--out={config.parent / 'own'}", "--dry-run"])
    assert "steps=_whitening" in capsys.readouterr().out
    config.write_text(CONFIG.partition("def sweep")[0])
    with pytest.raises(SystemExit):
        main(["sweep", f"--config={config}", "--dry-run"])
    assert "has no function sweep(): give the ranges as --ranges" in capsys.readouterr().err


@pytest.mark.parametrize(
    "ranges, words, said",
    [
        ('[grid]\n"search.kk" = [1, 2]', [], "line kk=1: --config.search.kk: there is no setting search.kk"),
        ('[grid]\n"search.k" = [5, 1.5]', [], "line k=1.5: --config.search.k=1.5: search.k must be a whole number"),
        ('[grid]\n"search.k" = [5, -1]', [], "line k=-1: "),
        ('[grid]\n"search.steps" = [[], [["whitenin", {}]]]', [], "did you mean whitening"),
        ('[grid]\nconfig = ["quickstart", "quickstrat"]', [], "there is no experiment named 'quickstrat'"),
        (LISTED, ["--parallel=0"], "--parallel=0: give a number of runs"),
        (LISTED, ["--table"], "is finished, so there is no table yet"),
        (LISTED, ["--out=s3://bucket/x"], "the folder of a sweep is a local one"),
    ],
)
def test_nothing_starts_where_a_range_is_wrong(config, capsys, monkeypatch, ranges, words, said):
    monkeypatch.setattr(processes, "run", lambda *_: pytest.fail("a run was started"))
    with pytest.raises(SystemExit) as exited:
        run(config, *words, ranges=ranges)
    assert exited.value.code == 2 and said in capsys.readouterr().err
    assert not (config.parent / "out").exists()


def test_a_run_that_fails_stops_no_other(config, capsys, monkeypatch):
    monkeypatch.setattr(sweep.sys, "executable", "false")
    with pytest.raises(SystemExit) as exited:
        run(config)
    caught = capsys.readouterr()
    assert exited.value.code == 1 and "2 of 2 runs did not finish: cosine/config, whitened/config" in caught.err
    assert "1 of 2: cosine/config: failed with status 1" in caught.out


def test_a_run_that_cannot_go_on_is_named_and_left_out_of_the_table(config, capsys, monkeypatch):
    def finished(run):
        if run.line:
            raise InputError("the catalogue was edited after its training")
        return True

    monkeypatch.setattr(sweep, "finished", finished)
    monkeypatch.setattr(sweep, "write_table", lambda done, *_: print("rows:", *(run.name for run in done)))
    monkeypatch.setattr(processes, "run", lambda *_: pytest.fail("a run was started"))
    with pytest.raises(SystemExit) as exited:
        run(config)
    assert exited.value.code == 2
    assert "line whitened: the catalogue was edited after its training" in capsys.readouterr().err
    run(config, "--table")
    said = capsys.readouterr().out
    assert "not in the table: line whitened: the catalogue was edited" in said and "rows: cosine/config" in said


def test_two_sweeps_do_not_share_a_folder(config, capsys):
    out = config.parent / "out"
    out.mkdir()
    with lock.held(out, "sweep"), pytest.raises(SystemExit):
        run(config)
    assert "is in use by sweep" in capsys.readouterr().err


def test_slurm_gets_an_array_with_the_arguments_of_each_run(config, capsys, monkeypatch, tmp_path):
    out = run(config, "--slurm=--time=1:00:00 --comment='a b'", "--parallel=4", "--dry-run")
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    script = str(sweep._SLURM)
    assert command[:4] == ["sbatch", "--array=0,1%4", "--time=1:00:00", "--comment=a b"]
    assert command[-2:] == [script, f"--arguments={out / 'array'}"] and not out.exists()
    stand_in = tmp_path / "bin" / "sbatch"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{shlex.quote(str(tmp_path / "called"))}\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    run(config, "--slurm")
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "--array=0,1" and "--table" in capsys.readouterr().out
    assert (out / "array" / "1").read_text().splitlines() == [
        f"--config={config}",
        "--config.search.steps=(('whitening', {}),)",
        f"--workdir={out / 'whitened' / 'config'}",
    ]
