"""The task that writes attributes: trains on the embedded catalogue, predicts with and without known attributes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax import inference, tasks, train
from retrieval_jax.data import fields, loading
from retrieval_jax.data import info as info_lib
from retrieval_jax.errors import InputError
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import attribute_sequence
from tiny import logged, tiny_config

FIELDS = ("top", "colour", "parts")
COMBINED = (("top", "colour"),)


def make_config(**kwargs):
    config = tiny_config()
    config.train.task = "attribute_sequence"
    config.train.task_kwargs = options.attribute_sequence()
    config.train.task_kwargs.update(
        {"fields": FIELDS, "optional_fields": ("parts",), "min_count": 1, "cell_dims": 16, "beam": 4, **kwargs}
    )
    config.train.evaluations = (("attributes", {"guide": ("top",), "combinations": COMBINED}),)
    config.train.epochs = 2.0
    return config


@pytest.fixture(autouse=True)
def small(patches):
    """Networks that compile in no time."""


@pytest.fixture
def made():
    """(config, examples, info) of the tiny catalogue."""
    config = make_config()
    return config, *attribute_sequence.examples(config, loading.load(config.data), None)


def loss_of(task, params, batch, train=True):
    return task.loss_fn(
        params, batch, rng=jax.random.key(0), step=jnp.int32(0), ema=params, constants=None, train=train
    )


def batch_of(examples, rows=8):
    ids, mask = examples.columns["attribute_ids"].padded(np.arange(rows))
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8),
        "attribute_ids": ids,
        "attribute_ids_mask": mask,
        "attribute_known": examples.columns["attribute_known"][:rows],
        "_mask": np.arange(rows) < rows - 1,
    }


@pytest.mark.parametrize("heads", attribute_sequence.HEADS)
@pytest.mark.parametrize("forcing", [1.0, 0.5])
def test_its_gradient_reaches_every_parameter_and_padding_counts_nothing(made, heads, forcing):
    config, examples, info = made
    config.train.task_kwargs.update({"heads": heads, "teacher_forcing": forcing, "label_smoothing": 0.1})
    task, batch = attribute_sequence.make(config.train, info), batch_of(examples)
    params = jax.jit(task.init)(jax.random.key(0), batch)
    function = jax.jit(jax.value_and_grad(lambda params, batch: loss_of(task, params, batch), has_aux=True))
    (value, values), gradient = function(params, batch)
    assert np.isfinite(value) and np.isclose(value, values["attribute_loss"])
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    other = {**batch, "attribute_ids": batch["attribute_ids"].copy()}
    other["attribute_ids"][-1] = 0
    other["image"] = batch["image"].copy()
    other["image"][-1] = 0
    assert np.isclose(function(params, other)[0][0], value, rtol=1e-5)


@pytest.mark.parametrize("heads", attribute_sequence.HEADS)
def test_nothing_is_learned_about_an_unknown_field(made, heads):
    config, examples, info = made
    config.train.task_kwargs.heads = heads
    task, batch = attribute_sequence.make(config.train, info), batch_of(examples)
    colours = np.flatnonzero([name.startswith("colour=") for name in info.label_names])
    row = np.flatnonzero(batch["_mask"] & np.isin(batch["attribute_ids"], colours).any(1))[0]
    params = jax.jit(task.init)(jax.random.key(0), batch)
    unknown = {**batch, "attribute_known": batch["attribute_known"].copy()}
    unknown["attribute_known"][row, 1] = False
    ids = [label for label, there in zip(batch["attribute_ids"][row], batch["attribute_ids_mask"][row], strict=True)
           if there and label not in colours]  # fmt: skip
    unknown["attribute_ids"], unknown["attribute_ids_mask"] = (
        batch["attribute_ids"].copy(),
        batch["attribute_ids_mask"].copy(),
    )
    unknown["attribute_ids"][row] = 0
    unknown["attribute_ids"][row, : len(ids)] = ids
    unknown["attribute_ids_mask"][row] = np.arange(batch["attribute_ids"].shape[1]) < len(ids)
    unknown["_mask"] = np.arange(8) == row
    gradient = jax.grad(lambda params: loss_of(task, params, unknown)[0])(params)
    if heads == "sequence":
        bias = gradient["head_sequence"]["seen"]["bias"]
    else:
        bias = gradient["heads_attributes"]["bias"]
    assert np.abs(bias[colours]).max() == 0 and np.abs(bias).max() > 0


@pytest.mark.parametrize("heads", attribute_sequence.HEADS)
def test_it_trains_is_scored_and_predicts(tmp_path, heads):
    config = make_config(heads=heads)
    config.train.eval_every_epochs = 1.0
    summary = train.run(config, tmp_path)
    scores = summary["in_training_scores"]
    assert {"attributes/set_f1", "attributes/ece", "attributes/colour_f1", "attributes/guided_colour_f1",
            "attributes/unseen_top_colour"} <= set(scores)  # fmt: skip
    assert "attributes/guided_top_f1" not in scores and all(0 <= score <= 1 for score in scores.values())
    assert all(np.isfinite(line["loss"]) for line in logged(tmp_path) if "loss" in line)
    (tmp_path / "config.json").write_text(config.to_json())
    model = inference.load(tmp_path)
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    assert model.embed(pictures).shape == (3, 12)
    plain = model.predict_fields(pictures)
    assert all({"top", "colour"} <= set(row) <= set(FIELDS) and len(row["colour"]) == 1 for row in plain)
    assert all(name.startswith(("top=", "colour=", "parts=")) for name, _ in model.predict_attributes(pictures)[0])
    top, colour = (catalog_names(config, name)[0] for name in ("top", "colour"))
    guided = model.predict_fields(pictures, [{"top": top}, {"colour": colour}, {}])
    assert guided[0]["top"] == [(top, 1.0)] and guided[1]["colour"] == [(colour, 1.0)]
    assert guided[2].keys() == plain[2].keys()
    if heads == "sigmoid":  # what is known changes nothing else
        assert {name: guided[0][name] for name in ("colour",)} == {name: plain[0][name] for name in ("colour",)}
    with pytest.raises(InputError, match="no value 'purpel'.*purple"):
        model.predict_fields(pictures, [{"colour": "purpel"}, {}, {}])


def catalog_names(config, name):
    info = fields.read(loading.load(config.data).split("train"), name)
    return [info.values[value] for value in info.value_ids[:1]]


def test_unknown_options_fields_and_counts_are_refused(made):
    config, _, info = made
    catalog = loading.load(config.data)
    for kwargs, says in (
        ({"fields": ()}, "fields is empty.*colour"),
        ({"fields": ("color",)}, "'color' does not exist.*colour"),
        ({"fields": ("top",), "optional_fields": ("parts",)}, "optional_fields has 'parts'"),
    ):
        other = make_config(**kwargs)
        with pytest.raises(InputError, match=says):
            attribute_sequence.examples(other, catalog, None)
    for kwargs, says in (
        ({"heads": "sigmoids"}, "there is no 'sigmoids'; did you mean sigmoid"),
        ({"field_weights": (1.0, 2.0)}, "2 weights for 3 fields"),
    ):
        with pytest.raises(InputError, match=says):
            attribute_sequence.make(make_config(**kwargs).train, info)
    with pytest.raises(InputError, match="not those of fields"):
        attribute_sequence.make(config.train, info_lib.DataInfo([], np.zeros(0, np.int64), 3, (), (), ""))


def test_mined_words_are_a_field(tmp_path):
    from retrieval_jax import mine

    config = make_config(fields=("colour", "mined"), optional_fields=(), min_count=3)
    mine.run(config, tmp_path)
    examples, info = attribute_sequence.examples(config, loading.load(config.data), tmp_path)
    assert info.fields[1].many and any(name.startswith("mined=") for name in info.label_names)
    json.dumps(info_lib.to_json(info))
    assert examples.columns["attribute_known"][:, 1].mean() > 0.5
    assert isinstance(config, ConfigDict) and tasks.get("attribute_sequence") is attribute_sequence
