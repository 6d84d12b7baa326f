"""Test-time views against a naive loop that makes each view by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import views
from retrieval_jax.errors import InputError
from retrieval_jax.tasks import Predict

WEIGHTS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@Predict
def predict_fn(params, batch):
    """A network for any size that tells left from right and up from down."""
    images = batch["image"].astype(jnp.float32) / 255
    _, height, width, _ = images.shape
    up, left = images[:, : height // 2].mean((1, 2, 3)), images[:, :, : width // 3].mean((1, 2, 3))
    corner = images[:, 0, 0, 0]
    seen = jnp.stack([*images.mean((1, 2)).T, up, left, corner, jnp.full_like(up, height / 10)], -1)
    return {"embedding": seen @ params, "space": "s"}


def pictures(height=16, width=12, rows=3):
    return np.random.default_rng(1).integers(0, 256, (rows, height, width, 3), dtype=np.uint8)


def run(spec, images, image_size=None):
    out = jax.jit(
        lambda p, b: {k: v for k, v in views.with_views(predict_fn, spec, image_size)(p, b).items() if k != "space"}
    )(WEIGHTS, {"image": images})
    return np.asarray(out["embedding"])


def average(looks):
    vectors = [np.asarray(predict_fn(WEIGHTS, {"image": look})["embedding"]) for look in looks]
    return np.mean([v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors], 0)


def crops(images, height, width):
    spare_h, spare_w = images.shape[1] - height, images.shape[2] - width
    for y, x in ((0, 0), (0, spare_w), (spare_h, 0), (spare_h, spare_w), (spare_h // 2, spare_w // 2)):
        yield images[:, y : y + height, x : x + width]


def resized(images, height, width):
    return np.asarray(jax.image.resize(images.astype(np.float32), (len(images), height, width, 3), "linear"))


def test_no_views_is_the_function_itself():
    assert views.with_views(predict_fn, ()) is predict_fn and views.host_size((), (80, 64)) == (80, 64)


def test_text_has_no_views():
    text = Predict(lambda p, b: {"embedding": b["words"]}, ("words",))
    assert views.with_views(text, (("flip", {}),)) is text
    both = Predict(lambda p, b: {"embedding": b["image"].mean((1, 2)) + b["words"]}, ("image", "words"))
    shown = views.with_views(both, (("flip", {}),))
    assert shown.reads == ("image", "words")
    batch = {"image": np.full((2, 4, 4, 3), 3.0), "words": np.array([[0.0, 0, 0], [3, 0, 0]])}
    np.testing.assert_allclose(shown(None, batch)["embedding"][1], np.array([2, 1, 1]) / 6**0.5, rtol=1e-6)


def test_flip_averages_unit_vectors_of_the_picture_and_its_mirror():
    images = pictures()
    assert np.allclose(run((("flip", {}),), images), average([images, images[:, :, ::-1]]), atol=1e-6)


def test_five_crops_of_a_picture_that_was_read_larger():
    spec = (("five_crops", {"enlarge": 1.25}),)
    assert views.host_size(spec, (16, 12)) == (20, 15)
    images = pictures(20, 15)
    assert np.allclose(run(spec, images, (16, 12)), average(crops(images, 16, 12)), atol=1e-6)
    # a picture of the plain size is enlarged first
    images = pictures()
    assert np.allclose(run(spec, images), average(crops(resized(images, 20, 15), 16, 12)), atol=1e-5)


def test_ten_crops_at_two_scales():
    spec = (("flip", {}), ("five_crops", {"enlarge": 1.25}), ("multi_scale", {"scales": (1.0, 2.0)}))
    assert views.host_size(spec, (16, 12)) == (40, 30)
    images = pictures(40, 30)
    looks = [*crops(resized(images, 20, 15), 16, 12), *crops(images, 32, 24)]
    looks += [look[:, :, ::-1] for look in looks]
    assert np.allclose(run(spec, images, (16, 12)), average(looks), atol=1e-5)


def test_smaller_scales_are_resized_without_aliasing():
    spec = (("multi_scale", {"scales": (0.5, 1.0)}),)
    assert views.host_size(spec, (16, 12)) == (16, 12)
    stripes = np.zeros((1, 16, 12, 3), np.uint8)
    stripes[:, ::2] = 255
    got = run((("multi_scale", {"scales": (0.5,)}),), stripes)
    assert np.allclose(got, average([resized(stripes, 8, 6)]), atol=1e-5)
    assert np.abs(resized(stripes, 8, 6)[:, 1:-1] - 127.5).max() < 16
    images = pictures()
    assert np.allclose(run(spec, images), average([resized(images, 8, 6), images]), atol=1e-5)


def test_equal_arguments_give_an_equal_function_and_the_space_is_passed_on():
    one = views.with_views(predict_fn, [["multi_scale", {"scales": [1, 1.5]}]], [16, 12])
    assert one == views.with_views(predict_fn, (("multi_scale", {"scales": (1.0, 1.5)}),), (16, 12))
    assert one(WEIGHTS, {"image": pictures()})["space"] == "s"


def test_a_network_is_traced_once_per_scale_whatever_the_number_of_views():
    sizes = []

    @Predict
    def counting(params, batch):
        sizes.append(batch["image"].shape[1:3])
        return {"embedding": batch["image"].mean((1, 2))}

    text = (
        jax.jit(views.with_views(counting, (("flip", {}), ("five_crops", {}))))
        .lower(None, {"image": np.zeros((2, 14, 14, 3), np.float32)})
        .as_text()
    )
    assert len(sizes) <= 3 and set(sizes) == {(14, 14)} and text.count("stablehlo.while") == 1


def test_a_network_with_learned_positions_refuses_other_sizes_in_a_clear_sentence():
    @Predict
    def predict(params, batch):  # a position for every pixel
        return {"embedding": (batch["image"] + params).mean((1, 2))}

    params, images = np.zeros((16, 12, 3), np.float32), {"image": pictures()}
    assert views.with_views(predict, (("flip", {}), ("five_crops", {})))(params, images)["embedding"].shape == (3, 3)
    with pytest.raises(InputError, match="does not accept pictures of 32 x 24 instead of 16 x 12.*'multi_scale'"):
        views.with_views(predict, (("multi_scale", {"scales": (1.0, 2.0)}),))(params, images)


@pytest.mark.parametrize(
    "spec, words",
    [
        ((("flop", {}),), "no view named 'flop'.*flip, multi_scale, five_crops"),
        ((("flip", {"p": 1}),), "no argument 'p'.*available: nothing"),
        ((("flip", {}), ("flip", {})), "given twice"),
        (("flip",), r"write \(name, arguments\)"),
        ((("multi_scale", {"scales": (0,)}),), "give numbers above 0"),
        ((("multi_scale", {"scales": 1.5}),), "1.5: give numbers"),
        ((("five_crops", {"enlarge": 1}),), "give more than 1"),
    ],
)
def test_bad_views_are_refused(spec, words):
    with pytest.raises(InputError, match=words):
        views.host_size(spec, (8, 8))


def test_a_function_without_embeddings_is_refused():
    with pytest.raises(InputError, match="returns probabilities, not an embedding"):
        probabilities = Predict(lambda p, b: {"probabilities": b["image"]})
        views.with_views(probabilities, (("flip", {}),))(None, {"image": pictures()})
