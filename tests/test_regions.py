"""Pictures are embedded by the region that another run finds in them."""

import numpy as np
import pytest

from retrieval_jax import embed, inference, regions, train
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import tasks as options
from retrieval_jax.workdir import hashes, sides
from tiny import TINY, tiny_config


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    """A tiny run that finds regions, and its config."""
    folder, config = tmp_path_factory.mktemp("finder"), tiny_config()
    config.train.task = "regions"
    config.train.task_kwargs = options.regions()
    config.train.task_kwargs.update({"types": "top", "min_count": 1, "dims": 16})
    config.train.transforms = (("resize", {}),)
    config.train.evaluations, config.train.epochs = (), 1.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(convnext.VARIANTS, "tiny test", TINY)
        train.run(config, folder)
        (folder / "config.json").write_text(config.to_json())
        yield folder, config


def embedded(finder, tmp_path, name, **changes):
    config = tiny_config()
    config.embed.models = ("colour",)
    config.embed.regions.update({"run": str(finder[0]), **changes})
    embed.run(config, tmp_path / name)
    folder = tmp_path / name / "embeddings" / "colour"
    return [np.asarray(Embeddings.load(folder / split).vectors[:]) for split in ("query", "gallery")]


def test_the_best_box_is_embedded_in_the_splits_that_are_named(finder, tmp_path, capsys):
    whole = embedded(finder, tmp_path, "whole", run="")
    assert "cropped" not in capsys.readouterr().out
    both = embedded(finder, tmp_path, "both")
    assert "query: 8 of 8 pictures are cropped" in capsys.readouterr().out
    one = embedded(finder, tmp_path, "one", splits=("query",))
    assert not np.allclose(whole[0], both[0]) and not np.allclose(whole[1], both[1])
    np.testing.assert_array_equal(one[0], both[0])
    np.testing.assert_array_equal(one[1], whole[1])


def test_boxes_of_another_type_than_the_listings_are_dropped(finder):
    model, split = inference.load(finder[0]), loading.load(finder[1].data).query
    found, known = regions.predicted(model, split), regions.known_types(model, split)
    best, there = regions.main_boxes(model, split, guided=True)
    for row in range(len(split)):
        fits = np.isin(found["types"][row], known[row])
        assert there[row] == fits.any()
        if fits.any():
            place = np.argmax(np.where(fits, found["scores"][row], -np.inf))
            np.testing.assert_array_equal(best[row], found["boxes"][row, place])
        else:
            np.testing.assert_array_equal(best[row], (0, 0, 1, 1))


def test_runs_of_other_tasks_and_folders_without_a_network_are_refused(finder, tmp_path):
    config = tiny_config()
    config.embed.regions.run = str(tmp_path / "nothing")
    with pytest.raises(InputError, match="regions.run: nothing is trained in"):
        regions.check(config, tmp_path)
    model, split = inference.load(finder[0]), loading.load(finder[1].data).query
    model.task.predict_fns.pop("regions")
    with pytest.raises(InputError, match="which finds no regions: name a run"):
        regions.predicted(model, split)


def test_a_run_that_is_named_by_its_config_runs_first_and_older_folders_stay_valid(tmp_path):
    config = tiny_config()
    before = hashes.stage_hash(config, "embed")
    without = config.copy_and_resolve_references()
    with without.unlocked():
        del without.embed["regions"]
    assert hashes.stage_hash(without, "embed") == before  # of a directory that was made before the setting was there
    config.embed.regions.run = "embedded_regions"
    assert sides.other_runs(config) == ("embedded_regions",)
    assert hashes.stage_hash(config, "embed") != before
