"""Applies a stack of identical blocks, unrolled or scanned, with or without rematerialisation."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def rates(drop_path: float, depth: int) -> list[float]:
    """Returns the drop-path rate of each block: linear from 0 at the first to `drop_path` at the last."""
    return [drop_path * i / max(1, depth - 1) for i in range(depth)]


def apply(
    make: Callable[[str], nn.Module],
    x: jax.Array,
    rates: list[float],
    train: bool,
    *,
    prefix: str = "",
    remat: bool = False,
    scan: bool = False,
) -> jax.Array:
    """Applies blocks of equal shapes in sequence; call it inside a compact method.

    Args:
      make: name -> block, a module with `__call__(x, rate, train) -> x`; rate is that block's drop-path rate.
      x: input of the first block.
      rates: drop-path rate of each block; determines the number of blocks.
      train: whether drop path is active.
      prefix: prefix of the parameters' names: "{prefix}block{i}/...", or, scanned, "{prefix}blocks/..." with a leading
        axis of blocks.
      remat: recompute the activations inside a block in the backward pass instead of storing them.
      scan: run the blocks as one loop over stacked parameters, for a small program that compiles fast.

    Returns:
      The output of the last block.
    """

    def step(block, x, rate):
        if not remat:
            return block(x, rate, train)
        # The rate is closed over: an argument would be traced, and a rate of 0 no longer recognised.
        return nn.remat(lambda block, x: block(x, rate, train), prevent_cse=not scan)(block, x)

    if not scan:
        for i, rate in enumerate(rates):
            x = step(make(f"{prefix}block{i}"), x, rate if train else 0.0)
        return x
    some = train and any(rates)
    loop = nn.scan(
        lambda block, x, rate: (step(block, x, rate if some else 0.0), None),
        length=len(rates),
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
    )
    return loop(make(f"{prefix}blocks"), x, jnp.asarray(rates))[0]
