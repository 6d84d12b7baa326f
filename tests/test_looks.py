"""Looks completed by a finished run: vectors of its gallery and of a person's own photos are in one space."""

import numpy as np
import pytest

from retrieval_jax import embed, looks, train
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import tasks as options
from tiny import TINY, tiny_config


def settings():
    """Returns the config of a training of two steps."""
    config = tiny_config()
    config.data.kwargs.update({"num_train": 300, "num_val": 60, "num_gallery": 60, "num_outfits": 16, "products": True})
    config.train.task, config.train.task_kwargs = "outfit", options.outfit()
    config.train.task_kwargs.update({"types": "middle", "same_product": "product"})
    config.train.task_kwargs.update({"pseudo_weight": 0.0, "consistency_weight": 0.0})
    config.train.epochs, config.train.warmup_epochs, config.train.batch_size = 1.0, 0.0, 4
    config.embed.predict_fn, config.embed.models, config.search.steps = "embed_item", ("trained",), ()
    return config


def test_looks_are_completed_from_listings_and_from_photos(tmp_path, monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)
    config, folder = settings(), tmp_path / "run"
    train.run(config, folder)
    embed.run(config, folder)
    (folder / "config.json").write_text(config.to_json())
    gallery = looks.of_run(folder, colours="colour", conditions=("colour",))
    split = loading.load(config.data).split("gallery")
    level = split.category_levels.index("middle")
    names = [*split.category_names[level], ""]
    assert gallery.types.tolist() == [names[row] for row in split.categories[:, level]]

    first = int(np.flatnonzero(gallery.types != "")[0])
    own = looks.photos(folder, [split.images[first]], [gallery.types[first]])
    np.testing.assert_allclose(own[0], gallery.gallery.vectors[first], rtol=1e-4, atol=1e-5)
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

    with pytest.raises(InputError, match="has not learned the type 'topps'"):
        looks.photos(folder, [split.images[first]], ["topps"])
    with pytest.raises(InputError, match="give one for each"):
        looks.photos(folder, [split.images[first]], [])
    config.embed.predict_fn = "embed_image"
    (folder / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match="completed by vectors of 'embed_item'"):
        looks.of_run(folder)
    config.train.task = "category"
    (folder / "config.json").write_text(config.to_json())
    with pytest.raises(InputError, match="is a run of the task 'category'"):
        looks.of_run(folder)
