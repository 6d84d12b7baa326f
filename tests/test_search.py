"""The verb search: stages, members, and what it refuses.

Longer than 400 lines: all of these tests make and search the same small embeddings.
"""

import contextlib
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax import embeddings, index, search
from retrieval_jax.data import loading
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.embeddings import Embeddings, evidence, vectors
from retrieval_jax.errors import InputError
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.postprocess import State, choosing, ensemble, fusion, reranking, whitening, whitening_by_parts
from retrieval_jax.scoring.ranking import Ranking
from retrieval_jax.workdir import sides

STEPS = (("whitening", {}), ("reranking", {"k1": 5, "k2": 3, "depth": 12}))


def make_config(steps=STEPS, members=(), models=("histogram", "trained"), k=20):
    return ConfigDict(
        {
            "name": "test",
            "embed": {"models": models},
            "search": {"k": k, "steps": steps, "members": members, "index": "exact", "index_kwargs": {}},
        }
    )


def make_embeddings(workdir, model="trained", *, seed=0, dim=6, space="s", query_space=None, gallery_ids=None):
    rng = np.random.default_rng(seed)
    gallery_ids = gallery_ids or [f"g{row:03d}" for row in range(70)]
    centres = np.random.default_rng(99).normal(size=(10, dim))
    for split, ids in (("query", [f"q{row}" for row in range(8)]), ("gallery", gallery_ids)):
        vectors = centres[np.arange(len(ids)) % 10] + 0.7 * rng.normal(size=(len(ids), dim))
        meta = {"space": query_space if split == "query" and query_space else space, "split": split}
        Embeddings(ids, vectors, meta).save(workdir / "embeddings" / model / split, shard_rows=32)


def load(workdir, model="trained"):
    return [Embeddings.load(workdir / "embeddings" / model / split) for split in ("query", "gallery")]


def whiten(queries, gallery):
    fitted = whitening.fit(gallery)
    return [side.map(lambda block: whitening.normalize(fitted.apply(block))) for side in (queries, gallery)]


def test_every_stage_is_written_and_is_what_its_steps_make(tmp_path):
    make_embeddings(tmp_path)
    make_embeddings(tmp_path, "histogram", seed=1, dim=4, space="h")
    summary = search.run(make_config(), tmp_path)
    expected = [("histogram", "cosine"), ("trained", "cosine"), ("trained", "whitening"), ("trained", "reranking")]
    listed = json.loads((tmp_path / "rankings" / "rankings.json").read_text())["stages"]
    assert [(stage["model"], stage["stage"]) for stage in listed] == expected
    assert summary["stages"] == listed and summary["queries"] == 8 and summary["gallery"] == 70
    for model in ("histogram", "trained"):
        queries, gallery = load(tmp_path, model)
        ranking = Ranking.load(tmp_path / "rankings" / model / "cosine")
        assert np.array_equal(ranking.item_rows, index.get("exact").Index(gallery).search(queries, 20).item_rows)
        assert ranking.k == 20 and ranking.gallery_sha256 == gallery.ids.sha256()
    queries, gallery = whiten(*load(tmp_path))
    second = index.get("exact").Index(gallery).search(queries, 20)
    assert np.array_equal(Ranking.load(tmp_path / "rankings" / "trained" / "whitening").item_rows, second.item_rows)
    distance = reranking.local_k_reciprocal(queries, gallery, second.item_rows[:, :12], k1=5, k2=3)
    third = Ranking.load(tmp_path / "rankings" / "trained" / "reranking")
    np.testing.assert_array_equal(third.scores, -np.sort(distance, 1))
    saved = whitening.Whitening.load(tmp_path / "rankings" / "trained" / "whitening_trained.npz")
    assert np.array_equal(saved.matrix, whitening.fit(load(tmp_path)[1]).matrix)


def test_a_second_run_leaves_no_stage_of_the_first(tmp_path):
    make_embeddings(tmp_path)
    search.run(make_config(models=("trained",)), tmp_path)
    search.run(make_config((("l2", {}), ("l2", {"stage": "again"})), models=("trained",)), tmp_path)
    assert sorted(path.name for path in (tmp_path / "rankings" / "trained").iterdir()) == ["again", "cosine", "l2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings", "rankings"]


