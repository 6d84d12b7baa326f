"""The optimiser: AdamW, schedules with warm-up, rules by path for rate, decay and freezing, and a moving average."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retrieval_jax.errors import InputError

# (regex over the parameter's path, share of the weight decay); the first that matches counts. No decay on what has one
# dimension a channel (biases, norms, scales), on tokens and tables of positions, and on classifiers: a head is thrown
# away after training.
DECAY_RULES = (
    (r"(^|/)heads?_", 0.0),
    (r"(^|/)(\w*bias|\w*scale|p|positions|query|class_token|registers|mask_token)$", 0.0),
    (r".*", 1.0),
)

# Where a backbone's parameter stands, by the names that all backbones keep to (blocks are counted, stacked or not).
_STEM = re.compile(r"backbone/(stem|positions|class_token|registers|mask_token)")
_BLOCK = re.compile(r"backbone/(?:stage(?P<stage>\d+)_)?block(?:s|(?P<index>\d+))/")
_BETWEEN = re.compile(r"backbone/stage(?P<stage>\d+)_")

# Keyword arguments of the schedules, with their defaults.
SCHEDULES = {
    "cosine": {},
    "wsd": {"decay_share": 0.2},  # warm-up, stable, decay: a straight line to the end over this share of the steps
    "step": {"boundaries": (0.5, 0.75), "factor": 0.1},  # shares of the steps after which the rate is multiplied
    "constant": {},
}


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
      config: the train block: learning_rate, warmup_epochs, final_learning_rate, schedule, schedule_kwargs,
        weight_decay, decay_rules, b2, clip_norm, layer_decay, learning_rate_rules, frozen.
      params: parameters, for their paths and shapes.
      num_steps: length of the whole run.
      steps_per_epoch: for the warm-up.

    Returns:
      (optax transformation, schedule: step -> learning rate).

    Raises:
      InputError: a schedule that is not known, or a regex that is none or matches nothing.

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
        # Last, so that the decay is in proportion to the rate here too. What is frozen is no array but a mark.
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
    if any(jax.tree.leaves(frozen)):  # what is frozen has no state, and no part in the norm that is clipped
        labels = jax.tree.map(lambda still: "frozen" if still else "trained", frozen)
        transform = optax.partition({"trained": transform, "frozen": optax.set_to_zero()}, labels)
    return transform, schedule


def make_schedule(config, num_steps: int, steps_per_epoch: float):
    """Builds the learning rate over a run: a straight line up, then what `config.schedule` says.

    Args:
      config: the train block: learning_rate, warmup_epochs, final_learning_rate, schedule, schedule_kwargs.
      num_steps: length of the whole run.
      steps_per_epoch: for the warm-up.

    Returns:
      Function step -> learning rate.

    Raises:
      InputError: an unknown schedule or argument of one.

    Source: cosine: Loshchilov & Hutter, arXiv 1608.03983; warm-up, stable, decay: Hu et al., arXiv 2404.06395.
    """
    if config.schedule not in SCHEDULES:
        raise InputError(f"config.train.schedule is {config.schedule!r}; there are: {', '.join(SCHEDULES)}")
    options, given = SCHEDULES[config.schedule], dict(config.schedule_kwargs)
    unknown = sorted(given.keys() - options.keys())
    if unknown:
        raise InputError(
            f"config.train.schedule_kwargs has unknown {', '.join(unknown)}; {config.schedule} takes: "
            f"{', '.join(options) or 'nothing'}"
        )
    options = {**options, **given}
    peak, end = config.learning_rate, config.final_learning_rate
    warmup = max(1, min(round(config.warmup_epochs * steps_per_epoch), num_steps - 1))
    num_steps = max(num_steps, warmup + 1)
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, num_steps, end)
    rise = optax.linear_schedule(0.0, peak, warmup)
    if config.schedule == "constant":
        return optax.join_schedules([rise, optax.constant_schedule(peak)], [warmup])
    if config.schedule == "step":
        steps = {max(1, round(share * num_steps) - warmup): options["factor"] for share in options["boundaries"]}
        return optax.join_schedules([rise, optax.piecewise_constant_schedule(peak, steps)], [warmup])
    fall = max(1, min(round(options["decay_share"] * num_steps), num_steps - warmup))
    parts = [rise, optax.constant_schedule(peak), optax.linear_schedule(peak, end, fall)]
    return optax.join_schedules(parts, [warmup, num_steps - fall])


def rate_factors(config, params):
    """Returns what each parameter's learning rate is multiplied by: the layer's factor times the first rule's.

    Layers count from the stem (0) over the blocks (1, 2, ... through all stages; what stands between two stages goes
    with the block after it) to all the rest (the last); a layer n before the last has the factor layer_decay ** n.

    Args:
      config: the train block: layer_decay, learning_rate_rules ((regex, factor) pairs; no match is 1).
      params: parameters, for their paths and shapes.

    Returns:
      A tree of floats; where layers are stacked (scanned) an array [layers, 1, ...] of one factor each.

    Source: Clark et al., ELECTRA, arXiv 2003.10555; Bao et al., BEiT, arXiv 2106.08254.
    """
    rules = by_rule(params, (*_checked(config, "learning_rate_rules", params), (".*", 1.0)))
    names, shapes = paths(params), jax.tree.map(np.shape, params)
    if config.layer_decay == 1.0:
        return rules
    counts = {}  # stage (None where there are no stages) -> blocks
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
    """Returns a tree of bools: which parameters stay as they are, by the regexes of `config.frozen`."""
    rules = _checked(config, "frozen", params)
    return by_rule(params, (*rules, (".*", False)))


def is_averaged(config, params):
    """Returns a tree of bools: which parameters `ema_update` averages (by the regex `config.ema_paths`, less what is
    frozen), or None for all of them."""
    averaged = jax.tree.map(
        lambda path, frozen: not frozen and bool(re.search(config.ema_paths, path)),
        paths(params),
        is_frozen(config, params),
    )
    return None if all(jax.tree.leaves(averaged)) else averaged


def accumulated(gradient_fn, steps: int):
    """Makes a gradient function work on one part of the batch after another, for batches that memory cannot hold.

    The result is that of the whole batch, whatever is padding and wherever it stands: each part brings the columns of
    the whole batch that have a number a row ("_mask", "category" ...) as "_whole", so that a loss which is a mean can
    divide by the rows of the whole; the parts are added up. Not for losses that compare rows with each other.

    Args:
      gradient_fn: (params, batch, index of the part) -> ((loss, {name: scalar}), gradients).
      steps: number of parts; 1 leaves the function as it is.

    Returns:
      Function (params, batch) -> ((loss, {name: scalar}), gradients).
    """
    if steps == 1:
        return lambda params, batch: gradient_fn(params, batch, 0)

    def whole(params, batch):
        for name, column in batch.items():
            if len(column) % steps:
                raise InputError(f"{name}: {len(column)} rows cannot be cut into config.train.accumulate_steps={steps}")
        # Every steps-th row makes a part: each part lies on all devices as the batch does.
        parts = {
            name: optax.microbatching.reshape_batch_axis(column, len(column) // steps) for name, column in batch.items()
        }
        numbers = {name: column for name, column in batch.items() if column.ndim == 1}

        def one(params, part):  # [1, rows, ...]: microbatch keeps the axis along which it cuts
            index, part = jax.tree.map(lambda x: x[0], part)
            return gradient_fn(params, {**part, "_whole": numbers}, index)

        return optax.microbatch(one, 1, 1)(params, (jnp.arange(steps), parts))

    return whole


def _checked(config, name, params):
    """Returns a setting's rules as (regex, value) pairs; `frozen` has regexes alone."""
    rules = [(rule, True) if isinstance(rule, str) else tuple(rule) for rule in config[name]]
    return checked_rules(name, rules, params)


def checked_rules(name: str, rules, params):
    """Returns (regex, value) pairs as they are; raises InputError for a regex that is none or matches no parameter.

    Args:
      name: of the setting in config.train.
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
            reason = f"is no regular expression ({error})"
        raise InputError(f"config.train.{name}: {pattern!r} {reason}")
    return rules


def ema_update(ema, params, step: jax.Array, decay: float, averaged=None):
    """Moves the average towards the parameters; early steps average over few, so that the random start is forgotten.

    Args:
      ema: the average so far.
      params: parameters after this step.
      step: number of steps done before this one.
      decay: weight of the old average late in training.
      averaged: tree of bools; where false, the "average" is the parameter itself. None averages all.

    Returns:
      The new average, a tree like `ema`.
    """
    step = jnp.asarray(step, jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    moved = optax.incremental_update(params, ema, rate)
    if averaged is None:
        return moved
    return jax.tree.map(lambda yes, average, value: average if yes else value, averaged, moved, params)
