"""Which folders are served, under which names; what happens when their files change; exported models."""

import dataclasses
import json
import shutil
import threading

import ml_collections
import numpy as np
import pytest
from fastapi.testclient import TestClient

import tiny
from retrieval_jax import __main__ as door
from retrieval_jax import export, serve, workdir
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, l2, new_queries, whitening
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.postprocess.new_queries import Stage
from retrieval_jax.server import app, gallery, networks, runs


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to change."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_new_gallery_is_picked_up_while_requests_are_answered(copied):
    logged = []
    served = runs.Runs([copied], logged.append, watched=0)
    with TestClient(app.make(served), raise_server_exceptions=False) as made:
        assert made.post("/v1/search", json={}).json()["matches"] == 20 and not served.get().refresh()
        before, answers, ended = served.get().loaded, [], threading.Event()

        def keep_asking():
            while not ended.is_set():
                answers.append(made.post("/v1/search", json={"words": "the", "k": 5}).status_code)

        thread = threading.Thread(target=keep_asking)
        thread.start()
        place = copied / "embeddings" / "trained" / "gallery"
        stored = Embeddings.load(place)
        shutil.rmtree(copied / "rankings")  # they are of the gallery as it was
        Embeddings(stored.ids.take(np.arange(12)), stored.block(0, 12), stored.meta).save(place)
        assert served.get().refresh()
        ended.set()
        thread.join(30)
        assert answers and set(answers) == {200}
        assert made.post("/v1/search", json={}).json()["matches"] == 12
        assert len(before.gallery) == 20 and served.get().loaded.networks is before.networks
        (place / "00000.npy").write_bytes(b"damaged")
        (place / "embeddings.json").touch()
        assert not served.get().refresh()
        assert made.post("/v1/search", json={}).json()["matches"] == 12
        problem = made.get("/v1/runs").json()[0]["problem"]
        assert "the log of the service says why" in problem and str(copied) not in problem
        failure = [event for event in logged if event["event"] == "reload failed"][-1]
        assert "embeddings" in failure["problem"]


@pytest.mark.long
def test_an_exported_model_embeds_its_gallery_once_and_is_served_beside_its_run(finished, copied, photo, tmp_path):
    config = ml_collections.ConfigDict(json.loads((copied / "config.json").read_text()))
    workdir.record(config, copied, "search", seconds=1.0, cpu_seconds=1.0)
    export.run(copied, tmp_path / "served")
    served = runs.Runs([finished, tmp_path / "served"], watched=0)
    with TestClient(app.make(served), raise_server_exceptions=False) as made:
        found = []
        for run in ("tiny", "served"):
            data = {"request": json.dumps({"run": run, "stage": "cosine"})}
            found.append(made.post("/v1/search", files={"picture": photo}, data=data).json()["results"])
        assert [one["id"] for one in found[0]] == [one["id"] for one in found[1]]
        assert np.allclose([one["score"] for one in found[0]], [one["score"] for one in found[1]], atol=1e-4)
        _, exported = made.get("/v1/runs").json()
        assert exported["exported"] and exported["stages"] == ["cosine", "whitening", "reranking"]
        assert exported["predicts"] and not exported["note"]
    stored = Embeddings.load(tmp_path / "served" / "embeddings" / "served" / "gallery")
    assert len(stored) == 20


def test_folders_that_cannot_be_served_are_refused_with_what_to_do(finished, copied, tmp_path):
    for folders, message in (
        ([tmp_path / "missing"], "is not a folder"),
        ([finished, finished], "is given twice"),
    ):
        with pytest.raises(InputError, match=message):
            runs.Runs(folders, watched=0)
    shutil.rmtree(copied / "embeddings")
    with pytest.raises(InputError, match="retrieval-jax embed"):
        runs.Runs([copied], watched=0)
    config = json.loads((copied / "config.json").read_text())
    config["search"]["members"] = ["a", "b"]
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="serve its members"):
        runs.Runs([copied], watched=0)


def test_nothing_is_downloaded_for_an_exported_model(tmp_path):
    (tmp_path / networks.EXPORTED).touch()
    data = {"source": "joined", "kwargs": {"parts": [{"kwargs": {"root": "https://a.example/$HF_TOKEN"}}]}}
    with pytest.raises(InputError, match="nothing is downloaded for exported models"):
        gallery.check(tmp_path, {"data": data})
    gallery.check(tmp_path, {"data": {"source": "table", "kwargs": {"root": "/data/shop"}}})


def test_equal_names_get_longer(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "other" / "tiny")
    assert [run.name for run in runs.Runs([finished, tmp_path / "other" / "tiny"], watched=0)] == ["tiny", "other-tiny"]


