"""The benchmark of the service starts it and reads its answers."""

import importlib.util

import numpy as np
from fastapi.testclient import TestClient

from repository import ROOT
from retrieval_jax.server import app


def test_every_kind_of_request_is_answered(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    spec = importlib.util.spec_from_file_location("serving", ROOT / "benchmarks" / "serving.py")
    spec.loader.exec_module(serving := importlib.util.module_from_spec(spec))
    with TestClient(app.make(serving.made(300, 8, tmp_path))) as client:
        for kind, by in (("vectors", "cosine"), ("conditions", "cosine"), ("words", "bm25"), ("both", "fusion")):
            found = client.post("/v1/search", json=serving.body(kind, np.random.default_rng(0), 300, 5)).json()
            assert found["scored_by"] == by and len(found["results"]) == 5
