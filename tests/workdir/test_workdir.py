"""Work directories: settings that may change or may not, names, members, records of stages.

Longer than 400 lines: one test per rule of a used directory.
"""

import json
import pathlib
import shlex

import pytest
from ml_collections import ConfigDict

from fake_verbs import ensemble_config, fake_verb, make_config
from retrieval_jax import workdir
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, lock
from retrieval_jax.workdir import config_files, provenance, records

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_all(config, folder):
    """The loop of run.py with verbs that only write a file; returns the reason of every verb that ran."""
    workdir.prepare(config, folder)
    reasons = {}
    for verb in workdir.verbs(config):
        reason = workdir.reason_to_run(config, folder, verb)
        if reason is not None:
            reasons[verb] = reason
            workdir.run_stage(config, folder, verb, fake_verb(verb))
    workdir.write_settings(config, folder)
    return reasons


def test_a_second_run_does_nothing(tmp_path):
    assert tuple(run_all(make_config(), tmp_path)) == workdir.VERBS
    assert run_all(make_config(), tmp_path) == {}
    assert run_all(make_config(name="renamed"), tmp_path) == {}


@pytest.mark.parametrize(
    "key, value, first",
    [
        ("embed.batch_size", 8, "embed"),
        ("search.k", 50, "search"),
        ("evaluate.ks", (1, 5), "evaluate"),
        ("report.rows", 4, "report"),
    ],
)
def test_a_changed_block_runs_again_from_there_and_says_why(tmp_path, key, value, first):
    run_all(make_config(), tmp_path)
    reasons = run_all(make_config(**{key: value}), tmp_path)
    assert tuple(reasons) == workdir.VERBS[workdir.VERBS.index(first) :]
    assert reasons[first].startswith(f"changed: {key}") and "->" in reasons[first]
    for later in list(reasons)[1:]:
        assert reasons[later].endswith("ran again")


def test_reason_names_old_and_new_value(tmp_path):
    run_all(make_config(), tmp_path)
    assert workdir.reason_to_run(make_config(**{"search.k": 50}), tmp_path, "search") == "changed: search.k: 100 -> 50"
    # A later verb asked by itself names the same cause.
    assert workdir.reason_to_run(make_config(**{"search.k": 50}), tmp_path, "report") == "changed: search.k: 100 -> 50"
    assert workdir.reason_to_run(make_config(**{"search.k": 50}), tmp_path, "embed") is None


@pytest.mark.parametrize("key, value", [("data.kwargs.seed", 1), ("mine.threshold", 6), ("train.learning_rate", 0.2)])
def test_a_changed_data_mine_or_train_block_is_refused_in_a_used_directory(tmp_path, key, value):
    run_all(make_config(), tmp_path)
    with pytest.raises(InputError) as error:
        workdir.prepare(make_config(**{key: value}), tmp_path)
    old = make_config()[key.split(".")[0]]
    for part in key.split(".")[1:]:
        old = old[part]
    assert f"{key}: {old} -> {value}" in str(error.value) and "--workdir" in str(error.value)
    assert workdir.read_config(tmp_path)["mine"]["threshold"] == 5  # the old settings stay


def test_a_mesh_of_other_devices_is_not_a_change(tmp_path):
    run_all(make_config(), tmp_path)
    assert run_all(make_config(**{"train.mesh": {"data": 2, "fsdp": 4}}), tmp_path) == {}
    assert workdir.read_config(tmp_path)["train"]["mesh"]["fsdp"] == 4
    changed = {"train.hang_seconds": 5.0, "train.sharding_rules": [["^heads_", []]]}
    assert run_all(make_config(**changed), tmp_path) == {}


def test_a_change_is_accepted_while_the_directory_is_unused(tmp_path):
    workdir.write_settings(make_config(), tmp_path)
    workdir.prepare(make_config(**{"mine.threshold": 6}), tmp_path)
    workdir.write_settings(make_config(**{"mine.threshold": 6}), tmp_path)
    assert workdir.read_config(tmp_path)["mine"]["threshold"] == 6
    (tmp_path / "checkpoints").mkdir()  # an interrupted training counts
    with pytest.raises(InputError, match="mine.threshold: 6 -> 7"):
        workdir.prepare(make_config(**{"mine.threshold": 7}), tmp_path)


