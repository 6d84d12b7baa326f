"""Pictures as real catalogues have them, as docs/real_catalogues.md lists them: decoded as they look, or set aside."""

import os
import resource
import time

import numpy as np
import polars as pl
import pytest
from PIL import Image

import odd_pictures
from retrieval_jax.data.pictures import decoding, sources
from retrieval_jax.data.tables import row_checks

JPEG = odd_pictures.good()["jpeg.jpg"]


def _far(a, b) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


GRAY = np.asarray(Image.fromarray(odd_pictures.RAMP).convert("L"))[:, :, None].repeat(3, 2)


@pytest.mark.parametrize("name", [name for name in odd_pictures.good() if not name.startswith(("1x1", "2"))])
def test_pictures_are_decoded_as_they_look(name):
    image, expected, near = decoding.decode(odd_pictures.good()[name]), odd_pictures.RAMP, 14
    assert image.dtype == np.uint8 and image.shape[2] == 3
    if name.startswith("rotated"):
        turns = {
            2: np.fliplr,
            3: lambda x: np.rot90(x, 2),
            4: np.flipud,
            5: lambda x: x.swapaxes(0, 1),
            6: lambda x: np.rot90(x, -1),
            7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
            8: np.rot90,
        }
        expected = turns[int(name[7])](expected)
    elif name in ("gray.jpg", "gray.png", "interlaced.png"):
        expected, near = GRAY, 3
    elif name in ("gray16.png", "gray16.tiff"):
        expected, near = odd_pictures.RAMP[:, :, :1].repeat(3, 2), 1
    elif name in ("palette.png", "plain.gif", "animated.gif"):
        near = 40
    elif name.startswith("alpha") and name != "alpha.bmp" or name == "gray_alpha.png":  # on white
        assert (image[:, :24] == 255).all()
        expected = (GRAY if name == "gray_alpha.png" else expected)[:, 24:]
        image, near = image[:, 24:], 3
    elif name in ("palette_transparent.png", "transparent.gif"):
        assert (image == 255).all(2).any()
        image, expected = image[-1, -1], image[-1, -1]
    elif name == "one_bit.png":
        assert set(np.unique(image)) == {0, 255}
        return
    elif name == "ycck.jpg":
        assert image.std() > 10  # its colours are not those of the CMYK picture that it was made of
        return
    elif name in ("longer_than_declared.jpg", "shorter_than_declared.jpg"):
        height = min(len(image), 32) - 8
        image, expected = image[:height], expected[:height]
    assert _far(image, expected) <= near


@pytest.mark.parametrize("name", odd_pictures.bad())
def test_pictures_that_are_set_aside_are_not_decoded_either(tmp_path, name):
    data, reason = odd_pictures.bad()[name]
    (tmp_path / "a").write_bytes(data)
    assert sources.check(os.path.realpath(tmp_path), "a").reason == reason
    with pytest.raises(decoding.BadImage, match=reason):
        decoding.decode(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (odd_pictures.bad()["error_page.jpg"][0], "it is an HTML, XML or SVG page"),
        (b"\0\0\0\x0cjP  \r\n", "it is JPEG 2000"),
        (b"\0\0\0\x20ftypavif" + b"\0" * 40, "it is AVIF"),
        (odd_pictures.bad()["phone.heic"][0], "it is HEIC"),
        (odd_pictures.bad()["icon.ico"][0], "it is ICO"),
        (odd_pictures.bad()["page.pdf"][0], "it is a PDF"),
        (b"", "it is empty"),
    ],
)
def test_files_that_are_not_pictures_are_identified(data, says):
    with pytest.raises(decoding.BadImage) as caught:
        decoding.decode(data)
    assert caught.value.sentence("a.jpg") == (
        f"not an image file: a.jpg ({says}); replace it by a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM"
    )


def test_a_small_file_takes_little_time_and_memory():
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decoding.decode(odd_pictures.damaged_inside()["endless.png"]).shape == (1, 1, 3)
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024


def test_the_check_reads_headers_and_ends_only(tmp_path, monkeypatch):
    names = ["jpeg.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg", "png.png", "alpha.png", "20000x40.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(odd_pictures.good()[name])
    monkeypatch.setattr(decoding, "decode", None)
    monkeypatch.setattr(decoding, "pillow_decode", None)
    number = 2000
    frame = pl.DataFrame(
        {"id": [str(row) for row in range(number)], "image": [names[row % len(names)] for row in range(number)]}
    )
    rows = row_checks.Rows("train", frame, ["train.csv"], np.zeros(number, np.int32), np.arange(number))
    row_checks.check_images(rows, tmp_path, decoding.MAX_PIXELS)
    assert not rows.bad
