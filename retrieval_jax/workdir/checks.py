"""One table of what every setting may be, for every way in: command line, config file, `run`, verbs called from Python.

    ROWS       dotted setting -> what it may be; every default setting has a row
    RELATIONS  functions of the whole config: settings that do not fit each other

What depends on data, or on a name that is looked up (a transform, a step, an index), is checked by the verb that reads
it. This module reads nothing and imports neither the catalogue nor JAX.

Longer than 400 lines: a table, a row a setting, and what reads it.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from retrieval_jax.errors import InputError, short
from retrieval_jax.workdir.settings import plain

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MOST_ROWS = 2**31 - 1  # of anything that is counted in int32
_MOST_SIDE = 16384  # of a picture, pixels
_MOST_SHOWN = 10  # problems in one message


class Kind(NamedTuple):
    """What a setting may be: a test of its plain value (`settings.plain`: tuples are lists), and the words for it."""

    test: Callable[[Any], bool]
    words: str


def whole(least: int, most: int = _MOST_ROWS) -> Kind:
    """Returns the kind of whole numbers from `least` to `most`."""
    words = f"a whole number of {least} or more, at most {most:,}"
    return Kind(lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most, words)


def number(least: float = -math.inf, most: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """Returns the kind of finite numbers from `least` to `most`; above, below: without the ends."""
    low = f"more than {least:g}" if above else f"{least:g} or more"
    high = f"less than {most:g}" if below else f"at most {most:g}"
    words = "a finite number" + (f", {low}" if least > -math.inf else "") + (f", {high}" if most < math.inf else "")

    def test(value: Any) -> bool:
        return (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and (isinstance(value, int) or math.isfinite(value))
            and abs(value) < 1e300  # also for integers that no float holds
            and (value > least if above else value >= least)
            and (value < most if below else value <= most)
        )

    return Kind(test, words)


def choice(*names: str) -> Kind:
    """Returns the kind of a few words."""
    return Kind(lambda value: isinstance(value, str) and value in names, " or ".join(map(repr, names)))


def optional(kind: Kind, words: str = "None") -> Kind:
    """Returns a kind that may be None as well."""
    return Kind(lambda value: value is None or kind.test(value), f"{kind.words}, or {words}")


def each(kind: Kind, words: str, least: int = 0) -> Kind:
    """Returns the kind of tuples whose entries are all of a kind."""
    return Kind(lambda value: isinstance(value, list) and len(value) >= least and all(map(kind.test, value)), words)


def _is_text(value: Any) -> bool:
    """Whether it is text without control characters and line breaks; blanks and joiners of other scripts are fine."""
    return isinstance(value, str) and _encodes(value) and not _BREAKS.search(value)


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_regex(value: Any) -> bool:
    try:
        return isinstance(value, str) and _encodes(value) and bool(re.compile(value))
    except (re.error, OverflowError, RecursionError):
        return False


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(whole(1, _MOST_SIDE).test(side) for side in value)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict)


def _is_rule(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_regex(value[0]) and number(0).test(value[1])


def _is_sharding(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_regex(value[0]) and isinstance(value[1], list)


def _is_view(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"transforms", "image_size"}
        and (value.get("image_size", []) == [] or _is_size(value["image_size"]))
        and (value.get("transforms") is None or PAIRS.test(value["transforms"]))
    )


FLAG = Kind(lambda value: isinstance(value, bool), "True or False")
TEXT = Kind(_is_text, "text in one line")
NAME = Kind(lambda value: _is_text(value) and bool(value), "a name")
REGEX = Kind(_is_regex, "a regular expression")
BLOCK = Kind(lambda value: isinstance(value, dict), "a block of settings, such as dict(name=value)")
SHARE = number(0, 1)
ZERO_OR_MORE = number(0)
SIZE = Kind(_is_size, "height and width, such as (64, 64)")
SIZE_OR_NONE = Kind(lambda value: value == [] or _is_size(value), "height and width, such as (64, 64), or ()")
PAIRS = each(Kind(_is_pair, ""), "(name, arguments) pairs, such as (('flip', {}),)")
NAMES = each(NAME, "names, such as ('trained',)")
_RULES = each(Kind(_is_rule, ""), "(regex, number of 0 or more) pairs, such as (('^backbone/', 0.1),)")

ROWS: dict[str, Kind] = {
    "name": TEXT,
    "data.source": NAME,
    "data.kwargs": BLOCK,
    "data.image_size": SIZE,
    "data.cache_bytes": whole(0, 2**50),
    "data.leave_out": TEXT,
    "mine.threshold": optional(whole(0), "None to follow the number of titles"),
    "mine.rule": whole(1, 2),
    "mine.normalise": FLAG,
    "mine.segment": FLAG,
    "mine.variants.on": FLAG,
    "mine.variants.most_divergence": ZERO_OR_MORE,
    "mine.variants.least_likeness": SHARE,
    "mine.phrases.on": FLAG,
    "mine.phrases.least_score": SHARE,
    "mine.uninformative.on": FLAG,
    "mine.uninformative.pictures": whole(0),
    "mine.uninformative.most_auc": SHARE,
    "mine.uninformative.most_information": SHARE,
    "mine.rare.on": FLAG,
    "mine.rare.share": SHARE,
    "mine.rare.most_p": SHARE,
    "mine.categories.on": FLAG,
    "mine.categories.least_titles": whole(0),
    "mine.categories.least_share": SHARE,
    "mine.kinds": FLAG,
    "mine.overrules": TEXT,
    "mine.statistics": TEXT,
    "mine.clusters.max_difference": number(0, 2),
    "mine.clusters.title_share": SHARE,
    "mine.clusters.max_size": whole(2),
    "mine.clusters.noise": choice("none", "own"),
    "train.seed": whole(0, 2**63 - 1),
    "train.task": NAME,
    "train.task_kwargs": BLOCK,
    # Options of tasks (settings/tasks.py); a task has those of its own.
    "train.task_kwargs.loss": NAME,
    "train.task_kwargs.loss_kwargs": BLOCK,
    "train.task_kwargs.title_weight": ZERO_OR_MORE,
    "train.task_kwargs.label_block": whole(0),
    "train.task_kwargs.positive_weight_power": number(0, 10),
    "train.task_kwargs.positive_weight_limit": number(0, above=True),
    "train.task_kwargs.poly_epsilon": number(),
    "train.task_kwargs.category_weight": ZERO_OR_MORE,
    "train.task_kwargs.category_loss": NAME,
    "train.task_kwargs.category_kwargs": BLOCK,
    "train.task_kwargs.category_labels": NAME,
    "train.task_kwargs.head": NAME,
    "train.task_kwargs.head_init_scale": ZERO_OR_MORE,
    "train.task_kwargs.temperature": number(0, above=True),
    "train.task_kwargs.class_balanced_beta": number(0, 1, below=True),
    "train.task_kwargs.label_smoothing": number(0, 1, below=True),
    "train.task_kwargs.distill_share": SHARE,
    "train.task_kwargs.unlabelled_weight": ZERO_OR_MORE,
    "train.task_kwargs.contrastive_loss": NAME,
    "train.task_kwargs.contrastive_weight": ZERO_OR_MORE,
    "train.task_kwargs.code_weight": ZERO_OR_MORE,
    "train.task_kwargs.hidden_dims": whole(1, 2**16),
    "train.task_kwargs.fields": NAMES,
    "train.task_kwargs.optional_fields": NAMES,
    "train.task_kwargs.min_count": whole(1),
    "train.task_kwargs.length": whole(0, 2**16),
    "train.task_kwargs.heads": NAME,
    "train.task_kwargs.cell_dims": whole(1, 2**16),
    "train.task_kwargs.teacher_forcing": SHARE,
    "train.task_kwargs.field_weights": each(ZERO_OR_MORE, "numbers of 0 or more, such as (1.0, 0.5)"),
    "train.task_kwargs.beam": whole(1, 1024),
    "train.task_kwargs.decision": NAME,
    "train.task_kwargs.length_penalty": number(0, 2),
    "train.task_kwargs.types": NAME,
    "train.task_kwargs.group": TEXT,
    "train.task_kwargs.dims": whole(1, 2**16),
    "train.task_kwargs.smallest_crop": number(0, 1, above=True),
    "train.task_kwargs.box_weight": ZERO_OR_MORE,
    "train.task_kwargs.type_weight": ZERO_OR_MORE,
    "train.task_kwargs.boxes": whole(1, 10_000),
    "train.task_kwargs.located": FLAG,
    "train.task_kwargs.cut": NAME,
    "train.task_kwargs.slopes": each(number(0, above=True), "two slopes, first and last, such as (8.0, 40.0)", 2),
    "train.task_kwargs.slope_steps": whole(1),
    "train.task_kwargs.area": ZERO_OR_MORE,
    "train.task_kwargs.smallest": number(0, 0.9, above=True),
    "train.task_kwargs.softmax_weight": ZERO_OR_MORE,
    "train.task_kwargs.triplet_weight": ZERO_OR_MORE,
    "train.task_kwargs.near": number(0, 1),
    "train.task_kwargs.titles_first": whole(0),
    "train.task_kwargs.agree": FLAG,
    "train.task_kwargs.unclicked": whole(1, 64),
    "train.task_kwargs.margin": number(0, 2),
    "train.task_kwargs.negatives": NAME,
    "train.task_kwargs.encoders": whole(1, 2),
    "train.task_kwargs.positives": whole(1),
    "train.task_kwargs.candidates": whole(1, 64),
    "train.task_kwargs.broad_share": SHARE,
    "train.task_kwargs.groups": TEXT,
    "train.task_kwargs.same_product": TEXT,
    "train.task_kwargs.bank": whole(0),
    "train.task_kwargs.pool": whole(1),
    "train.task_kwargs.typos": SHARE,
    "train.task_kwargs.fillers": SHARE,
    "train.task_kwargs.turned": SHARE,
    "train.task_kwargs.title_queries": whole(0, 1000),
    "train.task_kwargs.queries": FLAG,
    "train.task_kwargs.share": number(0, 1, above=True),
    "train.task_kwargs.whole_words": FLAG,
    "train.task_kwargs.weights": TEXT,
    "train.task_kwargs.tokenizer": TEXT,
    "train.task_kwargs.vocabulary": whole(300, 10**6),
    "train.task_kwargs.text_columns": NAMES,
    "train.task_kwargs.query_column": NAME,
    "train.task_kwargs.query_length": whole(3, 2**16),
    "train.task_kwargs.pictures": TEXT,
    "train.task_kwargs.regression_weight": ZERO_OR_MORE,
    "train.task_kwargs.regression": NAME,
    "train.task_kwargs.contrast_weight": ZERO_OR_MORE,
    "train.task_kwargs.contrast_temperature": number(0, above=True),
    "train.task_kwargs.rank_weight": ZERO_OR_MORE,
    "train.task_kwargs.rank_temperature": number(0, above=True),
    "train.task_kwargs.relation_weight": ZERO_OR_MORE,
    "train.task_kwargs.classifier_weight": ZERO_OR_MORE,
    "train.task_kwargs.logits_weight": ZERO_OR_MORE,
    "train.task_kwargs.own_length": FLAG,
    "train.task_kwargs.map_residual": FLAG,
    "train.task_kwargs.map_hidden": whole(0, 2**16),
    "train.task_kwargs.words": NAMES,
    "train.task_kwargs.words_kwargs": BLOCK,
    "train.task_kwargs.words_dim": whole(1, 2**16),
    "train.task_kwargs.joint": NAME,
    "train.task_kwargs.joint_kwargs": BLOCK,
    "train.task_kwargs.targets": whole(1),
    "train.task_kwargs.siblings": whole(0, 64),
    "train.task_kwargs.neighbours": whole(0, 64),
    "train.task_kwargs.titles": whole(0, 100),
    "train.task_kwargs.drop_picture": SHARE,
    "train.task_kwargs.drop_words": SHARE,
    "train.task_kwargs.still": whole(0),
    "train.task_kwargs.weight": number(0, 2),
    "train.task_kwargs.attributes": NAMES,
    "train.task_kwargs.attribute_texts": whole(0, 100),
    "train.task_kwargs.clicks": FLAG,
    "train.task_kwargs.labels": number(0, 1, above=True),
    "train.task_kwargs.pseudo_weight": ZERO_OR_MORE,
    "train.task_kwargs.max_items": whole(2),
    "train.task_kwargs.pseudo_ramp": whole(0),
    "train.task_kwargs.consistency_weight": ZERO_OR_MORE,
    "train.task_kwargs.set_weight": ZERO_OR_MORE,
    "train.task_kwargs.set_kwargs": BLOCK,
    "train.model.name": NAME,
    "train.model.variant": TEXT,  # empty for networks of text, which have none
    "train.model.projection": whole(0, 2**16),
    "train.model.kwargs": BLOCK,
    "train.model.pretrained.name": TEXT,
    "train.model.pretrained.path": TEXT,
    "train.model.pretrained.offline": FLAG,
    "train.model.pretrained.kwargs": BLOCK,
    "train.init_from": TEXT,
    "train.frozen": each(REGEX, "regular expressions, such as ('^backbone/',)"),
    "train.dtype": choice("float32", "bfloat16", "float16"),
    "train.batch_size": optional(whole(1, 2**20), "None to follow the number of listings"),
    "train.mesh.data": whole(0, 2**16),
    "train.mesh.fsdp": whole(1, 2**16),
    "train.sharding_rules": each(Kind(_is_sharding, ""), "(regex, spec) pairs, such as (('^heads_', (None, 'fsdp')),)"),
    "train.accumulate_steps": whole(1),
    "train.epochs": optional(number(0, 1e6, above=True), "None to follow the number of listings"),
    "train.learning_rate": ZERO_OR_MORE,
    "train.final_learning_rate": ZERO_OR_MORE,
    "train.warmup_epochs": optional(ZERO_OR_MORE, "None for a twentieth of the training"),
    "train.schedule": NAME,
    "train.schedule_kwargs": BLOCK,
    "train.schedule_kwargs.decay_share": SHARE,
    "train.schedule_kwargs.boundaries": each(SHARE, "shares of the training, such as (0.5, 0.75)"),
    "train.schedule_kwargs.factor": ZERO_OR_MORE,
    "train.layer_decay": number(0, 1, above=True),
    "train.learning_rate_rules": _RULES,
    "train.weight_decay": ZERO_OR_MORE,
    "train.decay_rules": _RULES,
    "train.b2": number(0, 1, below=True),
    "train.clip_norm": ZERO_OR_MORE,
    "train.ema_decay": SHARE,
    "train.ema_paths": REGEX,
    "train.transforms": PAIRS,
    "train.batch_transforms": PAIRS,
    "train.views": each(Kind(_is_view, ""), "views such as ({'transforms': (('flip', {}),), 'image_size': (64, 64)},)"),
    "train.unlabelled.split": TEXT,
    "train.unlabelled.batch_size": whole(0, 2**20),
    "train.unlabelled.transforms": PAIRS,
    "train.sampling": NAME,
    "train.sampling_kwargs": BLOCK,
    "train.num_threads": whole(1, 1024),
    "train.num_workers": whole(0, 1024),
    "train.crop_before_decoding": FLAG,
    "train.non_finite": choice("stop", "skip"),
    "train.hang_seconds": number(0, 1e8),
    "train.log_every_steps": whole(1),
    "train.trackers": PAIRS,
    "train.checkpoint_every_steps": whole(1),
    "train.keep_checkpoints": whole(1),
    "train.evaluations": PAIRS,
    "train.eval_every_epochs": ZERO_OR_MORE,
    "embed.models": each(NAME, "names of models, such as ('untrained', 'trained')", 1),
    "embed.pretrained.name": TEXT,
    "embed.pretrained.path": TEXT,
    "embed.pretrained.offline": FLAG,
    "embed.pretrained.dtype": choice("float32", "bfloat16", "float16"),
    "embed.pretrained.kwargs": BLOCK,
    "embed.appearance.stage": whole(0, 1000),
    "embed.appearance.bands": SIZE,
    "embed.predict_fn": NAME,
    "embed.model_kwargs": BLOCK,
    "embed.batch_size": whole(1, 2**20),
    "embed.transforms": PAIRS,
    "embed.views": PAIRS,
    "embed.image_size": SIZE_OR_NONE,
    "embed.dtype": choice("float32", "float16"),
    "embed.shard_rows": whole(1),
    "embed.regions.run": TEXT,
    "embed.regions.splits": each(choice("query", "gallery"), "names of splits, such as ('query',)", 1),
    "embed.regions.margin": number(0, 1),
    "embed.regions.guided": FLAG,
    "search.query_from.run": TEXT,
    "search.query_from.step": whole(0),
    "search.query_from.which": choice("ema", "params"),
    "search.query_from.predict_fn": TEXT,
    "search.gallery_from.run": TEXT,
    "search.gallery_from.step": whole(0),
    "search.gallery_from.which": choice("ema", "params"),
    "search.gallery_from.predict_fn": TEXT,
    "search.gallery_from.adapter": TEXT,
    "search.k": whole(1),
    "search.lexical.query": NAME,
    "search.lexical.columns": NAMES,
    "search.lexical.k1": ZERO_OR_MORE,
    "search.lexical.b": SHARE,
    "search.lexical.typos": FLAG,
    "search.index": NAME,
    "search.index_kwargs": BLOCK,
    "search.steps": PAIRS,
    "search.categories.mass": SHARE,
    "search.categories.k": whole(1),
    "search.categories.listings": whole(2),
    "search.categories.vote": NAME,
    "search.stages": NAMES,
    "search.members": each(NAME, "configs, such as ('fashion_vit', 'quickstart:loss=softmax')"),
    "search.join": each(NAME, "names of models, such as ('trained', 'colour_and_edges')"),
    "evaluate.ks": each(whole(1), "whole numbers of 1 or more, such as (1, 10)"),
    "evaluate.metrics": each(NAME, "names of scores, such as ('mrr', 'ndcg@10')"),
    "evaluate.gain": choice("exponential", "linear"),
    "evaluate.unrated": choice("zero", "condensed"),
    "evaluate.slices": NAMES,
    "evaluate.edits.kept": NAMES,
    "evaluate.edits.similarity": TEXT,
    "evaluate.submission_stage": TEXT,
    "evaluate.selection_share": SHARE,
    "evaluate.draws": whole(0, 10**6),
    "evaluate.near_duplicates.max_difference": number(most=2),
    "evaluate.near_duplicates.train_listings": whole(0),
    "leaks.max_difference": number(0, 2),
    "leaks.mirrored": FLAG,
    "leaks.altered": FLAG,
    "leaks.leave_out_of": NAMES,
    "report.rows": whole(0, 1000),
    "report.stage": TEXT,
    "report.seed": whole(0, 2**63 - 1),
}


def check(config, where: str = "") -> None:
    """Checks every setting that can be checked without reading anything.

    Args:
      config: the whole config, or a part of one: a ConfigDict or nested dicts.
      where: begins the message: the config file, or the option that gave a setting.

    Raises:
      InputError: settings that cannot be, up to ten of them in one message; each with its value and what to give.
    """
    try:
        settings = plain(config)
    except RecursionError:
        raise InputError(_message(["the settings contain themselves"], where)) from None
    problems = [*_arrays(config, "config"), *_problems(settings)]
    if not problems:
        problems = [sentence for relation in RELATIONS if (sentence := relation(settings))]
    if problems:
        raise InputError(_message(problems, where))


def _message(problems: list[str], where: str) -> str:
    begin = f"{where}: " if where else ""
    if len(problems) == 1:
        return begin + problems[0]
    more = [f"and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
    lines = problems[:_MOST_SHOWN] + more
    return f"{begin}{len(problems)} settings cannot be:\n" + "\n".join(f"  {line}" for line in lines)


def _problems(settings: dict) -> Iterator[str]:
    wrong = set()  # blocks that are something else
    for name, kind in ROWS.items():
        parts, value = name.split("."), settings
        for depth, part in enumerate(parts):
            if part not in value:
                break
            at, value = ".".join(parts[: depth + 1]), value[part]
            if depth + 1 < len(parts) and not isinstance(value, dict):
                if at not in wrong and (value is not None or depth) and at not in ROWS:
                    yield f"config.{at} is {_shown(value)}: give {BLOCK.words}"
                wrong.add(at)
                break
        else:
            if not kind.test(value):
                yield f"config.{name} is {_shown(value)}: give {_words(kind, value)}"
    yield from _not_finite(settings, "config")


def _words(kind: Kind, value: Any) -> str:
    sides = value if isinstance(value, list) else [value]
    if kind in (SIZE, SIZE_OR_NONE) and len(sides) == 1 and whole(1, _MOST_SIDE).test(sides[0]):
        return kind.words.replace("(64, 64)", f"({sides[0]}, {sides[0]})")
    if isinstance(value, str) and "'" in kind.words and kind.words.startswith("'"):
        near = difflib.get_close_matches(value, re.findall(r"'(\w+)'", kind.words), n=1)
        return kind.words + (f" (did you mean {near[0]!r}?)" if near else "")
    return kind.words


def _arrays(value: Any, name: str) -> Iterator[str]:
    """Yields a sentence for each NumPy array, which compares and hashes unlike the tuple or number that is meant."""
    if hasattr(value, "items"):
        for key, item in value.items():
            yield from _arrays(item, f"{name}.{key}")
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from _arrays(item, f"{name}[{i}]")
    elif type(value).__name__ == "ndarray":  # by name: `--help` does without importing NumPy
        yield f"{name} is a NumPy array, {_shown(value.tolist())}: give a number, text, or a tuple of these"


def _not_finite(value: Any, name: str) -> Iterator[str]:
    """Yields a sentence for each NaN, infinity, and text that no file can hold, that has no row of its own."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not _encodes(key):
                yield f"{name} has the key {key!r}: give text that UTF-8 can hold"
            elif f"{name}.{key}".removeprefix("config.") not in ROWS or isinstance(item, (dict, list)):
                yield from _not_finite(item, f"{name}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _not_finite(item, f"{name}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} is {value}: give a finite number"
    elif isinstance(value, str) and not (_encodes(value) and "\0" not in value):
        yield f"{name} is {_shown(value)}: give text that UTF-8 can hold, without NUL"