def test_an_ensemble_searches_its_members(tmp_path):
    for seed, name in enumerate(("one", "two-runlocal")):
        make_embeddings(tmp_path / name, seed=seed, dim=5 + seed, space=name)
    config = make_config(
        (("whitening", {}), ("ensemble", {"weights": (1, 2)}), ("reranking", {"depth": 20})), ("one", "two:runlocal")
    )
    del config["embed"]
    search.run(config, tmp_path / "both")
    folder = tmp_path / "both" / "rankings" / "ensemble"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["ensemble", "reranking"]
    members = [whiten(*load(tmp_path / name)) for name in ("one", "two-runlocal")]
    queries, gallery = (ensemble.concatenate(side, (1, 2)) for side in zip(*members, strict=True))
    expected = index.get("exact").Index(gallery).search(queries, 20)
    assert np.array_equal(Ranking.load(folder / "ensemble").item_rows, expected.item_rows)
    rankings = tmp_path / "both" / "rankings"
    for model, (queries, gallery) in zip(("one", "two-runlocal"), members, strict=True):
        assert (rankings / model / f"whitening_{model}.npz").exists()
        expected = index.get("exact").Index(gallery).search(queries, 20)
        assert np.array_equal(Ranking.load(rankings / model / "whitening").item_rows, expected.item_rows)


def test_vectors_computed_when_read_give_the_same_rankings(tmp_path, monkeypatch):
    for seed, name in enumerate(("one", "two")):
        make_embeddings(tmp_path / name, seed=seed, dim=5 + seed, space=name)
    config = make_config((("whitening", {}), ("ensemble", {}), ("reranking", {"depth": 20})), ("one", "two"))
    search.run(config, tmp_path / "kept")
    monkeypatch.setattr(embeddings.folder, "KEPT_BYTES", 0)
    monkeypatch.setattr(vectors, "CHUNK_ROWS", 7)
    search.run(config, tmp_path / "read")
    for stage in ("one/cosine", "two/whitening", "ensemble/ensemble", "ensemble/reranking"):
        kept, read = (Ranking.load(tmp_path / name / "rankings" / stage) for name in ("kept", "read"))
        assert np.array_equal(kept.item_rows, read.item_rows) and np.array_equal(kept.scores, read.scores)


def test_members_in_another_order_are_read_in_the_first_ones(tmp_path):
    ids = [f"g{row:03d}" for row in range(70)]
    for name in ("one", "two", "mixed"):
        make_embeddings(tmp_path / name, seed=len(name), space=name)
    order = np.random.default_rng(5).permutation(70)
    gallery = load(tmp_path / "two")[1]
    Embeddings(gallery.ids[order], gallery.vectors[order], gallery.meta).save(
        tmp_path / "mixed" / "embeddings" / "trained" / "gallery"
    )
    queries = load(tmp_path / "two")[0]
    Embeddings(queries.ids[::-1], queries.vectors[::-1], queries.meta).save(
        tmp_path / "mixed" / "embeddings" / "trained" / "query"
    )
    found = []
    for other in ("two", "mixed"):
        config = make_config((("whitening", {}), ("ensemble", {})), ("one", other))
        search.run(config, tmp_path / "both")
        found.append([Ranking.load(tmp_path / "both" / "rankings" / model / stage)
                      for model, stage in ((other, "cosine"), ("ensemble", "ensemble"))])  # fmt: skip
    for straight, mixed in zip(*found, strict=True):
        assert np.array_equal(straight.item_rows, mixed.item_rows) and straight.gallery_sha256 == mixed.gallery_sha256
        assert straight.query_ids == mixed.query_ids and load(tmp_path / "one")[1].ids == ids


