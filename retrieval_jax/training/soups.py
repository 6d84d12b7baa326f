"""Means of the parameters of several checkpoints ("soups"), in float64, one checkpoint in memory at a time."""

import jax
import numpy as np


def _add(total, params):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return params if total is None else jax.tree.map(np.add, total, params)


def _mean(total, count, like):
    return jax.tree.map(lambda leaf, old: (leaf / count).astype(np.asarray(old).dtype), total, like)


def uniform(read, steps):
    """Averages checkpoints, all with the same weight.

    Args:
      read: step -> parameters, a pytree of floating arrays.
      steps: of the checkpoints, one or more.

    Returns:
      The mean, in the parameters' own types.

    Source: the last ones of a training, Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with
    Latest Weight Averaging", arXiv 2209.14981.
    """
    total, params = None, None
    for step in steps:
        params = read(step)
        total = _add(total, params)
    return _mean(total, len(steps), params)


def greedy(read, steps, score):
    """Averages those checkpoints that, joined one by one, do not lower the score of the mean.

    Args:
      read: step -> parameters, a pytree of floating arrays.
      steps: of the checkpoints, one or more, the best first.
      score: parameters -> number; higher is better.

    Returns:
      (the mean, in the parameters' own types; the steps that are in it, in the order they were joined).

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
