"""Crops chosen before decoding: the same pixels, or close to them if fewer are decoded."""

import io
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

import odd_pictures
from retrieval_jax.data import pipeline
from retrieval_jax.data.examples import Examples, Pictures
from retrieval_jax.data.pictures import decoding, sources, transforms

rng = np.random.default_rng(0)
PHOTO = cv2.resize(rng.integers(0, 256, (14, 9, 3), dtype=np.uint8), (211, 333), interpolation=cv2.INTER_CUBIC)
CROP = (("random_resized_crop", {"scale": (0.1, 1.0)}), ("flip", {}))


def jpeg(image=PHOTO, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", **{"quality": 85, **options})
    return content.getvalue()


def encoded(data: bytes, calls=None, **kwargs) -> decoding.Encoded:
    def whole():
        if calls is not None:
            calls.append(1)
        return decoding.decode(data)

    return decoding.Encoded(data, whole, **kwargs)


KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "coarse": {"quality": 20},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_has_exactly_the_pixels_of_the_whole(kind):
    calls, data = [], jpeg(**KINDS[kind])
    whole, picture = decoding.decode(data), encoded(data, calls)
    assert picture.shape == (333, 211, 3)
    for top, left, height, width in (
        (0, 0, 333, 211),
        (0, 0, 1, 1),
        (100, 50, 92, 161),
        (31, 0, 1, 211),
        (1, 3, 30, 20),
        (1, 3, 31, 20),
        (0, 0, 63, 9),
        (300, 200, 33, 11),
    ):
        cut = picture.cut(top, left, height, width, (height, width))
        np.testing.assert_array_equal(cut, whole[top : top + height, left : left + width])
    assert not calls


def test_gray_is_cropped_as_rgb():
    data = jpeg(PHOTO[:, :, 0])
    cut = encoded(data).cut(10, 20, 50, 60, (50, 60))
    np.testing.assert_array_equal(cut, decoding.decode(data)[10:60, 20:80])


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_large_crop_is_decoded_at_low_resolution_and_close_to_the_mean(factor):
    data, calls = jpeg(), []
    whole, picture = decoding.decode(data), encoded(data, calls)
    top, left, height, width = 16, 24, 23 * factor, 17 * factor  # whole pixels of the smaller picture
    cut = picture.cut(top, left, height, width, (23, 17))
    assert not calls and cut.shape == (23, 17, 3)
    mean = cv2.resize(whole[top : top + height, left : left + width], (17, 23), interpolation=cv2.INTER_AREA)
    assert np.abs(cut.astype(int) - mean).mean() < 2
    assert picture.cut(top, left, height - 1, width, (23, 17)).shape[0] > 23  # one row too few: twice the resolution


@pytest.mark.parametrize("name", ["turned", "png", "truncated", "padded", "too many pixels", "cmyk"])
def test_other_pictures_are_decoded_whole(name):
    exif = Image.Exif()
    exif[274] = 6
    cmyk = io.BytesIO()
    Image.fromarray(PHOTO).convert("CMYK").save(cmyk, "JPEG")
    data = {
        "turned": jpeg(exif=exif),
        "png": cv2.imencode(".png", PHOTO)[1].tobytes(),
        "truncated": jpeg()[:-500],
        "padded": jpeg() + b"\0" * 9,
        "too many pixels": jpeg(),
        "cmyk": cmyk.getvalue(),
    }[name]
    calls, kwargs = [], {"max_pixels": 70_000} if name == "too many pixels" else {}
    if name == "truncated":
        with pytest.raises(decoding.BadImage, match="truncated"):
            encoded(data, **kwargs)
        return
    picture, whole = encoded(data, calls, **kwargs), decoding.decode(data)
    assert calls == [1] and picture.shape == whole.shape
    np.testing.assert_array_equal(picture.cut(30, 20, 110, 90, (20, 20)), whole[30:140, 20:110])
    assert calls == [1]


@pytest.mark.parametrize("order", ["II", "MM"])
def test_an_upright_orientation_is_ordinary(order):
    exif = Image.Exif()
    exif.endian = "<" if order == "II" else ">"
    exif[274], exif[271] = 1, "a camera"
    data, calls = jpeg(exif=exif), []
    assert order.encode() in data[:40] and encoded(data, calls).shape == PHOTO.shape and not calls
    exif[274] = 3
    assert encoded(jpeg(exif=exif), calls).shape == PHOTO.shape and calls


def test_an_orientation_after_the_frame_header_is_applied():
    exif = Image.Exif()
    exif[274] = 6
    data = jpeg(exif=exif)
    start, frame_end = data.index(b"\xff\xe1"), data.index(b"\xff\xc0") + 19
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
    data = data[:start] + data[end:frame_end] + data[start:end] + data[frame_end:]
    calls, whole = [], decoding.decode(data)
    assert whole.shape == (211, 333, 3) and encoded(data, calls).shape == whole.shape and calls


def test_damaged_pixels_do_not_prevent_a_crop():
    data = bytearray(jpeg())
    data[3000:3400] = rng.bytes(400)
    whole = decoding.decode(bytes(data))
    cut = encoded(bytes(data)).cut(0, 0, 200, 211, (200, 211))
    assert cut.shape == (200, 211, 3) and whole.shape == PHOTO.shape


def test_transforms_of_encoded_and_decoded_pictures_are_equal():
    data = jpeg()
    for spec in (CROP, (("resize", {}), ("random_resized_crop", {})), (("center_crop", {}),)):
        apply = transforms.compose(spec, (200, 150))
        ours = apply(encoded(data), np.random.default_rng(5))
        np.testing.assert_array_equal(ours, apply(decoding.decode(data), np.random.default_rng(5)))


def test_halves_are_close_to_areas():
    for size in ((224, 150), (160, 100), (500, 400)):
        halves, area = (
            transforms.compose((("resize", {"interpolation": name}),), size)(PHOTO) for name in ("halves", "area")
        )
        assert halves.shape == (*size, 3) and np.abs(halves.astype(int) - area).mean() < 5
    for side in (2, 4, 8):  # nothing remains after halving, so both are exact means
        size = 320 // side, 208 // side
        halves, area = (
            transforms.compose((("resize", {"interpolation": name}),), size)(PHOTO[:320, :208])
            for name in ("halves", "area")
        )
        np.testing.assert_array_equal(halves, area)


def test_a_crop_of_a_file_smaller_than_its_header_says_is_not_empty():
    encoded = decoding.Encoded(jpeg(), lambda: PHOTO[:20, :30])
    encoded._data = b""  # no decoder reads it, so the whole picture is decoded
    cut = encoded.cut(100, 200, 50, 50, (10, 10))
    assert cut.size and np.array_equal(cut, PHOTO[19:20, 29:30])


def test_a_cache_is_pickled_without_its_pictures():
    cache = sources.Cached([PHOTO], 10**9)
    assert cache[0] is cache[0] and cache.num_bytes == PHOTO.nbytes
    other = pickle.loads(pickle.dumps(cache))
    assert other.num_bytes == 0 and other.max_bytes == 10**9 and np.array_equal(other[0], PHOTO)
    assert sources.kept(cache.source, 0) is cache.source


def batches(folder, **kw):
    files = sources.kept(sources.FileImages(folder, [f"{row}.jpg" for row in range(9)]), kw.pop("cache_bytes", 0))
    columns = {"image": Pictures(files), "category": np.arange(9) // 4}
    return list(
        pipeline.train_batches(
            Examples(columns),
            sampling="balanced",
            transform=CROP,
            seed=1,
            batch_size=4,
            num_steps=5,
            **{"image_size": (170, 110), **kw},
        )
    )  # no crop is twice as large


def test_batches_do_not_depend_on_how_pictures_are_read(tmp_path):
    for row in range(9):
        (tmp_path / f"{row}.jpg").write_bytes(jpeg(np.roll(PHOTO, 20 * row, axis=0)))
    plain, other = batches(tmp_path), {"num_threads": 1, "num_workers": 2, "crop_before_decoding": True}
    for kw in (
        {"crop_before_decoding": True},
        {"crop_before_decoding": True, "num_threads": 3},
        other,
        {"crop_before_decoding": True, "cache_bytes": 10**9, "num_threads": 2},
    ):
        for a, b in zip(batches(tmp_path, **kw), plain, strict=True):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], err_msg=f"{kw} {name}")
    small = batches(tmp_path, image_size=(30, 20), crop_before_decoding=True)
    for a, b in zip(small, batches(tmp_path, image_size=(30, 20)), strict=True):
        assert np.array_equal(a["row"], b["row"])
        assert np.abs(a["image"].astype(int) - b["image"]).mean() < 12  # one row less of 30 is 8
    (tmp_path / "3.jpg").write_bytes(jpeg()[:2000])
    with pytest.raises(Exception, match="truncated image file: .*3.jpg"):
        batches(tmp_path, crop_before_decoding=True)


def test_a_picture_that_decodes_to_another_size_than_its_header_is_decoded_whole(monkeypatch):
    jpeg = odd_pictures.good()["jpeg.jpg"]
    found = decoding.Encoded(jpeg, lambda: decoding.decode(jpeg))
    expected = found.cut(4, 30, 8, 12, (8, 12))
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", lambda *_, **__: np.zeros((32, 20, 3), np.uint8))
    np.testing.assert_allclose(found.cut(4, 30, 8, 12, (8, 12)), expected, atol=4)
