"""The attribute index on disk: writes against a dict, searches against brute force, damage, stops, killed writers."""

import shutil
import tempfile
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attribute_catalogues as catalogues
import attribute_writes as writes
from killed_writers import Stop, stopped_after
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute
from retrieval_jax.index.attribute import Field, scan

names = st.lists(st.sampled_from([f"é{n}" for n in range(8)]), min_size=1, max_size=5, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), names, st.lists(catalogues.listing, min_size=5, max_size=5)),
        st.tuples(st.just("delete"), names),
        st.tuples(st.sampled_from(("compact", "reopen"))),
    ),
    max_size=8,
)


def wanted(state, query, k, conditions, own=None):
    """Returns ids and scores of brute force over the listings that there are."""
    return [(name, score) for name, score, _ in catalogues.search(state, query, k, conditions, own)[0]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(catalogues.listing, max_size=6), steps, catalogues.conditions, st.integers(1, 5), st.booleans())
def test_updates_and_deletes_equal_brute_force(first, steps, conditions, k, scans):
    state = {f"é{number}": one for number, one in enumerate(first)}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if scans:
            patch.setattr(scan, "FEW", 0)
        gallery = np.array([one["vector"] for one in first], np.float32).reshape(-1, catalogues.DIM)
        store = attribute.create(f"{folder}/i", gallery, catalogues.fields(first), list(state))
        for kind, *arguments in steps:
            if kind == "update":
                ids, found = arguments[0], arguments[1][: len(arguments[0])]
                store.update(ids, np.array([one["vector"] for one in found], np.float32), catalogues.fields(found))
                state.update(zip(ids, found, strict=True))
            elif kind == "delete":
                assert store.delete(arguments[0]) == sum(state.pop(name, None) is not None for name in arguments[0])
            elif kind == "compact":
                store.compact()
                assert store.dead == 0
            else:
                store.close()
                store = attribute.open(f"{folder}/i", write=True)
            assert len(store) == len(state)
        query = (1, 1, -1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = store.search(np.array([query], np.float32), k, conditions)
        except InputError:  # conditions that contradict themselves
            return
        finally:
            store.close()
        ids = store.names(found.ranking.item_rows)[0]
        have = [(name, score) for name, score in zip(ids, found.ranking.scores[0], strict=True) if name]
        assert have == wanted(state, query, k, conditions)
        by_colour = dict(store.facets()["colour"])
        for colour in catalogues.COLOURS:
            listed = sum(any(colour in catalogues.lineage(one) for one in x["colour"]) for x in state.values())
            assert by_colour.get(colour, 0) == listed


def test_a_reader_sees_acknowledged_writes_on_refresh(tmp_path):
    writes.start(tmp_path / "i")
    reader, state = attribute.open(tmp_path / "i"), {}
    with attribute.open(tmp_path / "i", write=True) as writer:
        for number in range(40):
            writes.apply(writer, number)
            writes.play(state, number)
            if number % 4 == 0:
                reader.refresh()
                assert writes.contents(reader) == writes.contents(writer) == state
        with pytest.raises(InputError, match="already open for writing"):
            attribute.open(tmp_path / "i", write=True)
        for write in (lambda: reader.delete(["a"]), reader.compact):
            with pytest.raises(InputError, match="write=True"):
                write()
        before = writes.contents(reader)
        writer.compact()  # the files that the reader has mapped are removed
        assert writes.contents(reader) == before
    reader.refresh()
    assert writes.contents(reader) == state and reader.dead == 0


def small(folder):
    """Makes an index of a few operations; returns its expected contents."""
    writes.start(folder)
    state = {}
    with attribute.open(folder, write=True) as store:
        for number in range(4):
            writes.apply(store, number)
            writes.play(state, number)
    return state


def test_bad_input_is_refused_and_changes_nothing(tmp_path):
    state = small(tmp_path / "i")
    known = next(iter(state))
    with attribute.open(tmp_path / "i", write=True) as store:
        one = np.ones((1, writes.DIM), np.float32)
        for ids, vectors, fields, words in (
            ([known], one, {}, f"id '{known}' is already in"),
            (["a", "a"], np.ones((2, writes.DIM)), {}, "'a' is repeated"),
            (["a"], np.ones((1, 3)), {}, r"\[rows, 8\]|8"),
            (["a"], one * np.nan, {}, "non-finite|not finite|NaN"),
            (["a"], one, {"color": Field.of(["red"])}, "no field 'color' of that kind; did you mean colour"),
            (["a"], one, {"colour": np.ones(1)}, "no field 'colour' of that kind"),
            (["a"], one, {"price": np.ones(2)}, "of 2 listings, not of 1"),
        ):
            with pytest.raises(InputError, match=words):
                store.add(ids, vectors, fields)
        assert writes.contents(store) == state
        store.add(["plain"], one, {})  # attributes that are left out are unknown
        assert store.search(one, 1, {"required": [("price", 0, 9)]}).matches[0] == len(state)
    with pytest.raises(InputError, match="already exists"):
        writes.start(tmp_path / "i")
    with pytest.raises(InputError, match="there is no attribute index"):
        attribute.open(tmp_path)


def test_a_hierarchy_grows_but_does_not_change(tmp_path):
    empty = {"kind": Field(["clothes", "shirt"], [0], [], None, [-1, 0])}
    with attribute.create(tmp_path / "i", np.zeros((0, 2)), empty) as store:
        store.add(["a"], np.ones((1, 2)), {"kind": Field.of(["polo"], {"polo": "shirt", "shirt": "clothes"})})
        assert store.facets()["kind"] == [("clothes", 1), ("polo", 1), ("shirt", 1)]
        with pytest.raises(InputError, match="'shirt' of 'kind' already has another parent"):
            store.add(["b"], np.ones((1, 2)), {"kind": Field.of(["shirt"], {"shirt": "shoes"})})
    with pytest.raises(InputError, match="its own ancestor"):
        Field.of(["a"], {"a": "b", "b": "a"})


def test_results_of_before_a_compaction_are_not_explained(tmp_path):
    fields, query = {"colour": Field.of(["red", "blue"])}, np.array([[0.0, 1]])
    with attribute.create(tmp_path / "i", np.eye(2), fields, ["a", "b"]) as store:
        found = store.search(query, 1)
        assert [one.id for one in store.explain(found, 0)] == ["b"]
        with pytest.raises(InputError, match="query=1, expected an integer from 0 to 0"):
            store.explain(found, 1)
        store.delete(["a"])
        store.compact()
        with pytest.raises(InputError, match=r"generation 1, now 2\), whose rows have other numbers: search again"):
            store.explain(found, 0)
        assert [one.id for one in store.explain(store.search(query, 1), 0)] == ["b"]


def test_damage_is_named(tmp_path):
    state = small(tmp_path / "i")
    assert state
    for name in ("attribute.json", "current.json", "000001.log", "000001.vectors", "000001.table/values.json",
                 "000001.table/postings.bin", "000001.table/ids.npy"):  # fmt: skip
        copy = shutil.copytree(tmp_path / "i", tmp_path / "copy")
        file = next(path for path in copy.rglob("*") if path.as_posix().endswith(name.split("0001.")[-1]))
        content = bytearray(file.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 1] = b"\xff\xff" if content else b"x"
        file.write_bytes(content)
        with pytest.raises(InputError, match=file.name) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attribute.open(copy).verify()
        assert "restore" in str(caught.value) or "again" in str(caught.value) or "create" in str(caught.value)
        shutil.rmtree(copy)


@pytest.mark.parametrize("kind", ["update", "delete", "compact"])
def test_a_write_stopped_at_any_step_loses_no_acknowledged_write(tmp_path, monkeypatch, kind):
    """Raises at the n-th call that touches the disk, for every n."""
    before = small(tmp_path / "i")
    number = next(n for n in range(4, 99) if writes.operation(n)[0] == kind)
    after = dict(before)
    writes.play(after, number)
    calls = ("write", "fdatasync", "fsync", "replace", "open", "mkdir")
    stopped = 0
    for limit in range(200):
        copy = shutil.copytree(tmp_path / "i", tmp_path / "copy")
        store = attribute.open(copy, write=True)
        with stopped_after(monkeypatch, limit, calls):
            try:
                writes.apply(store, number)
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
            with attribute.open(copy, write=True) as store:
                assert writes.contents(store) in ([after] if done else [before, after])
                store.verify()
        left = {path.name.split(".")[0] for path in copy.glob("0*")}
        assert len(left) == 1  # files of one generation
        shutil.rmtree(copy)
        if done:
            break
    assert done and stopped >= 2


def test_killed_writers(tmp_path):
    assert writes.kill_writers(tmp_path / "i", 8, 0) > 0


@pytest.mark.long
def test_a_thousand_killed_writers(tmp_path):
    acknowledged = writes.kill_writers(tmp_path / "i", 1000, 1)
    print(f"1,000 kills, {acknowledged} acknowledged writes, none lost")
    assert acknowledged > 1000
