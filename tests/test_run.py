import sys
import types

import pytest

from fake_verbs import ensemble_config, fake_verb, make_config
from retrieval_jax import run, workdir
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.settings import base
from retrieval_jax.workdir import freshness, hashes, records


@pytest.fixture
def calls(monkeypatch):
    """Puts verbs that only write a file in place of the real ones; returns the list of those called."""
    made = []
    for verb in workdir.VERBS:
        module = types.SimpleNamespace(run=fake_verb(verb, made))
        monkeypatch.setitem(sys.modules, f"retrieval_jax.{verb}", module)
    return made


SCORES = """{"stages": [{"model": "trained", "stage": "cosine", "mar@10": 0.5, "mar@10_capped": 0.5, "recall@1": 0.25,
 "map@10": null, "mar@10_capped_se": 0.01, "num_scored": 9, "num_queries": 9}]}"""


def test_names_of_later_verbs_are_checked_before_the_first_one_writes(tmp_path):
    config = base.defaults()
    config.search.steps = (("whitenin", {}),)
    with pytest.raises(InputError, match="named 'whitenin'; did you mean whitening"):
        run.run(config, tmp_path / "run")
    config.search.steps, config.train.evaluations = (), (("retreival", {}),)
    with pytest.raises(InputError, match="named 'retreival'; did you mean retrieval"):
        run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_walks_all_verbs_then_skips_them_and_prints_scores_and_report(tmp_path, calls, capsys):
    run.run(make_config(), tmp_path)
    assert calls == list(workdir.VERBS)
    (tmp_path / "metrics.json").write_text(SCORES)
    workdir.record(make_config(), tmp_path, "evaluate", seconds=0, cpu_seconds=0)
    assert "next:" not in capsys.readouterr().out
    (tmp_path / "embeddings" / "trained" / "gallery").mkdir(parents=True)  # what a network would have left
    run.run(make_config(), tmp_path)
    out = capsys.readouterr().out
    assert out.endswith(f"next: retrieval-jax serve --workdir={tmp_path}\n")
    assert calls == list(workdir.VERBS)
    assert all(f"{verb}: complete, skipped" in out for verb in workdir.VERBS)
    assert "50.00" in out and "25.00" in out and f"report: {tmp_path}/report.html" in out and "ran nothing" in out


def test_run_says_why(tmp_path, calls, capsys):
    run.run(make_config(), tmp_path)
    del calls[:]
    capsys.readouterr()
    run.run(make_config(**{"evaluate.ks": (1, 5)}), tmp_path)
    out = capsys.readouterr().out
    assert calls == ["evaluate", "report"]
    assert "search: complete, skipped" in out
    assert "evaluate: runs, because changed: evaluate.ks[1]: 10 -> 5" in out
    assert "report: runs, because evaluate ran again" in out


def test_an_ensemble_runs_its_members_first_each_in_a_directory_of_its_own(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(run.command_line, "load_member", lambda member, folder: make_config(name=member))
    run.run(ensemble_config(), tmp_path / "both", "configs")
    assert calls == [*workdir.VERBS, *workdir.VERBS, "search", "evaluate", "report"]
    assert workdir.read_config(tmp_path / "two-arg")["name"] == "two:arg"
    del calls[:]
    run.run(ensemble_config(), tmp_path / "both", "configs")
    assert calls == []


def test_a_predecessor_runs_first_with_images_of_its_own_size(tmp_path, calls, monkeypatch):
    earlier = make_config(**{"data.image_size": (4, 4), "name": "earlier"})
    monkeypatch.setattr(run.command_line, "load_member", lambda member, folder: earlier)
    monkeypatch.setattr(freshness.Data, "of", lambda self, verb: {})  # there is no such table
    config = make_config(**{"data.source": "table"})
    config.train.init_from = "earlier:runlocal"
    run.run(config, tmp_path / "later", "configs")
    assert calls == [*workdir.VERBS, *workdir.VERBS]
    assert workdir.read_config(tmp_path / "earlier-runlocal")["data"] == {
        "source": "table",
        "kwargs": {"seed": 0},
        "image_size": (4, 4),
    }


def test_a_config_without_training_starts_at_embed(tmp_path, calls):
    config = make_config()
    del config.mine, config.train
    run.run(config, tmp_path)
    assert calls == ["embed", "search", "evaluate", "report"]


def test_a_further_process_trains_and_embeds_and_waits_for_the_first_with_the_rest(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(run.provenance, "is_first_process", lambda: False)
    waits = []

    def first_process_works(_):
        """What the first process does while this one sleeps: every verb except the two that run on all processes."""
        waits.append(len(calls))
        verb = next(verb for verb in workdir.VERBS if workdir.reason_to_run(make_config(), tmp_path, verb))
        record(make_config(), tmp_path, verb)

    def record(config, folder, verb, **kwargs):
        (folder / "stages").mkdir(exist_ok=True)
        blocks = hashes.blocks(config, verb)
        entry = {"verb": verb, "hash": workdir.stage_hash(config, verb), "blocks": blocks, "outputs": {}}
        entry |= {"seconds": 0.0, "cpu_seconds": 0.0, "finished": "2026-01-01T00:00:00", "commit": None}
        atomic.write_json(folder / "stages" / f"{verb}.json", entry | {"hardware": {}, "summary": {}})
        return entry | {"sessions": 1}

    monkeypatch.setattr(records, "record", record)
    monkeypatch.setattr(run.time, "sleep", first_process_works)
    run.run(make_config(), tmp_path)
    assert calls == ["train", "embed"] and waits == [0, 2, 2, 2]


def test_a_run_whose_catalogue_is_gone_is_not_called_complete(tmp_path, calls):
    config = make_config()
    with config.unlocked():
        config.data.kwargs.root = str(tmp_path / "shop")
    config.data.source = "table"
    with pytest.raises(
        InputError, match="shop no longer exists, so nothing shows whether the results in .*put it back"
    ):
        run.run(config, tmp_path / "run")
    assert not calls
