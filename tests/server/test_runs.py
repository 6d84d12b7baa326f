"""Which folders are served, under which names; what happens when their files change; exported models."""

import json
import shutil
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient

from retrieval_jax import __main__ as door
from retrieval_jax import export, serve
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.server import app, runs, stages


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
        gallery = Embeddings.load(place)
        shutil.rmtree(copied / "rankings")  # they are of the gallery as it was
        Embeddings(gallery.ids.take(np.arange(12)), gallery.block(0, 12), gallery.meta).save(place)
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
def test_an_exported_model_embeds_its_gallery_once_and_is_served_beside_its_run(finished, photo, tmp_path):
    export.run(finished, tmp_path / "served")
    served = runs.Runs([finished, tmp_path / "served"], watched=0)
    with TestClient(app.make(served), raise_server_exceptions=False) as made:
        found = [
            made.post(
                "/v1/search", files={"picture": photo}, data={"request": json.dumps({"run": run, "stage": "cosine"})}
            ).json()["results"]
            for run in ("tiny", "served")
        ]
        assert [one["id"] for one in found[0]] == [one["id"] for one in found[1]]
        assert np.allclose([one["score"] for one in found[0]], [one["score"] for one in found[1]], atol=1e-4)
        _, exported = made.get("/v1/runs").json()
        assert exported["exported"] and exported["stages"] == ["cosine"] and exported["predicts"]
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


def test_equal_names_get_longer(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "other" / "tiny")
    assert [run.name for run in runs.Runs([finished, tmp_path / "other" / "tiny"], watched=0)] == ["tiny", "other-tiny"]


def test_a_stage_that_needs_the_other_queries_is_left_out(copied):
    file = copied / "rankings" / "rankings.json"
    made = json.loads(file.read_text())
    made["stages"][-1]["step"] = "diffusion"
    file.write_text(json.dumps(made))
    found, note = stages.of_run(copied)
    assert [stage.name for stage in found] == ["cosine", "whitening"] and "'diffusion' does not work on one" in note
    with pytest.raises(InputError, match="there are cosine, whitening"):
        stages.named(found, "reranking")


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
