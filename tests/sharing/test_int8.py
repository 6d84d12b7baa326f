"""Weights of eight bits: how far they are off, and what is refused."""

import json

import numpy as np
import pytest

import tiny_trained
from retrieval_jax import export, exported
from retrieval_jax.__main__ import main
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import int8

RNG = np.random.default_rng(0)
PICTURES = list(RNG.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "shape, scales",
    [((64, 32), (1, 32)), ((3, 64, 32), (3, 1, 32)), ((3, 3, 16, 32), (1, 1, 1, 32)), ((7, 7, 1, 96), None)],
)
def test_each_number_is_within_half_a_step_of_its_own(shape, scales):
    value = RNG.normal(size=shape).astype(np.float32) * np.geomspace(1e-3, 1e3, shape[-1], dtype=np.float32)
    value[..., 0] = 0
    found = int8.rounded({"a/kernel": value, "a/bias": value[..., 0].ravel()[:8]})
    assert found["a/kernel"].dtype == np.int8 and found["a/bias"].dtype == np.float32
    scale = found["a/kernel:scale"]
    assert scale.shape == (scales or (1, 1, 1, 96)) and np.abs(found["a/kernel"]).max() == 127
    back = int8.restored(found, "here")
    assert set(back) == {"a/kernel", "a/bias"} and back["a/kernel"].dtype == np.float32
    assert (np.abs(back["a/kernel"] - value) <= scale * 0.5001).all()


def test_a_scale_that_does_not_fit_is_refused():
    found = int8.rounded({"a": RNG.normal(size=(64, 32)).astype(np.float32)})
    for wrong in (
        {"a": found["a"]},
        {**found, "a:scale": found["a:scale"][0]},
        {**found, "a:scale": found["a:scale"][:, :5]},
        {**found, "a:scale": found["a:scale"].astype(np.float64)},
        {**found, "b:scale": found["a:scale"]},
    ):
        with pytest.raises(InputError, match="model.safetensors: "):
            int8.restored(wrong, "model.safetensors")


@pytest.mark.usefixtures("little_compilation", "tiny_variant")
def test_a_model_of_eight_bits_is_smaller_and_close(tmp_path):
    run = tiny_trained.save(tmp_path)
    whole = export.run(run, tmp_path / "float", platforms=("cpu",))
    main(["export", f"--workdir={run}", f"--out={tmp_path / 'int8'}", "--platforms", "cpu", "--weights=int8"])
    small = json.loads((tmp_path / "int8" / "config.json").read_text())
    assert whole["format"] == 1 and small["format"] == 2 and small["weights"] == "int8"
    assert 0 < small["compared"]["difference"] < 0.1
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("float", "int8")]
    assert sizes[1] < sizes[0]
    vectors = [exported.load(tmp_path / name).embed(PICTURES) for name in ("float", "int8")]
    lengths = [np.linalg.norm(each, axis=1) for each in vectors]
    assert ((vectors[0] * vectors[1]).sum(1) / (lengths[0] * lengths[1]) > 0.99).all()
