"""The report's section of predicted attributes, from the scores that evaluate makes of saved predictions."""

import numpy as np

from retrieval_jax import evaluate
from retrieval_jax.data import fields, loading, saved_fields
from retrieval_jax.data import info as info_lib
from retrieval_jax.embeddings import Ids
from retrieval_jax.files import atomic
from retrieval_jax.pages import fields as page
from retrieval_jax.scoring import tables, written


def test_saved_predictions_are_scored_and_shown(tmp_path, capsys):
    catalog = loading.load({"source": "synthetic", "kwargs": {"num_train": 400, "num_val": 8, "num_query": 6,
                                                              "num_gallery": 12, "image_size": 16}})  # fmt: skip
    given = {name: fields.read(catalog.train, name) for name in ("top", "colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 0)
    info_lib.save(tmp_path / "checkpoints" / "data_info.json", info)
    assert evaluate.attribute_scores(tmp_path, catalog) == {} and page.sections({}) == []
    true, known = fields.true_labels(catalog.query, info)
    ids, folder = Ids.of(catalog.query.ids).sha256(), tmp_path / "embeddings" / "trained" / saved_fields.FOLDER
    saved_fields.save(folder / "query.npz", [(true, np.full(true.shape, 0.9))], ids)
    found = evaluate.attribute_scores(tmp_path, catalog)
    scores = found["query"]
    assert scores["num_listings"] == 6 and scores["precision"] == scores["recall"] == scores["set_f1"] == 1.0
    assert scores["top_f1"] == 1.0 and 0 <= scores["majority"]["top"] <= 1
    assert np.isclose(scores["calibration"]["ece"], 0.1, atol=1e-6)
    assert scores["unseen"] == scores["true_unseen"] and set(scores["unseen"]) == {"top+colour"}
    wrong = np.roll(true, 1, axis=0)
    saved_fields.save(folder / "query.npz", [(wrong, np.full(true.shape, 0.5))], ids)
    assert evaluate.attribute_scores(tmp_path, catalog)["query"]["set_f1"] < 1
    tables.print_attributes(found)
    assert "colour" in capsys.readouterr().out
    atomic.write_json(tmp_path / "metrics.json", {"stages": [], "attributes": found})
    (section,) = page.sections(written.attributes(tmp_path))
    assert section.title == "Predicted attributes"
    assert all(part in section.body for part in ("100.0 %", "top+colour", "<svg"))
