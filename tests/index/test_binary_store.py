"""The binary index on disk: writes against a dict, readers, damage anywhere, interrupted writes, killed writers.

Longer than 400 lines: kills, recovery and concurrency share one store.
"""

import json
import pathlib
import shutil
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import binary_writes
import killed_writers
from killed_writers import Stop, stopped_after
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import journal
from retrieval_jax.index import binary
from retrieval_jax.index.binary import shard

DIM = binary_writes.DIM


def vectors(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def make(folder, **settings):
    settings = {"bits": 32, "cells": 5, "probes": 5, "candidates": 10_000, **settings}
    return binary.create(folder, vectors(200), **settings)


def contents(store):
    """Returns id -> vector of every live row, after checking the state in memory."""
    out = {}
    for part in store._shards:
        for row in range(part.rows):
            if part.alive[row]:
                name = part.name(row).decode()
                assert name not in out
                out[name] = part.fetch(np.array([row]))[0].astype(np.float32)
    assert len(store) == len(out)
    return out


def equal(have, want):
    assert have.keys() == want.keys()
    for name, vector in want.items():
        np.testing.assert_array_equal(have[name], vector, err_msg=name)


def searched(store, queries, k=8):
    found = store.search(queries, k)
    return store.names(found.item_rows), found.scores


def check_search(store, state, seed=0):
    """Checks a search against brute force over `state`; all rows are candidates."""
    ids = sorted(state, key=str.encode)
    gallery = np.stack([state[name] for name in ids]).astype(float) if ids else np.zeros((0, DIM))
    queries = vectors(4, seed)
    names, scores = searched(store, queries)
    for query, have, score in zip(queries.astype(float), names, scores, strict=True):
        cosine = gallery @ query / np.linalg.norm(gallery, axis=1) / np.linalg.norm(query)
        best = np.argsort(-cosine.astype(np.float32), kind="stable")[:8]
        assert have == [ids[row] for row in best] + [""] * (8 - len(best))
        np.testing.assert_allclose(score[: len(best)], cosine[best], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 3])
def test_writes_are_visible_at_once_and_after_reopening(tmp_path, shards):
    state = {}
    store = make(tmp_path / "i", shards=shards)
    for number in range(60):
        kind, *arguments = binary_writes.operation(number)
        before = len(state)
        result = getattr(store, kind)(*arguments)
        binary_writes.play(state, number)
        assert kind != "delete" or result == before - len(state)
        if number % 7 == 0 or kind == "compact":
            check_search(store, state, number)
        if number % 20 == 19:
            store.close()
            store = binary.open(tmp_path / "i", write=True, probes=5, candidates=10_000)
            check_search(store, state, number)
    equal(contents(store), state)
    store.verify()
    assert store.dead > 0
    store.compact()
    assert store.dead == 0
    equal(contents(store), state)
    store.close()
    sizes = sum(file.stat().st_size for file in tmp_path.rglob("*.vectors"))
    assert sizes == len(state) * DIM * 4
    assert len(list(tmp_path.rglob("0*.log"))) == shards


def test_results_do_not_depend_on_the_number_of_shards(tmp_path):
    rng = np.random.default_rng(0)
    gallery = rng.integers(-1, 2, (600, DIM)).astype(np.float32)  # many ties, in codes and cosines
    ids, queries = [f"p{number}" for number in rng.permutation(600)], rng.integers(-1, 2, (20, DIM)).astype(np.float32)
    results = []
    for shards in (1, 2, 5):
        with make(tmp_path / str(shards), shards=shards, candidates=40, probes=2) as store:
            store.add(ids, gallery)
            store.delete(ids[::7])
            results.append(searched(store, Embeddings([*ids[1:20], "other"], queries)))
    for names, scores in results[1:]:
        assert names == results[0][0]
        np.testing.assert_array_equal(scores, results[0][1])
    assert not any(own in found for own, found in zip(ids[1:20], results[0][0][:19], strict=True))


