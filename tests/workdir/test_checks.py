import math

import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax.errors import InputError
from retrieval_jax.settings import base, tasks
from retrieval_jax.workdir import checks, config_files


def changed(**values):
    """Returns the default settings with some replaced, whatever their type: "train__seed" is train.seed."""
    config = base.defaults()
    with config.unlocked(), config.ignore_type():
        for name, value in values.items():
            *blocks, key = name.split("__")
            block = config
            for one in blocks:
                block = block[one]
            block[key] = value
    return config


def test_every_default_setting_has_a_row_and_passes():
    config = base.defaults()
    names = {name for name in config_files.setting_names(config) if not name.startswith("train.model.kwargs.")}
    of_pictures = (
        "multilabel",
        "category",
        "image_title",
        "self_supervised",
        "attribute_sequence",
        "regions",
        "compatible",
    )
    for task in (*of_pictures, "masked_tokens", "text_query", "text_picture", "edit", "click_triplet", "outfit"):
        names |= {f"train.task_kwargs.{name}" for name in getattr(tasks, task)()}
    assert names <= set(checks.ROWS), sorted(names - set(checks.ROWS))
    blocks = {
        "train.task_kwargs",
        "train.model.kwargs",
        *(name for name in checks.ROWS if name.startswith("train.schedule_kwargs.")),
    }
    assert set(checks.ROWS) - blocks <= names
    checks.check(config)


@pytest.mark.parametrize(
    "setting, value, words",
    [
        ("train.batch_size", 0, "config.train.batch_size is 0: give a whole number of 1 or more"),
        ("train.batch_size", True, "is True: give a whole number"),
        ("train.batch_size", 2.5, "is 2.5: give a whole number"),
        ("train.seed", -1, "config.train.seed is -1: give a whole number of 0 or more"),
        ("train.seed", None, "config.train.seed is None"),
        ("train.learning_rate", math.nan, "config.train.learning_rate is nan: give a finite number, 0 or more"),
        ("train.epochs", math.inf, "config.train.epochs is inf"),
        ("train.epochs", 0.0, "more than 0"),
        ("train.b2", 1.0, "less than 1"),
        ("train.dtype", "float64", "'float32' or 'bfloat16' or 'float16'"),
        ("train.dtype", "float23", "did you mean 'float32'?"),
        ("train.frozen", ("(",), "regular expressions"),
        ("train.transforms", ("flip",), "(name, arguments) pairs"),
        ("train.transforms", (("flip", {"p": math.nan}),), "config.train.transforms[0][1].p is nan"),
        ("train.views", ({"image_size": 32},), "views such as"),
        ("train.task_kwargs.loss_kwargs", {"gamma": math.inf}, "config.train.task_kwargs.loss_kwargs.gamma is inf"),
        ("train.task_kwargs.label_smoothing", -0.1, "config.train.task_kwargs.label_smoothing is -0.1"),
        ("train.mesh", 4, "config.train.mesh is 4: give a block"),
        ("train", "fast", "config.train is 'fast': give a block"),
        ("data.image_size", (64,), "give height and width, such as (64, 64)"),
        ("data.image_size", (48,), "give height and width, such as (48, 48)"),
        ("data.image_size", 48, "config.data.image_size is 48: give height and width, such as (48, 48)"),
        ("data.image_size", (64, -1), "config.data.image_size is (64, -1)"),
        ("data.image_size", (), "config.data.image_size is ()"),
        ("data.kwargs", {"root": "a\ud800"}, r"config.data.kwargs.root is 'a\ud800': give text that UTF-8 can hold"),
        ("data.leave_out", "a\0b", "text in one line"),
        ("embed.models", (), "config.embed.models is ()"),
        ("embed.models", ("trained", "trained"), "config.embed.models has 'trained' twice"),
        ("search.k", 0, "config.search.k is 0: give a whole number of 1 or more"),
        ("search.k", 10**12, "config.search.k is 1000000000000"),
        ("evaluate.ks", (1, 0), "config.evaluate.ks is (1, 0)"),
        ("evaluate.draws", -1, "at most 1,000,000"),
        ("mine.threshold", -1, "or None to follow the number of titles"),
        ("train.accumulate_steps", 3, "give a divisor of config.train.batch_size, 64"),
        ("train.warmup_epochs", 99.0, "config.train.warmup_epochs is 99, longer than the training of 10 epochs"),
    ],
)
def test_a_setting_that_cannot_be_is_a_sentence(setting, value, words):
    possible = {"train__batch_size": 64, "train__epochs": 10.0}
    checks.check(changed(**possible))
    config = changed(**(possible if setting != "train" else {}) | {setting.replace(".", "__"): value})
    with pytest.raises(InputError) as caught:
        checks.check(config)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_schedules_fit_into_the_training():
    wsd = changed(train__epochs=10.0, train__warmup_epochs=6.0, train__schedule="wsd")
    wsd.train.schedule_kwargs = {"decay_share": 0.5}
    with pytest.raises(InputError, match="decay_share is 0.5, and the warm-up takes 0.6 of epochs"):
        checks.check(wsd)
    step = changed(train__epochs=10.0, train__warmup_epochs=6.0, train__schedule="step")
    for boundaries in ((0.5, 0.75), (0.9, 0.7)):
        step.train.schedule_kwargs = {"boundaries": boundaries}
        with pytest.raises(InputError, match="boundaries is .* in rising order, after the warm-up"):
            checks.check(step)


def test_several_problems_are_one_message():
    config = changed(train__seed=-1, search__k=0, train__batch_size=0)
    with pytest.raises(InputError) as caught:
        checks.check(config, "shop.py")
    lines = str(caught.value).splitlines()
    assert lines[0] == "shop.py: 3 settings cannot be:" and len(lines) == 4
    many = changed(train__task_kwargs__loss_kwargs={f"a{i}": math.nan for i in range(30)})
    with pytest.raises(InputError, match="and 20 more"):
        checks.check(many)


def test_part_of_a_config_and_numpy_numbers_are_fine_and_arrays_are_not():
    checks.check({"search": {"k": np.int64(3)}, "data": {"image_size": (8, 8)}, "train": None})
    with pytest.raises(InputError, match=r"config.data.image_size is a NumPy array, \(8, 8\): give"):
        checks.check({"data": {"image_size": np.array([8, 8])}})
    checks.check(ConfigDict({"evaluate": {"ks": (1,)}}))
    with pytest.raises(InputError, match="a setting holds"):
        checks.check({"search": {"k": {1, 2}}})