@pytest.mark.parametrize("method", ["reciprocal_rank", "scores"])
def test_fusion_joins_the_members_rankings(tmp_path, method):
    for seed, name in enumerate(("one", "two")):
        make_embeddings(tmp_path / name, seed=seed, dim=5 + seed, space=name)
    steps = (("whitening", {}), ("fusion", {"method": method, "k": 15}), ("reranking", {"depth": 12}))
    search.run(make_config(steps, ("one", "two")), tmp_path / "both")
    rankings = tmp_path / "both" / "rankings"
    each = [Ranking.load(rankings / name / "whitening") for name in ("one", "two")]
    members = [whiten(*load(tmp_path / name)) for name in ("one", "two")]
    if method == "scores":
        expected = fusion.sum_of_scores(each, members, 15)
    else:
        expected = fusion.reciprocal_rank(each, 15, gallery_ids=members[0][1].ids)
    assert np.array_equal(Ranking.load(rankings / "ensemble" / "fusion").item_rows, expected.item_rows)
    after = Ranking.load(rankings / "ensemble" / "reranking")
    assert np.array_equal(np.sort(after.item_rows, 1), np.sort(expected.item_rows[:, :12], 1))


def test_only_the_stages_named_are_searched(tmp_path, monkeypatch):
    for seed, name in enumerate(("one", "two")):
        make_embeddings(tmp_path / name, seed=seed, space=name)
    steps = (("whitening", {}), ("ensemble", {}), ("reranking", {"depth": 20}))
    config = make_config(steps, ("one", "two"))
    search.run(config, tmp_path / "all")
    searches = []
    exact = index.get("exact").Index
    original = exact.search
    monkeypatch.setattr(exact, "search", lambda self, *args: searches.append(1) or original(self, *args))
    config.search.stages = ("ensemble", "reranking")
    summary = search.run(config, tmp_path / "some")
    assert len(searches) == 1
    assert [(stage["model"], stage["stage"]) for stage in summary["stages"]] == [
        ("ensemble", "ensemble"), ("ensemble", "reranking")]  # fmt: skip
    for stage in ("ensemble", "reranking"):
        some, whole = (Ranking.load(tmp_path / name / "rankings" / "ensemble" / stage) for name in ("some", "all"))
        assert np.array_equal(some.item_rows, whole.item_rows) and np.array_equal(some.scores, whole.scores)
    config.search.stages = ("ensemble", "rerank")
    with pytest.raises(
        InputError, match="no stage named 'rerank'; did you mean reranking.*cosine, whitening, ensemble, rera"
    ):
        search.run(config, tmp_path / "some")
    config.search.stages, config.search.steps = ("fusion",), (("whitening", {}), ("fusion", {}))
    with pytest.raises(InputError, match="add the stage before it to search.stages"):
        search.run(config, tmp_path / "some")


def test_a_flipped_bit_in_the_vectors_is_found_before_they_are_searched(tmp_path):
    make_embeddings(tmp_path)
    file = tmp_path / "embeddings" / "trained" / "gallery" / "00001.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"gallery/00001\.npy has changed since it was written: run embed again"):
        search.run(make_config(models=("trained",)), tmp_path)
    assert not (tmp_path / "rankings").exists()


