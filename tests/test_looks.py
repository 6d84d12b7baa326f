"""Looks completed by a finished run: vectors of its gallery and of a person's own photos are in one space."""

import shutil

import numpy as np
import pytest

import tiny_outfits
from retrieval_jax import export, exported, looks, report
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import outfits as scores


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Config and work directory of a finished run."""
    folder = tmp_path_factory.mktemp("outfits") / "run"
    return tiny_outfits.save(folder), folder


def test_looks_are_completed_from_listings_and_from_photos(finished, tmp_path):
    config, folder = finished
    gallery = looks.of_run(folder, colours="colour", conditions=("colour",))
    split = loading.load(config.data).split("gallery")
    level = split.category_levels.index("middle")
    info = info_lib.load(folder / "checkpoints" / "data_info.json")
    names, learned = [*split.category_names[level], ""], looks.types_of(info)
    known = [names[row] if names[row] in learned else "" for row in split.categories[:, level]]
    assert gallery.types.tolist() == known and "" in known  # of a type that train does not have

    first = int(np.flatnonzero(gallery.types != "")[0])
    own = looks.photos(folder, [split.images[first]], [gallery.types[first]])
    np.testing.assert_allclose(own.vectors[0], gallery.gallery.vectors[first], rtol=1e-4, atol=1e-5)
    kinds = [name for name in gallery.kinds if name != gallery.types[first]][:2]
    (by_id,) = gallery.complete([gallery.gallery.ids[first]], kinds, 1)
    (by_photo,) = gallery.complete([], kinds, 1, photos=own)
    assert set(by_id.rows) == set(by_photo.rows) == set(kinds)
    assert all(gallery.types[row] == kind for kind, row in by_id.rows.items())
    taken = gallery.colours[by_id.rows[kinds[0]]]
    (other,) = gallery.complete(
        [gallery.gallery.ids[first]], kinds[:1], 1, conditions={"excluded": [["colour", [taken]]]}
    )
    assert gallery.colours[other.rows[kinds[0]]] != taken

    other_space = Embeddings(own.ids, own.vectors, {"space": "of another run"})
    with pytest.raises(InputError, match="photos are of the space 'of another run', and the gallery of"):
        gallery.complete([], kinds, 1, photos=other_space)
    with pytest.raises(InputError, match="has not learned the type 'topps'"):
        looks.photos(folder, [split.images[first]], ["topps"])
    with pytest.raises(InputError, match="give one for each"):
        looks.photos(folder, [split.images[first]], [])
    config, copy = config.copy_and_resolve_references(), tmp_path / "run"
    shutil.copytree(folder, copy)
    config.embed.predict_fn = "embed_image"
    (copy / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match="completed by vectors of 'embed_item'"):
        looks.of_run(copy)
    config.train.task = "category"
    (copy / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match="is a run of the task 'category'"):
        looks.of_run(copy)
    with pytest.raises(InputError, match="is a run of the task 'category'"):
        looks.photos(copy, [split.images[first]], [gallery.types[first]])
    assert looks.judged(config, copy, loading.load(config.data)) is None


def test_the_outfits_of_the_gallery_are_scored_and_shown_in_the_report(finished):
    config, folder = finished
    catalog = loading.load(config.data)
    found = looks.judged(config, folder, catalog)
    vectors = Embeddings.load(folder / "embeddings" / "trained" / "gallery").vectors
    asked, there = found.questions, found.questions.rows >= 0
    assert len(found.completed) == 8 and len(found.filled) == len(asked) > 0 and 0 <= found.auc <= 1
    first = vectors[asked.answers[0]][:, None] - vectors[asked.rows[0][there[0]]]
    np.testing.assert_allclose(found.sums[0], np.linalg.norm(first, axis=2).sum(1), rtol=1e-6)
    start, others, made = found.completed[0]
    own = [[start, *made[0].rows.values()]]
    assert made[0].score == pytest.approx(scores.compatibility(vectors, own)[0])
    assert len(made[0].rows) <= len(others)

    report.run(config, folder)
    page = (folder / "report.html").read_text("utf-8")
    assert f"AUC of {found.outfits:,} outfits: {found.auc:.3f}" in page and "Completed looks" in page
    assert "<h2" in page and "Fill in the blank: " in page


def test_an_exported_model_embeds_items_by_their_types(finished, tmp_path):
    config, folder = finished
    export.run(folder, tmp_path / "exported", platforms=("cpu",))
    served = exported.load(tmp_path / "exported")
    names = [label.partition("=")[2] for label in served.labels["label_names"]]
    images = loading.load(config.data).split("gallery").images
    pictures, kinds = [images[0], images[1]], [names[0], names[1]]
    wanted = np.asarray(looks.photos(folder, pictures, kinds).vectors)
    found = served.embed({"image": pictures, "type": np.array([0, 1], np.int32)})
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    with pytest.raises(InputError, match="takes 'type'"):
        served.embed(pictures)