def test_the_store_finds_the_same_as_the_in_memory_index(tmp_path):
    gallery, ids = vectors(500), [f"p{number:03d}" for number in range(500)]
    settings = {"bits": 32, "cells": 5, "probes": 2, "candidates": 30}
    static = binary.Index(gallery, ids, **settings).search(vectors(20, 1), 10)
    with binary.create(tmp_path / "i", gallery, **settings) as store:
        store.add(ids, gallery)
        found = store.search(vectors(20, 1), 10)
    np.testing.assert_array_equal(found.item_rows, static.item_rows)
    np.testing.assert_array_equal(found.scores, static.scores)


def test_a_reader_sees_acknowledged_writes_on_refresh(tmp_path):
    writer = make(tmp_path / "i", shards=2)
    reader = binary.open(tmp_path / "i", probes=5, candidates=10_000)
    state = {}
    for number in range(40):
        kind, *arguments = binary_writes.operation(number)
        getattr(writer, kind)(*arguments)
        binary_writes.play(state, number)
        if number % 3 == 0:
            check_search(reader, shown := dict(state), number) if reader.refresh() is None else None
    writer.compact()  # the files that the reader has mapped are unlinked
    check_search(reader, shown)
    reader.refresh()
    check_search(reader, state)
    for write in (lambda: reader.add(["a"], vectors(1)), lambda: reader.delete(["a"]), reader.compact):
        with pytest.raises(InputError, match="write=True"):
            write()
    writer.close()


@pytest.mark.parametrize("reads", ["reader", "writer"])
def test_verify_beside_a_compaction_finds_no_damage(tmp_path, reads, monkeypatch):
    writer = make(tmp_path / "index")
    writer.add([f"a{i}" for i in range(9)], vectors(9))
    writer.delete(["a3"])
    store = binary.open(tmp_path / "index") if reads == "reader" else writer
    verify, done = shard.Shard.verify, []

    def compacted_meanwhile(part):
        if not done:
            done.append(True)
            writer.compact()
        verify(part)

    monkeypatch.setattr(shard.Shard, "verify", compacted_meanwhile)
    store.verify()
    assert done and len(store) == 8
    file = next((tmp_path / "index").rglob("*.vectors"))
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="have changed since they were written"):
        store.verify()


def test_a_search_by_id_and_the_first_write_share_one_id_table(tmp_path, monkeypatch):
    make(tmp_path / "i").close()
    with binary.open(tmp_path / "i", write=True) as store:
        store.add(["a", "b"], vectors(2))
    entered, name = threading.Event(), shard.Shard.name

    def slow(self, row):
        if threading.current_thread() is searching and not entered.is_set():
            entered.set()
            time.sleep(0.3)
        return name(self, row)

    with binary.open(tmp_path / "i", write=True) as store:
        searching = threading.Thread(target=lambda: store.search(Embeddings(["q"], vectors(1)), 1))
        monkeypatch.setattr(shard.Shard, "name", slow)
        searching.start()
        assert entered.wait(10)
        store.add(["new"], vectors(1, 1))  # while the other thread fills the table
        searching.join()
        store.update(["new"], vectors(1, 2))
        equal(contents(store), {"a": vectors(2)[0], "b": vectors(2)[1], "new": vectors(1, 2)[0]})


def test_one_writer_at_a_time(tmp_path):
    with make(tmp_path / "i"):
        with pytest.raises(InputError, match="already open for writing"):
            binary.open(tmp_path / "i", write=True)
        binary.open(tmp_path / "i")
    binary.open(tmp_path / "i", write=True).close()


def test_bad_input_is_rejected_and_changes_nothing(tmp_path):
    with make(tmp_path / "i", dtype="float16") as store:
        store.add(["a", "b"], vectors(2))
        before = contents(store)
        bad = vectors(3)
        bad[1, 1] = 70_000.0  # beyond float16
        for ids, rows, words in (
            (["b", "c"], vectors(2), "'b' is already in"),
            (["c", "c"], vectors(2), "'c' is repeated"),
            (["c"], vectors(2), "1 ids"),
            (["c"], np.zeros((1, 3)), "16 dimensions"),
            (["c", "é", "e"], bad, r"row 1 \(é\)"),
        ):
            with pytest.raises(InputError, match=words):
                store.add(ids, rows)
        equal(contents(store), before)
        np.testing.assert_array_equal(before["a"], vectors(2)[0].astype(np.float16))
        assert store.delete(["nothing"]) == 0
    with pytest.raises(InputError, match="already exists"):
        make(tmp_path / "i")
    with pytest.raises(InputError, match="there is no binary index"):
        binary.open(tmp_path)