def test_what_is_missing_is_named_with_its_command(tmp_path):
    with pytest.raises(InputError, match="retrieval-jax embed"):
        search.run(make_config(models=("trained",)), tmp_path)
    make_embeddings(tmp_path / "one")
    config = make_config((("ensemble", {}),), ("one", "two:runlocal"))
    with pytest.raises(InputError, match=r"two-runlocal.*run --config=two:runlocal --workdir="):
        search.run(config, tmp_path / "both")
    with pytest.raises(InputError, match="has 'one' twice: give each once"):
        search.run(make_config((("ensemble", {}),), ("one", "one")), tmp_path / "both")
    make_embeddings(tmp_path / "two")
    with pytest.raises(InputError, match="no 'ensemble'"):
        search.run(make_config((("whitening", {}),), ("one", "two")), tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_what_cannot_be_compared_is_refused(tmp_path):
    make_embeddings(tmp_path / "a", space="s", query_space="t")
    with pytest.raises(InputError, match="queries .*'t' with 6 dimensions, and the gallery .*'s' with 6"):
        search.run(make_config(models=("trained",)), tmp_path / "a")
    make_embeddings(tmp_path / "one")
    make_embeddings(tmp_path / "two", gallery_ids=[f"x{row}" for row in range(70)])
    with pytest.raises(InputError, match=r"ensemble member two \(gallery\) lacks 70 of the 70"):
        search.run(make_config((("ensemble", {}),), ("one", "two")), tmp_path / "both")


FROM = {
    "query": {"run": "fashion_vit:seed=1", "step": 400},
    "gallery": {"which": "params", "predict_fn": "embed_title"},
}


def two_sided(query=None, gallery=None, **kwargs):
    config = make_config((("whitening", {}),), models=("trained",), **kwargs)
    config.search.query_from = ConfigDict(FROM["query"] if query is None else query)
    config.search.gallery_from = ConfigDict(FROM["gallery"] if gallery is None else gallery)
    return config


def test_the_two_sides_come_from_folders_of_their_own(tmp_path):
    chosen = sides.of(two_sided())
    assert [side.folder for side in chosen.values()] == [
        sides.default_name("trained-run=fashion_vit:seed=1-step=400"),
        "trained-predict_fn=embed_title-which=params",
    ]
    assert sides.of(make_config()) == {"query": sides.Side(), "gallery": sides.Side()}
    assert sides.Side().folder == "trained" and sides.other_runs(two_sided()) == ("fashion_vit:seed=1",)
    for seed, side in enumerate(chosen.values()):
        make_embeddings(tmp_path, side.folder, seed=seed)
    make_embeddings(tmp_path, seed=7)  # of this run with nothing set: not read
    search.run(two_sided(), tmp_path)
    queries, gallery = load(tmp_path, chosen["query"].folder)[0], load(tmp_path, chosen["gallery"].folder)[1]
    found = Ranking.load(tmp_path / "rankings" / "trained" / "cosine")
    assert np.array_equal(found.item_rows, index.get("exact").Index(gallery).search(queries, 20).item_rows)
    assert sorted(path.name for path in (tmp_path / "rankings" / "trained").iterdir() if path.is_dir()) == [
        "cosine",
        "whitening",
    ]


def test_sides_of_two_spaces_are_refused_with_what_each_one_is(tmp_path):
    for split, side in sides.of(two_sided()).items():
        make_embeddings(tmp_path, side.folder, space=split)
    words = (
        r"queries \(fashion_vit:seed=1 at step 400 \(ema\)\) in the space 'query'.*gallery \(this run at the latest "
        r"step \(params, embed_title\)\) in the space 'gallery'.*query_from"
    )
    with pytest.raises(InputError, match=words):
        search.run(two_sided(), tmp_path)
    assert not (tmp_path / "rankings").exists()


@pytest.mark.parametrize(
    "side, words",
    [
        ({"runs": "a"}, "query_from has no key 'runs'; did you mean run"),
        ({"step": "last"}, "query_from.step is 'last': give a whole number of 0 or more"),
        ({"step": True}, "query_from.step is True: give a whole number of 0 or more"),
        ({"step": -1}, "query_from.step is -1: give a whole number of 0 or more"),
        ({"which": "average"}, "which is 'average': give 'ema'"),
        ({"predict_fn": 3}, "predict_fn is 3: give text"),
    ],
)
def test_sides_are_checked_before_anything_runs(tmp_path, side, words):
    with pytest.raises(InputError, match=words):
        search.run(two_sided(side), tmp_path)


def test_sides_of_an_ensemble_are_those_of_its_members(tmp_path):
    with pytest.raises(InputError, match="config.search.query_from is set, and config.search.members too"):
        search.run(two_sided(members=("one", "two")), tmp_path)
    config = two_sided()
    config.embed.models = ("histogram",)
    with pytest.raises(InputError, match="choose the sides of 'trained'.*add 'trained'"):
        search.run(config, tmp_path)
    for seed, name in enumerate(("one", "two")):
        make_embeddings(tmp_path / name, seed=seed)
    own = two_sided({}, {"predict_fn": "embed_title"})
    make_embeddings(tmp_path / "one", sides.of(own)["gallery"].folder, seed=5)
    own.data = {"source": "synthetic"}
    (tmp_path / "one" / "config.json").write_text(own.to_json())
    search.run(make_config((("ensemble", {}),), ("one", "two")), tmp_path / "both")
    queries = load(tmp_path / "one")[0]
    gallery = load(tmp_path / "one", sides.of(own)["gallery"].folder)[1]
    found = Ranking.load(tmp_path / "both" / "rankings" / "one" / "cosine")
    assert np.array_equal(found.item_rows, index.get("exact").Index(gallery).search(queries, 20).item_rows)


@pytest.mark.parametrize("steps, words", [
    ((("whitenning", {}),), "whitenning.*whitening"),
    ((("reranking", {"k_1": 3}),), "no argument 'k_1'; did you mean k1.*k1, k2"),
    ((("whitening", {}), ("whitening", {})), "'whitening' twice"),
    ((("whitening", {"stage": "cosine"}),), "'cosine' twice"),
    ((("whitening", {"stage": "../x"}),), "folder"),
    (("whitening",), r"give \(name, arguments\)"),
])  # fmt: skip
def test_steps_are_checked_before_anything_runs(tmp_path, steps, words):
    with pytest.raises(InputError, match=words):
        search.run(make_config(steps), tmp_path)


def test_unknown_index_and_nan(tmp_path):
    make_embeddings(tmp_path)
    config = make_config(models=("trained",))
    config.search.index = "fais"
    with pytest.raises(InputError, match="exact"):
        search.run(config, tmp_path)
    for split, name in (("gallery", "g013"), ("query", "q5")):  # whichever stages are ranked
        make_embeddings(tmp_path)
        file = tmp_path / "embeddings" / "trained" / split / "00000.npy"
        vectors = np.load(file)
        vectors[int(name[1:]), 2] = np.nan
        np.save(file, vectors)
        about = file.with_name("embeddings.json")  # as if the network had given that
        info = json.loads(about.read_text())
        info["shards"][0]["sha256"] = file_sha256(file)
        about.write_text(json.dumps(info))
        for stages in ((), ("whitening",), ("reranking",)):
            config = make_config(models=("trained",))
            with config.unlocked():
                config.search.stages = stages
            with pytest.raises(InputError, match=rf"non-finite .* row \d+ \({name}\)"):
                search.run(config, tmp_path)
            assert not (tmp_path / "rankings").exists()


def test_each_searched_stage_keeps_an_index_of_its_own(tmp_path):
    make_embeddings(tmp_path)
    make_embeddings(tmp_path, "histogram", seed=1, dim=4, space="h")
    config = make_config()
    config.search.index = "faiss_index"
    config.search.index_kwargs = ConfigDict({"factory": "Flat", "candidates": 70, "folder": str(tmp_path / "index")})
    for _ in range(2):  # built, then read
        search.run(config, tmp_path)
        made = sorted(str(file.parent.relative_to(tmp_path / "index")) for file in tmp_path.rglob("index.json"))
        assert made == ["histogram/cosine", "trained/cosine", "trained/whitening"]  # re-ranking searches nothing
    queries, gallery = whiten(*load(tmp_path))
    found = Ranking.load(tmp_path / "rankings" / "trained" / "whitening")
    assert np.array_equal(found.item_rows, index.get("exact").Index(gallery).search(queries, 20).item_rows)


def test_models_of_one_run_are_joined(tmp_path, capsys):
    make_embeddings(tmp_path)
    make_embeddings(tmp_path, "histogram", seed=1, dim=4, space="h")
    make_embeddings(tmp_path, "colour_and_edges", seed=2, dim=5, space="c")
    steps = (("whitening", {}), ("ensemble", {"weights": "chosen"}), ("reranking", {}))
    config = make_config(steps, models=("histogram", "colour_and_edges", "trained"))
    with config.unlocked():
        config.search.join = ("trained", "colour_and_edges")
    summary = search.run(config, tmp_path)
    assert [(stage["model"], stage["stage"]) for stage in summary["stages"]] == [
        ("histogram", "cosine"),
        ("colour_and_edges", "cosine"),
        ("colour_and_edges", "whitening_by_parts"),
        ("trained", "cosine"),
        ("trained", "whitening"),
        ("ensemble", "ensemble"),
        ("ensemble", "reranking"),
    ]
    record = json.loads((tmp_path / "rankings" / "ensemble" / "ensemble_weights.json").read_text())
    assert list(record["weights"]) == ["trained", "colour_and_edges"]
    own = whitening_by_parts.step(State([tuple(load(tmp_path, "colour_and_edges"))])).members[0]
    joined = ensemble.step(State([tuple(whiten(*load(tmp_path))), own]), weights=list(record["weights"].values()))
    [(queries, gallery)] = joined.members
    found = Ranking.load(tmp_path / "rankings" / "ensemble" / "ensemble")
    assert np.array_equal(found.item_rows, index.get("exact").Index(gallery).search(queries, 20).item_rows)
    assert "chosen without labels" in capsys.readouterr().out


def test_a_hand_made_member_joins_an_ensemble_of_configs(tmp_path):
    for seed, name in enumerate(("one", "two")):
        make_embeddings(tmp_path / name, seed=seed)
    config = make_config((("ensemble", {}),), ("one", "two"))
    with config.unlocked():
        config.search.join = ("colour_and_edges",)
    with pytest.raises(InputError, match="one/embeddings/colour_and_edges/query: make them first with .*config=one"):
        search.run(config, tmp_path / "both")
    make_embeddings(tmp_path / "one", "colour_and_edges", seed=2, dim=5, space="c")
    stages = search.run(config, tmp_path / "both")["stages"]
    assert [stage["model"] for stage in stages] == ["one", "two", "colour_and_edges", "colour_and_edges", "ensemble"]


@pytest.mark.parametrize(
    "join, members, steps, words",
    [
        (("trained", "colour_and_edge"), (), "ensemble", "has 'colour_and_edge'.*did you mean colour_and_edges"),
        (("trained",), (), "ensemble", "give at least two models"),
        (("trained", "colour_and_edges"), (), "whitening", "search.join names 2 members, but search.steps has no"),
        (("trained", "colour_and_edges"), ("one",), "ensemble", "has 'trained', which every one of"),
    ],
)
def test_joins_are_checked_before_anything_runs(tmp_path, join, members, steps, words):
    config = make_config(((steps, {}),), members, models=("colour_and_edges", "trained"))
    with config.unlocked():
        config.search.join = join
    with pytest.raises(InputError, match=words):
        search.check(config, tmp_path)


def test_chosen_steps_are_one_stage_and_read_the_evidence_of_the_space(tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(choosing, "choose_steps", lambda q, g, found, k: seen.append(found) or CHOICE)
    make_embeddings(tmp_path)
    folder = tmp_path / "embeddings" / "trained" / evidence.FOLDER
    Embeddings(["a", "b"], np.ones((2, 6)), {"space": "s"}).save(folder / "train")
    summary = search.run(make_config((("chosen", {}),), models=("trained",)), tmp_path)
    assert [stage["stage"] for stage in summary["stages"]] == ["cosine", "chosen"]
    assert (
        len(seen) == 1 and seen[0].train.ids[1] == "b" and "trained: chosen steps: because" in capsys.readouterr().out
    )
    assert choosing.load(tmp_path / "rankings" / "trained") == CHOICE
    fitted = whitening.Whitening.load(tmp_path / "rankings" / "trained" / "whitening_trained.npz")
    assert fitted.query_mean is not None and fitted.info["centre"] == "own"
    queries, gallery = (
        fitted.apply(side, name) for side, name in zip(load(tmp_path), ("query", "gallery"), strict=True)
    )
    expected = index.get("exact").Index(gallery).search(queries, 20).item_rows
    assert np.array_equal(Ranking.load(tmp_path / "rankings" / "trained" / "chosen").item_rows, expected)
    Embeddings(["a", "b"], np.ones((2, 6)), {"space": "earlier"}).save(folder / "train")  # of another checkpoint
    search.run(make_config((("chosen", {}),), models=("trained",)), tmp_path)
    assert seen[1].train is None


CHOICE = {
    "steps": [["whitening", {"power": 0.25, "centre": "own"}]],
    "why": "because",
    "notes": [],
    "rows": [],
}


def test_members_choose_their_own_steps_before_they_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "choose_steps", lambda q, g, found, k: CHOICE)
    for seed, name in enumerate(("one", "two")):
        make_embeddings(tmp_path / name, seed=seed, space=name)
    steps = (("chosen", {}), ("ensemble", {}))
    summary = search.run(make_config(steps, members=("one", "two")), tmp_path / "both")
    found = [(stage["model"], stage["stage"]) for stage in summary["stages"]]
    assert found[-1] == ("ensemble", "ensemble") and ("two", "chosen") in found
    assert choosing.load(tmp_path / "both" / "rankings" / "one") == CHOICE


def test_the_plain_cosine_stays_without_evidence(tmp_path, capsys):
    make_embeddings(tmp_path)
    search.run(make_config((("chosen", {}),), models=("trained",)), tmp_path)
    rankings = [Ranking.load(tmp_path / "rankings" / "trained" / stage) for stage in ("cosine", "chosen")]
    assert np.array_equal(rankings[0].item_rows, rankings[1].item_rows)
    assert "nothing can be tried without stand-ins for the queries" in capsys.readouterr().out


def test_the_attribute_index_searches_under_conditions_on_columns_of_the_catalogue(tmp_path):
    config = make_config(steps=(), models=("trained",))
    sizes = {"num_train": 8, "num_val": 4, "num_query": 8, "num_gallery": 70}
    config.data = ConfigDict({"source": "synthetic", "kwargs": sizes})
    catalog = loading.load(config.data)
    names, colours = catalog.column_names["colour"], catalog.gallery.column("colour")
    wanted = names[int(np.bincount(colours[colours >= 0]).argmax())]
    make_embeddings(tmp_path, gallery_ids=list(catalog.gallery.ids)[::-1])
    config.search.index = "attribute"
    config.search.index_kwargs = {"fields": ("colour", "category"), "conditions": {"required": (("colour", wanted),)}}
    search.run(config, tmp_path)
    found = Ranking.load(tmp_path / "rankings" / "trained" / "cosine")
    named = [names[value] if value >= 0 else "" for value in colours.tolist()]
    colour_of = dict(zip(catalog.gallery.ids, named, strict=True))
    ids = load(tmp_path)[1].ids
    have = [colour_of[ids[int(row)]] for row in found.item_rows[0] if row >= 0]
    assert have == [wanted] * min(20, list(colour_of.values()).count(wanted))
    config.search.index_kwargs.fields = ("color",)
    with pytest.raises(InputError, match="the field 'color' does not exist; did you mean colour"):
        search.run(config, tmp_path)


def test_a_column_of_the_queries_has_the_conditions_of_each(tmp_path, monkeypatch):
    config = make_config(steps=(), models=("trained",))
    config.data = ConfigDict()
    make_embeddings(tmp_path)
    queries, gallery = load(tmp_path)
    colours = np.arange(len(gallery), dtype=np.int32) % 2
    numbers = np.ones(len(queries), np.float32)
    texts = ['{"required": [{"field": "colour", "values": ["red"]}]}', " ", *[""] * (len(queries) - 2)]
    splits = {
        "query": Split(
            "query", list(queries.ids)[::-1], None, None, None, columns={"wishes": texts[::-1], "n": numbers}
        ),
        "gallery": Split("gallery", list(gallery.ids), None, None, None, columns={"colour": colours}),
    }
    catalog = Catalog("wishes", **splits, column_names={"colour": ["red", "blue"]})
    monkeypatch.setattr(loading, "load", lambda config_data: catalog)
    config.search.index = "attribute"
    config.search.index_kwargs = {"fields": ("colour",), "conditions_column": "wishes"}
    search.run(config, tmp_path)
    found = Ranking.load(tmp_path / "rankings" / "trained" / "cosine").item_rows
    first = found[0][found[0] >= 0]
    assert len(first) and (colours[first] == 0).all() and (colours[found[1][found[1] >= 0]] == 1).any()
    for column, says in (("wish", "no column 'wish'; did you mean wishes"), ("n", "'n' of the queries is not text")):
        config.search.index_kwargs.conditions_column = column
        with pytest.raises(InputError, match=says):
            search.run(config, tmp_path)
    for argument in ("conditions_of", "words_of"):
        config.search.index_kwargs = {"fields": ("colour",), argument: {}}
        with pytest.raises(InputError, match=argument):
            search.check(config, tmp_path)


def test_words_of_the_queries_may_name_conditions(tmp_path, monkeypatch):
    config = make_config(steps=(), models=("trained",))
    config.data = ConfigDict()
    make_embeddings(tmp_path)
    queries, gallery = load(tmp_path)
    columns = {"colour": np.arange(len(gallery), dtype=np.int32) % 2, "price": np.ones(len(gallery), np.float32)}
    words = ["the same -blue", "blue", *[""] * (len(queries) - 2)]
    splits = {
        "query": Split(
            "query",
            list(queries.ids),
            None,
            None,
            None,
            columns={"words": words, "phrasing": np.zeros(len(queries), np.int32)},
        ),
        "gallery": Split("gallery", list(gallery.ids), None, None, None, columns=columns),
    }
    names = {"colour": ["red", "blue"], "phrasing": ["seen"]}
    monkeypatch.setattr(loading, "load", lambda config_data: Catalog("words", **splits, column_names=names))
    config.search.index = "attribute"
    config.search.index_kwargs = {"fields": ("colour", "price"), "words_column": "words"}
    search.run(config, tmp_path)
    found = Ranking.load(tmp_path / "rankings" / "trained" / "cosine").item_rows
    first, second = (columns["colour"][rows[rows >= 0]] for rows in found[:2])
    assert len(first) and (first == 0).all() and set(second.tolist()) == {0, 1}
    words[0] = "-seen"  # a value of a column that the gallery lacks
    with pytest.raises(InputError, match=f"conditions of the query {queries.ids[0]}: .* the value 'seen'"):
        search.run(config, tmp_path)
    config.search.index_kwargs.words_column = "phrasing"
    with pytest.raises(InputError, match="words_column: the column 'phrasing' of the queries is not text"):
        search.run(config, tmp_path)
    config.search.index_kwargs = {"fields": ("colour",), "words_column": 3}
    with pytest.raises(InputError, match="words_column is 3: name a text column"):
        search.check(config, tmp_path)


@pytest.mark.parametrize(
    "steps, kwargs, says",
    [
        ((), {}, "'attribute' needs fields: name columns"),
        ((), {"fields": ("colour",), "conditions": {"require": ()}}, "index_kwargs.conditions has 'require'"),
        ((("global_reranking", {}),), {"fields": ("colour",)}, "'global_reranking', which finds listings on its own"),
        ((("chosen", {}), ("reranking", {})), {"fields": ("colour",)}, ""),
    ],
)
def test_settings_that_conditions_could_not_be_kept_with_are_refused(tmp_path, steps, kwargs, says):
    config = make_config(steps=steps, models=("trained",))
    config.search.index, config.search.index_kwargs = "attribute", kwargs
    with pytest.raises(InputError, match=says) if says else contextlib.nullcontext():
        search.check(config, tmp_path)


def test_chosen_steps_add_no_listings():
    candidates = (*choosing.WHITENINGS, *choosing.NEIGHBOURS)
    assert not {name for steps in candidates for name, _ in steps} & {*search.ADDS_LISTINGS}
