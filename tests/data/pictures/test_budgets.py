"""Budgets of memory and time per picture, and shortages of the machine, which are not damage."""

import errno
import io
import os
import resource
import threading
import time

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image

import odd_pictures
import picture_bombs
from retrieval_jax.data.pictures import decoding, headers, sources
from retrieval_jax.data.records import shards
from retrieval_jax.data.tables import row_checks
from retrieval_jax.errors import InputError, Shortage, explain

MEBIBYTE = 1024  # in the unit of ru_maxrss


# --------------------------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize("name", picture_bombs.all_of_them())
def test_a_bomb_takes_little_time_and_memory(tmp_path, name):
    data, reason = picture_bombs.all_of_them()[name]
    (tmp_path / "a").write_bytes(data)
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = sources.check(os.path.realpath(tmp_path), "a", whole=True)
    assert (problem and problem.reason) == reason
    if reason is None:
        assert decoding.decode(data).dtype == np.uint8
    if reason == "image too costly":
        assert problem.sentence("a").endswith("save it again as an ordinary JPEG or PNG")
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * MEBIBYTE


def test_a_picture_that_exceeds_its_time_is_set_aside(monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0.2)
    slow = b"P6 3000 3000 1000 " + b"\0\1" * (3 * 3000 * 3000)  # scaled value by value
    with pytest.raises(decoding.BadImage, match="more than 0.2 s of processor time") as caught:
        decoding.decode(slow)
    assert caught.value.reason == "image too costly"


def test_a_picture_that_exceeds_its_memory_is_set_aside(monkeypatch):
    monkeypatch.setattr(decoding, "MEMORY", 0)
    monkeypatch.setattr(decoding, "_BASE", 2**24)
    with pytest.raises(decoding.BadImage, match="MiB of memory") as caught:
        decoding.decode(odd_pictures.saved(Image.new("RGB", (4000, 4000)), "TIFF", compression="tiff_lzw"))
    assert caught.value.reason == "image too costly"


def test_usual_scans_are_decoded_and_metadata_is_not_counted_as_scans():
    few = picture_bombs.many_scans(20, side=64)
    assert decoding.decode(few).shape == (64, 64, 3)
    comment = b"\xff\xfe" + (2 + 1000).to_bytes(2) + b"\xff\xda" * 500
    jpeg = odd_pictures.saved(odd_pictures.PICTURE, "JPEG", progressive=True)
    within = jpeg.index(b"\xff\xda")
    later = jpeg.index(b"\xff\xda", within + 2)
    for at in (within, later):
        assert not headers.too_many_scans(
            jpeg[:at] + comment + jpeg[at:], headers.jpeg(jpeg[:at] + comment + jpeg[at:])
        )
    trailer = jpeg + b"\xff\xda" * 500  # the film of a phone's live photo
    assert decoding.decode(trailer).shape == (32, 48, 3)


