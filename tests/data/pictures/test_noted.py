"""What is remembered of pictures: the same bytes are the same picture, whatever times say; other bytes never are."""

import os
import shutil
import time

import cv2
import numpy as np
import pytest

import tfds_generated
from retrieval_jax.data.pictures import noted
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.data.records.reading import RecordImages
from retrieval_jax.errors import InputError

ROWS = np.arange(4)


@pytest.fixture
def folder(tmp_path):
    """Four pictures, written an hour ago as far as anyone knows."""
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (4, 20, 12, 3), dtype=np.uint8)):
        cv2.imwrite(str(tmp_path / f"{row}.png"), image)
    return tmp_path


@pytest.fixture(autouse=True)
def an_hour_later(monkeypatch):
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(noted.time, "time_ns", lambda: later)


class Counting(FileImages):
    reads = ()

    def read(self, row):
        self.reads = (*self.reads, row)
        return super().read(row)


def source(folder, rows=ROWS):
    return Counting(folder, [f"{row}.png" for row in rows])


def test_reading_notes_and_notes_read_what_is_missing(folder):
    pictures = Noted(source(folder))
    first = pictures[2]
    assert np.array_equal(first, cv2.imread(str(folder / "2.png"))[..., ::-1])
    fingerprints, thumbnails = pictures.notes(ROWS)
    assert sorted(pictures.source.reads) == [0, 1, 2, 3] and fingerprints.dtype == np.uint64
    assert len({tuple(row) for row in fingerprints.tolist()}) == 4 and fingerprints[:, 2].all()
    blocks = first.astype(float).reshape(20, 12, 3)
    top_left = np.average(blocks[:3, :2], axis=(0, 1), weights=np.outer([1, 1, 0.5], [1, 0.5]))  # 2.5 x 1.5 pixels
    assert np.abs(thumbnails[2, :3] - top_left).max() <= 1
    other = Noted([pictures[row] for row in ROWS])  # no files: by pixels
    assert (other.notes(ROWS)[0][:, 2] == 0).all() and np.array_equal(other.notes(ROWS)[1], thumbnails)


def test_only_what_changed_is_changed_and_only_what_may_have_is_read(folder):
    notes = Noted(source(folder)).notes(ROWS)
    pictures = Noted(source(folder))
    assert pictures.unchanged(ROWS, *notes).all() and pictures.source.reads == ()
    assert all(np.array_equal(a, b) for a, b in zip(pictures.notes(ROWS), notes, strict=True))
    assert pictures.source.reads == ()

    os.utime(folder / "0.png", (1, 1))  # touched
    shutil.copy(folder / "1.png", folder / "copy.png")
    os.replace(folder / "copy.png", folder / "1.png")  # copied
    content = bytearray((folder / "2.png").read_bytes())
    before = os.stat(folder / "2.png")
    content[60] ^= 1
    (folder / "2.png").write_bytes(content)  # another picture of the same size, with the old one's time
    os.utime(folder / "2.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    pictures = Noted(source(folder))
    assert pictures.unchanged(ROWS, *notes).tolist() == [True, True, False, True]
    assert sorted(pictures.source.reads) == [0, 1, 2]
    again = Noted(source(folder, (0, 1)))
    assert again.unchanged(ROWS[:2], *(part[:2] for part in pictures.notes(ROWS[:2]))).all()
    assert again.source.reads == ()  # the new stamps were noted


def test_a_file_that_was_just_written_is_read_again_next_time(folder, monkeypatch):
    monkeypatch.setattr(noted.time, "time_ns", lambda: os.stat(folder / "3.png").st_ctime_ns + 10**6)
    notes = Noted(source(folder)).notes(ROWS)
    assert (notes[0][:, 2] == 0).all()
    pictures = Noted(source(folder))
    assert pictures.unchanged(ROWS, *notes).all() and sorted(pictures.source.reads) == [0, 1, 2, 3]


def test_pictures_without_files_are_compared_by_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    notes = Noted(images).notes(ROWS)
    changed = images.copy()
    changed[1, 5, 5, 2] ^= 1
    assert Noted(changed).unchanged(ROWS, *notes).tolist() == [True, False, True, True]
    reshaped = [images[0].reshape(4, 9, 3), *images[1:]]
    assert not Noted(reshaped).unchanged(ROWS, *notes)[0]


def test_a_missing_file_is_named(folder):
    notes = Noted(source(folder)).notes(ROWS)
    (folder / "1.png").unlink()
    with pytest.raises(InputError, match=r"row 1 of the pictures: missing image file: .*1\.png"):
        Noted(source(folder)).unchanged(ROWS, *notes)


class Unread(RecordImages):
    def decode(self, data, row):
        raise AssertionError("decoded")


def test_pictures_in_records_are_compared_by_their_bytes(tmp_path):
    folder = tfds_generated.prepare(tfds_generated.StanfordOnlineProducts, tmp_path, "array_record")
    notes = Noted(RecordImages(folder, "test", ROWS)).notes(ROWS)
    assert Noted(Unread(folder, "test", ROWS)).unchanged(ROWS, *notes).all()
    assert Noted(Unread(folder, "test", [0, 1, 7, 3])).unchanged(ROWS, *notes).tolist() == [True, True, False, True]
