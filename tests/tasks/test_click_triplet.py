"""Photos and clicked listings: the loss reaches the box, unclean clicks teach nothing, and a run finds boxes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval_jax import embed, evaluate, export, inference, mine, report, search, tasks, train
from retrieval_jax.data import loading, pipeline, saved_boxes
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.models.backbones import convnext
from retrieval_jax.server import networks
from retrieval_jax.settings import base
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import click_triplet
from tiny import TINY, logged, tiny_config


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch):
    monkeypatch.setitem(convnext.VARIANTS, "tiny test", TINY)


def make_config(**kwargs):
    config = tiny_config()
    config.data.kwargs.num_clicks = 30
    config.train.task = "click_triplet"
    config.train.task_kwargs = options.click_triplet()
    config.train.task_kwargs.update({"titles_first": 1, "slope_steps": 4, "near": 1.0, **kwargs})
    config.train.transforms = (("resize", {}),)
    config.train.batch_size, config.train.epochs, config.train.evaluations = 8, 0.4, ()
    config.train.warmup_epochs = 0.1
    config.embed.models = ("trained",)
    config.search.steps = ()
    return config


def made(config, workdir=None):
    """Returns the task and its first batch."""
    examples, info = tasks.get("click_triplet").examples(config, loading.load(config.data), workdir)
    task = tasks.get("click_triplet").make(config.train, info)
    batches = pipeline.train_batches(
        examples, transform=(("resize", {}),), image_size=(16, 16), batch_size=8, seed=0, num_steps=1
    )
    return task, jax.tree.map(jnp.asarray, next(batches)), examples


def value_of(task, batch):
    def value(params, step=5):
        return task.loss_fn(params, batch, rng=jax.random.key(0), step=step, ema=params, constants=None, train=False)[0]

    return jax.jit(value)


@pytest.mark.parametrize("kwargs", [{"cut": "crop"}, {"cut": "mask"}, {"softmax_weight": 0.0}])
def test_the_gradient_of_clicks_reaches_the_box(kwargs):
    task, batch, _ = made(make_config(title_weight=0.0, area=0.0, margin=1.0, **kwargs))
    y, x = np.meshgrid(np.linspace(0, 2, 16), np.linspace(0, 2, 16), indexing="ij")
    for name, turn in (("photo", 0.0), ("clicked", 0.7), ("unclicked", 1.4)):  # smooth, as the bilinear cut is not
        waves = [np.sin(y + row + turn) * np.cos(x * turn + row) for row in range(8)]
        smooth = jnp.asarray(127 + 100 * np.stack([waves, waves[::-1], np.square(waves)], -1), jnp.float32)
        batch[name] = smooth.reshape(batch[name].shape)
    params = jax.jit(task.init)(jax.random.key(0), batch)
    # Away from the start, where the last layer is zero.
    noise = jax.random.normal(jax.random.key(1), params["locate"]["heat"]["kernel"].shape)
    params["locate"]["heat"]["kernel"] = 0.05 * noise
    value = value_of(task, batch)
    gradient = jax.jit(jax.grad(value))(params)["locate"]
    assert all(np.abs(leaf).max() > 0 for name, leaf in gradient["conv0"].items() if name == "kernel")
    along, step = gradient["heat"]["kernel"], 1e-2
    length = float(jnp.sqrt((along**2).sum()))
    found = []
    for sign in (1, -1):  # along the gradient, so that the slope is its length
        moved = {**params["locate"], "heat": {**params["locate"]["heat"]}}
        moved["heat"]["kernel"] = params["locate"]["heat"]["kernel"] + sign * step * along / length
        found.append(float(value({**params, "locate": moved})))
    assert length > 1e-4
    np.testing.assert_allclose(length, (found[0] - found[1]) / (2 * step), rtol=0.1)


def test_edges_become_steeper_and_a_large_box_costs():
    task, batch, _ = made(make_config(cut="mask", title_weight=0.0, area=0.0))
    params = jax.jit(task.init)(jax.random.key(0), batch)
    value = value_of(task, batch)
    found = [float(value(params, step)) for step in (0, 2, 4, 9)]  # slope_steps is 4
    assert len(set(found)) == 3 and found[2] == found[3]
    costly, _, _ = made(make_config(cut="mask", title_weight=0.0, area=0.5))
    np.testing.assert_allclose(value_of(costly, batch)(params, 9) - found[3], 0.5 * 0.9, rtol=1e-3)


def test_clicks_wait_for_titles_and_padding_counts_nothing(tmp_path):
    config = make_config()
    mine.run(config, tmp_path)
    task, batch, examples = made(config, tmp_path)
    assert {"clicked_labels", "unclicked_labels", "forbidden"} <= set(examples.columns)
    params = jax.jit(task.init)(jax.random.key(0), batch)
    value = value_of(task, batch)
    assert value(params, 0) < value(params, 5)
    padded = {**batch, "_mask": batch["_mask"].at[7].set(False)}
    other = {**padded, "photo": padded["photo"].at[7].set(255), "clicked": padded["clicked"].at[7].set(9)}
    np.testing.assert_allclose(value_of(task, padded)(params), value_of(task, other)(params), rtol=1e-5)
    of_step = jax.jit(jax.grad(value_of(task, batch)))
    gradient = of_step(params, 5)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["heads_titles"]))
    config.train.task_kwargs.area = 0.0
    task, _, _ = made(config, tmp_path)
    of_step = jax.jit(jax.grad(value_of(task, batch)))
    assert not of_step(params, 0)["locate"]["heat"]["kernel"].any()  # the box stays where it is
    assert of_step(params, 5)["locate"]["heat"]["kernel"].any()


def test_what_is_never_a_negative():
    photos = {
        "number": jnp.array([4, 9]),
        "vector": jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        "forbidden": jnp.array([[2, 4], [9, 0]]),
        "mask": jnp.array([[True, True], [True, False]]),
    }
    listings = {"number": jnp.array([4, 2, 7, 0]), "vector": jnp.array([[1.0, 0], [0, 1.0], [0.6, 0.8], [0.6, 0.8]])}
    expected = [[True, True, False, False], [False, True, False, False]]  # the second by its vector
    np.testing.assert_array_equal(click_triplet.never_negative(photos, listings, 0.9), expected)


def test_clicks_alone_need_a_network_that_knows_something():
    with pytest.raises(InputError, match="none of them is a negative"):
        made(make_config(title_weight=0.0, near=0.95))
    config = make_config(title_weight=0.0, near=0.95, located=False)
    config.train.init_from = "runs/other"
    made(config)
    config.train.task_kwargs.near = -1.01  # all are near, so that nothing is left to learn from
    task, batch, _ = made(config)
    params = jax.jit(task.init)(jax.random.key(0), batch)
    loss, values = jax.jit(
        lambda params: task.loss_fn(
            params, batch, rng=jax.random.key(0), step=5, ema=params, constants=None, train=False
        )
    )(params)
    assert values["near_share"] == 1 and abs(loss) < 1e-6


def test_without_categories_no_click_is_checked_and_this_is_said(capsys):
    config = make_config(title_weight=0.0)
    catalog = loading.load(config.data)
    catalog.train.categories = None
    examples, _ = tasks.get("click_triplet").examples(config, catalog, None)
    assert len(examples.ids) and "no click is checked: the catalogue has no categories" in capsys.readouterr().out


def test_without_the_branch_it_is_the_plain_network():
    task, batch, _ = made(make_config(located=False, title_weight=0.0))
    params = jax.jit(task.init)(jax.random.key(0), batch)
    assert "locate" not in params and set(task.predict_fns) == {"embed_image"}
    assert np.isfinite(value_of(task, batch)(params))
    with pytest.raises(InputError, match="nothing to learn"):
        made(make_config(softmax_weight=0.0, triplet_weight=0.0, title_weight=0.0))
    with pytest.raises(InputError, match="there is no 'crops'"):
        made(make_config(cut="crops"))


def test_a_run_finds_boxes_embeds_and_draws(tmp_path):
    config = make_config()
    config.embed.models = ("colour", "trained")
    for verb in (mine, train, embed, search, evaluate, report):
        verb.run(config, tmp_path)
        (tmp_path / "config.json").write_text(config.to_json())
    lines = [line for line in logged(tmp_path) if "loss" in line]
    assert {"area", "softmax_loss", "triplet_loss", "title_loss", "near_share"} <= set(lines[0])
    assert all(np.isfinite(line["loss"]) for line in lines)
    queries, model = loading.load(config.data).query, inference.load(tmp_path)
    boxes = saved_boxes.load(tmp_path / "embeddings" / "trained" / saved_boxes.FILE, Ids.of(queries.ids).sha256())
    pictures = [queries.images[row] for row in range(len(queries))]
    np.testing.assert_allclose(model.locate(pictures), boxes, atol=1e-5)
    assert boxes.shape == (8, 4) and (boxes >= 0).all() and (boxes <= 1).all()
    whole, cut = model.embed(pictures, "embed_whole"), model.embed(pictures)
    assert whole.shape == cut.shape and not np.allclose(whole, cut, atol=1e-3)
    assert "where the network looked" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["stages"]
    config.report.stage = "colour/cosine"  # whose ranking no box has anything to do with
    report.run(config, tmp_path)
    assert "where the network looked" not in (tmp_path / "report.html").read_text()

    served = networks.load(tmp_path, json.loads(config.to_json()))  # it crops, the network reads all that is left
    np.testing.assert_allclose(served.pictures(pictures), whole, atol=1e-5)
    np.testing.assert_allclose(served.boxes(pictures), boxes, atol=1e-5)
    ours = model.predict_attributes(pictures, predict_fn="attributes_whole")
    assert ours != model.predict_attributes(pictures)
    assert [[one[1:] for one in row] for row in served.attributes(pictures)] == ours
    assert export.run(tmp_path, tmp_path / "served", platforms=("cpu",))["compared"]["difference"] < 1e-4


def test_boxes_are_those_of_the_network_that_embeds_the_queries(tmp_path):
    config, other = make_config(), make_config()
    for verb in (mine, train, embed):
        verb.run(config, tmp_path / "one")
    (tmp_path / "one" / "config.json").write_text(config.to_json())
    file = f"embeddings/trained/{saved_boxes.FILE}"
    base.without_training(other)
    other.search.query_from.run = other.search.gallery_from.run = str(tmp_path / "one")
    embed.run(other, tmp_path / "two")
    digest = Ids.of(loading.load(config.data).query.ids).sha256()
    one, two = (saved_boxes.load(tmp_path / name / file, digest) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, atol=1e-6)
    other.search.query_from.predict_fn = "embed_whole"  # looks at all of the picture
    embed.run(other, tmp_path / "two")
    assert not (tmp_path / "two" / file).exists()
    config.embed.models = ("colour",)  # they would be those of an earlier network
    embed.run(config, tmp_path / "one")
    assert not (tmp_path / "one" / file).exists()
