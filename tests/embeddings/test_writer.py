"""Shards written one by one: after a kill, by several processes, and only what is new, always as if made at once."""

import dataclasses
import json
import os
import pathlib
import tempfile

import numpy as np
import pytest

from retrieval_jax.data.contents import Contents
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.embeddings import writer as shard_writer
from retrieval_jax.embeddings.writer import Earlier, Job
from retrieval_jax.errors import InputError
from retrieval_jax.files import versions

META = {"model": "m"}


def shop(names):
    """Listings: name -> picture; "b2" is another picture of listing b."""
    return {
        name[0]: np.random.default_rng(list(name.encode())).integers(0, 256, (5, 4, 3), dtype=np.uint8)
        for name in names.split()
    }


def vectors_of(images):
    """The network: float32 [n, 6]."""
    flat = np.stack(images).reshape(len(images), -1).astype(np.float32)
    return flat @ np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32) / 256


class Run:
    """One run of embed over one split; notes which listings the network saw."""

    def __init__(self, folder, listings, *, recipe="r", dtype="float32", shard_rows=3, stop_after=None):
        self.job = Job(folder / "gallery", Ids.of(list(listings)), recipe, dtype, shard_rows)
        self.images, self.seen, self.said, self.stop_after = list(listings.values()), [], [], stop_after
        shard_writer.settle(self.job.folder)
        self.earlier = Earlier(self.job.folder, recipe, dtype)
        self.contents = Contents({"image": Pictures(self.images)})

    def embed(self, rows, shard):
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        assert len(rows) <= self.job.shard_rows and set(rows) <= set(self.job.rows(shard))
        self.seen += [self.job.ids[int(row)] for row in rows]
        return vectors_of([self.images[row] for row in rows]), "space"

    def write(self, shards=None):
        shards = range(self.job.count) if shards is None else shards
        shard_writer.write(self.job, self.earlier, self.contents, self.embed, shards, self.said.append)

    def finish(self):
        return shard_writer.finish(self.job, META, self.earlier)

    def whole(self):
        self.write()
        return self.finish()


def check(folder, listings, dtype=np.float32):
    found = Embeddings.load(folder / "gallery", verify=True)
    assert list(found.ids) == list(listings)
    expected = vectors_of(list(listings.values())).astype(dtype).astype(np.float32)
    np.testing.assert_allclose(found.block(0, len(found)), expected, rtol=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == ["gallery"]
    assert not [path.name for path in (folder / "gallery").iterdir() if "tmp" in path.name or path.name == "00000.json"]
    return found


def test_every_file_was_on_the_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    synced, fsync, commit = set(), os.fsync, versions.commit
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.add(os.fstat(descriptor).st_ino), fsync(descriptor)))

    def look(partial, *others):
        assert {file.name for file in partial.iterdir() if file.stat().st_ino not in synced} == set()
        commit(partial, *others)

    monkeypatch.setattr(versions, "commit", look)
    Run(tmp_path, shop("a b c d e")).whole()
    check(tmp_path, shop("a b c d e"))


