"""Settings that follow the size of a catalogue, and those to propose for a machine; each with its reason.

A setting of `FOLLOWING` that a config leaves at None follows the catalogue: `threshold` and `training` say what it then
is. They look at nothing but counts of the catalogue, so that a run gives the same numbers on every machine.

`propose` also looks at the machine. It is for a config file that is being written: the file then holds the values.
"""

import dataclasses
import math

# Settings that may be None, which leaves them to the size of the catalogue.
FOLLOWING = ("mine.threshold", "train.batch_size", "train.epochs", "train.warmup_epochs")

# The published threshold, and the titles from which it is used: words of small catalogues are rarer.
MOST_THRESHOLD, _THRESHOLD_TITLES = 30, 5625
# Steps that a small network needs from scratch: the quickstart (5,000 listings) takes 1,094, and is on its plateau for
# the first hundred.
_STEPS, _LEAST_STEPS, _LEAST_STEPS_WARM = 1100, 200, 20
_MOST_EPOCHS, _LEAST_EPOCHS = 100.0, 6.0  # more only where these would make fewer than _LEAST_STEPS
_MOST_BATCH, _LEAST_BATCH = 128, 16
_LEAST_SEEN = 5  # times that training shows a class, on average

# Floating-point operations a second of a CPU's core: what the trainings of benchmarks/fashion.json and quickstart.json
# reached, see estimate.py.
CORE_FLOPS = 70e9
# ConvNeXt's variants: operations of a step for one picture of 64 x 64 (XLA's count for the gradient), and bytes of
# activations per pixel in float32 (XLA's memory analysis, 64 x 64).
_NETWORKS = {"micro": (0.18e9, 500), "mini": (0.46e9, 1000), "tiny": (3.1e9, 3800)}
_SIDES = (224, 192, 160, 128, 96, 64)  # of pictures, pixels, largest first
_CPU_SIDE = 128  # at most on a CPU: the small networks that train there see too little of a larger picture at a time
_MINUTES = 15.0  # of training to aim at


@dataclasses.dataclass(frozen=True)
class Proposal:
    """Settings for a catalogue on a machine.

    Attributes:
      settings: {dotted setting: (value, reason)}; the reason is a sentence without a full stop, for a comment.
      seconds: that training should take, roughly: without reading pictures, compiling and evaluation.
    """

    settings: dict[str, tuple[object, str]]
    seconds: float


def threshold(num_titles: int) -> tuple[int, str]:
    """Returns `mine.threshold` for a number of titles, and the reason.

    The published 30 from 5,625 titles on, below that in proportion to the square root of their number, and at least 2.

    Args:
      num_titles: titles of train and val.
    """
    value = max(2, min(MOST_THRESHOLD, round(MOST_THRESHOLD * math.sqrt(num_titles / _THRESHOLD_TITLES))))
    if value == MOST_THRESHOLD:
        return value, f"{num_titles:,} titles are enough for the published value"
    return value, f"with {num_titles:,} titles, the published {MOST_THRESHOLD} would keep few words or none"


def training(
    num_examples: int, batch_size: int | None = None, epochs: float | None = None, warmup_epochs: float | None = None
) -> dict[str, tuple[float, str]]:
    """Returns `batch_size`, `epochs` and `warmup_epochs` of a training, each with the reason.

    Small catalogues get small batches and many epochs, because a network needs about as many steps however few the
    listings are. A value that is given is kept, and the others follow it.

    Args:
      num_examples: examples of an epoch, usually the listings of the train split.
      batch_size, epochs, warmup_epochs: values of the config; None for those to find.

    Returns:
      {name: (value, reason)}; the reason of a given value is "".
    """
    reasons = dict.fromkeys(("batch_size", "epochs", "warmup_epochs"), "")
    if batch_size is None:
        wanted = 2 ** round(math.log2(max(1.0, num_examples / 64)))
        batch_size = max(_LEAST_BATCH, min(_MOST_BATCH, wanted))
        batch_size = min(batch_size, 2 ** int(math.log2(max(1, num_examples))))
        reasons["batch_size"] = (
            f"{num_examples:,} listings make {-(-num_examples // batch_size):,} steps an epoch of it"
        )
    if epochs is None:
        wanted = _STEPS * batch_size / max(1, num_examples)
        most = max(_MOST_EPOCHS, math.ceil(_LEAST_STEPS * batch_size / max(1, num_examples)))
        epochs = float(max(_LEAST_EPOCHS, min(most, round(wanted))))
        steps = max(1, round(epochs * num_examples / batch_size))
        reasons["epochs"] = f"{steps:,} steps of {batch_size}; a network needs about {_STEPS:,} from scratch"
    if warmup_epochs is None:
        warmup_epochs = round(0.05 * epochs, 3)
        reasons["warmup_epochs"] = "a twentieth of the training"
    values = {"batch_size": batch_size, "epochs": epochs, "warmup_epochs": warmup_epochs}
    return {name: (values[name], reasons[name]) for name in values}


def resolved(train, num_examples: int, batch_size: int | None = None):
    """Returns a train block without None, and a sentence for each setting that follows the catalogue.

    Args:
      train: the train block, a ConfigDict; it stays as it is.
      num_examples: see `training`.
      batch_size: of the task's examples, where these have one of their own.

    Returns:
      (a copy of the block, sentences).
    """
    given = {"batch_size": batch_size or train.batch_size, "epochs": train.epochs, "warmup_epochs": train.warmup_epochs}
    found, block = training(num_examples, **given), train.copy_and_resolve_references()
    with block.unlocked():
        block.update({name: value for name, (value, _) in found.items()})
    return block, [f"config.train.{name} = {value}: {reason}" for name, (value, reason) in found.items() if reason]


