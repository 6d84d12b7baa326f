"""The task of regions: pictures move with their boxes, and it trains on the embedded catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import inference, train
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.scoring import boxes as scores
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import regions
from tiny import TINY, logged, tiny_config


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def make_config(**kwargs):
    config = tiny_config()
    config.train.task = "regions"
    config.train.task_kwargs = options.regions()
    config.train.task_kwargs.update({"types": "top", "min_count": 1, "dims": 16, **kwargs})
    config.train.transforms = (("resize", {}), ("color_jitter", {"brightness": 0.1}))
    config.train.evaluations = (("regions", {}),)
    config.train.eval_every_epochs = 2.0
    config.train.epochs = 2.0
    return config


def test_boxes_stay_on_what_they_are_around():
    images = np.zeros((16, 40, 32, 3), np.float32)
    boxes = np.full((16, 2, 4), np.nan, np.float32)
    rng = np.random.default_rng(0)
    for row in range(16):
        top, left = rng.integers(2, 20), rng.integers(2, 16)
        images[row, top : top + 12, left : left + 10] = 255
        boxes[row, 0] = np.array([top, left, top + 12, left + 10]) / (40, 32, 40, 32)
    for smallest in (1.0, 0.6):
        moved, new = regions.moved(jax.random.key(3), jnp.asarray(images), jnp.asarray(boxes), smallest)
        assert np.isnan(new[:, 1]).all()
        assert not np.allclose(moved, images)
        for picture, box in zip(np.asarray(moved), np.asarray(new[:, 0]), strict=True):
            if np.isfinite(box).all():
                there = np.argwhere(picture[..., 0] > 128)
                around = np.concatenate([there.min(0), there.max(0) + 1]) / (40, 32, 40, 32)
                np.testing.assert_allclose(box, around, atol=0.06)
    assert np.isfinite(new[:, 0]).all(1).mean() > 0.7


def test_it_trains_is_scored_and_predicts(tmp_path):
    config = make_config()
    summary = train.run(config, tmp_path)
    assert set(summary["in_training_scores"]) == {"regions/map", "regions/map_given", "regions/iou"}
    assert all(np.isfinite(line["loss"]) for line in logged(tmp_path) if "loss" in line)
    (tmp_path / "config.json").write_text(config.to_json())
    model = inference.load(tmp_path)
    split = loading.load(config.data).val
    found = inference.predict(
        model.task.predict_fns["regions"], model.params, {"image": split.images}, **inference.test_arguments(config)
    )
    assert found["boxes"].shape[0] == len(split) and found["types"].max() < len(model.data_info.label_names)
    main, there = scores.main_box(scores.regions(found))
    assert main.shape == (len(split), 4) and there.all()


def test_every_parameter_learns_and_padding_counts_nothing():
    config = make_config()
    examples, info = regions.examples(config, loading.load(config.data), None)
    task = regions.make(config.train, info)
    batch = {"image": np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8),
             "boxes": examples.columns["boxes"][:4], "box_types": examples.columns["box_types"][:4],
             "_mask": np.arange(4) < 3}  # fmt: skip
    params = jax.jit(task.init)(jax.random.key(0), batch)

    @jax.jit
    def loss(params, batch):
        return task.loss_fn(params, batch, rng=jax.random.key(0), step=0, ema=params, constants=None, train=False)[0]

    gradient = jax.grad(loss)(params, batch)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["head_regions"]))
    other = {**batch, "boxes": batch["boxes"].copy()}
    other["boxes"][3] = np.nan
    assert np.isclose(loss(params, batch), loss(params, other))


def test_transforms_that_move_pictures_are_refused():
    config = make_config()
    config.train.transforms = (("random_resized_crop", {}), ("flip", {}))
    with pytest.raises(InputError, match="'random_resized_crop' moves pictures"):
        regions.examples(config, loading.load(config.data), None)
