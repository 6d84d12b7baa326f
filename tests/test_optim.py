"""Which parameters decay, the learning rate over a run, and the moving average's first steps."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from retrieval_jax import optim
from retrieval_jax.models import convnext, embedder, heads, vit

CONFIG = ml_collections.ConfigDict({"learning_rate": 0.1, "final_learning_rate": 1e-3, "warmup_epochs": 2.0,
                                    "weight_decay": 0.5, "b2": 0.999, "clip_norm": 1.0, "schedule": "cosine",
                                    "schedule_kwargs": {}, "layer_decay": 1.0, "learning_rate_rules": (),
                                    "decay_rules": (), "frozen": (), "ema_paths": ""})


@pytest.fixture(autouse=True)
def small_variants(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "test", ((1, 1, 1, 1), (4, 4, 4, 4)))
    monkeypatch.setitem(vit.VARIANTS, "test", (1, 8, 2))


def abstract_params(backbone):
    module = embedder.Embedder(backbone, {"titles": heads.Head(3), "category": heads.Head(2)}, projection=6)
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]


def decaying(backbone):
    """Returns (paths that decay, paths that do not)."""
    params = abstract_params(backbone)
    shares = jax.tree.leaves(optim.by_rule(params, optim.DECAY_RULES))
    pairs = list(zip(jax.tree.leaves(optim.paths(params)), shares, strict=True))
    assert {share for _, share in pairs} == {0.0, 1.0}
    return {path for path, share in pairs if share}, {path for path, share in pairs if not share}


# (paths that decay, paths that do not) beside the backbone's own
SHARED = ({"projection/kernel"},
          {"projection/bias", "projection_norm/scale", "projection_norm/bias", "heads_titles/kernel",
           "heads_titles/bias", "heads_category/kernel", "heads_category/bias"})
NONE = set(), set()
GEM = set(), {"backbone/pool/p"}
MAP = ({f"backbone/pool/{name}/kernel" for name in ("fc1", "fc2", "attention/query", "attention/key", "attention/value",
                                                   "attention/out")},
       {"backbone/pool/query", "backbone/pool/norm/scale", "backbone/pool/norm/bias"} | {
           f"backbone/pool/{name}/bias" for name in ("fc1", "fc2", "attention/query", "attention/key",
                                                    "attention/value", "attention/out")})


@pytest.mark.parametrize("pooling, pooled", [("avg", NONE), ("gem", GEM), ("map", MAP)])
def test_what_decays_in_convnext(pooling, pooled):
    yes, no = {"stem/kernel"}, {"stem/bias", "stem_norm/scale", "stem_norm/bias", "head_norm/scale", "head_norm/bias"}
    for stage in range(4):
        block = f"stage{stage}_block0"
        yes |= {f"{block}/dw_kernel", f"{block}/fc1/kernel", f"{block}/fc2/kernel"}
        no |= {f"{block}/{name}" for name in ("dw_bias", "norm/scale", "norm/bias", "fc1/bias", "fc2/bias", "scale")}
        if stage:
            yes |= {f"stage{stage}_down/kernel"}
            no |= {f"stage{stage}_down/bias", f"stage{stage}_norm/scale", f"stage{stage}_norm/bias"}
    decay, keep = decaying(convnext.Model("test", pooling))
    assert decay == {f"backbone/{name}" for name in yes} | SHARED[0] | pooled[0]
    assert keep == {f"backbone/{name}" for name in no} | SHARED[1] | pooled[1]


@pytest.mark.parametrize("pooling, pooled", [("avg", NONE), ("map", MAP)])
def test_what_decays_in_vit(pooling, pooled):
    attention = (f"block0/attention/{part}" for part in ("query", "key", "value", "out"))
    layers = "stem", "block0/fc1", "block0/fc2", *attention
    norms = {f"{name}/{part}" for name in ("block0/norm1", "block0/norm2", "norm") for part in ("scale", "bias")}
    decay, keep = decaying(vit.Model("test", pooling))
    assert decay == {f"backbone/{name}/kernel" for name in layers} | SHARED[0] | pooled[0]
    no = norms | {"positions"} | {f"{name}/bias" for name in layers}
    assert keep == {f"backbone/{name}" for name in no} | SHARED[1] | pooled[1]


def test_the_first_rule_that_matches_counts_and_none_is_an_error():
    params = {"a": {"kernel": 0, "bias": 0}}
    assert optim.by_rule(params, (("bias", 1), ("a/", 2))) == {"a": {"kernel": 2, "bias": 1}}
    with pytest.raises(ValueError, match="a/kernel"):
        optim.by_rule(params, (("bias$", 1),))


def test_learning_rate_warms_up_and_ends():
    _, schedule = optim.make(CONFIG, {"w": 0}, num_steps=100, steps_per_epoch=5.0)
    rates = np.array([float(schedule(step)) for step in range(101)])
    assert rates[0] == 0 and np.argmax(rates) == 10  # 2 epochs of 5 steps
    np.testing.assert_allclose(rates[[5, 10, 100]], [0.05, 0.1, 1e-3], rtol=1e-5)
    halfway = 1e-3 + (0.1 - 1e-3) * 0.5
    np.testing.assert_allclose(rates[55], halfway, rtol=1e-5)
    assert (np.diff(rates[:11]) > 0).all() and (np.diff(rates[10:]) < 0).all()
    assert float(schedule(1000)) == pytest.approx(1e-3)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_learning_rate_of_a_run_shorter_than_its_warm_up(num_steps):
    _, schedule = optim.make(CONFIG, {"w": 0}, num_steps, steps_per_epoch=1000.0)
    rates = [float(schedule(step)) for step in range(num_steps + 1)]
    assert np.isfinite(rates).all() and max(rates) == pytest.approx(0.1)


def test_decay_pulls_only_what_decays_and_in_proportion_to_the_rate():
    layer = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    params = {"fc": layer, "heads_titles": {"kernel": jnp.ones((2, 2))}}
    optimizer, schedule = optim.make(CONFIG, params, num_steps=10, steps_per_epoch=1.0)
    opt_state, zeros = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    for step in range(3):
        updates, opt_state = optimizer.update(zeros, opt_state, params)
        np.testing.assert_allclose(updates["fc"]["kernel"], -schedule(step) * 0.5 * 3.0, rtol=1e-5)
        assert not updates["fc"]["bias"].any() and not updates["heads_titles"]["kernel"].any()


def test_gradients_are_clipped_together():
    params = {"a/kernel": jnp.zeros(1), "b/kernel": jnp.zeros(1)}
    optimizer, _ = optim.make(CONFIG, params, num_steps=10, steps_per_epoch=1.0)
    gradients = {"a/kernel": jnp.full(1, 30.0), "b/kernel": jnp.full(1, 40.0)}
    _, opt_state = optimizer.update(gradients, optimizer.init(params), params)
    first = [np.asarray(leaf) for leaf in jax.tree.leaves(opt_state) if np.shape(leaf) == (1,)][:2]
    np.testing.assert_allclose(np.concatenate(first), [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5)  # (1 - b1) * 30 / 50 ...


def test_moving_average_forgets_the_start_first_and_is_slow_later():
    ema, expected = {"w": jnp.float32(100.0)}, 100.0
    for step in range(200):
        params = {"w": jnp.float32(step)}
        ema = optim.ema_update(ema, params, jnp.int32(step), 0.9)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        if step in (0, 1, 20, 199):
            np.testing.assert_allclose(ema["w"], expected, rtol=1e-5)
    assert expected == pytest.approx(199 - 0.9 / 0.1, rel=1e-6)  # the lag of a plain average of decay 0.9
    first = optim.ema_update({"w": jnp.float32(100.0)}, {"w": jnp.float32(0.0)}, jnp.int32(0), 0.9999)
    np.testing.assert_allclose(first["w"], 10.0, rtol=1e-5)