def too_few(num_steps: int, batch_size: int, num_classes: int, epochs: float, *, warm: bool) -> str:
    """Returns a warning where a training has too few steps to learn anything, else "".

    Args:
      num_steps: steps of the training.
      batch_size: examples of a step.
      num_classes: labels to learn; 0 where there are none.
      epochs: of the training, to say how many it should have.
      warm: whether it starts from trained weights.
    """
    least = max(_LEAST_STEPS_WARM if warm else _LEAST_STEPS, math.ceil(_LEAST_SEEN * num_classes / batch_size))
    if num_steps >= least:
        return ""
    labels = f" for {num_classes:,} labels" if num_classes else ""
    more = math.ceil(epochs * least / max(1, num_steps))
    other = "" if warm else ", start from public weights (config.train.model.pretrained)"
    return (
        f"{num_steps:,} steps of {batch_size}{labels} are too few to learn anything, so expect scores like those of an "
        f"untrained network; for a real training set config.train.epochs to {more:,} or more (at least {least:,} "
        f"steps){other}, or bring more listings"
    )


def propose(
    num_train: int,
    num_titles: int,
    picture_side: int,
    memory_bytes: int,
    cores: int,
    *,
    flops: float = 0.0,
    num_listings: int = 0,
    minutes: float = _MINUTES,
) -> Proposal:
    """Proposes settings for a catalogue on a machine, for a network that trains from scratch.

    Args:
      num_train: listings of the train split.
      num_titles: titles of train and val together.
      picture_side: shorter side of a typical picture, pixels.
      memory_bytes: that the machine or the container has; of the device, where there is an accelerator.
      cores: of the CPU that may be used.
      flops: floating-point operations a second to expect of the accelerators (`estimate.rate`); 0 for a CPU.
      num_listings: of all splits, for the cache of pictures; by default those of the train split.
      minutes: of training to aim at. Pictures are made smaller, and then epochs fewer, to stay within.

    Returns:
      The `Proposal`: mine.threshold, data.image_size, data.cache_bytes, train.model.variant, train.batch_size,
      train.epochs, train.warmup_epochs, train.eval_every_epochs, train.checkpoint_every_steps, train.num_threads and
      embed.batch_size.
    """
    rate = flops or CORE_FLOPS * max(1, cores)
    machine = "the accelerator" if flops else f"{cores} core{'s' if cores != 1 else ''}"
    found = training(num_train)
    (batch_size, batch_reason), (epochs, epochs_reason) = found["batch_size"], found["epochs"]
    variant = "micro" if not flops else "mini" if num_train < 20000 else "tiny"
    operations, activations = _NETWORKS[variant]

    def seconds(side: int, epochs: float) -> float:
        return num_train * epochs * operations * (side / 64) ** 2 / rate

    most = _SIDES[0] if flops else _CPU_SIDE
    possible = [side for side in _SIDES if side <= max(64, min(picture_side, most))]
    within = [side for side in possible if seconds(side, epochs) <= 60 * minutes]
    side = within[0] if within else 64
    if side < possible[0]:
        side_reason = f"larger ones would train for more than {minutes:g} minutes on {machine}"
    elif picture_side < most:
        side_reason = f"the pictures are about {picture_side} pixels wide"
    else:
        side_reason = f"as large as suits a small network on {machine}"
    if not within:  # an epoch and less of a large catalogue still teaches
        fewest = min(epochs, _STEPS * batch_size / num_train)
        epochs = max(fewest, math.floor(10 * epochs * 60 * minutes / seconds(side, epochs)) / 10)
        epochs_reason = f"more would take over {minutes:g} minutes on {machine}"
    share = 0.4 * memory_bytes  # the rest is for the state, pictures on their way, the cache and the system
    fitting = batch_size
    while fitting > 1 and fitting * side * side * activations > share:
        fitting //= 2
    if fitting < batch_size:
        batch_size, batch_reason = fitting, f"more would not fit into {_gib(memory_bytes)} of memory"
    steps = max(1, round(epochs * num_train / batch_size))
    embed = 256
    while embed > 8 and embed * side * side * activations > share:
        embed //= 2
    pictures = 3 * max(num_listings, num_train) * max(1, picture_side) ** 2
    cache = min(2**30, memory_bytes // 16)
    cache_reason = "the decoded pictures of a split fit" if pictures <= cache else "all decoded pictures would not fit"
    evaluations = 4 if steps < 4 * _STEPS else 10
    checkpoint = max(50, min(1000, round(steps / 10, -1)))
    settings = {
        "mine.threshold": threshold(num_titles),
        "data.image_size": ((side, side), side_reason),
        "data.cache_bytes": (int(cache), cache_reason),
        "train.model.variant": (variant, f"a small network: {num_train:,} listings, {machine}"),
        "train.batch_size": (batch_size, batch_reason),
        "train.epochs": (round(float(epochs), 2), epochs_reason),
        "train.warmup_epochs": (round(0.05 * epochs, 3), found["warmup_epochs"][1]),
        "train.eval_every_epochs": (max(0.01, round(epochs / evaluations, 2)), f"{evaluations} times during training"),
        "train.checkpoint_every_steps": (int(checkpoint), f"of {steps:,}: what a killed run loses at most"),
        "train.num_threads": (max(1, min(cores, 6)), "decode pictures; beyond about six they wait for Python"),
        "embed.batch_size": (embed, f"fits into {_gib(memory_bytes)} of memory"),
    }
    return Proposal(settings, seconds(side, epochs))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
