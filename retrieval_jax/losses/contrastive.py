"""Contrastive losses for pairs (picture and title, two views of a picture) and for pictures with equal categories.

Pair losses are chunked over devices: if the batch is sharded, keys are passed round the devices in a ring and meet
one chunk of queries at a time, so a device holds [b, b] similarities (b = B / devices), never [B, B] nor all keys at
once; only a bank is whole on every device. Values and gradients equal those on one device.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from retrieval_jax import arguments
from retrieval_jax.losses import reduce, unit

_NEVER = -1e30  # stands in for -inf, whose gradients would be NaN


def learned_scale(log_scale: jax.Array) -> jax.Array:
    """Returns the scale of cosines of a learned logarithm, at most 100, so that a training does not sharpen for ever.

    Args:
      log_scale: scalar, the logarithm of the inverse temperature.

    Source: Radford et al. (CLIP), arXiv 2103.00020, section 2.5.
    """
    return jnp.minimum(jnp.exp(log_scale), 100.0)


def _similarities(here, there, scale, related=None):
    """Returns logits [b, b'] of this device's queries and a chunk of keys, and masks of own and of negative pairs."""
    logits = scale * (here["query"] @ there["key"].T)
    own = here["index"][:, None] == there["index"]
    same = own if "group" not in here else own | (here["group"][:, None] == there["group"])
    if related is not None:
        same |= related(here["of_query"], there["of_key"])
    return logits, own, ~same & here["where"][:, None] & there["where"]


def _ring(meet, here, there, size, axis):
    """Passes every chunk of keys, with its running sums, by this device's queries and returns it to its own device."""
    if size == 1:
        return meet(here, there)
    turn = [(device, (device - 1) % size) for device in range(size)]

    def step(carry, _):
        here, there = meet(*carry)
        return (here, jax.lax.ppermute(there, axis, turn)), None

    # Similarities are recomputed in the backward pass rather than kept for every chunk.
    return jax.lax.scan(jax.checkpoint(step), (here, there), length=size)[0]


def _softmax_chunk(rows, scale_and_bank, size, axis, symmetric, related):
    scale, *bank = scale_and_bank
    nothing = jnp.full_like(rows["query"][:, 0], _NEVER)
    here = {**rows, "sum": nothing}
    there = {name: here[name] for name in ("key", "index", "where", "group", "of_key", "sum") if name in here}
    if "negative" in rows:
        logits = scale * jnp.einsum("bd,bnd->bn", rows["query"], rows["negative"])
        here["sum"] = jax.nn.logsumexp(jnp.where(rows["negative_where"], logits, _NEVER), axis=1)
    if bank:
        logits = jnp.where(rows["bank_where"], scale * (rows["query"] @ bank[0].T), _NEVER)
        here["sum"] = jnp.logaddexp(here["sum"], jax.nn.logsumexp(logits, axis=1))

    def meet(here, there):
        logits, own, negative = _similarities(here, there, scale, related)
        logits = jnp.where(own | negative, logits, _NEVER)
        here = {**here, "sum": jnp.logaddexp(here["sum"], jax.nn.logsumexp(logits, axis=1))}
        if symmetric:
            there = {**there, "sum": jnp.logaddexp(there["sum"], jax.nn.logsumexp(logits, axis=0))}
        return here, there

    here, there = _ring(meet, here, there, size, axis)
    own = scale * (rows["query"] * rows["key"]).sum(axis=-1)
    return 0.5 * (here["sum"] + there["sum"]) - own if symmetric else here["sum"] - own


def _sigmoid_chunk(rows, scale_and_bias, size, axis):
    scale, bias = scale_and_bias
    here = {**rows, "sum": jnp.zeros_like(rows["query"][:, 0])}
    there = {name: here[name] for name in ("key", "index", "where", "group") if name in here}

    def meet(here, there):
        logits, _, negative = _similarities(here, there, scale)
        absent = jnp.where(negative, jax.nn.softplus(logits + bias), 0.0)
        return {**here, "sum": here["sum"] + absent.sum(axis=1)}, there

    here, _ = _ring(meet, here, there, size, axis)
    return here["sum"] + jax.nn.softplus(-scale * (rows["query"] * rows["key"]).sum(axis=-1) - bias)


def _chunked(chunk, queries, keys, numbers, where, groups, mesh, axis, beside=None):
    """Runs `chunk` on the rows of each device, or on the whole batch if it is not sharded."""
    count, width = arguments.shape_of(queries, "queries", "contrastive loss", ("B", "D"))
    arguments.shape_of(keys, "keys", "contrastive loss", (count, width))
    for name, value in (("where", where), ("groups", groups)):
        if value is not None:
            arguments.shape_of(value, name, "contrastive loss", (count,))
    rows = {
        "query": unit(queries),
        "key": unit(keys),
        "index": jnp.arange(count),
        "where": jnp.ones(count, bool) if where is None else where,
    }
    if groups is not None:
        rows["group"] = groups
    rows |= beside or {}
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    axis = tuple(name for name in axis if name in mesh.shape)
    size = math.prod(mesh.shape[name] for name in axis)
    if size == 1:
        return chunk(rows, numbers, size=1, axis=axis)
    split, whole = PartitionSpec(axis), PartitionSpec()
    run = jax.shard_map(
        functools.partial(chunk, size=size, axis=axis),
        mesh=mesh,
        in_specs=(split, whole),
        out_specs=split,
        check_vma=False,
    )
    return run(rows, numbers)


def softmax(
    queries: jax.Array,
    keys: jax.Array,
    *,
    scale: jax.Array | float = 1 / 0.07,
    symmetric: bool = True,
    groups: jax.Array | None = None,
    related: tuple[Callable, Any, Any] | None = None,
    negatives: jax.Array | None = None,
    negatives_where: jax.Array | None = None,
    bank: jax.Array | None = None,
    bank_where: jax.Array | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: tuple[str, ...] = ("data", "fsdp"),
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of identifying a query's own key among the keys of the batch, and vice versa.

    Args:
      queries: [B, D], such as embeddings of pictures; L2-normalised here.
      keys: [B, D], such as embeddings of their titles; row i belongs to query i; L2-normalised here.
      scale: logits are scale * cosine, so this is the inverse temperature; may be learned.
      symmetric: average both directions; False scores keys for each query only.
      groups: [B] int; pairs of one group (same title, same product) are not negatives of each other.
      related: (function, facts of the queries, facts of the keys), the facts being trees of [B, ...]: function(facts of
        b queries, facts of b' keys) -> bool [b, b'], True for a query and a key that are not negatives of each other,
        such as a product that was clicked after the query too.
      negatives: [B, N, D], further keys of each query alone; L2-normalised here.
      negatives_where: [B, N] bool, those that count.
      bank: [K, D], further keys of all queries, such as vectors of a frozen network; L2-normalised here. They ask for
        nothing, so they count in the direction of the queries alone.
      bank_where: [B, K] bool, those that count.
      mesh: mesh that the rows are sharded over; None takes the mesh of the context
        (`jax.sharding.use_abstract_mesh`), and without one the loss is not chunked.
      axis: mesh axes that the rows are sharded over; those absent from the mesh are ignored. B must be a multiple of
        their size.
      where: [B] bool, pairs to include; the others get 0 and are never negatives.
      weights: [B] weights per pair.

    Returns:
      [B] losses in nats.

    Source: Radford et al. (CLIP), arXiv 2103.00020; one direction: van den Oord et al. (InfoNCE), arXiv 1807.03748.
    """
    beside, function = {}, None
    if related is not None:
        function, beside["of_query"], beside["of_key"] = related
    if negatives is not None:
        count = arguments.shape_of(negatives, "negatives", "contrastive loss", (*queries.shape[:1], "N", "D"))[1]
        beside["negative"] = unit(negatives)
        there = jnp.ones((len(queries), count), bool) if negatives_where is None else negatives_where
        beside["negative_where"] = there
    numbers = [jnp.asarray(scale, jnp.float32)]
    if bank is not None:
        count = arguments.shape_of(bank, "bank", "contrastive loss", ("K", queries.shape[1]))[0]
        numbers.append(unit(bank))
        beside["bank_where"] = jnp.ones((len(queries), count), bool) if bank_where is None else bank_where
    chunk = functools.partial(_softmax_chunk, symmetric=symmetric, related=function)
    losses = _chunked(chunk, queries, keys, numbers, where, groups, mesh, axis, beside)
    return reduce(losses, where, weights)


def sigmoid(
    queries: jax.Array,
    keys: jax.Array,
    *,
    scale: jax.Array | float = 10.0,
    bias: jax.Array | float = -10.0,
    groups: jax.Array | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis: tuple[str, ...] = ("data", "fsdp"),
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Binary cross-entropy of whether a query and a key belong together, summed over the keys.

    Args:
      queries: [B, D], such as embeddings of pictures; L2-normalised here.
      keys: [B, D], such as embeddings of their titles; row i belongs to query i; L2-normalised here.
      scale: logits are scale * cosine + bias; may be learned.
      bias: may be learned; the default starts training from "no pair belongs together".
      groups: [B] int; pairs of one group (same title, same product) are not negatives of each other.
      mesh: mesh that the rows are sharded over; None takes the mesh of the context, as in `softmax`.
      axis: mesh axes that the rows are sharded over, as in `softmax`.
      where: [B] bool, pairs to include; the others get 0 and are never negatives.
      weights: [B] weights per query.

    Returns:
      [B] losses in nats.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (SigLIP), arXiv 2303.15343.
    """
    numbers = jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)
    return reduce(_chunked(_sigmoid_chunk, queries, keys, numbers, where, groups, mesh, axis), where, weights)


def supcon(
    embeddings: jax.Array,
    category: jax.Array,
    *,
    temperature: float = 0.1,
    where: jax.Array | None = None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of identifying the pictures of the same category among the rest of the batch.

    Args:
      embeddings: [B, D]; L2-normalised here.
      category: [B] int, -1 if unknown: neither a positive nor a negative.
      temperature: logits are cosine / temperature.
      where: [B] bool, pictures to include; the others get 0 and are neither positives nor negatives.
      weights: [B] weights per picture.

    Returns:
      [B] losses in nats; 0 for a picture that is the only one of its category in the batch.

    Source: Khosla et al., "Supervised Contrastive Learning", arXiv 2004.11362, L_out.
    """
    rows, _ = arguments.shape_of(embeddings, "embeddings", "supcon", ("B", "D"))
    arguments.shape_of(category, "category", "supcon", (rows,))
    counts = category >= 0 if where is None else where & (category >= 0)
    vectors = unit(embeddings)
    other = ~jnp.eye(len(category), dtype=bool) & counts & counts[:, None]
    logits = jnp.where(other, vectors @ vectors.T / temperature, _NEVER)
    positive = other & (category[:, None] == category)
    num_positive = positive.sum(axis=1)
    log_p = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    losses = -jnp.where(positive, log_p, 0.0).sum(axis=1) / jnp.maximum(num_positive, 1)
    return reduce(jnp.where(num_positive > 0, losses, 0.0), where, weights)


def title_groups(label_ids: jax.Array, label_mask: jax.Array) -> jax.Array:
    """Returns one number per title, equal for titles with equal labels: the `groups` of the pair losses.

    Args:
      label_ids: [B, L] distinct labels, in any order.
      label_mask: [B, L], False at padding.

    Returns:
      [B] uint32 hashes. Different titles collide once in four billion pairs.
    """
    # A sum does not depend on the order; the mixing (the finaliser of MurmurHash3) keeps 1 + 4 apart from 2 + 3.
    mixed = label_ids.astype(jnp.uint32) + jnp.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.where(label_mask, mixed ^ (mixed >> 16), 0).sum(axis=-1, dtype=jnp.uint32)
