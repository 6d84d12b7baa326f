"""Mining writes a vocabulary, sparse targets, a consistent summary and a plot; bad input gets a sentence."""

import csv
import functools
import json

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

import reference
from retrieval_jax import mine
from retrieval_jax.attributes import statistics, words
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError

TRAIN = ["Red shoes", "red red hat", "the w/ -", "blue shoes", "blue éclair"]
VAL = ["red shoes", "green hat"]


def _shop(root, train=TRAIN, val=VAL):
    root.mkdir()
    cv2.imwrite(str(root / "a.jpg"), np.zeros((4, 4, 3), np.uint8))
    for split, titles in {"train": train, "val": val}.items():
        with open(root / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [
                    ["id", "title", "image", "type"],
                    *([f"{split}{i}", title, "a.jpg", "x"] for i, title in enumerate(titles)),
                ]
            )
    return root


def _config(root, threshold=1, task="multilabel", **kwargs):
    data = {
        "root": str(root),
        "files": {"train": "train.csv", "val": "val.csv"},
        "columns": {"title": "title", "categories": ("type",)},
    } | kwargs
    return ConfigDict(
        {"data": {"source": "table", "kwargs": data}, "mine": {"threshold": threshold}, "train": {"task": task}}
    )


def test_mine(tmp_path, capsys):
    work = tmp_path / "work"
    summary = mine.run(_config(_shop(tmp_path / "shop")), work)
    made = vocabulary_lib.Vocabulary.load(work / "attributes" / "vocabulary.json")
    assert made.tokens == ["blue", "hat", "red", "shoes"] and made.counts.tolist() == [2, 2, 3, 3]
    for split, titles in {"train": TRAIN, "val": VAL}.items():
        indptr, ids = vocabulary_lib.load_targets(work / "attributes" / f"{split}.npz", made.hash)
        got = [[made.tokens[i] for i in ids[indptr[row] : indptr[row + 1]]] for row in range(len(titles))]
        assert got == [sorted(set(title_rule.tokenize(title)) & set(made.tokens)) for title in titles]
    assert json.loads((work / "attributes" / "summary.json").read_text(encoding="utf-8")) == summary
    assert summary["vocabulary_hash"] == made.hash and summary["titles"] == {"train": 5, "val": 2}
    assert (summary["tokens_seen"], summary["tokens_kept"]) == (6, 4)
    assert (summary["occurrences_seen"], summary["occurrences_kept"]) == (13, 11)
    assert summary["coverage"] == pytest.approx(6 / 7)
    assert summary["labels_per_title"] == {
        "mean": pytest.approx(10 / 7),
        "min": 0,
        "max": 2,
        "q25": 1,
        "median": 2,
        "q75": 2,
    }
    assert summary["head"] == [["red", 3], ["shoes", 3], ["blue", 2], ["hat", 2]] == summary["tail"]
    assert summary["examples"][2] == ["the w/ -", []] and summary["examples"][1] == ["red red hat", ["hat", "red"]]
    assert summary["categories"]["train"] == {"type": {"names": 1, "seen": 1}}
    printed = capsys.readouterr().out
    for part in ("train 5, val 2", "85.71%", "red 3, shoes 3", "red red hat  ->  hat, red", made.hash, "no rows"):
        assert part in printed
    assert cv2.imread(str(work / "attributes" / "mined.png")).shape[2] == 3
    assert (work / "set_aside.csv").exists()


def test_better_mining(tmp_path, capsys):
    shop = _shop(tmp_path / "shop", ["red running shoes 8 GB"] * 6 + ["blue running shoe 8gb"] * 4 + ["grey hat"] * 3)
    (tmp_path / "overrules.csv").write_text("drop,blue\n")
    config = _config(shop)
    config.mine.update(
        {
            "normalise": True,
            "variants": {"on": True},
            "phrases": {"on": True},
            "kinds": True,
            "uninformative": {"on": True, "pictures": 8},
            "overrules": str(tmp_path / "overrules.csv"),
        }
    )
    summary = mine.run(config, tmp_path / "work")
    folder = tmp_path / "work" / "attributes"
    made = vocabulary_lib.Vocabulary.load(folder / "vocabulary.json")
    assert made.tokens == ["8gb", "gray hat", "hat", "red", "running shoes", "shoes"] and summary["tokens_kept"] == 6
    assert made.counts.tolist() == [10, 3, 4, 7, 10, 11]
    indptr, ids = vocabulary_lib.load_targets(folder / "train.npz", made.hash)
    assert [made.tokens[i] for i in ids[indptr[6] : indptr[7]]] == ["8gb", "running shoes", "shoes"]
    page = (folder / "mined.html").read_text(encoding="utf-8")
    assert "split,running shoes" in page and "overrules.csv, row 1" in page and "counts as" in page
    assert 'src="data:image/jpeg;base64,' in page
    assert (folder / "decisions.csv").exists() and "red,colour,1.0" in (folder / "kinds.csv").read_text()
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    mine.run(config, tmp_path / "again")
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "again" / "attributes").iterdir()}
    counted = statistics.count([TRAIN, VAL], pairs=True)
    statistics.save(tmp_path / "tables", counted)
    plain = _config(shop)
    plain.mine.statistics = str(tmp_path / "tables")  # counted elsewhere, over other titles
    mine.run(plain, tmp_path / "elsewhere")
    made = vocabulary_lib.Vocabulary.load(tmp_path / "elsewhere" / "attributes" / "vocabulary.json")
    assert made.hash == vocabulary_lib.build(counted.tokens, 7, 1).hash and made.num_titles == 15
    plain.mine.normalise = True
    with pytest.raises(InputError, match="rule 'titles-2', .* make 'titles-2 normalised-1'; set these as they were"):
        mine.run(plain, tmp_path / "work")
    rules = words.Rules(normalise=True)
    counted = statistics.count([TRAIN, VAL], tokenize=functools.partial(words.of_titles, rules=rules))
    statistics.save(tmp_path / "tables", counted, rules.counted_by)
    mine.run(plain, tmp_path / "alike")
    assert vocabulary_lib.Vocabulary.load(tmp_path / "alike" / "attributes" / "vocabulary.json").rules.normalise
    config.mine.phrases.least_score = "high"
    with pytest.raises(InputError, match="config.mine.phrases.least_score is 'high'"):
        mine.run(config, tmp_path / "work")


