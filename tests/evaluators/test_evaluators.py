"""Evaluations by name: which rows they choose, their scores, and what they refuse."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax import evaluators, inference, tasks
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.catalog import Catalog
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import accuracy, retrieval, stages
from retrieval_jax.evaluators._selection import Selection
from retrieval_jax.training import checkpoints
from tiny_linear import INFO, RESIZE, make_catalog, make_task

PARAMS = {"w": jax.random.normal(jax.random.key(0), (48, 6))}


def make_config(**search):
    return ConfigDict(
        {
            "data": {"image_size": (4, 4), "cache_bytes": 2**20},
            "train": {"task": "multilabel", "seed": 1, "model": {"kwargs": {}}, "evaluations": (("retrieval", {}),)},
            "embed": {"predict_fn": "embed_image", "batch_size": 8, "transforms": RESIZE, "dtype": "float32"},
            "search": {"k": 20, "steps": (("whitening", {}), ("l2", {})), "members": (), **search},
            "evaluate": {"selection_share": 0.5},
        }
    )


CONTEXT = {"config": make_config(), "mesh": None, "workdir": None}


def test_retrieval_scores_a_fixed_part_and_keeps_all_relevant_rows():
    catalog = make_catalog(num_query=21, num_gallery=60)
    chosen = Selection(make_task(), catalog, **CONTEXT, max_queries=5, max_gallery=12)
    assert len(chosen.ids["query"]) == 5 and len(chosen.ids["gallery"]) == 12
    for query, rows in zip(chosen.rows["query"], map(chosen.truth.relevant, range(5)), strict=True):
        assert chosen.rows["gallery"][rows].tolist() == catalog.truth.relevant(int(query)).tolist()
    kw = {**CONTEXT, "max_queries": 5, "max_gallery": 12}
    evaluation = retrieval.make(make_task(), catalog, **kw)
    scores = dict(evaluation(PARAMS))
    assert tuple(scores) == evaluation.names == tuple(f"retrieval/{name}" for name in retrieval.SCORES)
    assert scores == dict(retrieval.make(make_task(), catalog, **kw)(PARAMS))
    assert re.fullmatch(r"retrieval: \d+ of [\d,]+ queries .* against \d+ of \d+ gallery listings, .*", evaluation.of)
    assert scores["retrieval/recall@1"] == scores["retrieval/mar@10_capped"] == 1.0
    worse = dict(evaluation({"w": PARAMS["w"] * 0 + 1}))
    assert worse["retrieval/recall@1"] < 1


def test_without_ground_truth_there_is_no_evaluation():
    catalog = make_catalog()
    catalog.truth = None
    assert retrieval.make(make_task(), catalog, **CONTEXT) is None
    assert stages.make(make_task(), catalog, **CONTEXT) is None
    assert evaluators.of_config(make_config(), make_task(), catalog) == []


def test_a_selection_without_queries_is_refused():
    config = make_config()
    config.evaluate.selection_share = 0.0
    with pytest.raises(InputError, match="none of the 21 queries is in the selection share 0.0.*eval_every_epochs"):
        retrieval.make(make_task(), make_catalog(), config=config)


def test_every_stage_is_scored_over_the_whole_gallery():
    catalog = make_catalog()
    evaluation = stages.make(make_task(), catalog, **CONTEXT)
    scores = dict(evaluation(PARAMS))
    assert tuple(scores) == evaluation.names
    assert {name.partition("/")[0] for name in scores} == {"cosine", "whitening", "l2"}
    whole = retrieval.make(make_task(), catalog, **CONTEXT, max_queries=100, max_gallery=100)
    assert scores["cosine/map@10"] == dict(whole(PARAMS))["retrieval/map@10"]
    config = make_config(stages=("l2",))
    assert tuple(dict(stages.make(make_task(), catalog, config=config)(PARAMS))) == tuple(
        f"l2/{name}" for name in retrieval.SCORES
    )
    with pytest.raises(InputError, match="no step.*'whitenning'; did you mean whitening"):
        stages.make(make_task(), catalog, config=make_config(steps=(("whitenning", {}),)))


def test_a_hand_made_model_joins_every_checkpoint():
    steps = (("whitening", {}), ("ensemble", {"weights": (1, 1)}), ("l2", {}))
    config = make_config(steps=steps, join=("trained", "colour_and_edges"))
    catalog = make_catalog()
    evaluation = stages.make(make_task(), catalog, config=config)
    scores = dict(evaluation(PARAMS))
    assert tuple(scores) == evaluation.names
    assert {name.partition("/")[0] for name in scores} == {"cosine", "whitening", "ensemble", "l2"}
    alone = dict(stages.make(make_task(), catalog, **CONTEXT)(PARAMS))
    assert scores["whitening/map@10"] == alone["whitening/map@10"]
    config.search.steps = (("whitening", {}), ("ensemble", {"weights": (1, 0)}))
    without = dict(stages.make(make_task(), catalog, config=config)(PARAMS))
    assert without["ensemble/map@10"] == alone["whitening/map@10"]
    config.search.steps = (("whitening", {}), ("ensemble", {"weights": (0, 1)}))
    hand_made = stages.make(make_task(), catalog, config=config)
    other = {"w": PARAMS["w"] * 0 + 1}
    assert dict(hand_made(PARAMS))["ensemble/map@10"] == dict(hand_made(other))["ensemble/map@10"]
    for join, words in ((("trained", "pretrained"), "cannot be scored with checkpoints"), (("histogram",), "add it")):
        with pytest.raises(InputError, match=words):
            stages.make(make_task(), catalog, config=make_config(steps=steps, join=join))


def with_text(catalog):
    """Queries with a text: the ids of the values of their pictures' first row of pixels."""
    words = Ragged.of([image[0].reshape(-1) % 7 for image in catalog.query.images])
    query = dataclasses.replace(catalog.query)
    query.columns = {"words": words}
    splits = {name: getattr(catalog, name) for name in ("val", "gallery")}
    return Catalog(catalog.name, truth=catalog.truth, query=query, **splits), words