def records(file):
    return [end for _, _, end in journal.read(file)]


def small_index(folder):
    """Returns the states of a small one-shard index after each record, and the ends of its records."""
    states = [{}]
    with make(folder, cells=1) as store:
        for number in range(6):
            rows = vectors(3, number)
            if number == 3:
                store.delete(["b0", "b2"])
            else:
                store.update(["a", f"b{number}", f"c{number}"], rows)
            states.append(contents(store))
    return states, [0, *records(folder / "shard-000" / "000001.log")]


def test_a_log_truncated_at_any_byte_keeps_the_writes_before(tmp_path):
    states, ends = small_index(tmp_path / "i")
    whole = (tmp_path / "i" / "shard-000" / "000001.log").read_bytes()
    for cut in range(0, len(whole) + 1, 7):
        copy = shutil.copytree(tmp_path / "i", tmp_path / "copy")
        file = copy / "shard-000" / "000001.log"
        missing = min((end - cut for end in ends if end >= cut), default=0)
        garbage = [b"", b"\xa5" * missing, (b"RJB1" * missing)[:missing]][cut % 3]  # right length, wrong bytes
        file.write_bytes(whole[:cut] + garbage)
        number = sum(end <= cut for end in ends) - 1
        equal(contents(binary.open(copy)), states[number])  # a reader changes nothing
        assert file.stat().st_size == cut + len(garbage)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with binary.open(copy, write=True) as store:
                equal(contents(store), states[number])
                store.add(["new"], vectors(1, 99))
        assert bool(caught) == (cut + len(garbage) > ends[number])
        assert all("truncated" in str(one.message) and str(file) in str(one.message) for one in caught)
        with binary.open(copy) as store:
            equal(contents(store), states[number] | {"new": vectors(1, 99)[0]})
            store.verify()
        shutil.rmtree(copy)


def test_a_flipped_bit_is_detected(tmp_path):
    states, ends = small_index(tmp_path / "i")
    file = tmp_path / "i" / "shard-000" / "000001.log"
    whole = file.read_bytes()
    for place in range(3, len(whole), 11):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        if place < ends[-2]:
            for write in (False, True):
                with pytest.raises(InputError, match=f"{file} is damaged at byte"):
                    binary.open(tmp_path / "i", write=write)
        else:  # the last record: indistinguishable from an interrupted one
            equal(contents(binary.open(tmp_path / "i")), states[-2])
        assert len(file.read_bytes()) == len(whole)
    file.write_bytes(whole)
    numbers = tmp_path / "i" / "shard-000" / "000001.vectors"
    good = numbers.read_bytes()
    numbers.write_bytes(good[:-1])
    with pytest.raises(InputError, match=f"{numbers} is truncated"):
        binary.open(tmp_path / "i", write=True)
    numbers.write_bytes(good[:-1] + b"x")
    with pytest.raises(InputError, match=f"{numbers}: rows 12 to 14"):
        binary.open(tmp_path / "i")
    numbers.write_bytes(b"x" + good[1:])
    with pytest.raises(InputError, match=f"{numbers}: rows 0 to 2"):
        binary.open(tmp_path / "i").verify()


def test_other_damaged_files_are_named(tmp_path):
    make(tmp_path / "i").close()
    for name, words in (
        ("binary.json", "binary.json (has an unexpected content|is not readable|not found: there is no)"),
        ("coder.npz", "changed|coder.npz"),
        ("shard-000/current.json", "current.json (has an unexpected content|is not readable|not found)"),
        ("shard-000/000001.log", "not found"),
        ("shard-000/000001.vectors", ""),
    ):
        file = tmp_path / "i" / name
        good = file.read_bytes()
        for text in (b'{"generation": "../../x"}', b"[", None):
            file.unlink() if text is None else file.write_bytes(text)
            if (name.endswith(".log") and text) or name.endswith(".vectors"):
                continue  # garbage at the end of an empty log; no vectors yet
            with pytest.raises(InputError, match=words) as caught:
                binary.open(tmp_path / "i")
            assert pathlib.Path(name).name in str(caught.value)
        file.write_bytes(good)
    info = json.loads((tmp_path / "i" / "binary.json").read_text())
    for change in ({"format": 2}, {"coder_sha256": 3}, {"shards": 0}, {"dtype": "O"}):
        (tmp_path / "i" / "binary.json").write_text(json.dumps(info | change))
        with pytest.raises(InputError, match="binary.json"):
            binary.open(tmp_path / "i")


