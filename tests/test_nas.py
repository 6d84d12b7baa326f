"""Searches of a super-net: what a candidate costs and scores, what is bred, a search that is stopped, and refusals."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from retrieval_jax import __main__ as door
from retrieval_jax import inference, mine, nas, train
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.models.architectures import Space, parse
from retrieval_jax.models.backbones import supernet
from retrieval_jax.models.layers import depthwise
from retrieval_jax.settings import tasks as options
from retrieval_jax.training import checkpoints, flops
from tiny import logged, tiny_config

SPACE = Space((12, 16), ((4, 8), (6, 10)), (1,), (3, 5), (2, 3))
BUDGET = nas.Budget(flops=24_000)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, little_compilation, tiny_variant):
    """The run of a gallery network, "pictures", and that of a super-net, "small", two steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(supernet.VARIANTS, "test", SPACE)
        folder = tmp_path_factory.mktemp("runs")
        for name in ("pictures", "small"):
            config = tiny_config()
            config.data.kwargs.num_val = 20
            config.train.epochs, config.train.warmup_epochs, config.train.checkpoint_every_steps = 0.5, 0.0, 1
            if name == "small":
                config.train.task, config.train.task_kwargs = "compatible", options.compatible()
                config.train.task_kwargs.pictures = str(folder / "pictures")
                config.train.model.update({"name": "supernet", "variant": "test"})
                config.train.model.kwargs = {"choice": ""}
            mine.run(config, folder / name)
            train.run(config, folder / name)
            (folder / name / "config.json").write_text(config.to_json())
        yield folder


def lines(folder):
    return [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]