def test_the_canvas_of_a_webp_is_known_before_it_is_decoded():
    for options in ({"lossless": True}, {"quality": 80}, {"exif": odd_pictures.turned(1)}):
        assert headers.peek(odd_pictures.saved(odd_pictures.PICTURE, "WEBP", **options)) == (False, (48, 32))
    large = odd_pictures.saved(odd_pictures.PICTURE, "WEBP", exif=odd_pictures.turned(1))
    large = large[:24] + b"\xff\xff\x0f" * 2 + large[30:]
    with pytest.raises(decoding.BadImage, match="1048576 x 1048576 pixels"):
        decoding.decode(large)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_strips_of_large_pictures_equal_the_whole(monkeypatch, mode):
    gradient = Image.fromarray(np.add.outer(np.arange(90), np.arange(70)).astype(np.uint8))
    image = Image.merge("RGBA", [gradient] * 4)
    if mode == "P":
        image = image.convert("RGB").quantize(16)
        image.info["transparency"] = bytes(range(0, 256, 16))
    else:
        image = Image.fromarray(np.asarray(gradient).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    kind, options = ("TIFF", {}) if mode == "CMYK" else ("PNG", {})
    data = odd_pictures.saved(image, kind, **options)
    whole = decoding.pillow_decode(io.BytesIO(data), 2**20)
    monkeypatch.setattr(decoding, "_STRIP", 300)
    np.testing.assert_array_equal(decoding.pillow_decode(io.BytesIO(data), 2**20), whole)


def test_large_pictures_wait_for_each_other_and_small_ones_do_not():
    room, most, now = decoding._Room(4 * decoding._LARGE), [0], [0]
    lock = threading.Lock()

    def work():
        with room(2 * decoding._LARGE):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    with room(100 * decoding._LARGE), room(10):  # larger than the room: alone
        for thread in threads:
            thread.start()
        assert most[0] == 0
    for thread in threads:
        thread.join()
    assert most[0] == 2


# ------------------------------------------------------------------------------------------------------------ shortages


def _fails(error):
    def function(*_, **__):
        raise error

    return function


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a.jpg", "a.png", "a.webp"):
        (tmp_path / name).write_bytes(odd_pictures.saved(odd_pictures.PICTURE, {"jpg": "JPEG"}.get(name[2:], name[2:])))
    monkeypatch.setattr(sources, "_PAUSES", (0.0,))
    return tmp_path


OF_THE_MACHINE = (
    "EMFILE",
    "ENFILE",
    "ENOMEM",
    "EIO",
    "EACCES",
    "EPERM",
    "ESTALE",
    "ETIMEDOUT",
    "EREMOTEIO",
    "ENOTCONN",
)


@pytest.mark.parametrize("name", OF_THE_MACHINE)
def test_an_error_of_the_machine_stops_the_check_and_the_reader(folder, monkeypatch, name):
    number = getattr(errno, name)
    monkeypatch.setattr(sources, "open", _fails(OSError(number, os.strerror(number), "a.jpg")), raising=False)
    for read in (
        lambda: sources.check(os.path.realpath(folder), "a.jpg"),
        lambda: sources.FileImages(folder, ["a.jpg"])[0],
    ):
        with pytest.raises(Shortage, match=rf"a.jpg could not be read \({os.strerror(number)}: .*nothing is set aside"):
            read()


@pytest.mark.parametrize("name", ["ENOENT", "ENOTDIR", "ENAMETOOLONG", "ELOOP"])
def test_an_error_of_the_path_is_a_bad_row(folder, monkeypatch, name):
    number = getattr(errno, name)
    monkeypatch.setattr(sources, "open", _fails(OSError(number, os.strerror(number))), raising=False)
    assert sources.check(os.path.realpath(folder), "a.jpg").reason == "missing image file"
    with pytest.raises(InputError, match="missing image file"):
        sources.FileImages(folder, ["a.jpg"])[0]


def test_an_error_that_passes_is_waited_for(folder, monkeypatch):
    tried = []

    def late(*arguments, **options):
        tried.append(arguments)
        if len(tried) < 2:
            raise OSError(errno.ESTALE, "Stale file handle")
        return open(*arguments, **options)

    monkeypatch.setattr(sources, "open", late, raising=False)
    assert sources.check(os.path.realpath(folder), "a.jpg") is None and len(tried) == 2


def test_the_whole_check_of_a_table_stops(folder, monkeypatch):
    frame = pl.DataFrame({"id": ["1", "2"], "image": ["a.jpg", "a.png"]})
    rows = row_checks.Rows("train", frame, ["train.csv"], np.zeros(2, np.int32), np.arange(2))
    monkeypatch.setattr(sources, "open", _fails(OSError(errno.EMFILE, "Too many open files")), raising=False)
    with pytest.raises(Shortage, match="ulimit -n"):
        row_checks.check_images(rows, folder, decoding.MAX_PIXELS)
    assert not rows.bad


NO_MEMORY = {
    "Python": MemoryError(),
    "NumPy": np._core._exceptions._ArrayMemoryError((2**40,), np.dtype(np.uint8)),
    "Pillow": OSError("out of memory error when reading image file"),
}


@pytest.mark.parametrize("whose", NO_MEMORY)
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_lack_of_memory_is_not_damage(folder, monkeypatch, whose, name):
    monkeypatch.setattr(Image.Image, "convert", _fails(NO_MEMORY[whose]))
    monkeypatch.setattr(decoding, "_converted", _fails(NO_MEMORY[whose]))
    with pytest.raises(Shortage, match="out of memory"):
        sources.check(os.path.realpath(folder), name, whole=True)
    source = sources.FileImages(folder, [name])
    with pytest.raises(Shortage, match=f"{name} could not be read .out of memory"):
        source[0]
    with pytest.raises(MemoryError):
        shards.fitted(source, 0, 16, 90)


def test_lack_of_memory_of_opencv_is_not_damage(folder, monkeypatch):
    error = cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes")
    monkeypatch.setattr(cv2, "imdecode", _fails(error))
    with pytest.raises(Shortage, match="out of memory"):
        sources.FileImages(folder, ["a.jpg"])[0]


def test_damage_that_may_be_lack_of_memory_is_decoded_again_with_memory_to_spare(monkeypatch):
    data, tried = odd_pictures.saved(Image.new("RGB", (2000, 1000), "red"), "WEBP"), []
    real = decoding.pillow_decode

    def once(*arguments):
        tried.append(arguments)
        if len(tried) == 1:
            raise decoding.BadImage("truncated image file", "could not create decoder object")
        return real(*arguments)

    monkeypatch.setattr(decoding, "pillow_decode", once)
    assert decoding.decode(data).shape == (1000, 2000, 3) and len(tried) == 2


def test_every_command_explains_a_shortage():
    assert explain(Shortage("a.jpg could not be read"))[1] == 1
    for error in (MemoryError(), OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "no")):
        text, status = explain(error)
        assert status == 1 and text.startswith("error: ") and "same command" in text