def failing_verb(config, folder):
    raise InputError("no such file")


def test_a_first_verb_that_failed_does_not_fix_the_settings(tmp_path):
    workdir.prepare(make_config(**{"data.source": "mistyped"}), tmp_path)
    with pytest.raises(InputError, match="no such file"):
        workdir.run_stage(make_config(), tmp_path, "mine", failing_verb)
    assert (tmp_path / "stages" / "mine.json").exists()
    assert tuple(run_all(make_config(), tmp_path)) == workdir.VERBS  # the corrected config


def test_a_verb_that_finished_once_fixes_the_settings_even_if_it_fails_later(tmp_path):
    config = make_config()
    workdir.prepare(config, tmp_path)
    workdir.run_stage(config, tmp_path, "mine", fake_verb("mine"))
    with pytest.raises(InputError, match="no such file"):
        workdir.run_stage(config, tmp_path, "mine", failing_verb)
    with pytest.raises(InputError, match="mine.threshold: 5 -> 7"):
        workdir.prepare(make_config(**{"mine.threshold": 7}), tmp_path)


@pytest.mark.parametrize("folder", ["nosuch://bucket/runs", pathlib.Path("nosuch://bucket/runs"), "hdfs+x://a"])
def test_a_remote_folder_never_becomes_a_local_one(tmp_path, monkeypatch, folder):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RETRIEVAL_JAX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="cannot be reached"):
        workdir.prepare(make_config(), folder)
    assert not list((tmp_path / "here").iterdir())
    for local in (tmp_path, "runs/a:b", "C:/runs", "runs/q-data.kwargs.root=gs:"):
        assert workdir.as_path(local) == pathlib.Path(local)


def test_rows_that_mine_set_aside_are_an_output_if_there_are_any(tmp_path):
    workdir.prepare(make_config(), tmp_path)
    record = workdir.run_stage(make_config(), tmp_path, "mine", fake_verb("mine"))
    assert set(record["outputs"]) == {"attributes/part-0"}
    (tmp_path / "set_aside.csv").write_text("file,row,id,reason,sentence\n")
    record = workdir.record(make_config(), tmp_path, "mine", seconds=1, cpu_seconds=1)
    assert set(record["outputs"]) == {"attributes/part-0", "set_aside.csv"}


def test_embed_depends_on_whether_the_search_wants_evidence():
    hashes = [
        workdir.stage_hash(make_config(**{"search.steps": steps}), "embed")
        for steps in (
            (("a", {}),),
            (("b", {}),),
            (("chosen", {}),),
            (("whitening", {"fit_on": "train"}),),
            ("a", "chosen"),
        )
    ]
    assert hashes[0] == hashes[1] == hashes[4] != hashes[2] == hashes[3]


@pytest.mark.parametrize("steps", [(("quality", {}),), (("fusion", {"weights": "chosen"}),)])
def test_a_search_that_learns_from_the_selection_half_runs_again_where_its_share_changes(steps):
    def hashes(steps, **changed):
        config = make_config(**{"search.steps": steps})
        config.evaluate.update(changed)
        return [workdir.stage_hash(config, verb) for verb in ("embed", "search")]

    before, same, changed = hashes(steps), hashes(steps, selection_share=0.5), hashes(steps, selection_share=0.2)
    assert before == same and before[0] == changed[0] and before[1] != changed[1]
    assert hashes((("fusion", {}),))[1] == hashes((("fusion", {}),), selection_share=0.2)[1]