def test_a_training_that_resumes_learns_the_same_choices(runs, tmp_path):
    shutil.copytree(runs / "small", tmp_path / "again")
    assert all({"cosine_largest", "cosine_smallest"} < set(line) for line in logged(runs / "small") if "loss" in line)
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "2")
    config = inference.load(runs / "small").config
    train.run(config, tmp_path / "again")
    one, other = (checkpoints.load_params(folder / "checkpoints")[0] for folder in (runs / "small", tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_candidate_is_scored_by_what_the_gallery_network_finds(runs):
    model, pictures = (inference.load(runs / name) for name in ("small", "pictures"))
    catalog = loading.load(model.config.data)
    asked = nas.questions(model)
    train_vectors, val_vectors = (
        pictures.embed([split.images[row] for row in range(len(split))]) for split in (catalog.train, catalog.val)
    )
    architecture = parse("16_8-c5x2_6-m3x3")
    small = nas.alone(model, architecture)
    assert sum(leaf.size for leaf in jax.tree.leaves(small.params["backbone"])) < sum(
        leaf.size for leaf in jax.tree.leaves(model.params["backbone"])
    )
    wanted = []
    for number, row in enumerate(asked.rows):
        query = small.embed([catalog.val.images[row]])[0]
        first, own = (
            np.argsort(-(train_vectors @ one) / np.linalg.norm(train_vectors, axis=1))[:10]
            for one in (query, val_vectors[row])
        )
        wanted.append(len(set(first) & set(own)) / 10)
        assert set(train_order(catalog)[asked.wanted[number]]) == set(own)
    choice = {**model.params, "choice": SPACE.encode(architecture)}
    for found in (nas.cross_scores(model, choice, asked), nas.cross_scores(small, small.params, asked)):
        assert np.abs(found - wanted).mean() < 0.02  # but for ties of rounding
    assert nas.milliseconds(small) > 0


def train_order(catalog):
    """Returns the rows of train in the order of the gallery of the questions."""
    return nas._by_hash(catalog.train.ids, len(catalog.train))


def test_operations_are_those_of_the_traced_query(runs, monkeypatch):
    model = inference.load(runs / "small")
    monkeypatch.setattr(depthwise.jax, "default_backend", lambda: "gpu")  # grouped convolutions, which it counts
    for text in ("12_4-c3x2_6-m3x2", "16_8-m5x3_10-c5x3"):
        small, side = nas.alone(model, parse(text)), parse(text).resolution
        function = small.task.predict_fns["embed_image"]
        batch = {"image": np.zeros((1, side, side, 3), np.uint8)}
        counted = flops.of(lambda params, batch, f=function: f(params, batch)["embedding"], small.params, batch)
        assert counted == nas.operations(model, parse(text))


def test_a_search_that_is_stopped_goes_on_as_if_it_had_not_been(runs, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    door.main(
        [
            "nas",
            str(runs / "small"),
            f"--flops={BUDGET.flops}",
            "--evaluations=22",
            "--seed=3",
            "--method=evolution",
            f"--out={whole}",
        ]
    )
    said = capsys.readouterr().out
    best, found = json.loads((whole / "best.json").read_text()), lines(whole)
    assert re.search(r"22 candidates, 22 of them scored now", said) and f"choice={best['choice']}" in said
    assert [line["number"] for line in found] == list(range(22)) and len({line["choice"] for line in found}) == 22
    assert {line["from"] for line in found[:16]} == {"random"} and "random" not in {line["from"] for line in found[16:]}
    assert all(nas.LEAST * BUDGET.flops <= line["flops"] <= BUDGET.flops for line in found)
    assert best["score"] == max(line["score"] for line in found) and best["evaluations"] == 22
    count, scores = 0, nas.cross_scores

    def killed(*arguments):
        nonlocal count
        count += 1
        if count == 19:
            raise KeyboardInterrupt
        return scores(*arguments)

    monkeypatch.setattr(nas, "cross_scores", killed)
    asked = {"budget": BUDGET, "seed": 3, "method": "evolution"}
    with pytest.raises(KeyboardInterrupt):
        nas.run(runs / "small", stopped, evaluations=22, **asked)
    assert len(lines(stopped)) == 18 and not (stopped / "best.json").exists()
    assert nas.run(runs / "small", stopped, evaluations=22, **asked) == best and count == 19 + 4
    assert (stopped / "candidates.jsonl").read_bytes() == (whole / "candidates.jsonl").read_bytes()
    nas.run(runs / "small", stopped, evaluations=24, **asked)
    assert count == 19 + 4 + 2
    with pytest.raises(InputError, match="holds the search of another super-net, budget or seed"):
        nas.run(runs / "small", stopped, budget=BUDGET, seed=4)


def test_a_budget_of_time_is_measured_once(runs, tmp_path, monkeypatch):
    measured, made = [], nas.alone

    def alone(model, architecture):
        measured.append(str(architecture))
        return made(model, architecture)

    monkeypatch.setattr(nas, "alone", alone)
    monkeypatch.setattr(nas, "milliseconds", lambda small: len(small.params["head_compatible"]["kernel"]) / 10)
    asked = {"budget": nas.Budget(ms=1.4), "method": "random"}
    nas.run(runs / "small", tmp_path, evaluations=3, **asked)
    found, before = lines(tmp_path), list(measured)
    scored = [line for line in found if "score" in line]
    assert len(scored) == 3 and all(line["ms"] <= 1.4 for line in scored) and len(set(before)) == len(before)
    assert [line["choice"] for line in found if "score" not in line] == before
    nas.run(runs / "small", tmp_path, evaluations=3, **asked)
    assert measured == before and lines(tmp_path) == found


def test_evolution_finds_more_than_chance_and_repeats_itself():
    space = Space((24, 32, 40), ((8, 12, 16),) * 3, (1, 2), (3, 5, 7), (2, 3, 4))
    goal = space.sizes // 2

    def score(architecture):
        return float((space.encode(architecture) == goal).mean())

    def searched(method, seed):
        found = nas.candidates(space, method, seed, lambda one: one.resolution > 24, score)
        return [next(found) for _ in range(80)]

    best = {method: [max(one[1] for one in searched(method, seed)) for seed in range(4)] for method in nas.METHODS}
    assert np.mean(best["evolution"]) > np.mean(best["random"]) + 0.1
    found = searched("evolution", 1)
    assert found == searched("evolution", 1) != searched("evolution", 2)
    assert len({str(one[0]) for one in found}) == 80 and all(one[0].resolution > 24 for one in found)
    few = Space((8,), ((4,),), (1,), (3, 5), (2,))
    assert len(list(nas.candidates(few, "evolution", 0, lambda one: True, lambda one: 0.0))) == 4  # and no more


def test_what_cannot_be_searched_is_refused(runs, tmp_path, capsys):
    for budget in ({}, {"flops": 1.0, "ms": 1.0}):
        with pytest.raises(InputError, match="give the budget of a query picture: --flops=1.5e6"):
            nas.Budget(**budget)
    with pytest.raises(InputError, match="is a run of the task 'multilabel' with the backbone 'convnext'"):
        nas.run(runs / "pictures", tmp_path, budget=BUDGET)
    with pytest.raises(InputError, match="no network of .* is within the budget: --flops=10, and they cost from about"):
        nas.run(runs / "small", tmp_path, budget=nas.Budget(flops=10))
    with pytest.raises(SystemExit):
        door.main(["nas", str(runs / "small"), "--flops=1e5", "--evaluations=0"])
    assert "error: --evaluations=0: give a number of candidates, 1 or more" in capsys.readouterr().err
