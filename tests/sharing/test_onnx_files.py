"""ONNX files, run by onnxruntime: the same embeddings as ours, for any number of rows."""

import json
import sys

import numpy as np
import pytest

import tiny_trained
from retrieval_jax import export, exported
from retrieval_jax.__main__ import main
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import onnx_files

PICTURES = np.random.default_rng(3).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")


def test_onnxruntime_gives_our_embeddings_for_any_number_of_rows(tmp_path):
    for name in ("jax2onnx", "onnx", "onnxruntime"):
        pytest.importorskip(name, reason="pip install --no-deps -r requirements-onnx.txt")
    run = tiny_trained.save(tmp_path / "run")
    main(["export", f"--workdir={run}", f"--out={tmp_path / 'out'}", "--platforms", "cpu", "--onnx"])
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert about["onnx"]["embed"] == ["embedding"] and about["compared"]["onnx"] < 1e-4
    assert {"embed.onnx", "attributes.onnx"} <= set(about["sha256"])
    served = exported.load(tmp_path / "out")
    for count in (1, 3, 5):
        found = onnx_files.run(tmp_path / "out" / "embed.onnx", {"image": PICTURES[:count]})["embedding"]
        wanted = served.embed(list(PICTURES[:count]))
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.linalg.norm(wanted, axis=1).max())
    found = onnx_files.run(tmp_path / "out" / "attributes.onnx", {"image": PICTURES})["probabilities"]
    np.testing.assert_allclose(found, served.run("attributes", list(PICTURES))["probabilities"], atol=1e-5)


def test_without_the_converter_the_export_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(InputError, match="--onnx needs jax2onnx.*pip install --no-deps -r requirements-onnx.txt"):
        onnx_files.convert("embed", lambda params, image: {}, {}, [], tmp_path / "embed.onnx")


def test_onnx_and_int8_do_not_go_together(tmp_path):
    with pytest.raises(InputError, match="export twice"):
        export.run(tmp_path, tmp_path / "out", weights="int8", onnx=True)
