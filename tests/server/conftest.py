"""A finished tiny run, and the service over it."""

import io

import jax
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import tiny
from retrieval_jax import embed, mine, search, train
from retrieval_jax.models.backbones import convnext
from retrieval_jax.server import app, runs


@pytest.fixture(scope="package")
def finished(tmp_path_factory):
    """The work directory of a run of 20 listings, searched by cosine, whitening and re-ranking."""
    jax.config.update("jax_disable_most_optimizations", True)  # its programs run briefly
    convnext.VARIANTS["tiny test"] = tiny.TINY
    folder, config = tmp_path_factory.mktemp("runs") / "tiny", tiny.tiny_config()
    folder.mkdir()
    config.train.epochs = 1.0
    config.train.evaluations, config.embed.models = (), ("trained",)
    (folder / "config.json").write_text(config.to_json())
    for verb in (mine, train, embed, search):
        verb.run(config, folder)
    yield folder
    # The variant stays: tests of other folders, in between or later, may need it.
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="package")
def logged():
    """The events that the service logged."""
    return []


@pytest.fixture(scope="package")
def client(finished, logged):
    """A client of the service over the finished run."""
    served = runs.Runs([finished], logged.append, watched=0)
    with TestClient(app.make(served, log=logged.append), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="package")
def photo():
    """The bytes of a picture file, as a person would upload it."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
