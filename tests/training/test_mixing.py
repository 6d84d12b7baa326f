"""Mixup and cutmix against a naive loop over rows and pixels; same result on several devices."""

import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.training import mixing

BOTH = (("mixup", {"alpha": 0.4, "p": 0.3}), ("cutmix", {"p": 0.5}))


def make_batch(rows=5, height=9, width=7):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (rows, height, width, 3), dtype=np.uint8),
        "label_ids": rng.integers(0, 50, (rows, 4), dtype=np.int32),
        "label_ids_mask": rng.random((rows, 4)) < 0.5,
        "category": np.arange(rows, dtype=np.int32),
        "row": np.arange(rows, dtype=np.int32),
        "_mask": np.ones(rows, bool),
    }


@functools.lru_cache
def compiled():
    return jax.jit(lambda batch, rng: mixing.apply(batch, rng, BOTH, ("image",)))


@functools.lru_cache
def mixed(seed):
    return jax.tree.map(np.asarray, compiled()(make_batch(), jax.random.key(seed)))


def kind(out, batch):
    """Reads off a batch which way it was mixed."""
    own, partner = batch["image"].astype(np.float32), np.roll(batch["image"], 1, 0).astype(np.float32)
    if (out["image"] == own).all():
        return "same"
    return "cutmix" if ((out["image"] == own) | (out["image"] == partner)).all() else "mixup"


def test_mixup_equals_a_loop():
    batch = make_batch()
    outs = [out for out in map(mixed, range(40)) if kind(out, batch) == "mixup"]
    assert len(outs) > 5
    for out in outs[:5]:
        assert out["image"].dtype == out["mix"].dtype == np.float32 and out["mix"].shape == (5,)
        for i in range(5):
            j, share = (i - 1) % 5, float(out["mix"][i])
            assert 0 <= share <= 1 and share == out["mix"][0]
            naive = share * batch["image"][i].astype(float) + (1 - share) * batch["image"][j]
            assert np.abs(out["image"][i] - naive).max() < 1e-3


def test_cutmix_pastes_one_rectangle_and_its_share_is_exact():
    batch = make_batch()
    outs = [out for out in map(mixed, range(40)) if kind(out, batch) == "cutmix"]
    clipped = 0
    for out in outs:
        cut = (out["image"] != batch["image"]).any(-1)
        assert (cut == cut[0]).all()
        rows, columns = np.flatnonzero(cut[0].any(1)), np.flatnonzero(cut[0].any(0))
        assert cut[0].sum() == len(rows) * len(columns)
        assert len(rows) == np.ptp(rows) + 1 and len(columns) == np.ptp(columns) + 1
        assert np.allclose(out["mix"], 1 - len(rows) * len(columns) / 63, atol=1e-6)
        clipped += rows[0] == 0 or columns[0] == 0
    assert len(outs) > 10 and clipped


def test_partners_labels_come_along_and_the_rest_stays():
    batch = make_batch()
    for out in map(mixed, range(3)):
        for i in range(5):
            for name in ("label_ids", "label_ids_mask", "category"):
                assert np.array_equal(out[f"mix_{name}"][i], batch[name][(i - 1) % 5])
        for name in batch:
            assert name == "image" or np.array_equal(out[name], batch[name])


def test_ways_and_shares_are_distributed_as_published():
    batch = {"image": np.zeros((2, 32, 24, 3), np.uint8)}
    batch["image"][0] = 1  # of the first picture, what is 1 is its own

    def draw(key):
        out = mixing.apply(batch, key, BOTH, ("image",))
        return out["mix"][0], out["image"][0, ..., 0]

    count = 4000
    shares, images = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count)))
    assert np.allclose(images.mean((1, 2)), shares, atol=1e-5)
    same = shares == 1
    cut = ((images == 0) | (images == 1)).all((1, 2)) & ~same
    assert abs((~same & ~cut).mean() - 0.3) < 0.03
    rng = np.random.default_rng(0)
    # cutmix leaves the picture as it is where the rectangle is less than a pixel
    naive_cut = np.array([naive_share(rng, 32, 24) for _ in range(count)])
    assert abs(cut.mean() - 0.5 * (naive_cut < 1).mean()) < 0.03
    for drawn, naive in ((shares[~same & ~cut], rng.beta(0.4, 0.4, count)), (shares[cut], naive_cut[naive_cut < 1])):
        for q in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert abs(np.quantile(drawn, q) - np.quantile(naive, q)) < 0.06