def test_a_tuned_memory_allocator_is_recorded(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert "malloc" not in provenance.hardware()
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert provenance.hardware()["malloc"] == "glibc.malloc.hugetlb=1"


def test_an_interrupted_verb_runs_again_and_training_resumes(tmp_path):
    config = make_config()
    run_all(config, tmp_path)

    def interrupted(config, folder):
        raise KeyboardInterrupt

    for verb in ("search", "train"):
        with pytest.raises(KeyboardInterrupt):
            workdir.run_stage(config, tmp_path, verb, interrupted)
    assert workdir.reason_to_run(config, tmp_path, "mine") is None
    assert workdir.reason_to_run(config, tmp_path, "train") == "unfinished: resumes"
    assert workdir.reason_to_run(config, tmp_path, "embed") == "train ran again"
    assert workdir.reason_to_run(config, tmp_path, "search") == "an earlier try did not finish"


def test_a_missing_or_altered_output_runs_again(tmp_path):
    config = make_config()
    run_all(config, tmp_path)
    (tmp_path / "embeddings" / "part-0").write_text("half")
    assert workdir.reason_to_run(config, tmp_path, "embed") == "its output embeddings/part-0 was altered"
    (tmp_path / "embeddings" / "part-0").unlink()
    assert workdir.reason_to_run(config, tmp_path, "embed") == "its output embeddings/part-0 is missing"


def test_a_single_verb_requires_the_ones_before_it(tmp_path):
    config = make_config()
    workdir.prepare(config, tmp_path)
    workdir.require_earlier(config, tmp_path, "mine")
    workdir.run_stage(config, tmp_path, "mine", fake_verb("mine"))
    with pytest.raises(InputError, match="needs the result of train .*retrieval-jax train"):
        workdir.require_earlier(config, tmp_path, "search")


def test_records_and_run_json(tmp_path):
    run_all(make_config(), tmp_path)
    record = workdir.read_record(tmp_path, "search")
    assert record["outputs"] == {"rankings/part-0": 6} and record["summary"] == {"verb": "search"}
    assert record["seconds"] >= 0 and record["cpu_seconds"] >= 0
    assert record["peak_memory_bytes"] is None or record["peak_memory_bytes"] > 10_000_000
    run = json.loads((tmp_path / "run.json").read_text())
    assert set(run["stages"]) == set(workdir.VERBS)
    assert {"commit", "versions", "total_seconds", "total_cpu_seconds"} <= set(run)
    assert "python" in run["versions"] and run["stages"]["train"]["hardware"]["cores"] >= 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_settings_survive_json_with_tuples(tmp_path):
    config = make_config()
    workdir.write_settings(config, tmp_path)
    read = workdir.read_config(tmp_path)
    assert read["train"]["transforms"] == (("flip", {}), ("erasing", {"p": 0.5}))
    assert workdir.stage_hash(ConfigDict(read), "report") == workdir.stage_hash(config, "report")
    with pytest.raises(InputError, match="not a work directory"):
        workdir.read_config(tmp_path / "elsewhere")


def test_the_hash_distinguishes_settings_that_look_alike():
    assert workdir.stage_hash(make_config(**{"search.steps": (("a", {}), ("b", {}))}), "search") != workdir.stage_hash(
        make_config(**{"search.steps": (("b", {}), ("a", {}))}), "search"
    )
    assert workdir.stage_hash(make_config(), "mine") != workdir.stage_hash(make_config(), "train")


def test_an_ensemble_searches_what_its_members_embedded(tmp_path):
    folder = tmp_path / "both"
    config = ensemble_config()
    assert workdir.verbs(config) == ("search", "evaluate", "report")
    workdir.prepare(config, folder)
    with pytest.raises(InputError, match="embeddings of the member one"):
        workdir.require_earlier(config, folder, "search")
    for name in ("one", "two-arg"):
        run_all(make_config(), tmp_path / name)
    workdir.require_earlier(config, folder, "search")
    assert tuple(run_all(config, folder)) == ("search", "evaluate", "report")
    assert run_all(config, folder) == {}
    # A member embedded anew makes the ensemble search anew.
    run_all(make_config(**{"embed.batch_size": 8}), tmp_path / "one")
    assert "members.one" in run_all(config, folder)["search"]
    assert run_all(config, folder) == {}


def test_default_names_are_short_safe_and_distinct():
    name = workdir.default_name
    assert name("quickstart") == name("quickstart", "") == "quickstart"
    assert name("quickstart", "runlocal", {"search.k": 50}) == "quickstart-runlocal-search.k=50"
    assert name("q", None, {"b": 1, "a": 2}) == name("q", None, {"a": 2, "b": 1}) == "q-a=2-b=1"
    odd = [name("q", None, {"search.steps": steps}) for steps in ((), (("whitening", {}),), (("whitening", {"a": 1}),))]
    odd += [name("q", None, {"data.kwargs.root": root}) for root in ("/a/b", "/a_b", "a b", "x" * 300)]
    assert len(set(odd)) == len(odd)
    for text in odd:
        assert len(text) <= 100 and not set(text) & set("/ '\"()[]{}:*?<>|\\")


def test_a_file_is_not_a_work_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        workdir.prepare(make_config(), tmp_path / "file")


# ------------------------------------------------------------------------------------------- what may change, and not


@pytest.mark.parametrize(
    "changed",
    [
        {"data.cache_bytes": 1},
        {"train.num_threads": 7, "train.num_workers": 2},
        {"train.log_every_steps": 3, "train.checkpoint_every_steps": 3, "train.keep_checkpoints": 9},
        {"train.eval_every_epochs": 0.0, "train.hang_seconds": 1.0},
    ],
)
def test_what_only_changes_speed_may_change_and_runs_nothing(tmp_path, changed):
    config = make_config(**{name: value + 1 for name, value in changed.items()})
    run_all(config, tmp_path)
    config.update_from_flattened_dict(changed)
    assert run_all(config, tmp_path) == {}
    block, key = next(iter(changed)).split(".")
    assert workdir.read_config(tmp_path)[block][key] == next(iter(changed.values()))


@pytest.mark.parametrize(
    "key, value",
    [("train.crop_before_decoding", True), ("train.batch_size", 4), ("train.accumulate_steps", 4)],
)
def test_what_only_looks_like_speed_is_refused(tmp_path, key, value):
    run_all(make_config(), tmp_path)
    config = make_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"{key}: .absent. -> {json.dumps(value)}"):
        workdir.prepare(config, tmp_path)