def test_mine_is_deterministic_and_keeps_the_order_of_rows(tmp_path):
    for name, train in {"one": TRAIN, "two": TRAIN[::-1]}.items():
        mine.run(_config(_shop(tmp_path / name, train)), tmp_path / name / "run")
    mine.run(_config(tmp_path / "one"), tmp_path / "again")
    for file in ("vocabulary.json", "train.npz", "val.npz", "summary.json"):
        first, again = tmp_path / "one/run/attributes" / file, tmp_path / "again/attributes" / file
        assert first.read_bytes() == again.read_bytes()
    files = [(tmp_path / name / "run/attributes/vocabulary.json").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_long_titles_are_shortened_in_print(tmp_path, capsys):
    summary = mine.run(_config(_shop(tmp_path / "shop", [*TRAIN, "red " * 2000 + "x" * 1000])), tmp_path / "work")
    assert max(len(title) for title, _ in summary["examples"]) == 9_000 and len(capsys.readouterr().out) < 3000


def test_rows_set_aside_have_no_targets(tmp_path):
    shop = _shop(tmp_path / "shop", [*TRAIN[:2], "", *TRAIN[2:]])
    with pytest.raises(InputError, match=r"train.csv, row 4 \(id train2\): the title is empty"):
        mine.run(_config(shop), tmp_path / "work")
    assert "empty title" in (tmp_path / "work" / "set_aside.csv").read_text()
    summary = mine.run(_config(shop, max_bad_share=0.2), tmp_path / "work")
    assert summary["titles"]["train"] == 5 and summary["rows"]["train"] == {
        "read": 6,
        "kept": 5,
        "set_aside": {"empty title": 1},
    }
    assert len(vocabulary_lib.load_targets(tmp_path / "work" / "attributes" / "train.npz")[0]) == 6


def test_bad_input(tmp_path):
    shop = _shop(tmp_path / "shop")
    with pytest.raises(InputError, match="no titles to mine .*config.data.kwargs.columns.title"):
        mine.run(_config(shop, columns={"categories": ("type",)}), tmp_path / "work")
    without = _config(shop, task="category", columns={"categories": ("type",)})
    assert mine.run(without, tmp_path / "work") == {"titles": {}}  # a category task needs none
    with pytest.raises(InputError, match=r"more than config.mine.threshold = 9 times .*the most frequent 4 times"):
        mine.run(_config(shop, threshold=9), tmp_path / "work")
    for threshold in (-1, 1.5, True):
        with pytest.raises(InputError, match="whole number"):
            mine.run(_config(shop, threshold=threshold), tmp_path / "work")


def test_the_embedded_catalogue_can_be_mined(tmp_path):
    kwargs = {"seed": 0, "num_train": 60, "num_val": 10, "num_query": 4, "num_gallery": 8, "image_size": 32}
    config = ConfigDict(
        {"data": {"source": "synthetic", "kwargs": kwargs}, "mine": {"threshold": 3}, "train": {"task": "multilabel"}}
    )
    summary = mine.run(config, tmp_path)
    assert summary["titles"] == {"train": 60, "val": 10} and summary["coverage"] > 0.9
    info = info_lib.of_split(
        loading.load(config.data).train, vocabulary_lib.Vocabulary.load(tmp_path / "attributes" / "vocabulary.json")
    )
    assert info.num_listings == 70 and info.category_counts[-1].sum() == 60


def test_the_real_catalogue(tmp_path):
    root = reference.fashion_root()
    config = ConfigDict(
        {
            "data": {"source": "eproduct", "kwargs": {"root": str(root), "check_images": False}},
            "mine": {"threshold": 10},
            "train": {"task": "multilabel"},
        }
    )
    summary = mine.run(config, tmp_path)
    assert summary["titles"] == {"train": 24669, "val": 932} and summary["coverage"] > 0.99
    assert summary["tokens_kept"] == 998 and 5 < summary["labels_per_title"]["mean"] < 5.3


@pytest.mark.parametrize("task", ["category", "self_supervised"])
def test_a_task_without_words_gets_an_empty_vocabulary(tmp_path, capsys, task):
    config, work = _config(_shop(tmp_path / "shop"), threshold=9, task=task), tmp_path / "work"
    assert mine.run(config, work) == {"titles": {"train": 5, "val": 2}, "tokens_kept": 0}
    made = vocabulary_lib.Vocabulary.load(work / "attributes" / "vocabulary.json")
    indptr, ids = vocabulary_lib.load_targets(work / "attributes" / "train.npz", made.hash)
    assert not len(made) and indptr.tolist() == [0] * 6 and not len(ids)
    assert f"no word of 7 titles was seen more than 9 times; the task {task} needs none" in capsys.readouterr().out
    config.train.task_kwargs = {"title_weight": 0.0}
    config.train.task = "multilabel"
    assert mine.run(config, work)["tokens_kept"] == 0  # with the category alone
    config.train.task = "image_title"
    with pytest.raises(InputError, match="no token was seen more than"):
        mine.run(config, work)
