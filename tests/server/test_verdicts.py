"""`GET /v1/verdict`: what `compare` says about two runs or stages, once per version of their rankings."""

import dataclasses
import json
import shutil

import pytest
from fastapi.testclient import TestClient

from retrieval_jax.data import fields, loading
from retrieval_jax.scoring import comparing
from retrieval_jax.server import app, runs


def test_it_is_the_verdict_of_compare_computed_once_until_the_rankings_change(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "copy")
    served, counted, real = runs.Runs([finished, tmp_path / "copy"], watched=0), [], comparing.compare
    monkeypatch.setattr(comparing, "compare", lambda *args, **kwargs: counted.append(1) or real(*args, **kwargs))
    asked = {"run": "tiny", "stage": "cosine", "against": "copy", "against_stage": "reranking"}
    with TestClient(app.make(served), raise_server_exceptions=False) as made:
        found = made.get("/v1/verdict", params=asked).json()
        config = served.get("copy").config
        wanted = real(
            [finished], [tmp_path / "copy"], stage="trained/cosine", old_stage="trained/reranking",
            **comparing.queries_of(loading.load(config["data"]), config, fields.read, names=("mar@10_capped",)),
        )  # fmt: skip
        row = wanted["scores"]["mar@10_capped"]
        assert found["difference"] == pytest.approx(100 * row["difference"], abs=1e-3)
        assert (found["noise"], found["explanation"], found["queries"]) == (wanted["noise"], wanted["verdict"], 8)
        assert found["sentence"].startswith("mar@10_capped ") and "points (95 % " in found["sentence"]
        assert found["sentence"].endswith(", within noise") == found["noise"]
        back = {"run": "copy", "stage": "reranking", "against": "tiny", "against_stage": "cosine"}
        assert made.get("/v1/verdict", params=back).json()["difference"] == pytest.approx(-found["difference"])
        assert made.get("/v1/verdict", params=asked).json() == found and len(counted) == 2
        (tmp_path / "copy" / "rankings" / "rankings.json").touch()
        assert made.get("/v1/verdict", params=asked).json() == found and len(counted) == 3
        assert made.get("/v1/verdict", params={"run": "tiny", "against": "tiny"}).json()["noise"]  # equal in all


def test_what_cannot_be_compared_gets_a_sentence_without_folders(finished, tmp_path):
    for name in ("other", "unsearched", "damaged"):
        shutil.copytree(finished, tmp_path / name)
    config = json.loads((finished / "config.json").read_text())
    config["data"]["kwargs"]["num_query"] = 12
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "unsearched" / "rankings")
    (tmp_path / "damaged" / "rankings" / "trained" / "cosine" / "ranking.json").write_text("{")
    events = []
    served = runs.Runs([finished, *(tmp_path / name for name in ("other", "unsearched", "damaged"))], watched=0)
    with TestClient(app.make(served, log=events.append), raise_server_exceptions=False) as made:
        for name, sentence in (
            ("other", "searched other queries or another gallery than the catalogue of other has now"),
            ("unsearched", "run `retrieval-jax search` first"),
            ("damaged", "the log of the service says why"),
        ):
            answer = made.get("/v1/verdict", params={"stage": "cosine", "against": name, "against_stage": "cosine"})
            found = answer.json()
            assert answer.status_code == 200 and sentence in found["sentence"], found
            assert not found["score"] and found["difference"] is None and str(tmp_path) not in answer.text
        assert any(event["event"] == "comparison failed" for event in events)
        assert made.get("/v1/verdict", params={"run": "nowhere"}).status_code == 404
        assert made.get("/v1/verdict", params={"stage": "nothing"}).status_code == 422


def test_a_catalogue_without_truth_is_named(finished, monkeypatch):
    real = loading.load
    served = runs.Runs([finished], watched=0)
    served.get().get()
    monkeypatch.setattr(loading, "load", lambda data: dataclasses.replace(real(data), truth=None))
    with TestClient(app.make(served), raise_server_exceptions=False) as made:
        found = made.get("/v1/verdict", params={"against": "tiny", "against_stage": "cosine"}).json()
    assert found["sentence"] == "The catalogue of tiny has no ground truth to compare with."
