"""Whatever a setting is, a run or a sentence comes out: settings drawn at random over all of them, never a trace."""

import contextlib
import io
import math
import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from ml_collections import ConfigDict

import tiny
from retrieval_jax import embed, evaluate, mine, report, run, search, train, workdir
from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.settings import base
from retrieval_jax.workdir import checks, command_line

pytestmark = pytest.mark.usefixtures("little_compilation", "tiny_variant")
BLOCKS = ("data", "mine", "train", "embed", "search", "evaluate", "report", "leaks")
NAMES = sorted(checks.ROWS)
LATER = [name for name in NAMES if name.startswith(("search.", "evaluate.", "report."))]

_NUMBERS = [0, 1, -1, 2, 3, 7, 16, 64, 100, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 2.0, 1e-300]
_NUMBERS += [1e300, 1e-8, math.nan, math.inf, -math.inf, True, False, np.float32(0.5), np.int64(3)]
_TEXTS = [
    "",
    " ",
    "a",
    "trained",
    "cosine",
    "ema",
    "softmax",
    "\0",
    "\n",
    "\ud800",
    "é",
    "e\u0301",
    "\u202e",
    "🙂",
    "~",
    "..",
    "/",
]
_TEXTS += [
    "../..",
    "(",
    "[",
    ".*",
    "x" * 5000,
    "None",
    "nan",
    "%s",
    "{}",
    "[/b]",
    "\x1b[31m",
    "s3://",
    "a:b",
    "no/such/folder",
]
_OBJECTS = [None, (), [], {}, b"a", 1j, {1, 2}, np.zeros(3), np.array("a"), pathlib.Path("a"), ConfigDict()]
_PAIRS = [("flip", {}), ("resize", {}), ("flip", {"p": 2}), ("flip", {"p": "a"}), ("flip", None), ("", {}), ("flip",)]
_PAIRS += [("whitening", {}), ("whitening", {"dim": 0}), ("whitening", {"dim": -1}), ("whitening", {"dim": 10**9})]
_PAIRS += [
    ("whitening", {"ridge": math.nan}),
    ("whitening", {"ridge": "a"}),
    ("reranking", {}),
    ("reranking", {"k1": 0}),
]
_PAIRS += [("reranking", {"k1": None}), ("query_expansion", {}), ("query_expansion", {"k": 10**6}), ("diffusion", {})]
_PAIRS += [("database_augmentation", {}), ("global_reranking", {}), ("ensemble", {}), ("fusion", {}), ("retrieval", {})]
_PAIRS += [
    ("retrieval", {"max_queries": 0}),
    ("retrieval", {"max_gallery": "a"}),
    ("accuracy", {}),
    ("erasing", {"p": -1}),
]
_PAIRS += [
    ("mixup", {"alpha": 0.2}),
    ("mixup", {"alpha": 0}),
    ("cutmix", {"alpha": "a"}),
    ("center_crop", {"crop_pct": 0}),
]
_PAIRS += [
    ("random_resized_crop", {"scale": (0, 0)}),
    ("random_resized_crop", {"scale": 3}),
    ("multi_scale", {"scales": ()}),
]
_PAIRS += [
    ("five_crops", {"enlarge": 1}),
    ("trivial_augment", {}),
    ("rand_augment", {"magnitude": 1e9}),
    ("resize", {"a": 1}),
]

leaves = st.one_of(
    st.sampled_from(_NUMBERS),
    st.sampled_from(_TEXTS),
    st.sampled_from(_OBJECTS),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
pairs = st.sampled_from(_PAIRS)
values = st.one_of(
    leaves,
    st.lists(leaves, max_size=3).map(tuple),
    st.lists(pairs, max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["a", "p", "scale", "transforms", "image_size", "\ud800", ""]), leaves, max_size=3),
    st.lists(st.tuples(leaves, leaves), max_size=2).map(tuple),
)


@st.composite
def changes(draw, names, possible: bool):
    """Draws one to three settings with values; `possible`: values that the table lets through, where it can."""
    found = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        kind = checks.ROWS[name]
        found[name] = draw(values.filter(lambda value, kind=kind: _passes(kind, value)) if possible else values)
    return found


