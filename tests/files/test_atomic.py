"""Files and folders are written whole or not at all, and nothing is left beside them."""

import os
import subprocess
import sys

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"title": "café", "n": [1, 2]})
    assert atomic.read_json(tmp_path / "a.json") == {"title": "café", "n": [1, 2]}
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    atomic.write_npy(tmp_path / "a.npy", array)
    atomic.write_npz(tmp_path / "a.npz", one=array, two=np.array("text"))
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert np.array_equal(found["one"], array) and found["two"] == "text"
    assert names(tmp_path) == ["a.json", "a.npy", "a.npz"]
    with pytest.raises(ValueError):
        atomic.write_npy(tmp_path / "b.npy", np.array([{}]))  # it would have to be pickled


def test_a_write_that_fails_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch):
    atomic.write_text(tmp_path / "file", "before")

    def half(stream):
        stream.write(b"aft")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic.write(tmp_path / "file", half)
    monkeypatch.setattr(atomic.os, "replace", lambda *_: half(open(os.devnull, "wb")))
    with pytest.raises(OSError, match="disk full"):
        atomic.write_text(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text() == "before" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_whole_or_stays(tmp_path, monkeypatch, exchange):
    if not exchange:  # as on NFS
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    folder = tmp_path / "made" / "folder"
    atomic.replace_folder(folder, lambda new: (new / "a").write_text("1"))

    def fails(new):
        (new / "b").write_text("2")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        atomic.replace_folder(folder, fails)
    assert names(folder) == ["a"] and names(folder.parent) == ["folder"]
    assert atomic.replace_folder(folder, lambda new: (new / "c").write_text("3")) == folder
    assert names(folder) == ["c"] and names(folder.parent) == ["folder"]


def test_json_that_is_cut_is_a_sentence(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(InputError, match="a.json is not readable JSON"):
        atomic.read_json(tmp_path / "a.json")


def test_a_reader_finds_the_folder_at_every_moment(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    if not atomic._exchange(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this file system does not exchange folders in one step")
    assert names(tmp_path / "one") == ["two"] and names(tmp_path / "two") == ["one"]
    code = """
import os, sys
from retrieval_jax.files import atomic
folder = sys.argv[1]
atomic.replace_folder(folder, lambda new: (new / "a").write_text("1"))
sys.addaudithook(lambda event, args: os._exit(3) if event == "os.rename" else None)  # a kill between two renames
atomic.replace_folder(folder, lambda new: (new / "b").write_text("2"))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "folder")], timeout=120, check=False)
    assert done.returncode == 0 and names(tmp_path / "folder") == ["b"]
