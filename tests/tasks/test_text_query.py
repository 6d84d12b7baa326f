"""Typed queries from clicks: what is never a negative, losses that fall, words embedded from Python."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from retrieval_jax import inference, tasks, train
from retrieval_jax.data import loading, pipeline, text
from retrieval_jax.errors import InputError
from retrieval_jax.settings import base
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import text_query
from tiny import logged


def tiny(**task_kwargs):
    """Returns a whole config: the smallest catalogue with typed queries, and tower."""
    config = base.defaults()
    sizes = {"num_train": 160, "num_val": 0, "num_query": 24, "num_gallery": 120, "num_typed": 40, "image_size": 16}
    config.data.kwargs = ConfigDict({"seed": 0, "queries": "typed", **sizes})
    config.data.image_size = (16, 16)
    config.train.task = "text_query"
    config.train.task_kwargs = options.text_query()
    config.train.task_kwargs.update({"vocabulary": 400, "length": 16, "same_product": "product", **task_kwargs})
    config.train.model.name, config.train.model.variant, config.train.model.projection = "transformer", "mini", 16
    config.train.model.kwargs = ConfigDict({"depth": 1, "width": 16, "heads": 2, "dropout": 0.0})
    config.train.batch_size, config.train.epochs, config.train.eval_every_epochs = 16, 1.0, 0.0
    config.train.checkpoint_every_steps, config.train.log_every_steps = 3, 1
    config.search.query_from.predict_fn, config.search.gallery_from.predict_fn = "embed_query", "embed_product"
    return config


def made(config, workdir, steps=1):
    """Returns the task and its first batches."""
    examples, info = tasks.get("text_query").examples(config, loading.load(config.data), workdir)
    task = tasks.get("text_query").make(config.train, info)
    batches = pipeline.train_batches(examples, transform=(), image_size=(1, 1), batch_size=16, seed=0, num_steps=steps)
    return task, [next(batches) for _ in range(steps)], examples


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"negatives": "mined", "pool": 32, "encoders": 2},
        {"loss": "softmax", "negatives": "in_batch", "title_queries": 1},
    ],
    ids=["triplet", "mined", "softmax"],
)
def test_the_loss_falls_and_every_parameter_learns(tmp_path, kwargs):
    task, (batch,), examples = made(tiny(**kwargs), tmp_path)
    batch = jax.tree.map(jnp.asarray, batch)
    params = jax.jit(task.init)(jax.random.key(0), batch)
    assert ("query_backbone" in params) == (kwargs.get("encoders") == 2)
    assert examples.ids[0].count(" / ") == 1 and {"query", "product", "forbidden"} <= set(examples.columns)
    optimizer = optax.adam(1e-2)

    def loss_fn(params):
        return task.loss_fn(params, batch, rng=jax.random.key(0), step=0, ema=params, constants=None, train=True)[0]

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss, gradient

    state, losses = optimizer.init(params), []
    for _ in range(12):
        params, state, loss, gradient = step(params, state)
        losses.append(float(loss))
        for name in set(params) - {"head_contrast"} if len(losses) == 1 else ():
            assert all(np.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(gradient[name]["projection"]["kernel"]))
    assert losses[-1] < 0.7 * losses[0] and np.isfinite(losses).all()


def test_what_is_never_a_negative():
    queries = {
        "forbidden": jnp.array([[2, 5, 0], [7, 0, 0]]),
        "mask": jnp.array([[True, True, False], [True, False, False]]),
        "tokens": jnp.array([[1, 8, 9, 3], [1, 6, 3, 0]]),
        "tokens_mask": jnp.array([[True, True, True, True], [True, True, True, False]]),
    }
    products = {
        "number": jnp.array([2, 0, 7, 4]),
        "tokens": jnp.array([[1, 3, 0, 0], [1, 8, 3, 9], [1, 6, 3, 8], [1, 8, 3, 6]]),
        "mask": jnp.array([[True, True, False, False], [True] * 4, [True] * 4, [True, True, True, False]]),
    }
    expected = [[True, True, False, False], [False, False, True, False]]  # the last: its 6 is behind its end
    np.testing.assert_array_equal(text_query.never_negative(queries, products), expected)


def test_no_batch_has_a_forbidden_negative(tmp_path):
    config = tiny(typos=0.0)
    _, batches, _ = made(config, tmp_path, steps=8)
    catalog, tokenizer = loading.load(config.data), text.load(tmp_path / text.FOLDER)
    product = text_query.clicks.products(catalog.train, "product")
    tokens, mask = tokenizer.encode(list(catalog.train.titles), 16).padded(np.arange(160))
    of_tokens = {}
    for row in range(160):
        of_tokens.setdefault(tuple(tokens[row][mask[row]].tolist()), set()).add(int(product[row]))
    seen = 0
    for batch in batches:
        for row in range(16):
            forbidden = set(batch["forbidden"][row][batch["forbidden_mask"][row]].tolist())
            assert int(batch["number"][row]) in forbidden
            for title, there in zip(batch["negative"][row], batch["negative_mask"][row], strict=True):
                if there.any():
                    assert not of_tokens[tuple(title[there].tolist())] <= forbidden
                    seen += 1
    assert seen > 100


def test_it_trains_resumes_with_the_same_bits_embeds_words_and_scores(tmp_path, monkeypatch):
    config = tiny(negatives="mined", pool=32)
    config.train.epochs, config.train.eval_every_epochs = 1.5, 1.5
    whole, again = tmp_path / "whole", tmp_path / "again"
    train.run(config, whole)
    lines = logged(whole)
    assert any("retrieval/map@10" in line for line in lines)
    (whole / "config.json").write_text(config.to_json())
    model = inference.load(whole)
    vectors = model.embed_text(["red tee", "", "\x00" * 3, "赤い靴"])
    assert vectors.shape == (4, 16) and np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[1], vectors[2])  # control characters are blanks: both are empty
    np.testing.assert_allclose(model.embed_text("red tee")[0], vectors[0], rtol=1e-4, atol=1e-5)
    catalog = loading.load(config.data)
    columns = inference.columns(model.task.predict_fns["embed_query"], catalog.query, config, whole)
    assert len(columns["query"]) == 24
    # killed after the first checkpoint, and resumed: what is mined does not depend on when the run began
    batches = train.pipeline.train_batches

    def killed(*args, **kwargs):
        for number, batch in enumerate(batches(*args, **kwargs)):
            if number == 4 and not kwargs["start_step"]:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(train.pipeline, "train_batches", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, again)
    train.run(config, again)
    assert [line for line in logged(again) if "loss" in line][-1]["loss"] == [line for line in lines if "loss" in line][
        -1
    ]["loss"]
    (again / "config.json").write_text(config.to_json())
    assert inference.checksum(inference.load(again).params) == inference.checksum(model.params)


def test_options_that_do_not_exist_are_named_with_near_ones(tmp_path):
    for kwargs, words in (
        ({"loss": "triplets"}, "no 'triplets'; did you mean triplet"),
        ({"negatives": "inbatch"}, "did you mean in_batch"),
        ({"groups": "colours"}, "no column 'colours'; did you mean colour"),
        ({"same_product": "products"}, "no column 'products'; did you mean product"),
    ):
        with pytest.raises(InputError, match=words):
            made(tiny(**kwargs), tmp_path)
    config = tiny()
    config.data.kwargs.num_typed = 0
    with pytest.raises(InputError, match="no clicks"):
        made(config, tmp_path)
