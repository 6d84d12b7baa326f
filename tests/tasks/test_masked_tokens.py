"""Hidden tokens: as many as asked for, the same per step, words as a whole; and a training that others start from."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from retrieval_jax import inference, train
from retrieval_jax.data import text
from retrieval_jax.data.info import DataInfo, Tokens
from retrieval_jax.errors import InputError
from retrieval_jax.settings import tasks as options
from retrieval_jax.tasks import masked_tokens
from retrieval_jax.training import warm_start
from tiny import logged, tiny_config

pytestmark = pytest.mark.usefixtures("little_compilation")
FACTS = Tokens(100, pad=1, mask=4, start=0, end=2, unknown=3, hash="a")
INFO = DataInfo([], np.zeros(0, np.int64), 10, (), (), "", tokens=FACTS)
LENGTHS = np.array([40, 12, 3, 2, 0])  # start and end included; the last is padding


def batch(words=None, rows=1):
    rng, width = np.random.default_rng(0), LENGTHS.max()
    mask = np.arange(width) < LENGTHS[:, None]
    number = np.broadcast_to(np.arange(width) - 1, mask.shape) if words is None else words
    number = np.where((np.arange(width) == 0) | (np.arange(width) == LENGTHS[:, None] - 1), -1, number)
    made = {
        "tokens": np.where(mask, rng.integers(5, 100, mask.shape), 0).astype(np.int32),
        "tokens_mask": mask,
        "words": np.where(mask, number, 0).astype(np.int32),
        "words_mask": mask,
        "row": np.arange(len(mask), dtype=np.int32),
        "_mask": LENGTHS > 0,
    }
    return {name: np.concatenate([value] * rows) for name, value in made.items()}


def hidden(given, seed=0, share=0.15, whole=False, own=False):
    hide = jax.jit(lambda given, key: masked_tokens.hide(given, key, FACTS, share, whole, own))
    found = jax.tree.map(np.asarray, hide(given, jax.random.key(seed)))
    places = [set(row[keep].tolist()) for row, keep in zip(found["places"], found["count"], strict=True)]
    return found["tokens"], places


def test_as_many_as_asked_for_and_never_the_frame():
    given = batch(rows=200)
    tokens, places = hidden(given)
    counts = np.array([len(row) for row in places]).reshape(200, -1)
    assert (counts == [round(0.15 * 38), round(0.15 * 10), 1, 0, 0]).all()
    for row, own in enumerate(places):
        assert all(0 < place < LENGTHS[row % 5] - 1 for place in own)
        other = [place for place in range(LENGTHS.max()) if place not in own]
        assert np.array_equal(tokens[row, other], given["tokens"][row, other])
    every = np.bincount([place for own in places[::5] for place in own], minlength=40)[1:39]
    assert every.min() > 10  # every token has its turn


def test_shares_of_mask_random_and_shown():
    given = batch(rows=400)
    tokens, places = hidden(given)
    rows = np.repeat(np.arange(len(places)), [len(own) for own in places])
    at = np.concatenate([sorted(own) for own in places]).astype(int)
    now, before = tokens[rows, at], given["tokens"][rows, at]
    assert abs((now == FACTS.mask).mean() - 0.8) < 0.03 and abs((now == before).mean() - 0.1) < 0.03
    random = now[(now != FACTS.mask) & (now != before)]
    assert abs(len(random) / len(now) - 0.1) < 0.03 and len(set(random.tolist())) > 60


def test_the_same_for_the_same_key_or_row():
    given = batch()
    for whole in (False, True):
        assert np.array_equal(hidden(given, 1, whole=whole)[0], hidden(given, 1, whole=whole)[0])
        assert not np.array_equal(hidden(given, 1, whole=whole)[0], hidden(given, 2, whole=whole)[0])
    alone = {name: value[1:2, :12] if value.ndim == 2 else value[1:2] for name, value in given.items()}
    assert np.array_equal(hidden(alone, own=True)[0][0], hidden(given, own=True)[0][1, :12])


def test_whole_words_are_hidden_together():
    words = np.broadcast_to((np.arange(40) - 1) // 3, (5, 40))  # words of three tokens
    for seed in range(20):
        _, places = hidden(batch(words), seed, whole=True)
        assert len(places[0]) in (5, 6) and len(places[1]) in (1, 3)  # 6 and 2 tokens are asked for
        for own, last in ((places[0], 38), (places[1], 10)):
            chosen = {(place - 1) // 3 for place in own}
            assert own == {place for place in range(1, last + 1) if (place - 1) // 3 in chosen}
    one = np.zeros((5, 40), int)  # a single word, longer than a batch hides
    assert len(hidden(batch(one), whole=True)[1][0]) == 8


def settings(**kwargs):
    config = tiny_config().train
    config.task, config.task_kwargs = "masked_tokens", options.masked_tokens()
    config.task_kwargs.update(kwargs)
    sizes = {"width": 16, "depth": 1, "heads": 2, "length": 40}
    config.model = ml_collections.ConfigDict(
        {"name": "transformer", "variant": "mini", "projection": 0, "kwargs": sizes}
    )
    return config


@pytest.mark.parametrize("name", ["transformer", "bigru"])
def test_the_loss_is_of_hidden_tokens_and_moves_every_parameter(name):
    config = settings()
    config.model.name, config.model.kwargs = name, {"width": 8} if name == "bigru" else config.model.kwargs
    task, given = masked_tokens.make(config, INFO), jax.tree.map(jnp.asarray, batch())
    params = task.init(jax.random.key(0), given)
    expected = {"backbone", "head_tokens"}
    assert params.keys() == expected

    @jax.jit
    def loss(params, given):
        return jax.value_and_grad(
            lambda params: task.loss_fn(
                params, given, rng=jax.random.key(1), step=0, ema=params, constants=None, train=True
            ),
            has_aux=True,
        )(params)

    (value, metrics), gradient = loss(params, given)
    assert abs(value - np.log(100)) < 1.0 and 0 <= metrics["masked_accuracy"] <= 1
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    parts = [loss(params, {**given, "_whole": given})[0][0]]  # a part that is the whole: the same loss
    np.testing.assert_allclose(parts, value, rtol=1e-5)


@pytest.mark.parametrize("kwargs, message", [({"share": 1.5}, "share is 1.5"), ({"shares": 1}, "no argument 'shares'")])
def test_wrong_options(kwargs, message):
    config = settings()
    config.task_kwargs = {**config.task_kwargs, **kwargs}
    with pytest.raises(InputError, match=message):
        masked_tokens.make(config, INFO)


def test_wrong_networks():
    config = settings()
    config.model.variant = "huge"
    with pytest.raises(InputError, match="transformer has no 'huge'"):
        masked_tokens.make(config, INFO)
    config = settings()
    config.model.kwargs = {"layers": 3}
    with pytest.raises(InputError, match="network of text 'transformer' has no argument 'layers'"):
        masked_tokens.make(config, INFO)


def make_config(**kwargs):
    config = tiny_config()
    config.train = settings(vocabulary=400, queries=False, **kwargs)
    config.train.evaluations, config.train.eval_every_epochs = (("masked_tokens", {}),), 10.0
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 20.0, 32, 1e-2
    config.train.checkpoint_every_steps = 100
    config.embed.predict_fn = "embed_text"
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory, little_compilation):
    """A work directory where words were learned."""
    folder, config = tmp_path_factory.mktemp("words"), make_config()
    train.check(config, folder)
    assert not list(folder.iterdir())  # a check leaves nothing
    train.run(config, folder)
    (folder / "config.json").write_text(config.to_json())
    return folder


def test_it_learns_and_others_start_from_it(run):
    lines = logged(run)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.5
    scores = [line for line in lines if "masked/val_loss" in line]
    assert len(scores) == 2 and scores[1]["masked/val_loss"] < np.log(400)
    model = inference.load(run)
    tokens = text.load(run / "text").encode(["red shoes", "", "блузка " * 50, "red shoes"], 32)
    vectors = model.embed({"tokens": tokens})
    assert vectors.shape == (4, 16) and np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-6)
    # a task with another head keeps the backbone and the tokens
    task = masked_tokens.make(model.config.train, model.data_info)
    fresh = jax.device_get({"backbone": task.init(jax.random.key(9), {})["backbone"], "head_other": np.zeros(3)})
    params, counts = warm_start.from_run(fresh, run, model.data_info)
    assert counts["tensors_fresh"] == 1
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], jax.device_get(model.params["backbone"]))


def test_other_tokens_than_those_of_the_run_before_are_refused(run):
    model = inference.load(run)
    info = DataInfo([], np.zeros(0, np.int64), 10, (), (), "", tokens=FACTS)
    with pytest.raises(InputError, match="a token's vector means nothing for another one"):
        warm_start.from_run(jax.device_get(model.params), run, info)


def test_the_tokens_of_the_run_before_are_kept(run, tmp_path):
    config = make_config()
    config.train.init_from = str(run)
    config.train.epochs, config.train.eval_every_epochs = 1.0, 0.0
    train.run(config, tmp_path / "next")
    assert text.load(tmp_path / "next" / "text").hash == text.load(run / "text").hash
