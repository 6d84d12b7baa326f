"""Mixup and cutmix: blends the pictures of a batch with each other, on the device, inside the train step.

    batch_transforms = (("mixup", {"alpha": 0.2}), ("cutmix", {"alpha": 1.0}))

Transforms of single pictures (`device_transforms`) may precede them.

The labels are not blended: a batch carries both sets and the share of the own picture, and the loss of a mixed picture
is

    mix * loss(own labels) + (1 - mix) * loss(partner's labels)

which holds for any loss, of one label or of many. The partner is the row before (the first row's is the last): rows
are shuffled anyway, and shifting by one moves a single row from device to device. Every draw is one for the whole
batch, so the result depends on the key alone, not on how many devices or processes share the batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.errors import InputError
from retrieval_jax.training import device_transforms

WAYS = {"mixup": ("alpha", "p"), "cutmix": ("alpha", "p")}  # of mixing two pictures, and their arguments


def apply(batch, rng, spec, pictures, beside=()):
    """Augments every picture by itself, then mixes rows by one of several ways, drawn anew for each batch.

    Args:
      batch: dict of columns.
      rng: key.
      spec: (name, kwargs) pairs. Names: "mixup" (every pixel blended alike) and "cutmix" (a rectangle of the
        partner). Keyword arguments: alpha, the own share is drawn from Beta(alpha, alpha); p, the probability of being
        picked. Ways without p share evenly what the others leave; what is left by all is the probability that the batch
        stays as it is. Before them any of `device_transforms.TRANSFORMS`, which are applied in order.
      pictures: names of the columns of pictures, [B, H, W, 3] or [B, k, H, W, 3] with values 0..255; those of examples
        beside are augmented and not mixed.
      beside: names of all columns that belong to examples beside: they have other rows.

    Returns:
      The batch with mixed pictures in float32; mix float32 [B], the exact share of the own picture (of the first
      column); and the partner's value of every other column as "mix_" + its name. A row's partner is the one before
      it, the first row's the last that is not padding. Rows that are padding, or whose partner is, stay as they are;
      so does a single picture where it or its partner is missing (mix is 1 where none of a row's pictures is mixed).

    Raises:
      InputError: unknown way or argument, or a value out of range.

    Source: Zhang et al. 2017, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412); Yun et al. 2019,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (arXiv 1905.04899).
    """
    alone, spec = _split(spec)
    if alone:  # with a key that none of those split off below is
        batch = device_transforms.apply(batch, jax.random.fold_in(rng, 1000), alone, pictures)
    if alone and not spec:
        return batch
    own_pictures = [name for name in pictures if name not in beside]
    if not own_pictures:
        raise InputError("config.train.batch_transforms mixes pictures, and the examples of this task have none")
    names, alphas, shares = _parsed(spec)
    pick_rng, lam_rng, *box_rngs = jax.random.split(rng, 4)
    pick = jnp.searchsorted(jnp.cumsum(jnp.asarray(shares)), jax.random.uniform(pick_rng), side="right")
    alpha = jnp.asarray([*alphas, 1.0])[pick]
    lam = jax.random.beta(lam_rng, alpha, alpha)
    is_cut = jnp.asarray([name == "cutmix" for name in names] + [False])[pick]
    stays = pick == len(names)
    mask = batch.get("_mask")
    both = None if mask is None else mask & _partner(mask, mask)

    out, mix = dict(batch), None
    for name in own_pictures:
        image = batch[name].astype(jnp.float32)
        height, width = image.shape[-3:-1]
        box, box_share = _box(box_rngs, height, width, lam)
        # The share of the own picture in every pixel [H, W, 1], and in the whole.
        own = jnp.where(stays, 1.0, jnp.where(is_cut, 1.0 - box, jnp.full((height, width), lam)))
        share = jnp.where(stays, 1.0, jnp.where(is_cut, 1.0 - box_share, lam))
        own = jnp.broadcast_to(own[..., None], (*image.shape[:-3], height, width, 1))
        share = jnp.broadcast_to(share, image.shape[:1])
        if both is not None:
            own = jnp.where(both.reshape(-1, *(1,) * (image.ndim - 1)), own, 1.0)
            share = jnp.where(both, share, 1.0)
        shown = batch.get(f"{name}_mask")
        if shown is not None:
            shown &= _partner(shown, mask)
            own = jnp.where(shown[..., None, None, None], own, 1.0)
            share = jnp.where(shown if shown.ndim == 1 else shown.any(axis=1), share, 1.0)
        out[name] = own * image + (1 - own) * _partner(image, mask)
        mix = share if mix is None else mix
    labels = [name for name in batch if name not in (*pictures, *beside, "row", "_mask")]
    return {**out, "mix": mix, **{f"mix_{name}": _partner(batch[name], mask) for name in labels}}


def _partner(rows, mask):
    """Returns the row before each; for the first row, the last one that is not padding."""
    before = jnp.roll(rows, 1, axis=0)
    if mask is None:
        return before
    place = jnp.arange(len(rows)).reshape(-1, *(1,) * (rows.ndim - 1))
    last = jnp.where(mask, jnp.arange(len(mask)), 0).max()
    # A sum with one term: devices exchange one row instead of all.
    end = (
        jnp.where(place == last, rows, 0).sum(axis=0, dtype=rows.dtype)
        if rows.dtype != bool
        else ((rows & (place == last)).any(axis=0))
    )
    return jnp.where(place == 0, end, before)


def _box(rngs, height, width, lam):
    """Draws a rectangle of area (1 - lam) with its centre anywhere, clipped at the edges.

    Returns:
      float32 [H, W], 1 inside; and the exact share of its area.
    """
    masks, lengths = [], []
    for rng, side in zip(rngs, (height, width), strict=True):
        length = (side * jnp.sqrt(1 - lam)).astype(jnp.int32)
        start = jax.random.randint(rng, (), 0, side) - length // 2
        start, stop = jnp.maximum(start, 0), jnp.minimum(start + length, side)
        places = jnp.arange(side)
        masks.append((places >= start) & (places < stop))
        lengths.append(stop - start)
    share = (lengths[0] * lengths[1]).astype(jnp.float32) / (height * width)
    return (masks[0][:, None] & masks[1]).astype(jnp.float32), share


def _split(spec):
    """Returns the (name, kwargs) pairs that change single pictures, checked, and all others."""
    alone, others = [], []
    for entry in spec:
        if isinstance(entry, tuple | list) and len(entry) == 2 and entry[0] in device_transforms.TRANSFORMS:
            device_transforms.check(entry[0], dict(entry[1]))
            if others:
                raise InputError(
                    f"config.train.batch_transforms: {entry[0]!r} follows mixup or cutmix; put transforms of single "
                    "pictures first"
                )
            alone.append((entry[0], dict(entry[1])))
        else:
            others.append(entry)
    return alone, others


def _parsed(spec):
    """Returns names, alphas and probabilities of the ways."""
    names, alphas, shares = [], [], []
    alone = {name: pairs.arguments(one, skip=2) for name, one in device_transforms.TRANSFORMS.items()}
    for entry in spec:
        name, kwargs = pairs.split(entry, "config.train.batch_transforms", "('mixup', {'alpha': 0.2})")
        pairs.check(name, kwargs, WAYS | alone, "config.train.batch_transforms", "batch transform")
        alpha, p = kwargs.get("alpha", 1.0), kwargs.get("p")
        if not isinstance(alpha, (int, float)) or alpha <= 0:
            raise InputError(f"batch transform {name!r}: alpha is a number above 0, not {alpha!r}")
        if p is not None and (not isinstance(p, (int, float)) or not 0 <= p <= 1):
            raise InputError(f"batch transform {name!r}: p is a probability, not {p!r}")
        names.append(name)
        alphas.append(float(alpha))
        shares.append(p)
    if not names:
        raise InputError("there are no batch transforms: give ('mixup', {}) or ('cutmix', {})")
    given = sum(p for p in shares if p is not None)
    if given > 1 + 1e-6:
        raise InputError(f"the probabilities p of the batch transforms add up to {given:g}, more than 1")
    open_shares = shares.count(None)
    shares = [max(0.0, 1 - given) / open_shares if p is None else p for p in shares]
    if sum(shares) > 1 - 1e-6:  # rounding must not leave a batch unmixed
        shares[-1] += 1
    return names, alphas, np.asarray(shares, np.float32)
