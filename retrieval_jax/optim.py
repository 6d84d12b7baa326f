"""The optimiser: AdamW, warm-up and cosine, decay by rule, and a moving average of the parameters."""

import re

import jax
import jax.numpy as jnp
import optax

# (regex over the parameter's path, share of the weight decay); the first that matches counts. No decay on what has one
# dimension a channel (biases, norms, scales), on positions, and on classifiers: a head is thrown away after training.
DECAY_RULES = ((r"(^|/)heads?_", 0.0), (r"/(bias|scale|dw_bias|p|positions|query)$", 0.0), (r".*", 1.0))


def paths(params) -> dict:
    """Returns the tree of the parameters' paths, such as "backbone/stem/kernel", in place of the parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(getattr(k, "key", k)) for k in path), params)


def by_rule(params, rules) -> dict:
    """Returns a tree of values in place of the parameters, by the first rule that a path matches.

    Args:
      params: tree of parameters.
      rules: (regex, value) pairs; the regex is searched in paths such as "backbone/stem/kernel".

    Raises:
      ValueError: a path that no rule matches.
    """
    def value(path):
        for pattern, result in rules:
            if re.search(pattern, path):
                return result
        raise ValueError(f"no rule matches parameter {path}")
    return jax.tree.map(value, paths(params))


def make(config, params, num_steps: int, steps_per_epoch: float):
    """Builds the optimiser.

    Args:
      config: the train block: learning_rate, warmup_epochs, final_learning_rate, weight_decay, b2, clip_norm.
      params: parameters, for their paths.
      num_steps: length of the whole run.
      steps_per_epoch: for the warm-up.

    Returns:
      (optax transformation, schedule: step -> learning rate).

    Source: AdamW: Loshchilov & Hutter, arXiv 1711.05101; cosine: arXiv 1608.03983.
    """
    warmup = max(1, min(round(config.warmup_epochs * steps_per_epoch), num_steps - 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(num_steps, warmup + 1), config.final_learning_rate)
    decay = jax.tree.map(bool, by_rule(params, DECAY_RULES))
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay, mask=decay),
    ), schedule


def ema_update(ema, params, step: jax.Array, decay: float):
    """Moves the average towards the parameters; early steps average over few, so that the random start is forgotten.

    Args:
      ema: the average so far.
      params: parameters after this step.
      step: number of steps done before this one.
      decay: weight of the old average late in training.

    Returns:
      The new average, a tree like `ema`.
    """
    step = jnp.asarray(step, jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, ema, rate)
