"""Decoding of ordinary and odd files, rejection of bad ones, and the cache."""

import io
import os
import pathlib
import threading

import cv2
import numpy as np
import pytest
from PIL import Image

from retrieval_jax.data.pictures import decoding, sources
from retrieval_jax.errors import InputError

RAMP = np.stack(
    [
        np.tile(np.arange(48, dtype=np.uint8) * 5, (32, 1)),
        np.tile(np.arange(32, dtype=np.uint8)[:, None] * 7, (1, 48)),
        np.full((32, 48), 90, np.uint8),
    ],
    axis=-1,
)


def _pillow(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _jpeg(image=RAMP, quality=95) -> bytes:
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _far(a, b) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_are_exact(kind):
    data = _pillow(Image.fromarray(RAMP), kind, **({"lossless": True} if kind == "WEBP" else {}))
    image = decoding.decode(data)
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, RAMP)


def test_jpeg_is_rgb():
    assert _far(decoding.decode(_jpeg()), RAMP) < 12


def test_gray_becomes_rgb():
    gray = Image.fromarray(RAMP).convert("L")
    for data in (_pillow(gray, "PNG"), _pillow(gray, "JPEG", quality=100)):
        image = decoding.decode(data)
        assert image.shape == (32, 48, 3) and _far(image, np.asarray(gray)[:, :, None].repeat(3, 2)) <= 2


def test_cmyk_jpeg():
    cmyk = Image.fromarray(RAMP).convert("CMYK")
    image = decoding.decode(_pillow(cmyk, "JPEG", quality=98))
    assert _far(image, np.asarray(cmyk.convert("RGB"))) < 24


def test_palette_png():
    palette = Image.fromarray(RAMP).quantize(16)
    np.testing.assert_array_equal(decoding.decode(_pillow(palette, "PNG")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_goes_on_white(kind):
    rgba = np.dstack([RAMP, np.zeros((32, 48), np.uint8)])
    rgba[:, 24:, 3] = 255
    image = decoding.decode(_pillow(Image.fromarray(rgba), kind))
    assert (image[:, :24] == 255).all()
    np.testing.assert_array_equal(image[:, 24:], RAMP[:, 24:])


def test_transparent_palette_and_color_key_go_on_white():
    palette = Image.fromarray(np.repeat([[0], [1]], 4, axis=1).astype(np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    image = decoding.decode(_pillow(palette, "PNG", transparency=0))
    assert image[:, 0].tolist() == [[255, 255, 255], [40, 50, 60]]
    keyed = decoding.decode(_pillow(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
    assert (keyed == 255).all()


def test_sixteen_bits():
    wide = RAMP[:, :, 0].astype(np.uint16) * 257
    image = decoding.decode(cv2.imencode(".png", wide)[1].tobytes())
    assert _far(image, RAMP[:, :, :1].repeat(3, 2)) <= 1
    image = decoding.decode(_pillow(Image.fromarray(wide), "TIFF"))
    np.testing.assert_array_equal(image, RAMP[:, :, :1].repeat(3, 2))


def test_exif_orientation_is_applied_by_both_decoders():
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise shows it upright
    data = _pillow(Image.fromarray(RAMP), "JPEG", quality=98, exif=exif)
    expected = np.rot90(RAMP, -1)
    assert decoding.decode(data).shape == (48, 32, 3)
    assert _far(decoding.decode(data), expected) < 14
    assert _far(decoding.decode(data + b"\0\0"), expected) < 14  # trailing bytes: Pillow decodes it


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    image = decoding.decode(_pillow(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image file"),
        (b"GIF", "not an image file"),
        (b"<html>404</html>" * 9, "not an image file"),
        (_jpeg()[:-200], "truncated image file"),
        (_jpeg()[:200], "truncated image file"),
        (_pillow(Image.fromarray(RAMP), "PNG")[:-40], "truncated image file"),
        (_pillow(Image.fromarray(RAMP), "BMP")[:-400], "truncated image file"),
    ],
)
def test_bad_bytes_are_found_by_decoding_and_by_the_quick_check(tmp_path, data, reason):
    with pytest.raises(decoding.BadImage) as caught:
        decoding.decode(data)
    found = sources.check(os.path.realpath(tmp_path), _write(tmp_path, "a.jpg", data))
    # A truncated header is not a picture to some readers and a broken picture to others.
    assert {caught.value.reason, found.reason} <= {reason, "not an image file"}
    with pytest.raises(InputError, match=r"row 0 .*(not an image|truncated image) file: .*a.jpg.*; (replace|copy)"):
        sources.FileImages(tmp_path, ["a.jpg"])[0]


def _write(folder: pathlib.Path, name: str, data: bytes) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return name


@pytest.mark.parametrize("size", ["whole", "padded", "thumbnail"])
def test_good_files_pass_the_check(tmp_path, size):
    data = {
        "whole": _jpeg(),
        "padded": _jpeg() + b"\0" * 100,
        "thumbnail": b"\xff\xd8\xff\xe1\xff\xf0" + _jpeg()[:900].ljust(0xFFEE, b"\0") + _jpeg()[2:],
    }[size]
    assert sources.check(os.path.realpath(tmp_path), _write(tmp_path, "sub/a.jpg", data)) is None
    assert decoding.decode(data).shape == (32, 48, 3)


def test_too_large_pictures_are_not_decoded(tmp_path):
    for kind in ("PNG", "JPEG", "GIF"):
        data = _pillow(Image.new("RGB", (300, 200)), kind)
        with pytest.raises(decoding.BadImage, match="300 x 200"):
            decoding.decode(data, max_pixels=50_000)
        assert sources.check(str(tmp_path.resolve()), _write(tmp_path, "a", data), 50_000).reason == "image too large"
        assert sources.check(str(tmp_path.resolve()), "a", 60_000) is None
    bomb = _pillow(Image.new("1", (20_000, 20_000)), "PNG")
    assert sources.check(str(tmp_path.resolve()), _write(tmp_path, "bomb", bomb)).reason == "image too large"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../a.jpg", "sub/../../a.jpg", "..", "C:\\a.jpg", "..\\a.jpg", "a\0.jpg"]
)
def test_paths_that_leave_the_root(tmp_path, path):
    (tmp_path / "root").mkdir()
    _write(tmp_path, "a.jpg", _jpeg())
    assert sources.check(str((tmp_path / "root").resolve()), path).reason == "path leaves the root"
    with pytest.raises(InputError, match="path leaves the root"):
        sources.FileImages(tmp_path / "root", [path])[0]


def test_links_may_stay_inside_but_not_leave(tmp_path):
    root = tmp_path / "root"
    _write(root, "a.jpg", _jpeg())
    _write(tmp_path, "outside/b.jpg", _jpeg())
    _write(tmp_path, "root-2/b.jpg", _jpeg())
    (root / "inner.jpg").symlink_to("a.jpg")
    (root / "outer.jpg").symlink_to(tmp_path / "outside" / "b.jpg")
    (root / "twin.jpg").symlink_to(tmp_path / "root-2" / "b.jpg")  # its name starts with the root's
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "dangling.jpg").symlink_to("nothing.jpg")
    found = {
        name: sources.check(str(root.resolve()), name)
        for name in ("inner.jpg", "outer.jpg", "twin.jpg", "folder/b.jpg", "dangling.jpg", "folder")
    }
    assert {name: problem and problem.reason for name, problem in found.items()} == {
        "inner.jpg": None,
        "outer.jpg": "path leaves the root",
        "twin.jpg": "path leaves the root",
        "folder/b.jpg": "path leaves the root",
        "dangling.jpg": "missing image file",
        "folder": "path leaves the root",
    }
    # Reading refuses them too, because the check may be off. The root itself may be a link.
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        pictures = sources.FileImages(place, list(found))
        assert pictures[0].shape == (32, 48, 3)
        for row, problem in enumerate(found.values()):
            if problem:
                with pytest.raises(InputError, match=f"row {row} .*{problem.reason}: {place}/{list(found)[row]}"):
                    pictures[row]


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="not an image file"):
        sources.FileImages(tmp_path, ["a.jpg"])[0]


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "ICO"])
def test_unsupported_formats_are_not_tried(tmp_path, kind):
    data = _pillow(Image.fromarray(RAMP), kind)
    with pytest.raises(decoding.BadImage, match="not an image file"):
        decoding.decode(data)
    assert sources.check(str(tmp_path.resolve()), _write(tmp_path, "a", data)).reason == "not an image file"


def test_first_picture_of_an_mpo():
    data = _pillow(Image.fromarray(RAMP), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))], quality=98)
    assert _far(decoding.decode(data + b"\0"), RAMP) < 14  # trailing bytes: Pillow decodes it


