"""Search on devices against exact search, on eight CPU devices, and its error bound on its own."""

import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import index
from retrieval_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("plain", "ties", "duplicates", "near_ties", "zero", "small")


@pytest.fixture(scope="module")
def eight_devices():
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
                 "PYTHONPATH": str(ROOT)}  # fmt: skip
    done = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("accelerator_on_devices.py")],
                          env=variables, capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_equals_exact_search_on_eight_devices(eight_devices):
    assert eight_devices["devices"] == 8
    assert all(eight_devices["same"].values()), eight_devices["same"]
    assert len(eight_devices["same"]) == 3 * len(KINDS) + 1


def test_easy_queries_are_certified_at_once_and_hard_ones_get_another_pass(eight_devices):
    looks = eight_devices["looks"]
    assert looks["plain bfloat16"]["second"] <= 3 and looks["plain bfloat16"]["host"] == 0
    assert looks["near_ties bfloat16"]["second"] == 23  # bfloat16 cannot tell these apart, float32 can
    assert looks["near_ties bfloat16"]["host"] == 0
    assert looks["duplicates bfloat16"]["host"] > 0  # runs of equal scores longer than the margin: only ids decide


def test_approximate_search_reaches_its_recall_and_leaves_out_own_ids(eight_devices):
    assert 0.95 <= eight_devices["recall"] < 1.0  # bfloat16 without a margin loses some: this is not the exact path
    assert eight_devices["own id left out"]


@pytest.mark.parametrize("kind", ["normal", "one_sign", "sparse"])
def test_the_quantisation_bound_holds_and_is_reasonably_tight(kind):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(40, 96)), rng.normal(size=(300, 96))
    if kind == "one_sign":
        queries, gallery = np.abs(queries), np.abs(gallery)
    if kind == "sparse":
        queries[:, 3:], gallery[:, 3:] = 0, 0
    made = index.get("accelerator").Index(gallery.astype(np.float32), gallery_block=64)
    made._put_gallery()
    units = queries.astype(np.float32) / np.linalg.norm(queries, axis=1, keepdims=True).astype(np.float32)
    wide = np.asarray(made.wide, np.float64).reshape(-1, 96)[:300]
    narrow = np.asarray(made.narrow.astype(jnp.float32), np.float64).reshape(-1, 96)[:300]
    first_look = np.asarray(units.astype(jnp.bfloat16), np.float64) @ narrow.T
    apart = np.abs(first_look - units.astype(np.float64) @ wide.T).max(1)
    slack = made._slack(units, "bfloat16")
    assert (apart <= slack).all() and apart.max() > 0.02 * slack.max()


def test_bad_input_has_a_remedy():
    accelerator = index.get("accelerator")
    gallery = np.ones((30, 4), np.float32)
    with pytest.raises(InputError, match="one of bfloat16, float32"):
        accelerator.Index(gallery, dtype="int8")
    with pytest.raises(InputError, match="must divide"):
        accelerator.Index(gallery, gallery_block=100, group=8)
    with pytest.raises(InputError, match="same model"):
        accelerator.Index(gallery).search(gallery[:, :3], 2)
    gallery[17, 1] = np.nan
    with pytest.raises(InputError, match="row 17"):
        accelerator.Index(gallery).search(np.ones((1, 4), np.float32), 2)
    assert accelerator.Index(gallery[:0]).search(np.ones((2, 4)), 3).item_rows.tolist() == [[-1] * 3] * 2
