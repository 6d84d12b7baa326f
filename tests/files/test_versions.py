"""Readers of a folder get one version of it, whatever a writer does meanwhile and whenever it is killed."""

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fault_points import disturbed
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, versions

ONE, TWO = (Embeddings([f"{name}{i}" for i in range(9)], np.full((9, 4), k)) for name, k in (("a", 1), ("b", 2)))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(**files):
    def write(new):
        for name, text in files.items():
            (new / name).write_text(text)
        (new / "about.json").write_text(json.dumps({"files": len(files)}))

    return write


def test_names_stay_and_what_the_new_version_lacks_is_removed(tmp_path):
    folder = tmp_path / "made" / "folder"
    assert versions.replace(folder, "about.json", fill(a="1", b="1")) == folder
    (folder / ".note").write_text("mine")
    versions.replace(folder, "about.json", fill(b="2", c="2"))
    assert names(folder) == [".note", "about.json", "b", "c"] and names(folder.parent) == ["folder"]
    assert (folder / "b").read_text() == "2" and (folder / "about.json").read_text() == '{"files": 2}'
    versions.replace(folder, "about.json", fill(d="3"), whole=False)
    assert names(folder) == [".note", "about.json", "b", "c", "d"]


def test_a_file_that_others_write_into_the_folder_can_be_kept(tmp_path):
    folder = tmp_path / "folder"
    versions.replace(folder, "about.json", fill(a="1"))
    (folder / "log").write_text("theirs")
    versions.replace(folder, "about.json", fill(b="2"), keep=["log"])
    assert names(folder) == ["about.json", "b", "log"] and (folder / "log").read_text() == "theirs"


def test_files_that_nobody_described_are_not_ours_to_remove(tmp_path):
    (tmp_path / "letter").write_text("mine")
    versions.replace(tmp_path, "about.json", fill(a="1"))
    assert names(tmp_path) == ["a", "about.json", "letter"]


def test_a_version_that_fails_leaves_the_one_before(tmp_path):
    def fails(new):
        (new / "a").write_text("2")
        raise KeyError

    versions.replace(tmp_path / "folder", "about.json", fill(a="1"))
    with pytest.raises(KeyError):
        versions.replace(tmp_path / "folder", "about.json", fails)
    assert names(tmp_path) == ["folder"] and (tmp_path / "folder" / "a").read_text() == "1"