def test_text_queries_against_pictures():
    catalog, words = with_text(make_catalog())
    table = jax.random.normal(jax.random.key(3), (7, 6))

    def embed_text(params, batch):
        return {"embedding": (table[batch["words"]] * batch["words_mask"][..., None]).sum(1) @ params["w"][:6]}

    task = make_task()
    task = dataclasses.replace(
        task, predict_fns={**task.predict_fns, "embed_text": tasks.Predict(embed_text, ("words",))}
    )
    config = make_config(query_from={"predict_fn": "embed_text"})
    chosen = Selection(task, catalog, config=config, mesh=None, workdir=None, max_queries=4)
    queries, gallery = chosen.embed(PARAMS)
    rows = chosen.rows["query"]
    naive = np.stack([np.asarray(table)[words[int(row)]].sum(0) for row in rows]) @ np.asarray(PARAMS["w"])[:6]
    np.testing.assert_allclose(queries.block(0, 9), naive, rtol=1e-4, atol=1e-4)
    assert len(gallery) == 60 and len(queries) == 4
    with pytest.raises(InputError, match="'embed_text' reads the column 'words', which the query split does not have"):
        Selection(task, make_catalog(), config=config, mesh=None, workdir=None)
    config.search.query_from.predict_fn = "embed_txt"
    with pytest.raises(InputError, match="no predict function 'embed_txt'; did you mean embed_text"):
        Selection(task, catalog, config=config, mesh=None, workdir=None)


def test_the_gallery_of_another_run_is_embedded_once(tmp_path, monkeypatch):
    other, config = tmp_path / "large", make_config()
    other.mkdir()
    (other / "config.json").write_text(config.to_json())
    info_lib.save(other / "checkpoints" / "data_info.json", INFO)
    store = checkpoints.Checkpoints(other / "checkpoints")
    store.save(3, {"params": PARAMS, "ema": {"w": PARAMS["w"] * 2}}, {"vocabulary_hash": "abc"})
    store.close()
    monkeypatch.setattr(tasks, "get", lambda name: type("tiny", (), {"make": staticmethod(make_task)}))
    config = make_config(gallery_from={"run": "large", "which": "params"})
    chosen = Selection(make_task(), make_catalog(), config=config, mesh=None, workdir=tmp_path / "small")
    monkeypatch.setattr(inference, "load", None)
    mine = Selection(make_task(), make_catalog(), **CONTEXT)
    half = {"w": PARAMS["w"] / 2}
    for params in (PARAMS, half):
        queries, gallery = chosen.embed(params)
        np.testing.assert_array_equal(gallery.block(0, 60), mine.embed(PARAMS)[1].block(0, 60))
        np.testing.assert_array_equal(queries.block(0, 60), mine.embed(params)[0].block(0, 60))
    wide = {"w": np.ones((48, 7), np.float32)}
    with pytest.raises(InputError, match="queries have 7 dimensions and those of the gallery 6"):
        chosen.embed(wide)


