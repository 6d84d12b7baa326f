"""Weights of 16 bits: how far they are off, and that a model with them is half as large and close."""

import json

import numpy as np
import pytest

import tiny_trained
from retrieval_jax import export, exported
from retrieval_jax.sharing import float16

RNG = np.random.default_rng(0)
PICTURES = list(RNG.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8))


def test_numbers_are_rounded_unless_they_are_too_large():
    value = RNG.normal(size=(64, 32)).astype(np.float32)
    given = {
        "kernel": value,
        "large": value * np.float32(1e6),
        "double": value.astype(np.float64),
        "count": np.arange(3),
    }
    found = float16.rounded(given)
    assert {name: one.dtype for name, one in found.items()} == {
        "kernel": np.float16,
        "large": np.float32,
        "double": np.float64,
        "count": given["count"].dtype,
    }
    back = float16.restored(found)
    assert back["kernel"].dtype == np.float32
    np.testing.assert_allclose(back["kernel"], value, rtol=2**-11, atol=2**-25)
    np.testing.assert_array_equal(back["large"], given["large"])


@pytest.mark.usefixtures("little_compilation", "tiny_variant")
def test_a_model_of_sixteen_bits_is_half_as_large_and_close(tmp_path):
    run = tiny_trained.save(tmp_path)
    export.run(run, tmp_path / "float", platforms=("cpu",))
    export.run(run, tmp_path / "small", platforms=("cpu",), weights="float16")
    about = json.loads((tmp_path / "small" / "config.json").read_text())
    assert about["format"] == 3 and about["weights"] == "float16" and 0 < about["compared"]["difference"] < 4e-3
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("float", "small")]
    assert sizes[1] < 0.7 * sizes[0]  # names of tensors are as long in both
    vectors = [exported.load(tmp_path / name).embed(PICTURES) for name in ("float", "small")]
    np.testing.assert_allclose(vectors[1], vectors[0], atol=4e-3 * np.linalg.norm(vectors[0], axis=1).max())
