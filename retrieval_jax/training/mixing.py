"""Mixup and cutmix: blends the pictures of a batch with each other, on the device, inside the train step.

    batch_transforms = (("mixup", {"alpha": 0.2}), ("cutmix", {"alpha": 1.0}))

What changes a picture by itself (`device_transforms`) may stand before them.

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

from retrieval_jax.errors import InputError
from retrieval_jax.training import device_transforms

_LABELS = ("label_ids", "label_mask", "category")


def apply(batch, rng, spec):
    """Augments every picture by itself, then mixes the pictures by one of several ways, drawn anew for each batch.

    Args:
      batch: dict with image [B, H, W, 3], 0..255; any of label_ids, label_mask, category; optionally _mask bool [B].
      rng: key.
      spec: (name, kwargs) pairs. Names: "mixup" (every pixel blended alike) and "cutmix" (a rectangle of the
        partner). Keyword arguments: alpha, the own share is drawn from Beta(alpha, alpha); p, the probability to
        be picked. Ways without p share evenly what the others leave; what is left by all is the probability that
        the batch stays as it is. Before them any of `device_transforms.TRANSFORMS`, which are applied in order.

    Returns:
      The batch with image float32 [B, H, W, 3], mix float32 [B] (exact share of the own picture), and mix_label_ids,
      mix_label_mask, mix_category where the batch has them: the partner's labels. A row's partner is the one before
      it, the first row's the last that is no padding. Rows that are padding, or whose partner is, stay as they are.
      Further views and unlabelled pictures are not mixed.

    Raises:
      InputError: unknown way or argument, or a value out of range.

    Source: Zhang et al. 2017, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412); Yun et al. 2019,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (arXiv 1905.04899).
    """
    alone, spec = _split(spec)
    if alone:
        batch = device_transforms.apply(batch, jax.random.fold_in(rng, 1000), alone)  # none of the keys split off below
    if alone and not spec:
        return batch
    names, alphas, shares = _parsed(spec)
    image = batch["image"].astype(jnp.float32)
    height, width = image.shape[1:3]
    pick_rng, lam_rng, *box_rngs = jax.random.split(rng, 4)
    pick = jnp.searchsorted(jnp.cumsum(jnp.asarray(shares)), jax.random.uniform(pick_rng), side="right")
    alpha = jnp.asarray([*alphas, 1.0])[pick]
    lam = jax.random.beta(lam_rng, alpha, alpha)

    box, box_share = _box(box_rngs, height, width, lam)
    # share of the own picture in every pixel [H, W], and in the whole
    own = jnp.full((height, width), lam)
    mix = lam
    is_cut = jnp.asarray([name == "cutmix" for name in names] + [False])[pick]
    own, mix = jnp.where(is_cut, 1.0 - box, own), jnp.where(is_cut, 1.0 - box_share, mix)
    stays = pick == len(names)
    own, mix = jnp.where(stays, 1.0, own), jnp.where(stays, 1.0, mix)

    mix = jnp.broadcast_to(mix, image.shape[:1])
    own = jnp.broadcast_to(own[..., None], (len(image), height, width, 1))
    mask = batch.get("_mask")
    if mask is not None:
        both = mask & _partner(mask, mask)
        own, mix = jnp.where(both[:, None, None, None], own, 1.0), jnp.where(both, mix, 1.0)
    mixed = {f"mix_{name}": _partner(batch[name], mask) for name in _LABELS if name in batch}
    return {**batch, "image": own * image + (1 - own) * _partner(image, mask), "mix": mix, **mixed}


def _partner(rows, mask):
    """Returns the row before each; before the first the last that is no padding, however long the padding is."""
    before = jnp.roll(rows, 1, axis=0)
    if mask is None:
        return before
    place = jnp.arange(len(rows)).reshape(-1, *(1,) * (rows.ndim - 1))
    last = jnp.where(mask, jnp.arange(len(mask)), 0).max()
    # a sum with one term: devices exchange a row, not all of them
    end = (
        jnp.where(place == last, rows, 0).sum(axis=0, dtype=rows.dtype)
        if rows.dtype != bool
        else ((rows & (place == last)).any(axis=0))
    )
    return jnp.where(place == 0, end, before)


def _box(rngs, height, width, lam):
    """Draws a rectangle of area (1 - lam), its centre anywhere, cut off at the edges.

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
    """Returns the (name, kwargs) pairs that change each picture by itself, checked, and all others."""
    alone, others = [], []
    for entry in spec:
        if isinstance(entry, tuple | list) and len(entry) == 2 and entry[0] in device_transforms.TRANSFORMS:
            device_transforms.check(entry[0], dict(entry[1]))
            if others:
                raise InputError(
                    f"batch transform {entry[0]!r} comes after a way of mixing: pictures are changed one "
                    "by one before they are mixed"
                )
            alone.append((entry[0], dict(entry[1])))
        else:
            others.append(entry)
    return alone, others


def _parsed(spec):
    """Returns names, alphas and probabilities of the ways."""
    names, alphas, shares = [], [], []
    for entry in spec:
        try:
            name, kwargs = entry
            kwargs = dict(kwargs)
        except (TypeError, ValueError):
            raise InputError(
                f"batch transform {entry!r} is not a (name, keyword arguments) pair, such as ('mixup', "
                "{'alpha': 0.2})"
            ) from None
        if name not in ("mixup", "cutmix"):
            raise InputError(
                f"there is no batch transform {name!r}; there are: "
                f"{', '.join(sorted(['cutmix', 'mixup', *device_transforms.TRANSFORMS]))}"
            )
        unknown = sorted(set(kwargs) - {"alpha", "p"})
        if unknown:
            raise InputError(f"batch transform {name!r} has no argument {unknown[0]!r}; it takes: alpha, p")
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
    if sum(shares) > 1 - 1e-6:  # rounding must not leave a batch as it is
        shares[-1] += 1
    return names, alphas, np.asarray(shares, np.float32)
