"""The operations of TrivialAugment and RandAugment against Pillow's, and the draws of both policies."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from retrieval_jax.data.pictures import augment, transforms
from retrieval_jax.errors import InputError

GREY = (128, 128, 128)


def picture(height=70, width=90):
    small = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(1).integers(-9, 9, smooth.shape)
    return np.clip(smooth * 0.7 + 20 + noise, 0, 255).astype(np.uint8)


IMAGE = picture()
PILLOW = Image.fromarray(IMAGE)


def difference(ours, pillows):
    return np.abs(ours.astype(int) - np.asarray(pillows).astype(int)).max()


@pytest.mark.parametrize(
    "image", [IMAGE, IMAGE[:1, :1].copy(), IMAGE[:3, ::7].copy(), np.full((9, 5, 3), 77, np.uint8)]
)
def test_lookup_tables_give_the_bytes_of_pillow(image):
    pillow = Image.fromarray(image)
    assert difference(augment.autocontrast(image), ImageOps.autocontrast(pillow)) == 0
    assert difference(augment.equalize(image), ImageOps.equalize(pillow)) == 0
    assert difference(augment.invert(image), ImageOps.invert(pillow)) == 0
    for bits in range(1, 9):
        assert difference(augment.posterize(image, bits), ImageOps.posterize(pillow, bits)) == 0
    assert not augment.posterize(image, 0).any()
    for threshold in (0, 100.5, 256):
        assert difference(augment.solarize(image, threshold), ImageOps.solarize(pillow, threshold)) == 0
    for factor in (0.01, 0.5, 1.0, 1.3, 1.99):
        assert difference(augment.brightness(image, factor), ImageEnhance.Brightness(pillow).enhance(factor)) == 0


def test_equalize_of_many_pixels():
    image = picture(400, 300)
    assert difference(augment.equalize(image), ImageOps.equalize(Image.fromarray(image))) == 0


def test_solarize_add_equals_a_loop_over_values():
    naive = [[[min(255, v + 60) if v < 128 else v for v in pixel] for pixel in row] for row in IMAGE[:9].tolist()]
    assert np.array_equal(augment.solarize_add(IMAGE[:9].copy(), 60), naive)


@pytest.mark.parametrize("factor", [0.01, 0.1, 0.5, 1.0, 1.3, 1.99])
def test_blends_differ_from_pillow_by_rounding_only(factor):
    # Pillow rounds the grey or smooth picture first and truncates after blending: up to two.
    assert difference(augment.contrast(IMAGE, factor), ImageEnhance.Contrast(PILLOW).enhance(factor)) <= 1
    assert difference(augment.color(IMAGE, factor), ImageEnhance.Color(PILLOW).enhance(factor)) <= 2
    assert difference(augment.sharpness(IMAGE, factor), ImageEnhance.Sharpness(PILLOW).enhance(factor)) <= 2
    if factor == 1:
        assert difference(augment.color(IMAGE, 1), IMAGE) == difference(augment.sharpness(IMAGE, 1), IMAGE) == 0


def pillow_affine(matrix):
    """Returns Pillow's result and a mask without the picture's edge, which OpenCV blends with the fill."""
    warped = PILLOW.transform(
        PILLOW.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=GREY
    )
    y, x = np.mgrid[: IMAGE.shape[0], : IMAGE.shape[1]] + 0.5
    a, b, c, d, e, f = matrix
    inside = np.minimum.reduce(
        [
            a * x + b * y + c,
            IMAGE.shape[1] - (a * x + b * y + c),
            d * x + e * y + f,
            IMAGE.shape[0] - (d * x + e * y + f),
        ]
    )
    return np.asarray(warped).astype(int), np.abs(inside) > 1


@pytest.mark.parametrize("factor", [-0.99, -0.3, 0.1, 0.99])
def test_shears_equal_the_affine_map_of_pillow(factor):
    for shear, matrix in ((augment.shear_x, (1, factor, 0, 0, 1, 0)), (augment.shear_y, (1, 0, 0, factor, 1, 0))):
        expected, clear = pillow_affine(matrix)
        assert np.abs(shear(IMAGE, factor) - expected)[clear].max() <= 2


@pytest.mark.parametrize("pixels", [-20, 7, 200])
def test_shifts_equal_the_affine_map_of_pillow(pixels):
    assert np.array_equal(augment.translate_x(IMAGE, pixels), pillow_affine((1, 0, pixels, 0, 1, 0))[0])
    assert np.array_equal(augment.translate_y(IMAGE, pixels), pillow_affine((1, 0, 0, 0, 1, pixels))[0])


@pytest.mark.parametrize("degrees", [-135, -30, 5.5, 77])
def test_rotations_equal_pillow(degrees):
    expected = np.asarray(PILLOW.rotate(degrees, resample=Image.Resampling.BILINEAR, fillcolor=GREY)).astype(int)
    turn = np.radians(degrees)
    (cos, sin), (x, y) = (np.cos(turn), np.sin(turn)), np.divide(PILLOW.size, 2)
    _, clear = pillow_affine((cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))
    assert np.abs(augment.rotate(IMAGE, degrees) - expected)[clear].max() <= 2 and clear.mean() > 0.7


@pytest.mark.parametrize("name", ["trivial_augment", "rand_augment"])
@pytest.mark.parametrize("shape", [(24, 20), (1, 1), (2, 37)])
def test_policies_keep_size_and_input_and_depend_on_the_generator_only(name, shape):
    apply = transforms.compose((("resize", {}), (name, {})), shape)
    image = picture(*shape)
    before = image.copy()
    outs = [[apply(image, np.random.default_rng(seed)) for seed in range(40)] for _ in range(2)]
    assert np.array_equal(image, before)
    assert all(out.shape == (*shape, 3) and out.dtype == np.uint8 for out in outs[0])
    assert all(np.array_equal(a, b) for a, b in zip(*outs, strict=True))
    assert len({out.tobytes() for out in outs[0]}) > (20 if shape == (24, 20) else 1)


class Log:
    """Replaces every operation of the module and records the calls."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add"):
            monkeypatch.setattr(augment, name, self.record(name))
        for table in (augment._ENHANCE, augment._MOVE):
            for name in table:
                monkeypatch.setitem(table, name, self.record(name))

    def record(self, name):
        return lambda image, *values: self.calls.append((name, *values)) or image

    def values(self, name):
        return np.array([call[1] for call in self.calls if call[0] == name])


