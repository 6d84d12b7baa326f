"""Runs whose networks read words: composed with a picture, alone, and never fused with BM25."""

import dataclasses
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

import tiny
from retrieval_jax import embed, inference, search, train
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.server import app, networks, runs
from retrieval_jax.settings import tasks as options


@pytest.fixture
def edits(tmp_path, monkeypatch, little_compilation):
    """The work directory of a tiny run of the task "edit"."""
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", tiny.TINY)
    config, folder = tiny.tiny_config(), tmp_path / "edits"
    folder.mkdir()
    config.data.kwargs.update(
        {"queries": "edits", "num_edits": 20, "num_train": 120, "num_gallery": 60, "num_query": 12}
    )
    config.train.task, config.train.task_kwargs = "edit", options.edit()
    words = {"depth": 1, "width": 16, "heads": 2, "dropout": 0.0}
    config.train.task_kwargs.update({"vocabulary": 400, "words_kwargs": words, "words_dim": 16, "targets": 2})
    config.train.task_kwargs.update({"joint_kwargs": {"hidden": 16}})
    config.train.update({"epochs": 0.3, "warmup_epochs": 0.0, "evaluations": ()})
    config.search.query_from.predict_fn = "embed_edit"
    config.embed.models, config.search.steps = ("trained",), ()
    (folder / "config.json").write_text(config.to_json())
    for verb in (train, embed, search):
        verb.run(config, folder)
    return folder


def test_the_gallery_of_another_checkpoint_is_refused(finished):
    config = json.loads((finished / "config.json").read_text())
    made = networks.load(finished, config)
    gallery = Embeddings.load(finished / "embeddings" / "trained" / "gallery")
    made.check(gallery, finished)
    other = dataclasses.replace(gallery, meta={**gallery.meta, "space": "another"})
    with pytest.raises(InputError, match="its gallery is in the space 'another'"):
        made.check(other, finished)
    config["search"]["query_from"] = {"which": "params"}
    with pytest.raises(InputError, match=r"the queries are embedded into the space .*params.* cannot be compared"):
        networks.load(finished, config)


@pytest.mark.long
def test_words_are_composed_with_the_picture_by_the_network(edits, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    with TestClient(app.make(runs.Runs([edits], watched=0)), raise_server_exceptions=False) as client:

        def ask(files=None, **body):
            answer = (
                client.post("/v1/search", files=files, data={"request": json.dumps(body)})
                if files
                else client.post("/v1/search", json=body)
            )
            assert answer.status_code == 200, answer.text
            return answer.json()

        model = inference.load(edits)
        found = ask({"picture": photo}, words="in red", weight=0.7, k=5)
        assert found["scored_by"] == "cosine" and found["words"] == "in red"
        wanted = ask(words="in red", k=5)
        assert wanted["scored_by"] == "cosine" and set(wanted["results"][0]["why"]["parts"]) == {"words"}
        parts = found["results"][0]["why"]["parts"]
        assert set(parts) == {"picture", "words"} and parts["words"]["weight"] == 0.7
        (run,) = client.get("/v1/runs").json()
        assert run["searches"] == ["pictures", "words", "words beside pictures"]
        loaded = runs.Run("x", edits).get()
        vector = model.embed([tmp_path / "photo.png"], words=["in red"], weight=0.7)
        cosines = loaded.gallery.vectors(loaded.gallery.stages[0]).block(0, 60) @ vector[0]
        assert np.allclose([one["score"] for one in found["results"]], np.sort(cosines)[::-1][:5], atol=1e-4)
        plain = ask({"picture": photo}, k=5)
        assert [one["id"] for one in plain["results"]] == [
            one["id"] for one in ask({"picture": photo}, words="in red", weight=0, k=5)["results"]
        ]