@pytest.mark.parametrize("shard_rows", [1, 3, 8, 100])
def test_shards_join_to_the_split_in_its_order(tmp_path, shard_rows):
    listings = shop("a b c d e f g h")
    run = Run(tmp_path, listings, shard_rows=shard_rows)
    counts = run.whole()
    found = check(tmp_path, listings)
    assert found.meta.items() >= {"model": "m", "space": "space", "recipe": "r", "dim": 6}.items()
    assert counts == {"kept": 0, "new": 8, "changed": 0, "damaged": 0, "removed": 0, "before": 0, "now": 8}
    assert run.seen == list("abcdefgh") and len(found.vectors.arrays) == -(-8 // shard_rows)
    small = shard_writer.thumbnails(tmp_path / "gallery", found.ids)
    assert np.array_equal(small, Noted(list(listings.values())).notes(np.arange(8))[1])
    assert shard_writer.thumbnails(tmp_path / "gallery", Ids.of(["a"])) is None


def test_a_link_to_a_folder_on_another_disk_stays_one(tmp_path):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # another file system, on Linux
    with tempfile.TemporaryDirectory(dir=memory) as disk:
        (tmp_path / "gallery").symlink_to(pathlib.Path(disk) / "gallery")
        for names in ("a b c d e", "a b2 c d e f"):
            Run(tmp_path, shop(names), shard_rows=2).whole()
            check(tmp_path, shop(names))
            check(pathlib.Path(disk), shop(names))
        assert (tmp_path / "gallery").is_symlink()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_only_new_and_changed_listings_are_embedded_again(tmp_path, dtype):
    Run(tmp_path, shop("a b c d e f g h"), dtype=dtype).whole()
    before = {
        item: vector.copy()
        for item, vector in zip("abcdefgh", Embeddings.load(tmp_path / "gallery").block(0, 8), strict=True)
    }
    listings = shop("x h a b2 d e y f2 g")  # c went, b and f have new pictures, x and y came, h moved
    run = Run(tmp_path, listings, dtype=dtype, shard_rows=4)
    assert run.whole() == {"kept": 5, "new": 2, "changed": 2, "damaged": 0, "removed": 1, "before": 8, "now": 9}
    assert run.seen == ["x", "b", "y", "f"] and run.earlier.reason == ""
    found = check(tmp_path, listings, np.dtype(dtype))
    for row, item in enumerate(found.ids):
        assert np.array_equal(found.block(row, row + 1)[0], before.get(item)) == (item in "hadeg")
    again = Run(tmp_path, listings, dtype=dtype, shard_rows=2)
    assert again.whole()["kept"] == 9 and again.seen == []
    check(tmp_path, listings, np.dtype(dtype))


def test_vectors_of_another_recipe_or_type_are_never_taken_over(tmp_path):
    listings = shop("a b c d")
    Run(tmp_path, listings).whole()
    run = Run(tmp_path, listings, recipe="s")
    assert "another network" in run.earlier.reason and run.whole()["before"] == 0 and run.seen == list("abcd")
    run = Run(tmp_path, listings, recipe="s", dtype="float16")
    assert "stored as float32" in run.earlier.reason and run.whole()["new"] == 4 and run.seen == list("abcd")
    (tmp_path / "gallery" / "embeddings.json").write_text("{")
    run = Run(tmp_path, listings, recipe="s", dtype="float16")
    assert "cannot be read" in run.earlier.reason and run.whole()["new"] == 4
    old = Embeddings(list(listings), vectors_of(list(listings.values())), {"space": "space"})
    old.save(tmp_path / "gallery")  # as earlier versions wrote them: nobody knows which pictures they are of
    run = Run(tmp_path, listings)
    assert run.whole()["new"] == 4 and run.seen == list("abcd")


def test_a_damaged_shard_is_embedded_again(tmp_path):
    listings = shop("a b c d e f")
    Run(tmp_path, listings).whole()
    file = tmp_path / "gallery" / "00001.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    run = Run(tmp_path, listings)
    assert run.whole() == {"kept": 3, "new": 0, "changed": 0, "damaged": 3, "removed": 0, "before": 6, "now": 6}
    assert run.seen == list("def")
    check(tmp_path, listings)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_killed_run_goes_on_and_keeps_only_what_is_right(tmp_path, earlier):
    listings = shop("a b c d e f g h i j")
    if earlier:
        Run(tmp_path, shop("a2 b2 c2 k"), shard_rows=2).whole()
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, listings, shard_rows=2, stop_after=6).write()
    assert (tmp_path / "gallery").exists() == earlier  # the old ones stay until all new ones are there
    run = Run(tmp_path, listings, shard_rows=2)
    run.write()
    assert run.seen == list("ghij") and run.said == []
    # finished, but not joined; now somebody damages one, removes one, rewrites a record, and a picture changes
    partial = run.job.partial
    (partial / "00000.npy").write_bytes((partial / "00000.npy").read_bytes()[:-4])
    (partial / "00002.fingerprints.npy").unlink()
    (partial / "00003.json").write_text("{}")
    listings["j"] = shop("j2")["j"]
    run = Run(tmp_path, listings, shard_rows=2)
    counts = run.whole()
    assert run.seen == list("abefghij") and len(run.said) == 4
    assert counts == (
        {"kept": 0, "new": 7, "changed": 3, "damaged": 0, "removed": 1, "before": 4, "now": 10}
        if earlier
        else {"kept": 0, "new": 10, "changed": 0, "damaged": 0, "removed": 0, "before": 0, "now": 10}
    )
    check(tmp_path, listings)


@pytest.mark.parametrize("change", [{"recipe": "s"}, {"dtype": "float16"}, {"listings": "a b c d x f"}])
def test_a_killed_run_under_other_settings_starts_again(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, shop("a b c d e f"), shard_rows=2, stop_after=4).write()
    listings = shop(change.pop("listings", "a b c d e f"))
    run = Run(tmp_path, listings, shard_rows=2, **change)
    run.whole()
    assert run.seen == (list("xf") if "x" in listings else list("abcdef"))  # other ranges of listings stay
    check(tmp_path, listings, np.dtype(run.job.dtype))


@pytest.mark.parametrize("moment", range(1, 40))
def test_killed_at_any_step_of_joining_nothing_is_lost(tmp_path, monkeypatch, moment):
    Run(tmp_path, shop("a b2 c d e"), shard_rows=2).whole()
    listings = shop("a b c d e f")
    run = Run(tmp_path, listings, shard_rows=2)
    run.write()
    done = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal done
            done += 1
            if done == moment:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for place, name in (
            (os, "replace"),
            (pathlib.Path, "unlink"),
            (versions.shutil, "rmtree"),
            (shard_writer.atomic, "write_json"),
            (Ids, "save"),
        ):
            patched.setattr(place, name, counted(getattr(place, name)))
        try:
            run.finish()
        except KeyboardInterrupt:
            pass
    assert done >= min(moment, 20)
    again = Run(tmp_path, listings, shard_rows=2)
    again.whole()
    assert again.seen == []
    check(tmp_path, listings)


