"""The optimiser: weight decay, schedules, layer-wise rates, freezing, accumulation, and the moving average."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.models import embedder, heads
from retrieval_jax.models.backbones import convnext, vit
from retrieval_jax.training import optim

CONFIG = ml_collections.ConfigDict(
    {
        "learning_rate": 0.1,
        "final_learning_rate": 1e-3,
        "warmup_epochs": 2.0,
        "weight_decay": 0.5,
        "b2": 0.999,
        "clip_norm": 1.0,
        "schedule": "cosine",
        "schedule_kwargs": {},
        "layer_decay": 1.0,
        "learning_rate_rules": (),
        "decay_rules": (),
        "frozen": (),
        "ema_paths": "",
    }
)


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
SHARED = (
    {"projection/kernel"},
    {
        "projection/bias",
        "projection_norm/scale",
        "projection_norm/bias",
        "heads_titles/kernel",
        "heads_titles/bias",
        "heads_category/kernel",
        "heads_category/bias",
    },
)
NONE = set(), set()
GEM = set(), {"backbone/pool/p"}
MAP = (
    {f"backbone/pool/{name}/kernel" for name in ("fc1", "fc2", "q", "kv", "proj")},
    {"backbone/pool/query", "backbone/pool/norm/scale", "backbone/pool/norm/bias"}
    | {f"backbone/pool/{name}/bias" for name in ("fc1", "fc2", "q", "kv", "proj")},
)


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
    attention = (f"block0/attention/{part}" for part in ("qkv", "proj"))
    layers = "stem", "block0/fc1", "block0/fc2", *attention
    norms = {f"{name}/{part}" for name in ("block0/norm1", "block0/norm2", "norm") for part in ("scale", "bias")}
    decay, keep = decaying(vit.Model("test", pooling))
    assert decay == {f"backbone/{name}/kernel" for name in layers} | SHARED[0] | pooled[0]
    no = norms | {"positions"} | {f"{name}/bias" for name in layers}
    assert keep == {f"backbone/{name}" for name in no} | SHARED[1] | pooled[1]


def test_first_matching_rule_applies_and_no_match_is_an_error():
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
def test_learning_rate_of_runs_shorter_than_the_warm_up(num_steps):
    _, schedule = optim.make(CONFIG, {"w": 0}, num_steps, steps_per_epoch=1000.0)
    rates = [float(schedule(step)) for step in range(num_steps + 1)]
    assert np.isfinite(rates).all() and max(rates) == pytest.approx(0.1)


def test_decay_applies_to_matching_parameters_and_is_scaled_by_the_rate():
    layer = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    params = {"fc": layer, "heads_titles": {"kernel": jnp.ones((2, 2))}}
    optimizer, schedule = optim.make(CONFIG, params, num_steps=10, steps_per_epoch=1.0)
    opt_state, zeros = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    for step in range(3):
        updates, opt_state = optimizer.update(zeros, opt_state, params)
        np.testing.assert_allclose(updates["fc"]["kernel"], -schedule(step) * 0.5 * 3.0, rtol=1e-5)
        assert not updates["fc"]["bias"].any() and not updates["heads_titles"]["kernel"].any()


def test_gradients_are_clipped_by_global_norm():
    params = {"a/kernel": jnp.zeros(1), "b/kernel": jnp.zeros(1)}
    optimizer, _ = optim.make(CONFIG, params, num_steps=10, steps_per_epoch=1.0)
    gradients = {"a/kernel": jnp.full(1, 30.0), "b/kernel": jnp.full(1, 40.0)}
    _, opt_state = optimizer.update(gradients, optimizer.init(params), params)
    first = [np.asarray(leaf) for leaf in jax.tree.leaves(opt_state) if np.shape(leaf) == (1,)][:2]
    np.testing.assert_allclose(np.concatenate(first), [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5)  # (1 - b1) * 30 / 50 ...


def test_moving_average_is_fast_early_and_slow_later():
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


# ---------------------------------------------------------------------------------------------- layers, rules, freezing


def with_settings(**changed):
    return ml_collections.ConfigDict({**CONFIG.to_dict(), **changed})


def stacks():
    """Returns a small network with separate and with stacked layers: stem, three blocks, a norm, a head."""
    rng = np.random.default_rng(0)
    layers = [
        {"fc": {"kernel": rng.normal(size=(4, 4)).astype("f"), "bias": rng.normal(size=4).astype("f")}}
        for _ in range(3)
    ]
    rest = {
        "stem": {"kernel": rng.normal(size=(2, 4)).astype("f")},
        "norm": {"scale": np.ones(4, "f")},
        "positions": np.ones((1, 3, 4), "f"),
    }
    head = {"heads_titles": {"kernel": np.ones((4, 2), "f")}}
    one_by_one = {"backbone": {**rest, **{f"block{i}": layer for i, layer in enumerate(layers)}}, **head}
    return one_by_one, {"backbone": {**rest, "blocks": jax.tree.map(lambda *x: np.stack(x), *layers)}, **head}


def test_layer_decay_from_the_last_layer_to_the_stem():
    one_by_one, scanned = stacks()
    factors = optim.rate_factors(with_settings(layer_decay=0.5), one_by_one)
    assert factors["heads_titles"]["kernel"] == factors["backbone"]["norm"]["scale"] == 1.0
    assert [factors["backbone"][f"block{i}"]["fc"]["kernel"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert factors["backbone"]["stem"]["kernel"] == factors["backbone"]["positions"] == 0.0625
    stacked = optim.rate_factors(with_settings(layer_decay=0.5), scanned)["backbone"]["blocks"]["fc"]
    np.testing.assert_array_equal(stacked["kernel"], np.reshape([0.125, 0.25, 0.5], (3, 1, 1)))
    np.testing.assert_array_equal(stacked["bias"], np.reshape([0.125, 0.25, 0.5], (3, 1)))


def test_scanned_layers_get_the_updates_of_separate_layers():
    config = with_settings(
        layer_decay=0.7, learning_rate_rules=(("/bias$", 3.0),), warmup_epochs=0.5, clip_norm=0.0
    )  # a norm sums in another order
    results = []
    for params in stacks():
        optimizer, _ = optim.make(config, params, num_steps=10, steps_per_epoch=2.0)
        state = optimizer.init(params)
        for step in range(3):
            gradients = jax.tree.map(lambda p, step=step: 0.1 * p + step, params)
            updates, state = optimizer.update(gradients, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        results.append(params)
    one_by_one, scanned = results
    stacked = jax.tree.map(lambda *x: np.stack(x), *(one_by_one["backbone"].pop(f"block{i}") for i in range(3)))
    one_by_one["backbone"]["blocks"] = stacked
    jax.tree.map(np.testing.assert_array_equal, one_by_one, scanned)


def test_layers_are_numbered_across_stages_and_layers_between_belong_to_the_next_block():
    shapes = {
        "backbone": {
            "stem_norm": {"scale": (2,)},
            "stage0_block0": {"scale": (2,)},
            "stage0_block1": {"scale": (2,)},
            "stage1_norm": {"scale": (2,)},
            "stage1_down": {"kernel": (2, 2)},
            "stage1_blocks": {"scale": (2, 2)},
            "head_norm": {"scale": (2,)},
        }
    }
    params = jax.tree.map(np.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    factors = optim.rate_factors(with_settings(layer_decay=0.1), params)["backbone"]
    layers = {
        name: (-np.log10(np.ravel(jax.tree.leaves(tree)[0]))).round().astype(int).tolist()
        for name, tree in factors.items()
    }  # how many layers before the last
    assert layers == {
        "stem_norm": [5],
        "stage0_block0": [4],
        "stage0_block1": [3],
        "stage1_norm": [2],
        "stage1_down": [2],
        "stage1_blocks": [2, 1],
        "head_norm": [0],
    }


@pytest.mark.parametrize(
    "backbone",
    [convnext.Model("test"), convnext.Model("test", scan=True), vit.Model("test"), vit.Model("test", scan=True)],
)
def test_every_layer_of_the_backbones_is_recognised(backbone):
    params = abstract_params(backbone)
    factors = optim.rate_factors(with_settings(layer_decay=0.5), params)
    by_path = {
        path: float(np.ravel(factor)[0])
        for path, factor in zip(jax.tree.leaves(optim.paths(params)), jax.tree.leaves(factors), strict=True)
    }
    assert len(set(by_path.values())) == (6 if isinstance(backbone, convnext.Model) else 3)  # stem, blocks, the rest
    assert all(by_path[path] == 1.0 for path in by_path if not path.startswith("backbone/"))
    assert by_path["backbone/stem/kernel"] == min(by_path.values())


def test_first_rule_sets_the_rate_and_decay_rules_precede_the_defaults():
    params = {"backbone": {"kernel": jnp.ones((2, 2))}, "heads_titles": {"kernel": jnp.ones((2, 2))}}
    config = with_settings(
        learning_rate_rules=(("^heads_", 10.0), ("kernel", 0.5)),
        decay_rules=(("^heads_", 0.25),),
        schedule="constant",
        warmup_epochs=0.0,
    )
    optimizer, _ = optim.make(config, params, num_steps=10, steps_per_epoch=1.0)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    np.testing.assert_allclose(updates["backbone"]["kernel"], -0.1 * 0.5 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["heads_titles"]["kernel"], -0.1 * 0.5 * 10 * 0.25, rtol=1e-6)


def test_integer_decay_shares_do_not_affect_other_parameters():
    params = {"backbone": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    config = with_settings(decay_rules=(("kernel", 2),), schedule="constant", warmup_epochs=0.0)
    optimizer, _ = optim.make(config, params, num_steps=10, steps_per_epoch=1.0)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    np.testing.assert_allclose(updates["backbone"]["kernel"], -0.1 * 0.5 * 2, rtol=1e-6)
    assert not updates["backbone"]["bias"].any()


@pytest.mark.parametrize(
    "name, rules, words",
    [
        ("frozen", ("^backbon/",), "'\\^backbon/' matches no parameter, such as backbone/kernel"),
        ("learning_rate_rules", (("(", 1.0),), "is not a regular expression"),
        ("decay_rules", (("x", 1.0),), "decay_rules"),
    ],
)
def test_a_rule_that_matches_nothing_is_refused(name, rules, words):
    with pytest.raises(InputError, match=words):
        optim.make(with_settings(**{name: rules}), {"backbone": {"kernel": jnp.ones(2)}}, 10, 1.0)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_frozen_parameters_have_no_state_and_do_not_count_in_the_clipped_norm(layer_decay):
    params, _ = stacks()
    config = with_settings(frozen=("^backbone/",), layer_decay=layer_decay)
    optimizer, _ = optim.make(config, params, num_steps=10, steps_per_epoch=1.0)
    alone, _ = optim.make(CONFIG, {"heads_titles": params["heads_titles"]}, num_steps=10, steps_per_epoch=1.0)
    state, alone_state = optimizer.init(params), alone.init({"heads_titles": params["heads_titles"]})
    assert sorted(np.shape(leaf) for leaf in jax.tree.leaves(state)) == sorted(
        np.shape(leaf) for leaf in jax.tree.leaves(alone_state)
    )
    gradients = jax.tree.map(lambda p: 100.0 * jnp.ones_like(p), params)
    for _ in range(2):
        updates, state = optimizer.update(gradients, state, params)
        expected, alone_state = alone.update(
            {"heads_titles": gradients["heads_titles"]}, alone_state, {"heads_titles": params["heads_titles"]}
        )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates["backbone"]))
    np.testing.assert_array_equal(updates["heads_titles"]["kernel"], expected["heads_titles"]["kernel"])


def test_average_excludes_frozen_and_unmatched_parameters():
    params, _ = stacks()
    assert optim.is_averaged(CONFIG, params) is None
    config = with_settings(frozen=("block0/",), ema_paths="^backbone/")
    averaged = optim.is_averaged(config, params)
    new = jax.tree.map(lambda p: p + 1.0, params)
    ema = optim.ema_update(params, new, jnp.int32(100), 0.5, averaged)
    for path, value, fresh, old in zip(*map(jax.tree.leaves, (optim.paths(params), ema, new, params)), strict=True):
        if path.startswith("heads_") or "block0/" in path:
            np.testing.assert_array_equal(value, fresh)
        else:
            np.testing.assert_allclose(value, old + 0.5, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------------------- schedules, accumulation


@pytest.mark.parametrize(
    "schedule, kwargs, expected",
    [
        ("constant", {}, {10: 0.1, 60: 0.1, 99: 0.1}),
        ("wsd", {}, {10: 0.1, 80: 0.1, 90: 0.0505, 100: 1e-3}),
        ("wsd", {"decay_share": 0.5}, {50: 0.1, 75: 0.0505}),
        ("step", {}, {49: 0.1, 51: 0.01, 74: 0.01, 76: 1e-3}),
        ("step", {"boundaries": (0.3,), "factor": 0.5}, {29: 0.1, 31: 0.05, 99: 0.05}),
    ],
)
def test_schedules(schedule, kwargs, expected):
    rate = optim.make_schedule(with_settings(schedule=schedule, schedule_kwargs=kwargs), 100, 5.0)
    assert float(rate(0)) == 0 and float(rate(5)) == pytest.approx(0.05)  # ten steps of warm-up
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, rel=1e-5), step


def test_an_unknown_schedule_or_argument_is_refused():
    with pytest.raises(InputError, match="no schedule named 'cosin'.*did you mean cosine.*cosine, wsd, step, constant"):
        optim.make_schedule(with_settings(schedule="cosin"), 10, 1.0)
    with pytest.raises(InputError, match="schedule_kwargs: schedule 'wsd' has no argument 'share'.*: decay_share"):
        optim.make_schedule(with_settings(schedule="wsd", schedule_kwargs={"share": 0.1}), 10, 1.0)


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(12, 3)).astype("f"),
        "y": rng.normal(size=12).astype("f"),
        "_mask": np.arange(12) < 8,
        "further": rng.normal(size=(6, 3)).astype("f"),
    }  # a source of another length
    params, parts = {"w": jnp.ones(3)}, []

    def gradient_fn(params, batch, part):
        parts.append(part)

        def loss_fn(params):
            error = jnp.square(batch["x"] @ params["w"] - batch["y"]) * batch["_mask"]
            mean = error.sum() / jnp.maximum(batch.get("_whole", batch)["_mask"].sum(), 1)
            return mean, {"error": mean}

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    whole = optim.accumulated(gradient_fn, 1)(params, batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        whole,
        jax.jit(optim.accumulated(gradient_fn, 3))(params, batch),
    )
    assert parts[0] == 0 and parts[-1].dtype == jnp.int32  # so that each part draws its own random numbers
    with pytest.raises(InputError, match="12 rows cannot be divided into config.train.accumulate_steps=5"):
        optim.accumulated(gradient_fn, 5)(params, batch)
