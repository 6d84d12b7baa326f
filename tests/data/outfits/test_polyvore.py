"""Polyvore Outfits in its own layout: outfits, compatibility questions, blanks, and a sentence for what is wrong."""

import itertools
import json

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax import looks, run
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.settings import tasks
from tiny import tiny_config

TYPES = {"a": "tops", "b": "shoes", "c": "bags", "d": "tops", "e": "shoes", "f": "bags", "g": "tops"}
SETS = {
    "train": {"1": ["a", "b", "c"], "2": ["d", "e"]},
    "valid": {"3": ["a", "b"], "4": ["d", "e", "f"]},
    "test": {"5": ["a", "b", "c"], "6": ["g", "e", "f"]},
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "nondisjoint").mkdir()
    for number, item in enumerate(TYPES):
        cv2.imwrite(str(tmp_path / f"images/{item}.jpg"), np.full((8, 6, 3), 30 * number, np.uint8))
    about = {item: {"semantic_category": kind, "title": "", "url_name": f"a {kind}"} for item, kind in TYPES.items()}
    (tmp_path / "polyvore_item_metadata.json").write_text(json.dumps(about))
    for part, found in SETS.items():
        listed = [
            {"set_id": one, "items": [{"item_id": item, "index": at} for at, item in enumerate(items, 1)]}
            for one, items in found.items()
        ]
        (tmp_path / f"nondisjoint/{part}.json").write_text(json.dumps(listed))
    (tmp_path / "nondisjoint/compatibility_test.txt").write_text("1 5_1 5_2 5_3\n0 5_1 6_2 5_3\n")
    write_blanks(tmp_path, [{"question": ["5_2", "5_3"], "answers": ["6_1", "5_1"]}])
    return tmp_path


def write_blanks(root, blanks):
    (root / "nondisjoint/fill_in_blank_test.json").write_text(json.dumps(blanks))


def load(root, **kwargs):
    return loading.load({"source": "polyvore", "kwargs": {"root": str(root), **kwargs}})


def named(split, rows):
    return [[split.ids[row] for row in one if row >= 0] for one in rows]


def test_outfits_questions_and_blanks_are_the_published_ones(root):
    found = load(root)
    assert found.train.ids == [f"train-{item}" for item in "abcde"] and found.train.titles[0] == "a tops"
    assert found.query.ids == ["query-a", "query-d"] and found.truth is None
    assert found.category_levels == ("category",)
    assert [found.category_names[0][row] for row in found.gallery.categories[:, 0]] == [
        TYPES[item[-1]] for item in found.gallery.ids
    ]
    table = found.table("outfits", "train").columns
    assert named(found.train, table["listings"]) == [["train-a", "train-b", "train-c"], ["train-d", "train-e"]]
    assert table["compatible"].tolist() == [1, 1]
    assert len(found.table("outfits", "val")) == 2  # no questions of valid: what was worn
    table = found.table("outfits", "gallery").columns
    assert named(found.gallery, table["listings"]) == [
        ["gallery-a", "gallery-b", "gallery-c"],
        ["gallery-a", "gallery-e", "gallery-c"],
    ]
    assert table["compatible"].tolist() == [1, 0]
    blanks = found.table("blanks", "gallery").columns
    assert named(found.gallery, blanks["listings"]) == [["gallery-b", "gallery-c"]]
    assert named(found.gallery, blanks["answers"]) == [["gallery-g", "gallery-a"]] and blanks["right"].tolist() == [1]
    np.testing.assert_array_equal(found.gallery.images[0], found.train.images[0])


def test_a_run_learns_from_it_and_asks_its_blanks(root, tmp_path, tiny_variant):
    config = tiny_config()
    config.data.source, config.data.kwargs = "polyvore", ConfigDict({"root": str(root), "version": "nondisjoint"})
    config.train.task, config.train.task_kwargs = "outfit", tasks.outfit()
    config.train.task_kwargs.consistency_weight = 0.0  # less to compile
    config.train.unlabelled.split, config.train.unlabelled.batch_size = "train", 4
    config.train.epochs, config.train.warmup_epochs, config.train.batch_size = 2.0, 0.0, 2
    config.embed.predict_fn, config.search.steps = "embed_item", ()
    run.run(config, tmp_path / "run")
    assert '"pseudo_loss"' in (tmp_path / "run/metrics.jsonl").read_text()
    assert "of 1 questions, by chance 50.0 %. AUC of 2 outfits" in (tmp_path / "run/report.html").read_text("utf-8")

    # The public protocol, read from the files themselves: items by "<set>_<place>", the right answer is of the set.
    made = Embeddings.load(tmp_path / "run/embeddings/trained/gallery")
    vectors = dict(zip(made.ids, np.asarray(made.vectors, np.float64), strict=True))

    def point(name):
        number, place = name.split("_")
        return vectors[f"gallery-{SETS['test'][number][int(place) - 1]}"]

    def apart(first, second):
        return np.linalg.norm(point(first) - point(second))

    (blank,) = json.loads((root / "nondisjoint/fill_in_blank_test.json").read_text())
    sums = [sum(apart(answer, one) for one in blank["question"]) for answer in blank["answers"]]
    scored = []
    for line in (root / "nondisjoint/compatibility_test.txt").read_text().splitlines():
        label, *items = line.split()
        scored.append((int(label), 1 - np.mean([apart(*pair) for pair in itertools.combinations(items, 2)])))
    found = looks.judged(config, tmp_path / "run", load(root))
    np.testing.assert_allclose(found.sums, [sums], rtol=1e-5)
    assert found.filled.tolist() == [float(blank["answers"][np.argmin(sums)].startswith("5_"))]
    assert found.auc == float(scored[0][1] > scored[1][1])


def test_what_is_wrong_is_said(root):
    with pytest.raises(InputError, match="version is 'joint'; give nondisjoint or disjoint"):
        load(root, version="joint")
    with pytest.raises(InputError, match="there is no train.json"):
        load(root, version="disjoint")
    write_blanks(root, [{"question": ["5_2"], "answers": ["6_1", "6_2"]}])
    with pytest.raises(InputError, match="question 1 has 0 answers of its own outfit, expected one"):
        load(root)
    write_blanks(root, [{"question": ["5_2"], "answers": ["5_1", "9_9"]}])
    with pytest.raises(InputError, match="names '9_9', which is in no outfit"):
        load(root)
    (root / "nondisjoint/fill_in_blank_test.json").unlink()
    (root / "nondisjoint/compatibility_test.txt").write_text("1 5_1 5_2\n0 5_1 7_7\n")
    with pytest.raises(InputError, match="'7_7' is in no outfit of test.json"):
        load(root)
    assert len(load(root, max_bad_share=0.5).table("outfits", "gallery")) == 1