def naive_share(rng, height, width):
    lam = rng.beta(1, 1)
    cut_h, cut_w = int(height * np.sqrt(1 - lam)), int(width * np.sqrt(1 - lam))
    y, x = rng.integers(height), rng.integers(width)
    area = 0
    for row in range(y - cut_h // 2, y - cut_h // 2 + cut_h):
        for column in range(x - cut_w // 2, x - cut_w // 2 + cut_w):
            area += 0 <= row < height and 0 <= column < width
    return 1 - area / (height * width)


def test_ways_without_a_probability_share_what_is_left():
    assert mixing._parsed((("mixup", {}), ("cutmix", {"p": 0.25})))[2][0] == 0.75
    assert mixing._parsed((("mixup", {}),) * 3)[2][:2].tolist() == pytest.approx([1 / 3] * 2)


def test_key_decides_everything():
    again = compiled()(make_batch(), jax.random.key(0))
    assert all(np.array_equal(value, mixed(0)[name]) for name, value in again.items())
    assert len({float(mixed(seed)["mix"][0]) for seed in range(8)}) > 4


def test_all_columns_of_pictures_mix_alike_and_those_beside_stay():
    batch = make_batch()
    sets = np.random.default_rng(1).integers(0, 256, (5, 2, 6, 4, 3), dtype=np.uint8)
    shown = np.array([[True, True], [True, False], [True, True], [False, True], [True, True]])
    batch |= {"items": sets, "items_mask": shown, "other_image": batch["image"][:2], "other_row": np.arange(2)}
    pictures, beside = ("image", "items", "other_image"), ("other_image", "other_row")
    run = jax.jit(lambda key: mixing.apply(batch, key, (("mixup", {"p": 1.0}),), pictures, beside))
    out = jax.tree.map(np.asarray, run(jax.random.key(0)))
    share = out["mix"][0]
    assert 0 < share < 1 and np.array_equal(out["other_image"], batch["other_image"]) and "mix_other_row" not in out
    assert np.array_equal(out["mix_items_mask"], np.roll(shown, 1, 0))
    for i in range(5):
        for k in range(2):
            own = share if shown[i, k] and shown[i - 1, k] else 1.0
            naive = own * sets[i, k].astype(float) + (1 - own) * sets[i - 1, k]
            assert np.abs(out["items"][i, k] - naive).max() < 1e-3


def test_labels_are_not_mixed_where_a_picture_is_missing():
    batch = {**make_batch(), "image_mask": np.array([True, True, False, True, True])}
    run = jax.jit(lambda key: mixing.apply(batch, key, (("mixup", {"p": 1.0}),), ("image",)))
    out = jax.tree.map(np.asarray, run(jax.random.key(0)))
    assert (out["mix"][[2, 3]] == 1).all() and (out["mix"][[0, 1, 4]] < 1).all()  # the missing one and its partner
    assert np.array_equal(out["image"][[2, 3]], batch["image"][[2, 3]].astype(np.float32))


def test_padding_is_neither_mixed_nor_mixed_in():
    batch = make_batch()
    batch["_mask"] = np.array([True, True, True, False, False])
    out = next(out for out in (compiled()(batch, jax.random.key(seed)) for seed in range(40)) if out["mix"][1] < 0.9)
    out = jax.tree.map(np.asarray, out)
    assert (out["mix"][[3, 4]] == 1).all() and (out["mix"][[0, 1, 2]] < 1).all()
    assert np.array_equal(out["image"][[3, 4]], batch["image"][[3, 4]].astype(np.float32))


def test_padding_at_the_end_changes_no_row():
    spec, batch = (("mixup", {"alpha": 0.4}), ("cutmix", {})), make_batch()
    batch["_mask"] = np.ones(5, bool)
    longer = {name: np.concatenate([rows, np.zeros((3, *rows.shape[1:]), rows.dtype)]) for name, rows in batch.items()}
    for seed in range(3):
        out, padded = (mixing.apply(rows, jax.random.key(seed), spec, ("image",)) for rows in (batch, longer))
        assert all(np.array_equal(out[name], padded[name][:5]) for name in out) and (padded["mix"][5:] == 1).all()


def test_loss_of_both_labels_is_the_loss_of_blended_targets():
    # cross-entropy is linear in the targets, so both forms agree: the reason why labels need not be blended
    rng = np.random.default_rng(0)
    out, logits = mixed(0), rng.normal(size=(5, 5))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own, partner = np.eye(5)[out["category"]], np.eye(5)[out["mix_category"]]
    share = out["mix"][:, None]
    blended = -((share * own + (1 - share) * partner) * log_p).sum(-1)
    assert np.allclose(
        blended,
        (
            share * -(own * log_p).sum(-1, keepdims=True) + (1 - share) * -(partner * log_p).sum(-1, keepdims=True)
        ).ravel(),
    )


@pytest.mark.parametrize(
    "spec, words",
    [
        ((("mixap", {}),), "no batch transform named .mixap.; did you mean mixup"),
        ((("mixup", {"alfa": 1}),), "no argument .alfa.; did you mean alpha.*available: alpha, p"),
        ((("mixup", {"alpha": 0}),), "above 0"),
        ((("mixup", {"p": 0.7}), ("cutmix", {"p": 0.5})), "add up to 1.2"),
        ((("mixup", {"p": 2}),), "probability"),
        (("mixup",), "write .name, arguments., such as"),
        ((), "no batch transforms"),
        ((("mixup", {}), ("flip", {})), ".flip. follows mixup or cutmix"),
        ((("flip", {"q": 1}),), "no argument .q. .available: p"),
        ((("random_resized_crop", {"scale": (0.5, 1.5)}),), "scale is a pair"),
        ((("color_jitter", {"hue": 0.7}),), "from 0 to 0.5"),
    ],
)
def test_bad_specs_are_refused(spec, words):
    with pytest.raises(InputError, match=words):
        mixing.apply(make_batch(), jax.random.key(0), spec, ("image",))


DEVICES = """
import sys, jax, numpy as np
from retrieval_jax.training import mixing, sharding
rng = np.random.default_rng(0)
host = {"image": rng.integers(0, 256, (16, 9, 7, 3), dtype=np.uint8), "category": np.arange(16),
        "_mask": np.ones(16, bool)}
results = []
for devices in (jax.devices()[:1], jax.devices()):
    mesh = sharding.make_mesh(devices)
    rows = sharding.batch_sharding(mesh)
    batch = sharding.shard_batch(host, mesh)
    spec = (("mixup", {"alpha": 0.4, "p": 0.5}), ("cutmix", {}))
    run = jax.jit(lambda b, key: mixing.apply(b, key, spec, ("image",)),
                  in_shardings=(rows, sharding.replicated(mesh)), out_shardings=rows)
    run = run.lower(batch, jax.random.key(0)).compile()
    results.append([jax.tree.map(np.asarray, run(batch, jax.random.key(seed))) for seed in range(6)])
text = run.as_text()
assert "collective-permute" in text and "all-gather" not in text, text
for one, four in zip(*results):
    for name in one:
        assert np.array_equal(one[name], four[name]), name
print(len(mesh.devices))
"""


def test_devices_do_not_matter_and_exchange_single_rows():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "4\n", done.stderr