def test_a_write_stopped_at_any_step_loses_no_acknowledged_write(tmp_path, monkeypatch):
    """Raises at the n-th call that touches the disk, for every n, in an update, a deletion and a compaction."""
    calls = ("write", "fdatasync", "fsync", "replace", "ftruncate", "open", "unlink")
    before, gone = {}, ["a2", "é7"]
    for number in range(4):
        binary_writes.play(before, number)
    before |= dict.fromkeys(gone, vectors(1)[0])
    before.pop("é5", None)
    steps = {"update": (["a", "b", "é5"], vectors(3, 5)), "delete": (list(before)[:5],), "compact": ()}
    for kind, arguments in steps.items():
        after = dict(before)
        if kind == "update":
            after |= dict(zip(*arguments, strict=True))
        if kind == "delete":
            after = {name: vector for name, vector in before.items() if name not in arguments[0]}
        with make(tmp_path / kind, cells=1) as store:
            for number in range(4):
                name, *rest = binary_writes.operation(number)
                getattr(store, name)(*rest)
            store.update([*gone, "é5"], np.stack([vectors(1)[0]] * 3))
            store.delete(["é5"])
        stopped = 0
        for limit in range(100):
            folder = shutil.copytree(tmp_path / kind, tmp_path / "copy")
            store = binary.open(folder, write=True)
            with stopped_after(monkeypatch, limit, calls):
                try:
                    getattr(store, kind)(*arguments)
                    done = True
                except Stop:
                    done = False
            if not done:
                with pytest.raises(InputError, match="not open for writing"):
                    store.delete(["a"])
            store.close()
            stopped += not done
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with binary.open(folder, write=True) as store:
                    have = contents(store)
                    store.verify()
            equal(have, after if done or have.keys() == after.keys() != before.keys() else before)
            shutil.rmtree(folder)
            if done:
                break
        assert done and stopped >= {"update": 4, "delete": 2, "compact": 8}[kind]


def test_threads_write_while_others_search(tmp_path):
    store, stop, errors = make(tmp_path / "i", shards=2, candidates=50), threading.Event(), []
    fixed = vectors(50, 1)
    store.add([f"fixed{row}" for row in range(50)], fixed)

    def search():
        try:
            while not stop.is_set():
                found = store.search(fixed, 3)
                assert (found.scores[:, 0] > 0.9999).all()  # these are never deleted
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(25):
        kind, *arguments = binary_writes.operation(number)
        getattr(store, kind)(*arguments)
    store.compact()
    stop.set()
    for thread in threads:
        thread.join()
    store.close()
    assert not errors, errors


def kill_writers(folder, times, seed):
    """Kills writers at random moments; returns the number of acknowledged writes."""

    def check(state, number, write):
        with binary.open(folder, write=write, probes=5, candidates=10_000) as store:
            have = contents(store)
            store.verify()
            following = dict(state)
            binary_writes.play(following, number)
            for name in have.keys() | state.keys() | following.keys():
                # ids of the write in progress are there or not; all others are as acknowledged
                assert any(np.array_equal(have.get(name), one.get(name)) for one in (state, following)), name
            check_search(store, have, number)

    with make(folder, shards=2):
        pass
    return killed_writers.kill([sys.executable, binary_writes.__file__], folder, times, seed, binary_writes.play, check)


def test_killed_writers(tmp_path):
    assert kill_writers(tmp_path / "i", 12, 0) > 0


@pytest.mark.long
def test_a_thousand_killed_writers(tmp_path):
    acknowledged = kill_writers(tmp_path / "i", 1000, 1)
    print(f"1,000 kills, {acknowledged} acknowledged writes, none lost")
    assert acknowledged > 1000
