"""Each loss against a dense float64 loop over pictures and labels, and its gradient against finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax.losses import multilabel as losses

B, V = 5, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (B, V))
LABELS = [[0, 3, 6], [2], [], [1, 2, 3, 4], [5]]  # the third picture has none
CATEGORY = np.array([3, 0, -1, 6, 2])  # the third is unknown
IDS = np.array([labels + [0] * (4 - len(labels)) for labels in LABELS], np.int32)
MASK = np.array([[True] * len(labels) + [False] * (4 - len(labels)) for labels in LABELS])
POSITIVE_WEIGHTS = RNG.uniform(0.5, 5, V)
WHERE = np.array([True, False, True, True, False])
WEIGHTS = RNG.uniform(0, 3, B)


def over_labels(logits, loss_of):
    """Sums loss_of(probability, whether the label is present, label) over the labels in a loop."""
    out = []
    for z, labels in zip(logits, LABELS, strict=True):
        out.append(sum(loss_of(1 / (1 + math.exp(-z[label])), label in labels, label) for label in range(V)))
    return np.array(out)


def weight_of(positive_weights, label):
    return 1.0 if positive_weights is None else positive_weights[label]


def naive_sigmoid(logits, positive_weights=None, label_smoothing=0.0):
    def loss_of(p, there, label):
        y = there * (1 - label_smoothing) + label_smoothing / V
        loss = -y * math.log(p) - (1 - y) * math.log(1 - p)
        return weight_of(positive_weights, label) * loss if there else loss

    return over_labels(logits, loss_of)


def naive_focal(logits, gamma=2.0, alpha=0.25, positive_weights=None):
    def loss_of(p, there, label):
        if there:
            return -weight_of(positive_weights, label) * alpha * (1 - p) ** gamma * math.log(p)
        return -(1 - alpha) * p**gamma * math.log(1 - p)

    return over_labels(logits, loss_of)


def naive_asymmetric(logits, gamma_present=0.0, gamma_absent=4.0, margin=0.05, positive_weights=None):
    def loss_of(p, there, label):
        if there:
            return -weight_of(positive_weights, label) * (1 - p) ** gamma_present * math.log(p)
        p = max(p - margin, 0)
        return -(p**gamma_absent) * math.log(1 - p)

    return over_labels(logits, loss_of)


def naive_softmax(logits, epsilon=0.5, positive_weights=None):
    out = []
    for z, labels in zip(logits, LABELS, strict=True):
        p = np.exp(z) / np.exp(z).sum()
        y = np.array([(label in labels) * weight_of(positive_weights, label) for label in range(V)])
        if not y.sum():
            out.append(0.0)
            continue
        y /= y.sum()
        out.append(-sum(y * np.log(p)) + epsilon * (1 - sum(y * p)))
    return np.array(out)


def naive_category(logits, label_smoothing=0.0):
    out = []
    for z, category in zip(logits, CATEGORY, strict=True):
        p = np.exp(z) / np.exp(z).sum()
        y = np.full(V, label_smoothing / V)
        y[category] += 1 - label_smoothing
        out.append(0.0 if category < 0 else -sum(y * np.log(p)))
    return np.array(out)


def sigmoid(logits, ids=IDS, **kwargs):
    return losses.sigmoid_cross_entropy(logits, ids, MASK, **kwargs)


def softmax(logits, ids=IDS, **kwargs):
    return losses.softmax_poly1(logits, ids, MASK, **kwargs)


def focal(logits, ids=IDS, **kwargs):
    return losses.sigmoid_focal(logits, ids, MASK, **kwargs)


def asymmetric(logits, ids=IDS, **kwargs):
    return losses.asymmetric(logits, ids, MASK, **kwargs)


def category(logits, **kwargs):
    return losses.softmax_cross_entropy(logits, CATEGORY, **kwargs)


CASES = {
    "sigmoid": (sigmoid, naive_sigmoid, {}),
    "sigmoid, weighted labels": (sigmoid, naive_sigmoid, {"positive_weights": POSITIVE_WEIGHTS}),
    "sigmoid, smoothed": (sigmoid, naive_sigmoid, {"label_smoothing": 0.2, "positive_weights": POSITIVE_WEIGHTS}),
    "focal": (focal, naive_focal, {}),
    "focal, weighted": (focal, naive_focal, {"gamma": 1.5, "alpha": 0.6, "positive_weights": POSITIVE_WEIGHTS}),
    "asymmetric": (asymmetric, naive_asymmetric, {}),
    "asymmetric without margin": (
        asymmetric,
        naive_asymmetric,
        {"gamma_present": 1.0, "gamma_absent": 2.0, "margin": 0.0, "positive_weights": POSITIVE_WEIGHTS},
    ),
    "softmax": (softmax, naive_softmax, {}),
    "softmax, weighted labels": (softmax, naive_softmax, {"positive_weights": POSITIVE_WEIGHTS}),
    "softmax without poly": (softmax, naive_softmax, {"epsilon": 0.0}),
    "softmax, more poly": (softmax, naive_softmax, {"epsilon": 2.0}),
    "category": (category, naive_category, {}),
    "category, smoothed": (category, naive_category, {"label_smoothing": 0.2}),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_equals_the_dense_loop(case):
    ours, naive, kwargs = case
    np.testing.assert_allclose(ours(jnp.float32(LOGITS), **kwargs), naive(LOGITS, **kwargs), rtol=2e-5)


def test_gradient_equals_finite_differences(case):
    ours, naive, kwargs = case
    scale = np.arange(1.0, B + 1)  # so that swapped gradients would show
    gradient = jax.jit(jax.grad(lambda logits: (ours(logits, **kwargs) * scale).sum()))(jnp.float32(LOGITS))
    expected = np.zeros_like(LOGITS)
    for index in np.ndindex(LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[index] = 1e-5
        expected[index] = ((naive(LOGITS + step, **kwargs) - naive(LOGITS - step, **kwargs)) * scale).sum() / 2e-5
    np.testing.assert_allclose(gradient, expected, atol=2e-5, rtol=1e-4)


def test_where_and_weights_apply_per_picture(case):
    ours, naive, kwargs = case
    logits, plain = jnp.float32(LOGITS), naive(LOGITS, **kwargs)
    np.testing.assert_allclose(ours(logits, where=WHERE, **kwargs), np.where(WHERE, plain, 0), rtol=2e-5)
    np.testing.assert_allclose(ours(logits, weights=WEIGHTS, **kwargs), WEIGHTS * plain, rtol=2e-5)
    both = ours(logits, where=WHERE, weights=WEIGHTS, **kwargs)
    np.testing.assert_allclose(both, np.where(WHERE, WEIGHTS * plain, 0), rtol=2e-5)
    gradient = jax.jit(jax.grad(lambda logits: ours(logits, where=WHERE, **kwargs).sum()))(logits)
    assert not gradient[~WHERE].any() and np.abs(gradient[0]).sum() > 0


@pytest.mark.parametrize("loss", [sigmoid, softmax, asymmetric])
def test_values_at_padding_are_ignored(loss):
    kwargs = {"positive_weights": jnp.float32(POSITIVE_WEIGHTS)}
    value_and_gradient = jax.jit(jax.value_and_grad(lambda logits, ids: loss(logits, ids, **kwargs).sum()))
    expected = value_and_gradient(jnp.float32(LOGITS), IDS)
    for padding in (6, -1, V + 3):
        ids = np.where(MASK, IDS, padding).astype(np.int32)
        for a, b in zip(value_and_gradient(jnp.float32(LOGITS), ids), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=f"padded with {padding}")


def test_more_padding_changes_nothing():
    wide = np.pad(IDS, ((0, 0), (0, 9))), np.pad(MASK, ((0, 0), (0, 9)))
    for loss in (losses.sigmoid_cross_entropy, losses.softmax_poly1):
        np.testing.assert_allclose(loss(jnp.float32(LOGITS), *wide), loss(jnp.float32(LOGITS), IDS, MASK), rtol=1e-6)


def test_a_picture_without_labels():
    logits = jnp.float32(LOGITS)
    # All labels are absent: a target for the sigmoid, but none for the softmax.
    np.testing.assert_allclose(sigmoid(logits)[2], np.log1p(np.exp(LOGITS[2])).sum(), rtol=1e-5)
    assert softmax(logits)[2] == 0 and category(logits)[2] == 0
    for loss in (softmax, category):
        gradient = jax.jit(jax.grad(lambda logits, loss=loss: loss(logits).sum()))(logits)
        assert not gradient[2].any() and np.isfinite(gradient).all()


def test_labels_are_documented_as_distinct_because_duplicates_count_twice():
    logits, mask = jnp.float32(LOGITS[:1]), np.ones((1, 2), bool)
    for loss in (losses.sigmoid_cross_entropy, losses.softmax_poly1):
        assert "distinct labels" in loss.__doc__
        once, twice = (loss(logits, np.array([ids], np.int32), mask) for ids in ([1, 2], [2, 2]))
        assert np.isfinite(twice).all() and once != twice
    single = losses.sigmoid_cross_entropy(logits, np.array([[2]], np.int32), mask[:, :1])
    assert losses.sigmoid_cross_entropy(logits, np.array([[2, 2]], np.int32), mask) != single


def test_large_logits_stay_finite(case):
    ours, _, kwargs = case
    value_and_gradient = jax.jit(jax.value_and_grad(lambda logits: ours(logits, **kwargs).sum()))
    for size in (1e3, 1e30):
        loss, gradient = value_and_gradient(jnp.float32(np.sign(LOGITS) * size))
        assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_focal_and_asymmetric_reduce_to_the_cross_entropy():
    logits = jnp.float32(LOGITS)
    np.testing.assert_allclose(2 * focal(logits, gamma=0.0, alpha=0.5), sigmoid(logits), rtol=1e-5)
    np.testing.assert_allclose(asymmetric(logits, gamma_absent=0.0, margin=0.0), sigmoid(logits), rtol=1e-5)


def test_class_balanced_weights():
    counts = np.array([1, 10, 1000, 10**6, 0])
    weights = losses.class_balanced_weights(counts)
    expected = [1e-4 / (1 - 0.9999 ** max(n, 1)) for n in counts.tolist()]
    np.testing.assert_allclose(weights, np.array(expected) / np.mean(expected), rtol=1e-6)
    assert weights[0] == weights[4] and weights.dtype == np.float32
    np.testing.assert_allclose(losses.class_balanced_weights(counts, 0.0), 1.0)


@pytest.mark.parametrize(
    "loss, copies",
    [(losses.sigmoid_cross_entropy, 0), (losses.softmax_poly1, 0), (losses.sigmoid_focal, 3), (losses.asymmetric, 4)],
)
def test_memory_for_many_labels(loss, copies):
    """Bounds the arrays of the logits' size beside the logits and their gradient: no dense target is among them."""
    count, rows = 22_295, 16
    shapes = (
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (((rows, count), jnp.float32), ((rows, 12), jnp.int32), ((rows, 12), jnp.bool_))
    )
    compiled = jax.jit(jax.value_and_grad(lambda *args: loss(*args).sum())).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < (copies + 1) * 4 * rows * count
