"""A row of equal blocks: one by one or scanned, with or without rematerialisation."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def rates(drop_path: float, depth: int) -> list[float]:
    """Returns the drop-path rate of every block: linear from 0 at the first to `drop_path` at the last."""
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
    """Applies blocks that have the same shapes, one after the other; call it inside a compact method.

    Args:
      make: name -> block, a module with `__call__(x, rate, train) -> x`; rate is that block's drop-path rate.
      x: what goes into the first block.
      rates: drop-path rate of every block; their number is the number of blocks.
      train: whether drop path is active.
      prefix: of the blocks' names: parameters are "{prefix}block{i}/...", or scanned "{prefix}blocks/..." with a
        leading axis of blocks.
      remat: whether what a block computes inside is computed again on the way back instead of being kept.
      scan: whether the blocks are one loop over stacked parameters: the program stays small, and so does the time of
        its compilation.

    Returns:
      What comes out of the last block.
    """

    def step(block, x, rate):
        if not remat:
            return block(x, rate, train)
        # The rate is closed over: as an argument it would be traced, and a rate of 0 could not be told any more.
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