def test_trivial_augment_draws_evenly_from_the_wide_space(monkeypatch):
    log, rng = Log(monkeypatch), np.random.default_rng(0)
    apply = augment.trivial_augment((70, 90))
    for _ in range(14 * 400):
        apply(IMAGE, rng)
    names = [call[0] for call in log.calls]
    assert len(set(names)) == 13 and 5000 < len(names) < 5400  # a fourteenth are the identity
    assert all(320 < names.count(name) < 480 for name in names)
    assert set(log.values("posterize")) == set(range(2, 9))
    assert log.values("solarize").min() == 0 and log.values("solarize").max() == 256
    for name, largest in (("rotate", 135), ("shear_x", 0.99), ("translate_y", 32)):
        values = log.values(name)
        assert values.max() == largest == -values.min() and len(set(np.round(np.abs(values), 9))) == 31
    assert np.allclose((log.values("color").min(), log.values("color").max()), (0.01, 1.99))


def test_rand_augment_draws_strengths_around_the_magnitude(monkeypatch):
    log, rng = Log(monkeypatch), np.random.default_rng(0)
    apply = augment.rand_augment((70, 90), num_ops=3)
    for _ in range(5 * 400):
        apply(IMAGE, rng)
    names = [call[0] for call in log.calls]
    assert len(set(names)) == 15 and 2850 < len(names) < 3150  # half of three operations
    assert all(145 < names.count(name) < 255 for name in names)
    degrees = np.abs(log.values("rotate"))
    assert abs(degrees.mean() - 27) < 0.3 and 1.0 < degrees.std() < 1.6 and degrees.max() <= 30
    assert set(log.values("posterize")) <= {0, 1, 2} and (log.values("posterize") < 2).mean() > 0.9
    assert 0 <= log.values("solarize").min() and log.values("solarize").max() <= 80
    factors = log.values("color")
    assert factors.min() >= 0.1 and factors.max() <= 1.9 and 0.3 < (factors > 1).mean() < 0.7
    assert abs(np.abs(log.values("translate_x")).mean() - 0.9 * 0.45 * 90) < 1
    assert abs(np.abs(log.values("translate_y")).mean() - 0.9 * 0.45 * 70) < 1


def test_rand_augment_of_the_paper_has_one_strength(monkeypatch):
    log, rng = Log(monkeypatch), np.random.default_rng(0)
    apply = augment.rand_augment((70, 90), magnitude=5, magnitude_std=0, p=1, ops=("rotate", "shear_x"))
    for _ in range(50):
        apply(IMAGE, rng)
    assert len(log.calls) == 100 and set(np.abs(log.values("rotate"))) == {15.0}
    assert set(np.abs(log.values("shear_x"))) == {0.15}


@pytest.mark.parametrize(
    "spec, words",
    [
        (("trivial_augment", {"ops": ("rotat",)}), ("rotat", "shear_x", "solarize")),
        (("trivial_augment", {"ops": ()}), ("ops is empty",)),
        (("rand_augment", {"magnitude": 11}), ("magnitude", "10")),
        (("rand_augment", {"num_ops": 0}), ("num_ops",)),
        (("rand_augment", {"p": "often"}), ("p must be a number",)),
        (("rand_augment", {"fill": 3}), ("red, green, blue",)),
    ],
)
def test_bad_settings_are_refused(spec, words):
    with pytest.raises(InputError) as error:
        transforms.compose((("resize", {}), spec), (8, 8))
    for word in words:
        assert word in str(error.value)
