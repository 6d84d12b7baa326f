"""Two views of a picture: the loss against its definition, and where the gradient goes."""

import jax
import numpy as np
import pytest

from retrieval_jax import tasks
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive
from retrieval_jax.models import heads
from retrieval_jax.training import optim
from tiny import INFO, tiny_batch, tiny_config


def test_views_find_each_other_through_the_teachers_keys(patches):
    config = tiny_config().train
    config.task_kwargs = {"hidden_dims": 16, "temperature": 0.2}
    task = tasks.get("self_supervised").make(config, INFO)
    batch = tiny_batch()
    params = jax.jit(task.init)(jax.random.key(0), batch)
    assert params.keys() == {"backbone", "heads_projector", "head_predictor"}
    with pytest.raises(InputError, match="needs two: set config.train.views"):
        task.loss_fn(params, batch, rng=jax.random.key(0), step=0, ema=params, constants=None, train=True)

    batch = {
        "image": batch["image"],
        "image_view1": batch["image"][:, :, ::-1],
        "_mask": batch["_mask"],
        "image_view2": batch["image"][:, ::2, ::2],
    }  # smaller, and seen by the learning side alone
    ema = jax.tree.map(lambda leaf: 1.1 * leaf, params)

    @jax.jit
    def run(params, ema):
        def loss(params, ema):
            return task.loss_fn(params, batch, rng=jax.random.key(0), step=0, ema=ema, constants=None, train=False)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, ema)

    (total, values), (ours, teachers) = run(params, ema)
    assert not any(np.abs(leaf).max() for leaf in jax.tree.leaves(teachers))
    for path, leaf in zip(jax.tree.leaves(optim.paths(ours)), jax.tree.leaves(ours), strict=True):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path

    mlp, names = heads.Mlp(16, 16), ("image", "image_view1", "image_view2")

    @jax.jit
    def pairs(params, ema):
        def projected(params, name):
            embedding = task.predict_fns["embed_image"](params, {"image": batch[name]})["embedding"]
            return mlp.apply({"params": params["heads_projector"]}, embedding)

        return [
            contrastive.softmax(
                mlp.apply({"params": params["head_predictor"]}, projected(params, name)),
                projected(ema, other),
                scale=5.0,
                symmetric=False,
                where=batch["_mask"],
            ).sum()
            / 7
            for name in names
            for other in names[:2]
            if name != other
        ]

    assert len(pairs(params, ema)) == 4
    np.testing.assert_allclose(total, np.mean(pairs(params, ema)), rtol=1e-4)
    assert 0 < values["embedding_spread"] < 1.5