def test_several_processes_write_their_own_shards_in_any_order(tmp_path):
    listings = shop("a b c d e f g h i j")
    runs = [Run(tmp_path, listings, shard_rows=2) for _ in range(2)]
    runs[1].write(range(2, 5))
    with pytest.raises(InputError, match=r"00000\.json is missing: do all processes write to the same folder"):
        runs[0].finish()
    runs[0].write(range(2))
    assert runs[0].finish()["new"] == 10 and runs[0].seen + runs[1].seen == list("abcdefghij")
    check(tmp_path, listings)


def test_processes_with_different_weights_are_refused(tmp_path):
    listings = shop("a b c d")
    first, second = Run(tmp_path, listings, shard_rows=2), Run(tmp_path, listings, shard_rows=2, recipe="s")
    first.write([0])
    second.write([1])
    with pytest.raises(InputError, match="the recipe is 's', which differs from the other shards"):
        first.finish()
    record = first.job.partial / "00001.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "recipe": "r", "space": "elsewhere"}))
    with pytest.raises(InputError, match="the space is 'elsewhere'"):
        first.finish()
    assert not (tmp_path / "gallery").exists()


def test_what_does_not_fit_float16_is_named(tmp_path):
    run = Run(tmp_path, shop("a b c d"), dtype="float16")
    run.embed = lambda rows, shard: (np.where(rows[:, None] == 3, 1e6, 0.0) * np.ones((1, 2)), "space")
    with pytest.raises(InputError, match=r"row 3 \(d\) holds a number beyond float16"):
        run.write()


class Words(Run):
    """The same over texts: the network sums one vector per word."""

    def __init__(self, folder, texts, **kwargs):
        super().__init__(folder, texts, **kwargs)
        rows = Ragged.of([[ord(letter) for letter in text] for text in texts.values()])
        self.contents = Contents({"words": rows})

    def embed(self, rows, shard):
        self.seen += [self.job.ids[int(row)] for row in rows]
        return np.stack([[self.contents.columns["words"][row].sum()] * 2 for row in rows]).astype("f"), "space"


def test_only_new_and_changed_texts_are_embedded_again(tmp_path):
    assert Words(tmp_path, {"a": "red dress", "b": "blue shoe", "c": "wool"}).whole()["new"] == 3
    assert not list((tmp_path / "gallery").glob("*.thumbnails.npy"))
    run = Words(tmp_path, {"c": "wool", "d": "", "b": "blue shoes", "a": "red dress"}, shard_rows=2)
    assert run.whole() == {"kept": 2, "new": 1, "changed": 1, "damaged": 0, "removed": 0, "before": 3, "now": 4}
    assert run.seen == ["d", "b"]
    found = Embeddings.load(tmp_path / "gallery", verify=True)
    assert found.block(0, 4)[:, 0].tolist() == [sum(map(ord, text)) for text in ("wool", "", "blue shoes", "red dress")]
    assert shard_writer.thumbnails(tmp_path / "gallery", found.ids) is None
    # after pictures, no thumbnail of theirs stays behind
    Run(tmp_path, shop("a b c"), recipe="pictures").whole()
    assert len(list((tmp_path / "gallery").glob("*.thumbnails.npy"))) == 1
    Words(tmp_path, {"a": "red"}).whole()
    assert sorted(file.name for file in (tmp_path / "gallery").glob("0*")) == ["00000.fingerprints.npy", "00000.npy"]


def test_a_killed_run_over_texts_resumes(tmp_path):
    texts = {"a": "red", "b": "blue", "c": "wool", "d": "silk"}
    run = Words(tmp_path, texts, shard_rows=2)
    run.write([0])
    texts["b"] = "black"
    run = Words(tmp_path, texts, shard_rows=2)
    run.whole()
    assert run.seen == ["a", "b", "c", "d"] and "a listing of it changed" in run.said[0]


def test_a_recipe_has_one_name():
    name = shard_writer.recipe_name({"a": [1, 2], "b": "x"})
    assert name == shard_writer.recipe_name({"b": "x", "a": [1, 2]})
    assert name != shard_writer.recipe_name({"a": [2, 1], "b": "x"})
    job = Job(pathlib.Path("x/gallery"), Ids.of(["a", "b", "c"]), name, "float32", 2)
    assert dataclasses.replace(job, shard_rows=1).count == 3 and job.rows(1).tolist() == [2]
