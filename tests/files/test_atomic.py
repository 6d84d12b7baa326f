"""Files and folders are written whole or not at all, and nothing is left beside them."""

import os
import subprocess
import sys

import numpy as np
import pytest

from retrieval_jax.errors import InputError, RunFailed
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


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(tmp_path):
    code = """
import os, pathlib, signal, sys
from retrieval_jax.files import atomic
place = pathlib.Path(sys.argv[1])
def ends(stream):
    os.mkdir(atomic.temporary(place / "folder"))
    os.kill(os.getpid(), signal.SIGKILL)
atomic.write(place / "file", ends)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, check=False)
    left = names(tmp_path)
    assert done.returncode == -9 and len(left) == 2 and all(name.endswith(".tmp") for name in left)
    mine, user = atomic.temporary(tmp_path / "file"), tmp_path / ".file.tmp"
    elsewhere = tmp_path / ".file.1.another-machine.0123abcd.tmp"
    for path in (mine, user, elsewhere):
        path.write_text("")
    atomic.sweep(tmp_path, again=True)
    assert names(tmp_path) == sorted(path.name for path in (mine, user, elsewhere))
    os.utime(elsewhere, (0, 0))
    atomic.sweep(tmp_path, again=True)
    assert names(tmp_path) == sorted(path.name for path in (mine, user))


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_every_file_has_the_mode_of_the_umask(tmp_path, mask):
    def private(new):
        (new / "a").touch(0o600)

    before = os.umask(mask)
    try:
        atomic.write_text(tmp_path / "text", "1")
        with atomic.written(tmp_path / "library") as new:
            new.chmod(0o600)
        atomic.replace_folder(tmp_path / "folder", private)
    finally:
        os.umask(before)
    for file in (tmp_path / "text", tmp_path / "library", tmp_path / "folder" / "a"):
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_full_disk_names_the_file_and_leaves_the_one_before(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    atomic.write_npy(tmp_path / "a.npy", np.arange(3))

    def full(stream):
        with open("/dev/full", "wb", buffering=0) as device:
            np.save(atomic._Plain(device), np.zeros(10_000), allow_pickle=False)

    with pytest.raises(RunFailed, match=r"a\.npy could not be read or written \(No space left on device\): free some"):
        atomic.write(tmp_path / "a.npy", full)
    assert names(tmp_path) == ["a.npy"] and len(np.load(tmp_path / "a.npy")) == 3