def _shown(value: Any) -> str:
    return short(ascii(_tuples(value)) if not _printable(value) else repr(_tuples(value)))


def _printable(value: Any) -> bool:
    return repr(value).isprintable()


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


# ------------------------------------------------------------------------------- settings that do not fit each other


def _get(settings: Mapping, name: str) -> Any:
    for part in name.split("."):
        settings = settings.get(part) if isinstance(settings, Mapping) else None
    return settings


def _warmup(settings: dict) -> str:
    epochs, warmup = _get(settings, "train.epochs"), _get(settings, "train.warmup_epochs")
    if epochs is None or warmup is None or warmup <= epochs:
        return ""
    return f"config.train.warmup_epochs is {warmup:g}, longer than the training of {epochs:g} epochs: lower it"


def _schedule(settings: dict) -> str:
    epochs, warmup = _get(settings, "train.epochs"), _get(settings, "train.warmup_epochs")
    if epochs is None or warmup is None:
        return ""
    name, given = _get(settings, "train.schedule"), _get(settings, "train.schedule_kwargs") or {}
    share, decay = warmup / epochs, given.get("decay_share", 0.2)
    if name == "wsd" and share + decay > 1:
        return (
            f"config.train.schedule_kwargs.decay_share is {decay:g}, and the warm-up takes {share:.2g} of epochs: "
            "together more than the whole; lower one of them"
        )
    boundaries = given.get("boundaries", [])
    if name == "step" and (sorted(boundaries) != boundaries or any(one < share for one in boundaries)):
        return (
            f"config.train.schedule_kwargs.boundaries is {tuple(boundaries)}: give shares of the training in rising "
            f"order, after the warm-up, which ends at {share:.2g}"
        )
    return ""


def _accumulated(settings: dict) -> str:
    size, parts = _get(settings, "train.batch_size"), _get(settings, "train.accumulate_steps")
    if size is None or parts is None or size % parts == 0:
        return ""
    return f"config.train.accumulate_steps is {parts}: give a divisor of config.train.batch_size, {size}"


def _unlabelled(settings: dict) -> str:
    block = _get(settings, "train.unlabelled") or {}
    if not block.get("split") or block.get("batch_size"):
        return ""
    return (
        f"config.train.unlabelled.split is {block['split']!r}, and batch_size is 0: give the number of unlabelled "
        "pictures of a step, or split = ''"
    )


def _twice(settings: dict) -> str:
    for name in ("embed.models", "search.members", "search.join"):
        found = _get(settings, name) or []
        twice = sorted({one for one in found if found.count(one) > 1})
        if twice:
            return f"config.{name} has {twice[0]!r} twice: give each once"
    return ""


RELATIONS = (_warmup, _schedule, _accumulated, _unlabelled, _twice)
