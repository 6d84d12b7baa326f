"""What an exported model brings along of its run, through the hub and back."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from huggingface_hub import constants

import hub_server
import tiny
import tiny_trained
from retrieval_jax import export, exported, inference, workdir
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import l2, whitening
from retrieval_jax.sharing import facts, transfer

PICTURES = np.random.default_rng(3).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The run after search and evaluate, of made-up scores, and the gallery's embeddings."""
    folder = tiny_trained.save(tmp_path_factory.mktemp("searched"))
    model, config = inference.load(folder), tiny.tiny_config()
    meta = {"space": model.space, "catalogue": "tiny"}
    gallery = Embeddings([f"g{row}" for row in range(5)], model.embed(list(PICTURES)), meta)
    gallery.save(folder / "embeddings" / "trained" / "gallery")
    whitening.fit(gallery, relative_ridge=0.1).save(folder / "rankings" / "trained" / "whitening_trained.npz")
    scores = {"stage": "whitening", "num_scored": 8, "num_queries": 8, "recall@1": 0.5, "recall@1_low": 0.2}
    rows = [{"model": "trained", **scores}, {"model": "histogram", **scores}]
    (folder / "metrics.json").write_text(json.dumps({"stages": rows}))
    made = [("cosine", None), ("whitening", "whitening"), ("reranking", "reranking")]
    listed = [{"model": "trained", "stage": stage, "step": step, "kwargs": {}} for stage, step in made]
    (folder / "rankings" / "rankings.json").write_text(json.dumps({"stages": listed}))
    for verb in ("search", "evaluate"):
        workdir.record(config, folder, verb, seconds=1.0, cpu_seconds=1.0)
    return folder, gallery


@pytest.mark.parametrize("steps", [[["l2", {}], ["whitening", {}]], [["whitening", {}], ["l2", {}]]])
def test_vectors_are_of_length_1_before_whitening_where_the_run_made_them_so(steps):
    vectors = np.random.default_rng(0).normal(1, 1, (6, 3)).astype(np.float32) * np.arange(1, 7)[:, None]
    fitted = whitening.fit(Embeddings([str(row) for row in range(6)], vectors.astype(np.float32)), ridge=0.1)
    model = exported.Model({}, {}, {}, {}, {"steps": steps}, fitted)
    object.__setattr__(model, "embed", lambda *_: vectors)
    wanted = l2.normalize(fitted.apply(l2.normalize(vectors) if steps[0][0] == "l2" else vectors))
    np.testing.assert_allclose(model.for_search([]), wanted, atol=1e-6)


@pytest.mark.parametrize("weights", ["float", "float16"])
def test_a_whitened_program_gives_what_the_search_compares(searched, tmp_path, weights):
    folder, gallery = searched
    about = export.run(folder, tmp_path / "phone", platforms=("cpu",), weights=weights, whitened=True)
    assert about["outputs"]["embed_whitened"] == {"embedding": [None, 20]} and about["whitened"]["stage"] == "reranking"
    served = exported.load(tmp_path / "phone")
    fitted = whitening.Whitening.load(folder / "rankings" / "trained" / "whitening_trained.npz")
    assert about["whitened"]["version"] == fitted.version()
    wanted = l2.normalize(fitted.apply(np.asarray(gallery.vectors)))
    found = served.embed(list(PICTURES), "embed_whitened")
    np.testing.assert_allclose(found, wanted, atol=1e-4 if weights == "float" else 2e-2)
    assert np.abs(served.embed(list(PICTURES)) - wanted).max() > 0.1  # the program without it is still there


def test_a_whitening_that_is_not_there_cannot_be_folded_in(searched, tmp_path):
    bare = tiny_trained.save(tmp_path / "bare")
    with pytest.raises(InputError, match="has no whitening to fold into the program: search it with the step"):
        export.run(bare, tmp_path / "out", platforms=("cpu",), whitened=True)
    other = tmp_path / "other"
    shutil.copytree(searched[0], other)
    fitted = whitening.fit(dataclasses.replace(searched[1], meta={"space": "another"}), relative_ridge=0.1)
    fitted.save(other / "rankings" / "trained" / "whitening_trained.npz")
    with pytest.raises(InputError, match="was fitted on vectors of another checkpoint"):
        export.run(other, tmp_path / "out", platforms=("cpu",), whitened=True)
    assert not (tmp_path / "out").exists()


def test_a_searched_run_brings_its_steps_whitening_and_scores(searched, tmp_path, monkeypatch):
    folder, gallery = searched
    export.run(folder, tmp_path / "served", platforms=("cpu",))
    served = exported.load(tmp_path / "served")
    assert served.search["steps"] == [["whitening", {}], ["reranking", {}]] and served.search["num_queries"] == 8
    assert [stage.name for stage in served.stages()] == ["cosine", "whitening", "reranking"]
    assert served.search["stages"][1] == {"stage": "reranking", "steps": served.search["steps"]}
    assert [row["model"] for row in served.search["scores"]] == ["trained"]
    fitted = whitening.Whitening.load(folder / "rankings" / "trained" / "whitening_trained.npz")
    wanted = l2.normalize(fitted.apply(np.asarray(gallery.vectors)))
    found = served.for_search(list(PICTURES), "gallery")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert served.about["data"]["catalogue"] == "tiny" and served.about["initial_weights"] == {}
    with hub_server.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_made_up")
        transfer.push(tmp_path / "served", "me/tiny")
        transfer.pull("me/tiny", tmp_path / "pulled")
    np.testing.assert_array_equal(exported.load(tmp_path / "pulled").for_search(list(PICTURES), "gallery"), found)
    with (tmp_path / "served" / "whitening.npz").open("ab") as stream:
        stream.write(b"0")
    with pytest.raises(InputError, match="whitening.npz is missing or damaged"):
        exported.load(tmp_path / "served")


def test_results_of_another_checkpoint_are_left_out(searched, tmp_path):
    folder, gallery = searched
    notes = facts.write(tmp_path, folder, "another space", tiny.tiny_config())
    assert "another checkpoint" in notes[0] and not list(tmp_path.iterdir())


def test_licences_of_the_weights_that_a_training_started_from():
    config = tiny.tiny_config()
    with config.unlocked():
        config.train.model.pretrained = {"name": "convnext_atto.d2_in1k", "path": ""}
    assert export._initial_weights(config) == {"name": "convnext_atto.d2_in1k", "licence": "apache-2.0"}
    config.train.model.pretrained.name = "nobody/knows"
    assert export._initial_weights(config) == {"name": "nobody/knows", "licence": ""}
    config.train.model.pretrained.name, config.train.init_from = "", "quickstart"
    assert export._initial_weights(config) == {"run": "quickstart"}
    other = tiny.tiny_config()
    assert export._initial_weights(other) == {} and export._initial_weights(other, config) == {"run": "quickstart"}
    with other.unlocked():
        other.train.model.pretrained = {"name": "convnext_atto.d2_in1k", "path": ""}
        other.train.task_kwargs.weights = "nobody/words"
    found = export._initial_weights(other, config)  # of the words and of the pictures
    assert found["name"] == "convnext_atto.d2_in1k"
    assert found["beside"] == [{"name": "nobody/words", "licence": ""}, {"run": "quickstart"}]
