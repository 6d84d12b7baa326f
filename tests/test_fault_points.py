"""A few of the faults of tests/fault_points.py, which tries every verb at every change for docs/faults.md."""

import random

import numpy as np
import pytest

import picture_server
from fault_points import UNTRIED, VERBS, Points, content, disturbed, readable
from retrieval_jax import search
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.settings import base
from retrieval_jax.workdir.options import VERBS as ALL


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_search_over_an_earlier_one_is_whole_whatever_happens(tmp_path, fault):
    config, folder, log = base.defaults(), tmp_path / "run", tmp_path / "log"
    config.embed.models, config.search.k, config.search.steps = ("trained",), 3, (("whitening", {}),)
    for split, count in (("query", 4), ("gallery", 12)):
        vectors = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
        saved = Embeddings([f"{split}{i}" for i in range(count)], vectors, {"space": "a"})
        saved.save(folder / "embeddings" / "trained" / split)

    def action():
        search.run(config, folder)

    assert disturbed(action, folder, log)[0] == 0
    wanted, names = (
        content(folder),
        [name for name in content(folder) if name.endswith(("ranking.json", "embeddings.json"))],
    )
    count = disturbed(action, folder, log, None, fault)[1]
    assert count > 40 and len(names) == 4
    for at in range(1 + count // 14, count + 1, max(1, count // 7)):
        assert disturbed(action, folder, log, at, fault)[0], at
        readable(folder, names)
        assert disturbed(action, folder, log)[0] == 0
        assert content(folder) == wanted, at


def test_no_verb_is_left_out():
    assert {*VERBS, *UNTRIED} == set(ALL) and not set(VERBS) & set(UNTRIED)


@pytest.mark.long
def test_verbs_at_some_of_their_changes(tmp_path):
    with picture_server.served() as server:
        points = Points(tmp_path, server.url)
        for verb in VERBS:
            for fault in ("kill", "full"):
                assert not points.tried(verb, fault, True, 3, random.Random(0))[2]