def test_ppm_is_read():
    np.testing.assert_array_equal(decoding.decode(_pillow(Image.fromarray(RAMP), "PPM")), RAMP)


def test_missing_files_and_folders(tmp_path):
    root = str(tmp_path.resolve())
    (tmp_path / "folder").mkdir()
    assert sources.check(root, "a.jpg").sentence("a.jpg") == (
        f"missing image file: a.jpg (looked in {root}); add the file or remove the row"
    )
    assert sources.check(root, "folder").reason == "not an image file"
    assert sources.check(root, "folder/x/a.jpg").reason == "missing image file"
    with pytest.raises(InputError, match="row 0 .*missing image file: .*a.jpg"):
        sources.FileImages(tmp_path, ["a.jpg"])[0]


def test_at_least_decodes_large_jpegs_smaller(tmp_path):
    _write(tmp_path, "a.jpg", _jpeg(cv2.resize(RAMP, (480, 320))))
    shapes = [sources.FileImages(tmp_path, ["a.jpg"], at_least=n)[0].shape for n in (None, 321, 160, 80, 40, 1)]
    assert shapes == [(320, 480, 3), (320, 480, 3), (160, 240, 3), (80, 120, 3), (40, 60, 3), (40, 60, 3)]


class _Counting:
    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 10

    def __getitem__(self, row):
        self.reads += 1
        return np.full((2, 3, 3), row, np.uint8)


def test_cache_decodes_once_and_keeps_what_fits():
    source = _Counting()
    cached = sources.Cached(source, max_bytes=5 * 18)
    for _ in range(3):
        assert [int(cached[row][0, 0, 0]) for row in range(10)] == list(range(10))
    assert len(cached) == 10 and cached.num_bytes == 90 and source.reads == 10 + 5 + 5
    assert cached[np.int64(1)] is cached[1]
    with pytest.raises(ValueError, match="read-only"):
        cached[1][0, 0, 0] = 7


def test_cache_is_thread_safe():
    cached = sources.Cached(_Counting(), max_bytes=10 * 18)
    wrong = []

    def read():
        wrong.extend(row for _ in range(200) for row in range(10) if cached[row][0, 0, 0] != row)

    threads = [threading.Thread(target=read) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and cached.num_bytes == 180