def _passes(kind, value) -> bool:
    with contextlib.suppress(InputError):
        return kind.test(workdir.plain(value))
    return False


def changed(config, drawn):
    """Returns the config with the drawn settings, whatever their types."""
    with config.unlocked(), config.ignore_type():
        for name, value in drawn.items():
            *blocks, key = name.split(".")
            block = config
            for one in blocks:
                block = block[one] if hasattr(block, "keys") and one in block else None
            if isinstance(block, ConfigDict):
                with block.unlocked(), block.ignore_type():
                    block[key] = value
            elif isinstance(block, dict):
                block[key] = value
    return config


def sentence(error: Exception) -> None:
    """Checks that a refusal is one that a user can read."""
    text = str(error)
    assert 10 < len(text) < 20000 and "Traceback" not in text and "object at 0x" not in text, text
    text.encode("utf-8")


def settle(**more):
    """Returns hypothesis's settings: the same draws in every run."""
    health = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much]
    health += [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.data_too_large]
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # shrinking takes minutes
    return hypothesis.settings(
        derandomize=True, database=None, deadline=None, phases=phases, suppress_health_check=health, **more
    )


def check_all(config) -> None:
    """Runs every check that reads no data."""
    checks.check(config)
    mine.check(config, None)
    train._check_settings(config)
    embed._check_settings(config, "no/such/folder")
    search.check(config, None)
    report.check(config, None)
    workdir.stage_hash(config, "report", "no/such/folder")


@settle(max_examples=300)
@hypothesis.given(changes(NAMES, False))
def test_any_values_pass_the_checks_or_are_a_sentence(drawn):
    config = changed(base.defaults(), drawn)
    try:
        check_all(config)
    except InputError as error:
        sentence(error)


@settle(max_examples=60)
@hypothesis.given(changes(NAMES, True))
def test_values_that_are_possible_pass_the_checks_or_are_a_sentence(drawn):
    config = changed(base.defaults(), drawn)
    try:
        check_all(config)
    except InputError as error:
        sentence(error)


@settle(max_examples=25)
@hypothesis.given(st.sampled_from(NAMES), values)
def test_any_override_on_the_command_line_is_taken_or_a_sentence(name, value):
    config = base.defaults()
    try:
        text = str(value)
        command_line.override(config, command_line._split(config, [f"--config.{name}={text}"])[0])
        check_all(config)
    except InputError as error:
        sentence(error)


def whole_run(config, folder) -> None:
    """Runs everything; a sentence is fine, and then nothing may have been written by a run that never started."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            run.run(config, folder)
    except (InputError, RunFailed) as error:
        sentence(error)


def of_colours():
    """Returns the config of a run that trains nothing."""
    config = tiny.tiny_config()
    base.without_training(config)
    config.embed.models = ("histogram",)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny shop, of colours alone."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    whole_run(of_colours(), folder)
    assert (folder / "report.html").exists()
    return folder


def _again(finished, drawn):
    folder = finished.parent / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    whole_run(changed(of_colours(), drawn), folder)


@settle(max_examples=10)
@hypothesis.given(changes(LATER, True))
def test_a_finished_run_is_searched_again_with_any_settings(finished, drawn):
    _again(finished, drawn)


@pytest.mark.long
@settle(max_examples=500)
@hypothesis.given(changes(LATER, True))
def test_a_finished_run_is_searched_again_with_many_settings(finished, drawn):
    _again(finished, drawn)


@settle(max_examples=8)
@hypothesis.given(changes(NAMES, True))
def test_what_is_checked_before_a_run_takes_any_settings(tmp_path, drawn):
    config = changed(tiny.tiny_config(), drawn)
    try:
        folder = workdir.prepare(config, tmp_path / "run")
        train.check(config, folder)
        embed.check(config, folder)
        evaluate.check(config, folder)
    except InputError as error:
        sentence(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@settle(max_examples=100)
@hypothesis.given(changes(NAMES, True))
def test_a_whole_run_takes_any_settings(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("any") / "run"
    whole_run(changed(tiny.tiny_config(), drawn), folder)
    shutil.rmtree(folder.parent)
