"""The optimiser: AdamW, schedules with warm-up, path rules for rate, decay and freezing, and the moving average."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retrieval_jax import pairs
from retrieval_jax.errors import InputError

# (regex over the parameter's path, share of the weight decay); the first match applies. No decay on parameters with one
# value per channel (biases, norms, scales), on tokens and position tables, and on classifiers, because heads are
# discarded after training.
DECAY_RULES = (
    (r"(^|/)heads?_", 0.0),
    (r"(^|/)(\w*bias|\w*scale|p|positions|query|class_token|registers|mask_token)$", 0.0),
    (r".*", 1.0),
)

# The position of a backbone's parameter, by the naming convention of all backbones (blocks are numbered or stacked).
_STEM = re.compile(r"backbone/(stem|positions|class_token|registers|mask_token)")
_BLOCK = re.compile(r"backbone/(?:stage(?P<stage>\d+)_)?block(?:s|(?P<index>\d+))/")
_BETWEEN = re.compile(r"backbone/stage(?P<stage>\d+)_")

# Keyword arguments of the schedules, with their defaults.
SCHEDULES = {
    "cosine": {},
    "wsd": {"decay_share": 0.2},  # warm-up, stable, decay: linear decay over this last share of the steps
    "step": {"boundaries": (0.5, 0.75), "factor": 0.1},  # shares of the steps after which the rate is multiplied
    "constant": {},
}


def paths(params) -> dict:
    """Returns a tree of paths, such as "backbone/stem/kernel", in place of the parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(getattr(k, "key", k)) for k in path), params)


def by_rule(params, rules) -> dict:
    """Returns a tree of values in place of the parameters, from the first rule that matches each path.

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
      config: the train block: learning_rate, warmup_epochs, final_learning_rate, schedule, schedule_kwargs,
        weight_decay, decay_rules, b2, clip_norm, layer_decay, learning_rate_rules, frozen.
      params: parameters, for their paths and shapes.
      num_steps: steps of the whole run.
      steps_per_epoch: for the warm-up.

    Returns:
      (optax transformation, schedule: step -> learning rate).

    Raises:
      InputError: an unknown schedule, or a regex that is invalid or matches nothing.

    Source: AdamW: Loshchilov & Hutter, arXiv 1711.05101.
    """
    schedule = make_schedule(config, num_steps, steps_per_epoch)
    shares = by_rule(params, (*_checked(config, "decay_rules", params), *DECAY_RULES))
    decays = [
        optax.add_decayed_weights(config.weight_decay * share, jax.tree.map(lambda s, share=share: s == share, shares))
        for share in sorted(set(jax.tree.leaves(shares)) - {0.0})
    ]
    transform = optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.chain(optax.scale_by_adam(b2=config.b2), *decays, optax.scale_by_learning_rate(schedule)),
    )
    factors = rate_factors(config, params)
    if any(np.any(factor != 1.0) for factor in jax.tree.leaves(factors)):
        # Last, so that the decay is scaled by the factor too. Frozen parameters are MaskedNodes, not arrays.
        transform = optax.chain(
            transform,
            optax.stateless(
                lambda updates, _: jax.tree.map(
                    lambda factor, u: u if isinstance(u, optax.MaskedNode) else u * jnp.asarray(factor, u.dtype),
                    factors,
                    updates,
                )
            ),
        )
    frozen = is_frozen(config, params)
    if any(jax.tree.leaves(frozen)):  # frozen parameters have no state and do not count in the clipped norm
        labels = jax.tree.map(lambda still: "frozen" if still else "trained", frozen)
        transform = optax.partition({"trained": transform, "frozen": optax.set_to_zero()}, labels)
    return transform, schedule


def make_schedule(config, num_steps: int, steps_per_epoch: float):
    """Builds the learning rate schedule: a linear warm-up, then `config.schedule`.

    Args:
      config: the train block: learning_rate, warmup_epochs, final_learning_rate, schedule, schedule_kwargs.
      num_steps: steps of the whole run.
      steps_per_epoch: for the warm-up.

    Returns:
      Function step -> learning rate.

    Raises:
      InputError: an unknown schedule or schedule argument.

    Source: cosine: Loshchilov & Hutter, arXiv 1608.03983; warm-up, stable, decay: Hu et al., arXiv 2404.06395.
    """
    name, given = config.schedule, dict(config.schedule_kwargs)
    pairs.check(name, {}, SCHEDULES, "config.train.schedule", "schedule")
    pairs.check_arguments(name, given, SCHEDULES[name], "config.train.schedule_kwargs", "schedule")
    options = {**SCHEDULES[name], **given}
    peak, end = config.learning_rate, config.final_learning_rate
    warmup = max(1, min(round(config.warmup_epochs * steps_per_epoch), num_steps - 1))
    num_steps = max(num_steps, warmup + 1)
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, num_steps, end)
    rise = optax.linear_schedule(0.0, peak, warmup)
    if name == "constant":
        return optax.join_schedules([rise, optax.constant_schedule(peak)], [warmup])
    if name == "step":
        steps = {max(1, round(share * num_steps) - warmup): options["factor"] for share in options["boundaries"]}
        return optax.join_schedules([rise, optax.piecewise_constant_schedule(peak, steps)], [warmup])
    fall = max(1, min(round(options["decay_share"] * num_steps), num_steps - warmup))
    parts = [rise, optax.constant_schedule(peak), optax.linear_schedule(peak, end, fall)]
    return optax.join_schedules(parts, [warmup, num_steps - fall])