def classified(labels):
    catalog = make_catalog()
    catalog.val.categories = np.array(labels, np.int32)[:, None]
    task = make_task()

    def category(params, batch):
        return {"logits": batch["image"][:, 0, 0, :] / 255.0 * params["w"][:3, 0]}

    task = dataclasses.replace(task, predict_fns={**task.predict_fns, "category": tasks.Predict(category)})
    return task, catalog


def test_accuracy_is_the_share_of_known_labels_that_are_found():
    task, catalog = classified([0, 1, -1, 2, 0])
    best = np.argmax(np.stack(catalog.val.images)[:, 0, 0, :] * np.asarray(PARAMS["w"])[:3, 0], 1)
    known = np.array([0, 1, 3, 4])
    evaluation = accuracy.make(task, catalog, **CONTEXT)
    assert evaluation.names == ("accuracy/val_category",)
    expected = (best == catalog.val.categories[:, 0])[known].mean()
    assert dict(evaluation(PARAMS)) == {"accuracy/val_category": expected}
    catalog.val.categories[:, 0] = best
    assert dict(accuracy.make(task, catalog, **CONTEXT)(PARAMS)) == {"accuracy/val_category": 1.0}
    assert accuracy.make(*classified([-1] * 5), **CONTEXT) is None
    catalog.gallery.columns = {"colour": np.zeros(60, np.int64)}
    found = dict(accuracy.make(task, catalog, **CONTEXT, split="gallery", label="colour", max_rows=7)(PARAMS))
    assert list(found) == ["accuracy/gallery_colour"] and 0 <= found["accuracy/gallery_colour"] * 7 <= 7


def test_several_evaluations_by_name_and_what_they_refuse():
    config, (task, catalog) = make_config(), classified([0, 1, -1, 2, 0])
    config.train.evaluations = (("retrieval", {"max_queries": 3}), ("accuracy", {}))
    found = evaluators.of_config(config, task, catalog)
    assert [name for one in found for name, _ in one(PARAMS)] == [name for one in found for name in one.names]
    for wrong, words in (
        (
            ("retreival", {}),
            "no evaluation .*named 'retreival'; did you mean retrieval.*"
            "masked_tokens, outfits, regions, retrieval, stages",
        ),
        (("retrieval", {"k": 3}), "evaluation 'retrieval' has no argument 'k'.*max_queries, max_gallery"),
        (("accuracy", {"config": 1}), "'accuracy' has no argument 'config'"),
        ("retrieval", r"write \(name, arguments\)"),
        (("accuracy", {"predict_fn": "categories"}), "'categories'; did you mean category"),
        (("accuracy", {"label": "colour"}), "reads the column 'colour', which the val split does not have"),
        (("accuracy", {"label": "image"}), "needs a label per listing, which 'image' does not hold"),
        (("accuracy", {"split": "test"}), "no split 'test'"),
    ):
        config.train.evaluations = (wrong,)
        with pytest.raises(InputError, match=words):
            evaluators.of_config(config, task, catalog)
    config.train.evaluations = (("retrieval", {"max_queries": 3}), ("retrieval", {}))
    with pytest.raises(InputError, match="two evaluations give the score 'retrieval/map@10'"):
        evaluators.of_config(config, task, catalog)
    config.train.evaluations = (("accuracy", {"output": "probabilities"}),)
    with pytest.raises(InputError, match="returns logits, and output is 'probabilities'"):
        dict(evaluators.of_config(config, task, catalog)[0](PARAMS))