def test_every_free_setting_is_one_that_the_configs_have():
    names = config_files.setting_names(config_files.load(ROOT / "configs" / "fashion_softmax.py"))
    for name in workdir.FREE:
        known = any(one == name or one.startswith(name + ".") for one in names)
        assert known or "data_dir" in name or "catalogs" in name, name


def test_records_of_an_older_table_of_free_settings_are_not_stale(tmp_path):
    config = make_config(**{"train.num_threads": 2})
    run_all(config, tmp_path)
    file = tmp_path / "stages" / "train.json"
    record = json.loads(file.read_text())
    record["blocks"]["train"]["num_threads"] = 8  # as when it was in the hash
    atomic.write_json(file, {**record, "hash": "of then"})
    assert workdir.reason_to_run(config, tmp_path, "train") is None


def test_a_directory_from_before_a_setting_takes_what_it_was_then(tmp_path):
    run_all(make_config(), tmp_path)  # without mine.rule
    config = make_config(**{"mine.rule": 1})
    assert run_all(config, tmp_path) == {}
    with pytest.raises(InputError, match="mine.rule: .absent. -> 2"):
        workdir.prepare(make_config(**{"mine.rule": 2}), tmp_path)


def everything(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_refused_verb_changes_nothing_on_disk(tmp_path):
    config = make_config()
    for verb in ("mine", "train", "embed"):
        workdir.run_stage(config, workdir.prepare(config, tmp_path), verb, fake_verb(verb))
    before, stale = everything(tmp_path), make_config(**{"embed.batch_size": 8})
    workdir.prepare(stale, tmp_path)
    with pytest.raises(InputError, match="needs the result of embed"):
        workdir.require_earlier(stale, tmp_path, "search")
    with pytest.raises(InputError, match="mine.threshold"):
        workdir.prepare(make_config(**{"mine.threshold": 9}), tmp_path)
    assert everything(tmp_path) == before
    with lock.held(tmp_path, "another"):
        before = everything(tmp_path)
        with pytest.raises(InputError, match="is in use by another"):
            workdir.run_stage(stale, tmp_path, "embed", fake_verb("embed"))
        assert everything(tmp_path) == before
    workdir.prepare(config, tmp_path / "new" / "one")
    assert not (tmp_path / "new").exists()


def test_data_that_was_touched_is_read_once_and_noted(tmp_path, monkeypatch):
    run_all(make_config(), tmp_path)
    record = atomic.read_json(tmp_path / "stages" / "mine.json")
    record["data"] = {"places": [], "stamp": "old", "digests": {"train/titles": "1"}}
    atomic.write_json(tmp_path / "stages" / "mine.json", record)
    data = workdir.Data(make_config(), tmp_path)
    now = {"places": [], "stamp": "new", "digests": {"train/titles": "1"}}
    monkeypatch.setattr(type(data), "of", lambda self, verb: now)
    data._stamp, data._places = "new", []
    assert workdir.reason_to_run(make_config(), tmp_path, "mine", data) is None
    workdir.refresh(tmp_path, "mine", data)
    assert workdir.read_record(tmp_path, "mine") == {**record, "data": now} and data.is_noted(now)


def test_a_start_that_is_killed_leaves_no_record_that_config_json_contradicts(tmp_path, monkeypatch):
    run_all(make_config(), tmp_path)
    monkeypatch.setattr(records, "write_settings", failing_verb)  # as if it was killed just before
    with pytest.raises(InputError):
        workdir.run_stage(make_config(**{"embed.batch_size": 8}), tmp_path, "embed", fake_verb("embed"))
    assert workdir.read_config(tmp_path)["embed"]["batch_size"] == 4
    assert all(workdir.read_record(tmp_path, verb) is None for verb in workdir.VERBS[2:])


def test_the_advised_command_is_quoted(tmp_path):
    folder = tmp_path / "my runs" / "~x"
    run_all(make_config(), folder)
    with pytest.raises(InputError) as error:
        workdir.prepare(make_config(**{"mine.threshold": 9}), folder)
    words = shlex.split(str(error.value).splitlines()[-1].partition("delete this one: ")[2])
    assert words == ["rm", "-r", "--", str(folder)]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="--workdir=.*give another"):
            workdir.prepare(make_config(), folder)
    monkeypatch.setattr(records.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=f"{tmp_path} is not writable"):
        workdir.prepare(make_config(), tmp_path / "locked" / "run")


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"data.image_size": (64,)}, r"config.data.image_size is \(64,\): give height and width, such as \(64, 64\)"),
        ({"data.image_size": (64, 0)}, "config.data.image_size"),
        ({"train.batch_size": 0}, "config.train.batch_size is 0: give a whole number of 1 or more"),
        ({"train.hang_seconds": float("nan")}, "config.train.hang_seconds is nan"),
        ({"embed.batch_size": -4}, "config.embed.batch_size is -4"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(tmp_path, changed, says):
    with pytest.raises(InputError, match=says):
        workdir.prepare(make_config(**changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_of_a_checkpoint_go_before_those_of_the_verb_that_started_last(tmp_path):
    run_all(make_config(), tmp_path)
    changed = make_config(**{"embed.batch_size": 9, "train.learning_rate": 0.5, "data.image_size": (9, 9)})
    workdir.write_settings(changed, tmp_path)
    trained = workdir.plain(make_config().train)
    found = workdir.read_config(tmp_path, {"config": trained, "image_size": [8, 8]})
    assert found["data"]["image_size"] == (8, 8) and found["embed"]["batch_size"] == 4
    assert found["train"]["learning_rate"] == 0.1 and found["train"]["transforms"][1] == ("erasing", {"p": 0.5})
    workdir.invalidate(tmp_path, "embed")  # its embeddings no longer count
    assert workdir.read_config(tmp_path, {})["embed"]["batch_size"] == 9
    assert workdir.read_config(tmp_path)["train"]["learning_rate"] == 0.5
