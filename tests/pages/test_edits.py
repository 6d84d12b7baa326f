"""The report of a run whose queries are edits: what results changed and kept, in rows and as a table."""

import html
import json
import re

import numpy as np
import pytest
from ml_collections import ConfigDict

import edited_catalogue
from retrieval_jax import evaluate, report, workdir
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.pages import edits as page
from retrieval_jax.pages import rows, score_table
from retrieval_jax.scoring import written


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A work directory with a ranking of edits, evaluated."""
    words = [*edited_catalogue.QUERIES[:-1], "in <b>red</b>"]
    kinds = np.array([0, 0, 1, 1, 1, 0, 0])
    found = edited_catalogue.catalogue(words=words, kind=kinds)
    found.column_names["kind"] = ["colour", "part"]
    pictures = np.random.default_rng(0).integers(0, 256, (8, 12, 9, 3), np.uint8)
    found.query.images, found.gallery.images = pictures[:7], pictures
    monkeypatch.setattr(loading, "load", lambda config_data: found)
    edited_catalogue.ranking(found).save(tmp_path / "rankings" / "trained" / "cosine")
    stages = {"stages": [{"model": "trained", "stage": "cosine"}]}
    (tmp_path / "rankings" / "rankings.json").write_text(json.dumps(stages))
    settings = {"ks": (1,), "selection_share": 0.5, "submission_stage": "", "metrics": ("hit@1", "hit@3")}
    settings |= {"edits": {"kept": ("type",), "similarity": ""}}
    config = {"name": "edits", "data": {"source": "synthetic", "kwargs": {}}, "evaluate": settings}
    config |= {"search": {"steps": (), "members": ()}, "report": {"rows": 7, "seed": 0, "stage": ""}}
    workdir.write_settings(config, tmp_path)
    evaluate.run(ConfigDict(config), tmp_path)
    report.run(config, tmp_path)
    return tmp_path, (tmp_path / "report.html").read_text("utf-8"), found


def test_rows_show_the_words_and_what_changed(made):
    _, text, _ = made
    assert rows.EDITS in html.unescape(text)
    assert 'alt="query, this picture with the change: in blue"' in text
    assert "in &lt;b&gt;red&lt;/b&gt;" in text and "<b>red</b>" not in text
    for line in (
        '<span class="sub yes">✓ colour: blue</span>',
        '<span class="sub no">✗ colour: red</span>',
        '<span class="sub yes">kept type: shirt</span>',
        '<span class="sub no">other type: skirt</span>',
    ):
        assert line in text
    spoken = re.findall(r'alt="([^"]*)"', text)
    assert "relevant: shirt; colour: blue, as asked; kept type: shirt" in spoken
    assert "not relevant: skirt; colour: blue, as asked; other type: skirt" in spoken


def test_the_section_has_every_score_by_kind(made):
    folder, text, _ = made
    found = written.edits(folder)
    assert page.sections({}) == [] and found["counts"]["scored"] == 4
    section = page.sections(found)[0].body
    assert section in text
    for words in (
        "4 of 7 edits are scored",
        "right value @10",
        "kept @10",
        "by kind",
        "part",
        "similarity of results was not measured",
        "Random order",
    ):
        assert words in section
    assert f"{100 * found['stages'][0]['right@10']:.2f} <small>± " in section
    assert "Hit@1" in text and "Hit@3" in text and score_table.metric_name("hit@10") == "Hit@10"
    assert page.score_name("kept_leaf_type@10") == "kept leaf_type @10"
    assert page.score_name("near_duplicates@10") == "duplicates @10"


def test_damaged_scores_are_named(made):
    folder, *_ = made
    file = folder / "metrics.json"
    scores = json.loads(file.read_text())
    scores["edits"]["stages"][0]["right@10"] = "many"
    file.write_text(json.dumps(scores))
    with pytest.raises(InputError, match="'right@10' of the edits of cosine is not a number: run evaluate again"):
        written.edits(folder)
