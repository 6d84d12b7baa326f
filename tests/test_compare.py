"""Comparing two recipes: noise is called noise, and real differences are not."""

import dataclasses
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

import edited_catalogue
from ranked_runs import GALLERY, QUERIES, TRUTH, make_run
from retrieval_jax.__main__ import main
from retrieval_jax.data import fields, loading
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import comparing, edits, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth


@pytest.fixture
def runs(tmp_path, monkeypatch):
    found = Catalog("test", truth=TRUTH, query=Split("query", QUERIES, None, None, None))
    monkeypatch.setattr(loading, "load", lambda block: found)
    return lambda name, quality, seeds=1: [
        make_run(tmp_path / f"{name}{seed}", quality, 10 * len(name) + seed) for seed in range(seeds)
    ]


def test_the_mean_over_seeds_is_compared_query_by_query(runs):
    new, old = runs("new", 0.6, 2), runs("earlier", 0.3, 3)
    found = comparing.compare(new, old, TRUTH, stage="whitening")
    each = {
        side: np.mean(
            [
                metrics.per_query(Ranking.load(folder / "rankings/trained/whitening"), TRUTH)["map@10"]
                for folder in folders
            ],
            axis=0,
        )
        for side, folders in (("new", new), ("old", old))
    }
    row = found["scores"]["map@10"]
    gains = (each["new"] - each["old"])[5:]
    assert row["new"] == pytest.approx(each["new"][5:].mean()) and row["difference"] == pytest.approx(gains.mean())
    assert (row["wins"], row["losses"], row["ties"]) == ((gains > 0).sum(), (gains < 0).sum(), (gains == 0).sum())
    assert row["num_scored"] == 295 and row["low"] < row["difference"] < row["high"]
    assert len(row["new_seeds"]) == 2 and len(row["old_seeds"]) == 3
    assert found["new"]["stages"] == ["trained/whitening"] * 2 and list(found["scores"]) == list(comparing.METRICS)
    assert not found["noise"] and "do not overlap: the new side is better" in found["verdict"]
    back = comparing.compare(old, new, TRUTH, stage="whitening")
    assert back["scores"]["map@10"]["difference"] == pytest.approx(-row["difference"])
    assert "the old side is better" in back["verdict"]


def test_a_difference_within_noise_is_called_noise(runs):
    same = comparing.compare(runs("new", 0.5), runs("earlier", 0.5), TRUTH)
    assert same["noise"] and "within noise" in same["verdict"] and "do not show which side is better" in same["verdict"]
    one = runs("new", 0.5)
    nothing = comparing.compare(one, one, TRUTH)
    assert nothing["noise"] and nothing["verdict"].startswith("No query is scored differently")
    stages = comparing.compare(one, one, TRUTH, stage="whitening", old_stage="trained/cosine")
    assert not stages["noise"] and stages["old"]["stages"] == ["trained/cosine"]
    assert "the new side is better" in stages["verdict"] and "several seeds" in stages["verdict"]


def test_overlapping_seeds_are_training_noise():
    found = {"difference": 0.02, "low": 0.01, "high": 0.03, "p": 0.001, "wins": 9, "losses": 1}
    noise, words = comparing.verdict("map@10", {**found, "new_seeds": [0.50, 0.58], "old_seeds": [0.51, 0.53]})
    assert noise and "50.00 to 58.00 and 51.00 to 53.00, ranges that overlap" in words
    noise, words = comparing.verdict("map@10", {**found, "new_seeds": [0.54, 0.58], "old_seeds": [0.51, 0.53]})
    assert not noise and "+2.00 points of map@10 exceed the noise" in words


def test_the_command_prints_and_writes_scores_of_a_half(runs, tmp_path, capsys):
    new, old = runs("new", 0.6), runs("earlier", 0.3)
    out = tmp_path / "compared.json"
    main(
        [
            "compare",
            *map(str, new),
            "--against",
            *map(str, old),
            "--half=report",
            "--metrics",
            "ndcg@5",
            "recall@1",
            f"--out={out}",
        ]
    )
    printed, written = capsys.readouterr().out, json.loads(out.read_text())
    half = ~metrics.selection_half(QUERIES)
    assert written["half"] == "report" and written["scores"]["ndcg@5"]["num_scored"] == half[5:].sum()
    assert "ndcg@5" in printed and "wins" in printed and printed.rstrip().endswith(written["verdict"].split()[-1])
    assert written["new"]["stages"] == ["trained/whitening"]  # the last


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--stage=white"], "no such ranking (available: trained/cosine, trained/whitening"),
        (["--metrics", "dcg@10"], "no score named 'dcg@10'; did you mean"),
        (["--metrics", "dcg@10"], "(available: mrr, mrr@K, map, map@K, ndcg"),
    ],
)
def test_unknown_names_list_the_available_ones(runs, arguments, words, capsys):
    new = str(runs("new", 0.6)[0])
    with pytest.raises(SystemExit) as exited:
        main(["compare", new, "--against", new, *arguments])
    assert exited.value.code == 2 and words in capsys.readouterr().err


def test_runs_of_another_catalogue_are_rejected(runs):
    other = Truth.from_lists(QUERIES, [*GALLERY[:-1], "else"], [["else"]] * 300)
    with pytest.raises(InputError, match="a different gallery"):
        comparing.compare(runs("new", 0.5), runs("earlier", 0.5), other)


def test_edits_are_compared_by_what_they_changed_and_kept(tmp_path, monkeypatch, capsys):
    found = edited_catalogue.catalogue()
    monkeypatch.setattr(loading, "load", lambda block: found)
    asked = edits.of_catalog(found, ("type",), fields.read)
    runs, rankings = [], []
    for number in range(2):
        ranking = edited_catalogue.ranking(found)
        rows = np.where(ranking.item_rows == 1, 4 if number else 1, ranking.item_rows)
        rankings.append(dataclasses.replace(ranking, item_rows=rows))
        folder = tmp_path / str(number)
        rankings[-1].save(folder / "rankings" / "trained" / "cosine")
        stages = {"stages": [{"model": "trained", "stage": "cosine"}]}
        (folder / "rankings" / "rankings.json").write_text(json.dumps(stages))
        settings = {"data": {}, "evaluate": {"edits": {"kept": ("type",), "similarity": ""}}}
        (folder / "config.json").write_text(ConfigDict(settings).to_json())
        runs.append(str(folder))
    main(["compare", runs[1], "--against", runs[0], f"--out={tmp_path / 'out.json'}"])
    written = json.loads((tmp_path / "out.json").read_text())["scores"]
    assert list(written) == [*comparing.METRICS, "hit@10", "right@10", "kept@10", "both@10"]
    new, old = (edits.per_query(ranking, asked)["kept@10"] for ranking in rankings[::-1])
    assert written["kept@10"]["difference"] == pytest.approx(np.nanmean(new - old)) and written["kept@10"]["losses"]
    assert written["right@10"]["num_scored"] == 4 and "kept@10" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", runs[1], "--against", runs[0], "--metrics", "kept_colour@5"])
    said = capsys.readouterr().err
    assert "no score named 'kept_colour@5'" in said and "one catalogue" not in said