def test_a_stage_that_needs_the_other_queries_is_left_out(copied):
    file = copied / "rankings" / "rankings.json"
    made = json.loads(file.read_text())
    made["stages"][-1].update({"stage": "diffusion", "step": "diffusion"})
    file.write_text(json.dumps(made))
    config = {"search": {"steps": [("whitening", {}), ("diffusion", {})]}}
    found, note = new_queries.of_run(copied, config)
    assert [stage.name for stage in found] == ["cosine", "whitening"] and "'diffusion' does not work on one" in note
    with pytest.raises(InputError, match="there are cosine, whitening"):
        new_queries.named(found, "reranking")


def test_a_run_says_before_it_is_loaded_which_stage_is_searched_in_place_of_one_that_is_left_out(copied):
    file = copied / "rankings" / "rankings.json"
    made = json.loads(file.read_text())
    made["stages"][-1].update({"model": "ensemble", "stage": "ensemble", "step": "ensemble", "kwargs": {}})
    file.write_text(json.dumps(made))
    run = runs.Run("a", copied)
    run.config = {**run.config, "search": {"steps": [("whitening", {}), ("ensemble", {})]}}
    assert run.note() == (
        "the stage 'ensemble' is not served, nor what follows it: its step 'ensemble' joins several models, and a new "
        "query is embedded by one; searches use the stage 'whitening'"
    )
    file.write_text("{")
    assert run.note() == "" and run.loaded is None


@pytest.fixture
def ranked(tmp_path):
    """A function that writes rankings.json with (model, stage, step) each, and returns what is served of it."""

    def of(made, *steps):
        (tmp_path / "rankings" / "trained").mkdir(parents=True, exist_ok=True)
        entries = [{"model": model, "stage": stage, "step": step, "kwargs": {}} for model, stage, step in made]
        (tmp_path / "rankings" / "rankings.json").write_text(json.dumps({"stages": entries}))
        return new_queries.of_run(tmp_path, {"search": {"steps": [(step, {}) for step in steps]}})

    return of


COSINE = ("trained", "cosine", None)


def test_a_stage_is_served_with_the_steps_before_it_that_were_not_ranked(ranked, tmp_path):
    vectors = np.random.default_rng(0).normal(2, 1, (50, 4)).astype(np.float32)
    ranked([COSINE])
    fitted = whitening.fit(Embeddings([str(row) for row in range(50)], vectors))
    fitted.save(tmp_path / "rankings" / "trained" / "whitening_trained.npz")
    found, note = ranked([COSINE, ("trained", "reranking", "reranking")], "whitening", "reranking")
    assert [stage.name for stage in found] == ["cosine", "reranking"] and not note
    wanted = normalize(fitted.apply(vectors))
    np.testing.assert_allclose(found[1].vectors(vectors, "query"), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "steps", "message"),
    [
        (
            ("ensemble", "fusion", "fusion"),
            ["fusion"],
            "'fusion' joins several models, and a new query is embedded by one",
        ),
        (("trained", "l2", "l2"), [], "no such stage any more; run search again"),
        (("trained", "whitening", "l2"), ["whitening"], "changed after the search; run search again"),
    ],
)
def test_every_stage_that_was_ranked_and_is_not_served_is_in_the_note(ranked, made, steps, message):
    found, note = ranked([COSINE, made], *steps)
    assert [stage.name for stage in found] == ["cosine"] and message in note


def test_length_1_before_whitening_is_served_as_it_was_fitted(ranked, tmp_path):
    vectors = np.random.default_rng(0).normal(1, 1, (50, 4)).astype(np.float32)
    vectors *= np.arange(1, 51, dtype=np.float32)[:, None]
    ids, folder = [str(row) for row in range(50)], tmp_path / "rankings" / "trained"
    ranked([COSINE])
    state = State([(Embeddings(ids[:5], vectors[:5]), Embeddings(ids, vectors))], None, ("trained",), folder)
    queries, listings = whitening.step(l2.step(state)).members[0]
    made = [COSINE, ("trained", "l2", "l2"), ("trained", "whitening", "whitening")]
    found, note = ranked(made, "l2", "whitening")
    assert not note and [stage.name for stage in found] == ["cosine", "l2", "whitening"]
    np.testing.assert_allclose(found[-1].vectors(vectors[:5], "query"), queries.vectors[:], atol=1e-5)
    both = found[-1].vectors(Embeddings(ids, vectors), "gallery")
    np.testing.assert_allclose(both, listings.vectors[:], atol=1e-5)


class _Listing:
    """Stands in for a gallery of one listing."""

    stages, has_texts, note = (None,), False, ""

    def __len__(self):
        return 1

    def index(self, stage):
        del stage