def test_a_reader_beside_a_writer_never_gets_ids_of_one_with_vectors_of_the_other(tmp_path):
    ONE.save(tmp_path / "folder", shard_rows=2)
    code = f"""
import time
import numpy as np
from retrieval_jax.embeddings import Embeddings
both = [Embeddings([f"{{name}}{{i}}" for i in range(9)], np.full((9, 4), k)) for name, k in (("a", 1), ("b", 2))]
print("begins", flush=True)
end = time.monotonic() + 2
while time.monotonic() < end:
    for one in both:
        one.save({str(tmp_path / "folder")!r}, shard_rows=2)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    writer.stdout.readline()
    seen = set()
    while writer.poll() is None:
        found = Embeddings.load(tmp_path / "folder")
        seen |= {(found.ids[0][0], float(value)) for value in found.vectors[:][:, 0]}
    assert writer.returncode == 0 and seen == {("a", 1.0), ("b", 2.0)}


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_at_every_change_one_of_the_two_versions_can_be_read(tmp_path, fault):
    folder, log = tmp_path / "work" / "folder", tmp_path / "log"
    ONE.save(folder, shard_rows=4)

    def save():
        TWO.save(folder, shard_rows=3)

    count = disturbed(save, folder.parent, log, None, fault)[1]
    assert count > 20
    for at in range(1, count + 1):
        ONE.save(folder, shard_rows=4)
        status, _, _ = disturbed(save, folder.parent, log, at, fault)
        assert status, at
        found = Embeddings.load(folder, verify=True)
        assert found.ids[0] in ("a0", "b0") and (found.vectors[:] == (1 if found.ids[0] == "a0" else 2)).all(), at
        TWO.save(folder, shard_rows=3)
        assert names(folder.parent) == ["folder"], at
        assert names(folder) == [f"0000{i}.npy" for i in range(3)] + ["embeddings.json", "id_offsets.npy", "ids.npy"]
        assert Embeddings.load(folder, verify=True).ids[0] == "b0"


def test_what_another_kind_of_file_is_gets_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "about.json")
    with pytest.raises(InputError, match="is a pipe"):
        versions.read(tmp_path, "about.json", lambda place: None)
    with pytest.raises(InputError, match="embeddings.json not found: run "):
        Embeddings.load(tmp_path / "none")


def test_a_strangers_description_names_no_file_elsewhere(tmp_path):
    (tmp_path / "secret").write_text("1")
    folder, moving = tmp_path / "folder", tmp_path / ".folder.moving"
    for made in (folder, moving):
        made.mkdir()
    (folder / "about.json").write_text('{"moving": {"files": ["../secret"], "remove": ["../secret"]}, "files": 0}')
    (moving / "about.json").write_text('{"files": 0}')
    versions.settle(folder, "about.json")
    assert (tmp_path / "secret").read_text() == "1" and names(folder) == ["about.json"]


@pytest.mark.parametrize("described", [True, False])
def test_nothing_is_moved_or_removed_behind_a_link(tmp_path, described):
    home, folder, moving = tmp_path / "home", tmp_path / "work" / "folder", tmp_path / "work" / ".folder.moving"
    for made in (home, folder, moving / "sub"):
        made.mkdir(parents=True)
    (home / "keep").write_text("1")
    (folder / "sub").symlink_to(home)
    (moving / "sub" / "evil").write_text("2")
    (moving / "about.json").write_text('{"files": 1}')
    moves = '"moving": {"files": ["sub/evil"], "remove": ["sub/keep"]}, ' if described else ""
    (folder / "about.json").write_text(f'{{{moves}"files": 1}}')
    before = (folder / "about.json").read_text()
    for act in (versions.settle, lambda *of: versions.replace(*of, fill(a="1"))):
        with pytest.raises(InputError, match="sub is a symbolic link, .*: remove it"):
            act(folder, "about.json")
        assert names(home) == ["keep"] and (moving / "sub" / "evil").exists()
        assert (folder / "about.json").read_text() == before
    (folder / "sub").unlink()
    versions.settle(folder, "about.json")
    assert (folder / "sub" / "evil").read_text() == "2" and names(folder.parent) == ["folder"]


@pytest.mark.parametrize("what", ["", "a", "about.json"])
def test_a_new_version_that_is_or_has_a_link_is_refused(tmp_path, what):
    home, folder, moving = tmp_path / "home", tmp_path / "folder", tmp_path / ".folder.moving"
    for made in (home, folder):
        made.mkdir()
    fill(a="1")(home)
    if what:
        moving.mkdir()
        for name in ("a", "about.json"):
            if name == what:
                (moving / name).symlink_to(home / name)
            else:
                (moving / name).write_text('{"files": 1}')
    else:
        moving.symlink_to(home)
    with pytest.raises(InputError, match="is a symbolic link"):
        versions.settle(folder, "about.json")
    assert names(home) == ["a", "about.json"] and names(folder) == []


def test_names_of_no_file_do_not_count():
    for name in ("", ".", "/a", "../a", "a/../../b"):
        for key in ("files", "remove"):
            moves = {"files": [], "remove": [], key: [name]}
            assert versions._moves(json.dumps({"moving": moves}).encode()) is None, name
    moves = {"files": ["a/b"], "remove": ["c"]}
    assert versions._moves(json.dumps({"moving": moves}).encode()) == moves


def test_a_link_to_a_folder_stays_one_and_nothing_is_put_beside_it(tmp_path):
    link, real = tmp_path / "here" / "link", tmp_path / "disk" / "real"
    link.parent.mkdir()
    link.symlink_to(real)  # to nothing, at first
    seen = []

    def write(text):
        def write(new):
            seen.append(new.parent)
            fill(a=text)(new)

        return write

    for text in "12":
        assert versions.replace(link, "about.json", write(text)) == link
        assert link.is_symlink() and (real / "a").read_text() == text
        assert names(link.parent) == ["link"] and names(real.parent) == ["real"]
    atomic.replace_folder(link, write("3"))
    assert link.is_symlink() and (real / "a").read_text() == "3" and names(link.parent) == ["link"]
    assert set(seen) == {real.parent}


@pytest.mark.parametrize("through", ["link", "real"])
def test_both_names_of_a_folder_read_as_the_new_version_after_a_kill(tmp_path, through):
    link, real = tmp_path / "here" / "link", tmp_path / "disk" / "real"
    for made in (link.parent, real):
        made.mkdir(parents=True)
    link.symlink_to(real)
    fill(a="1")(real)
    (real.parent / ".real.moving").mkdir()
    fill(a="2")(real.parent / ".real.moving")
    (real / "about.json").write_text('{"moving": {"files": ["a", "about.json"], "remove": []}, "files": 1}')
    for folder in (link, real):
        assert versions.read(folder, "about.json", lambda place: (place / "a").read_text()) == "2"
    versions.settle({"link": link, "real": real}[through], "about.json")
    assert (real / "a").read_text() == "2" and names(real.parent) == ["real"]


def test_the_current_folder_is_filled_and_stays_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    for text in "12":
        versions.replace(".", "about.json", fill(a=text))
        assert versions.read(".", "about.json", lambda place: (place / "a").read_text()) == text
        assert sorted(os.listdir(".")) == ["a", "about.json"] and names(tmp_path) == ["folder"]
    versions.settle(".", "about.json")
    for folder in (".", "..", tmp_path / "folder"):
        with pytest.raises(InputError, match="holds the current folder, so it cannot be replaced"):
            atomic.replace_folder(folder, fill(a="3"))
    assert names(tmp_path / "folder") == ["a", "about.json"]


@pytest.mark.parametrize("left", ["folder", "link"])
def test_what_a_deleted_folder_left_never_comes_back(tmp_path, left):
    folder, moving, home = tmp_path / "made" / "folder", tmp_path / "made" / ".folder.moving", tmp_path / "home"
    folder.parent.mkdir()
    home.mkdir()
    fill(a="old", b="old")(home)
    if left == "link":
        moving.symlink_to(home)
    else:
        moving.mkdir()
        fill(a="old", b="old")(moving)
    versions.replace(folder, "about.json", fill(a="new"))
    versions.settle(folder, "about.json")
    assert names(folder.parent) == ["folder"] and names(folder) == ["a", "about.json"]
    assert (folder / "a").read_text() == "new" and names(home) == ["a", "about.json", "b"]


def test_a_rename_that_fails_is_not_taken_for_another_process(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(versions.os, "replace", fails)
    with pytest.raises(InputError, match="folder cannot be used .*Permission denied"):
        versions.replace(tmp_path / "folder", "about.json", fill(a="1"))
    assert names(tmp_path) == []


def test_a_folder_that_never_comes_to_rest_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "_TRIES", 3)
    versions.replace(tmp_path, "about.json", fill(a="1"))
    with pytest.raises(InputError, match="was replaced 3 times while it was read"):
        versions.read(tmp_path, "about.json", lambda place: atomic.write_text(tmp_path / "about.json", "{}"))


def test_a_flipped_bit_is_named(tmp_path):
    ONE.save(tmp_path / "folder")
    file = tmp_path / "folder" / "00000.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    Embeddings.load(tmp_path / "folder")  # reads no vector
    with pytest.raises(InputError, match=r"00000\.npy has changed since it was written: run embed again"):
        Embeddings.load(tmp_path / "folder", verify=True)


def test_two_writers_take_turns(tmp_path):
    code = """
import sys
import numpy as np
from retrieval_jax.embeddings import Embeddings
name, folder = sys.argv[1:]
one = Embeddings([f"{name}{i}" for i in range(9)], np.full((9, 4), ord(name)))
for _ in range(40):
    one.save(folder, shard_rows=2)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path / "folder")]) for name in "ab"]
    while any(writer.poll() is None for writer in writers):
        time.sleep(0.05)
    assert [writer.returncode for writer in writers] == [0, 0]
    found = Embeddings.load(tmp_path / "folder", verify=True)
    assert (found.vectors[:] == ord(found.ids[0][0])).all() and names(tmp_path) == ["folder"]
