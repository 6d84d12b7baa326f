"""Averages the parameters of several checkpoints ("soups"), in float64, with one checkpoint in memory at a time."""

import jax
import numpy as np


def _add(total, params):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return params if total is None else jax.tree.map(np.add, total, params)


def _mean(total, count, like):
    return jax.tree.map(lambda leaf, old: (leaf / count).astype(np.asarray(old).dtype), total, like)


def uniform(read, steps):
    """Averages checkpoints with equal weights.

    Args:
      read: step -> parameters, a pytree of floating-point arrays.
      steps: steps of the checkpoints, one or more.

    Returns:
      The mean, in the parameters' own types.

    Source: for the last checkpoints of a run, Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training
    with Latest Weight Averaging", arXiv 2209.14981.
    """
    total, params = None, None
    for step in steps:
        params = read(step)
        total = _add(total, params)
    return _mean(total, len(steps), params)


def greedy(read, steps, score):
    """Adds checkpoints to the mean one by one, keeping those that do not lower its score.

    Args:
      read: step -> parameters, a pytree of floating-point arrays.
      steps: steps of the checkpoints, one or more, the best first.
      score: parameters -> number; higher is better.

    Returns:
      (the mean, in the parameters' own types; the steps in it, in the order they were added).

    Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time", arXiv 2203.05482, recipe 1.
    """
    total, best, members, found = None, None, [], None
    for step in steps:
        params = read(step)
        wider = _add(total, params)
        candidate = _mean(wider, len(members) + 1, params)
        value = score(candidate)
        if best is None or value >= best:
            total, best, members, found = wider, value, [*members, step], candidate
    return found, members