@pytest.fixture
def faked(monkeypatch, tmp_path):
    """A run whose files, settings and problems are entries of a dict; "made" lists the sizes of its networks."""
    state = {"signature": 0, "size": 64, "problem": "", "made": [], "warmed": 0}

    def load(folder, config, made):
        if state["problem"]:
            raise InputError(state["problem"])
        return _Listing(), (state["signature"],)

    def make(folder, config):
        state["made"].append(config["size"])
        return networks.Networks("space", None)

    monkeypatch.setattr(runs, "_config", lambda _: {"size": state["size"]})
    monkeypatch.setattr(runs, "warm", lambda _: state.update(warmed=state["warmed"] + 1))
    monkeypatch.setattr(runs.networks, "load", make)
    monkeypatch.setattr(runs.gallery_lib, "load", load)
    monkeypatch.setattr(runs.gallery_lib, "check", lambda *_: None)
    monkeypatch.setattr(runs.gallery_lib, "signature", lambda *_: (state["signature"],))
    return runs.Run("a", tmp_path), state


def test_a_reload_with_other_settings_makes_networks_again_and_compiles_them(faked):
    run, state = faked
    run.get()
    state.update(signature=1)
    assert run.refresh() and state["made"] == [64] and not state["warmed"]
    state.update(signature=2, size=128)
    assert run.refresh() and state["made"] == [64, 128] and state["warmed"] == 1 and run.config == {"size": 128}


def test_a_model_that_is_exported_again_under_a_service_is_loaded_again(faked, tmp_path):
    run, state = faked
    (tmp_path / networks.EXPORTED).touch()
    (tmp_path / "config.json").write_text("{}")
    run.get()
    assert not run.refresh() and state["made"] == [64]
    (tmp_path / "new").write_text("{}")
    (tmp_path / "new").replace(tmp_path / "config.json")  # the same settings, and other weights
    assert run.refresh() and state["made"] == [64, 64] and state["warmed"] == 1 and not run.refresh()


def test_a_lazy_start_reads_the_settings_that_are_there_then(faked):
    run, state = faked
    state["size"] = 128
    run.get()
    assert run.config == run.loaded.config == {"size": 128} and state["made"] == [128]


def test_an_exported_model_embeds_listings_that_are_new_or_changed(tmp_path, monkeypatch):
    config = tiny.tiny_config().to_dict()
    (tmp_path / "config.json").write_text(json.dumps({"config": config}, default=list))
    (tmp_path / networks.EXPORTED).touch()
    there, embedded = loading.load(config["data"]), []

    def columns(split):
        return {"text": np.array(split.titles, object)}

    def vectors(given, rows):
        embedded.append(rows.tolist())
        return np.array([[len(given["text"][row]), 1 + row, 1] for row in rows], np.float32)

    made = networks.Networks("a", None, columns=columns, listings=vectors, recipe="1", stages=[Stage("cosine")])
    monkeypatch.setattr(networks, "load", lambda folder, config: made)
    monkeypatch.setattr(loading, "load", lambda settings: there)

    def loaded():
        embedded.clear()
        run = runs.Run("x", tmp_path)
        found = run.get().gallery.embeddings
        assert not run.refresh()  # what the run itself has written does not make it load again
        return found.block(0, len(found))

    before, count = loaded(), len(there.gallery)
    assert embedded == [list(range(count))] and np.array_equal(loaded(), before) and not embedded
    titles = [*there.gallery.titles]
    titles[3] += " with laces"
    there = dataclasses.replace(there, gallery=dataclasses.replace(there.gallery, titles=titles))
    after = loaded()
    assert embedded == [[3]] and np.flatnonzero((after != before).any(1)).tolist() == [3] and len(after[3]) == 3
    made = dataclasses.replace(made, recipe="2")
    assert np.array_equal(loaded(), after) and embedded == [list(range(count))]


def test_a_reload_that_failed_is_tried_again_only_when_files_change(faked):
    run, state = faked
    run.get()
    state.update(signature=1, problem="half-written")
    assert not any(run.refresh() for _ in range(3)) and len(state["made"]) == 2 and run.problem == "half-written"
    state.update(signature=2, problem="")
    assert run.refresh() and not run.problem


def test_a_start_that_failed_is_forgotten_once_the_run_is_loaded(faked):
    run, _ = faked
    run.problem = "the disk was away"
    run.get()
    assert not run.problem


def test_a_service_that_others_can_reach_needs_a_token(finished, tmp_path):
    def run(*words):
        serve.main(door.tree().parse_args(["serve", f"--workdir={finished}", *words]))

    with pytest.raises(InputError, match="give --token_file"):
        run("--host=0.0.0.0")
    for text in ("short", "with a blank in its middle", ""):
        (tmp_path / "token").write_text(text)
        with pytest.raises(InputError, match="at least 16 characters"):
            run("--host=0.0.0.0", f"--token_file={tmp_path / 'token'}")
    with pytest.raises(InputError, match="cannot be read"):
        run(f"--token_file={tmp_path / 'missing'}")