def rate_factors(config, params):
    """Returns the learning rate factor of each parameter: the factor of its layer times that of the first rule.

    Layers are numbered from the stem (0) through the blocks (1, 2, ... across all stages; parameters between two stages
    belong to the block after them) to everything else (the last); layer n before the last has factor layer_decay ** n.

    Args:
      config: the train block: layer_decay, learning_rate_rules ((regex, factor) pairs; without a match 1).
      params: parameters, for their paths and shapes.

    Returns:
      A tree of floats, or of arrays [layers, 1, ...] for stacked (scanned) layers.

    Source: Clark et al., ELECTRA, arXiv 2003.10555; Bao et al., BEiT, arXiv 2106.08254.
    """
    rules = by_rule(params, (*_checked(config, "learning_rate_rules", params), (".*", 1.0)))
    names, shapes = paths(params), jax.tree.map(np.shape, params)
    if config.layer_decay == 1.0:
        return rules
    counts = {}  # stage (None without stages) -> number of blocks
    for name, leaf in zip(jax.tree.leaves(names), jax.tree.leaves(params), strict=True):
        if found := _BLOCK.match(name):
            number = leaf.shape[0] if found["index"] is None else int(found["index"]) + 1
            counts[found["stage"]] = max(counts.get(found["stage"], 0), number)
    stages = sorted(counts, key=lambda stage: int(stage or 0))
    before = dict(zip(stages, itertools.accumulate((counts[stage] for stage in stages), initial=0), strict=False))
    last = sum(counts.values()) + 1

    def factor(name, rule, shape):
        if _STEM.match(name):
            layer = 0
        elif found := _BLOCK.match(name):
            first = before[found["stage"]] + 1
            layer = first + int(found["index"]) if found["index"] is not None else first + np.arange(shape[0])
        elif found := _BETWEEN.match(name):
            layer = before[found["stage"]] + 1
        else:
            layer = last
        value = rule * config.layer_decay ** (last - layer)
        return value.reshape(-1, *(1,) * (len(shape) - 1)) if isinstance(layer, np.ndarray) else value

    return jax.tree.map(factor, names, rules, shapes)


def is_frozen(config, params):
    """Returns a tree of bools: which parameters are frozen by the regexes of `config.frozen`."""
    rules = _checked(config, "frozen", params)
    return by_rule(params, (*rules, (".*", False)))


def is_averaged(config, params):
    """Returns a tree of bools: which parameters `ema_update` averages, or None for all.

    Averaged are those that match the regex `config.ema_paths` and are not frozen.
    """
    averaged = jax.tree.map(
        lambda path, frozen: not frozen and bool(re.search(config.ema_paths, path)),
        paths(params),
        is_frozen(config, params),
    )
    return None if all(jax.tree.leaves(averaged)) else averaged


def accumulated(gradient_fn, steps: int):
    """Accumulates gradients over parts of a batch, for batches that do not fit into memory.

    The result equals that of the whole batch, wherever its padding is: each part receives the whole batch's columns
    with one number per row ("_mask", "category", ...) as "_whole", so that a mean loss can divide by the rows of the
    whole batch; the parts are summed. Not for losses that compare rows with each other.

    Args:
      gradient_fn: (params, batch, index of the part) -> ((loss, {name: scalar}), gradients).
      steps: number of parts; 1 returns the function unchanged.

    Returns:
      Function (params, batch) -> ((loss, {name: scalar}), gradients).
    """
    if steps == 1:
        return lambda params, batch: gradient_fn(params, batch, 0)

    def whole(params, batch):
        for name, column in batch.items():
            if len(column) % steps:
                raise InputError(
                    f"column {name!r}: {len(column)} rows cannot be divided into "
                    f"config.train.accumulate_steps={steps} parts; set it to a divisor of the batch size"
                )
        # A part takes every steps-th row, so it is spread over all devices like the batch.
        parts = {
            name: optax.microbatching.reshape_batch_axis(column, len(column) // steps) for name, column in batch.items()
        }
        numbers = {name: column for name, column in batch.items() if column.ndim == 1}

        def one(params, part):  # [1, rows, ...]: microbatch keeps the axis that it splits
            index, part = jax.tree.map(lambda x: x[0], part)
            return gradient_fn(params, {**part, "_whole": numbers}, index)

        return optax.microbatch(one, 1, 1)(params, (jnp.arange(steps), parts))

    return whole


def _checked(config, name, params):
    """Returns a setting's rules as (regex, value) pairs; `frozen` is a list of regexes."""
    rules = [(rule, True) if isinstance(rule, str) else tuple(rule) for rule in config[name]]
    return checked_rules(name, rules, params)


def checked_rules(name: str, rules, params):
    """Returns (regex, value) pairs unchanged; raises InputError if a regex is invalid or matches no parameter.

    Args:
      name: name of the setting in config.train.
      rules: (regex, value) pairs.
      params: parameters, for their paths.
    """
    known = jax.tree.leaves(paths(params))
    for pattern, _ in rules:
        try:
            if any(re.search(pattern, path) for path in known):
                continue
            reason = "matches no parameter, such as " + ", ".join(known[:: max(1, len(known) // 3)][:3])
        except re.error as error:
            reason = f"is not a regular expression ({error})"
        raise InputError(f"config.train.{name}: {pattern!r} {reason}")
    return rules


def ema_update(ema, params, step: jax.Array, decay: float, averaged=None):
    """Updates the moving average; early steps average over few, so that the random initialisation is forgotten.

    Args:
      ema: the average so far.
      params: parameters after this step.
      step: number of steps done before this one.
      decay: weight of the old average late in training.
      averaged: tree of bools; False copies the parameter instead. None averages all.

    Returns:
      The new average, a tree like `ema`.
    """
    step = jnp.asarray(step, jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    moved = optax.incremental_update(params, ema, rate)
    if averaged is None:
        return moved
    return jax.tree.map(lambda yes, average, value: average if yes else value, averaged, moved, params)
