"""Files of ranges: which lines they make, and what is refused."""

import math

import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.sweeps import ranges

HEAD = """
seeds = [0, 1]
[settings]
"train.epochs" = 4
"""


def read(tmp_path, text):
    file = tmp_path / "ranges.toml"
    file.write_text(text)
    return ranges.read(file)


def test_a_grid_is_every_combination_in_order(tmp_path):
    found = read(
        tmp_path,
        HEAD
        + """
        [grid]
        "train.learning_rate" = { from = 1e-4, to = 1e-2, count = 3, scale = "log" }
        "train.task_kwargs.loss" = ["softmax", "sigmoid"]
        """,
    )
    assert found.seeds == (0, 1)
    made = [(line.settings["train.learning_rate"], line.settings["train.task_kwargs.loss"]) for line in found.lines]
    assert made == [(rate, loss) for rate in (1e-4, 1e-3, 1e-2) for loss in ("softmax", "sigmoid")]
    assert [line.name for line in found.lines[:2]] == [
        "learning_rate=0.0001,loss=softmax",
        "learning_rate=0.0001,loss=sigmoid",
    ]
    assert all(line.settings["train.epochs"] == 4 for line in found.lines)
    assert found.lines[0].varied == ("train.learning_rate", "train.task_kwargs.loss")
    assert ranges.words(found.lines[0].settings)[0] == "--config.train.epochs=4"


def test_listed_lines_keep_their_order_and_names(tmp_path):
    found = read(
        tmp_path,
        """
        [[line]]
        name = "baseline"
        [[line]]
        "search.steps" = [["whitening", {power = 0.25}]]
        [[line]]
        config = "fashion_softmax:seed=1"
        search.k = 50
        """,
    )
    assert [line.name for line in found.lines][0] == "baseline" and found.seeds == ()
    assert found.lines[0].settings == {} and found.lines[0].varied == ("search.steps", "config", "search.k")
    assert ranges.words(found.lines[1].settings) == ["--config.search.steps=(('whitening', {'power': 0.25}),)"]
    assert ranges.words(found.lines[2].settings) == ["--config.search.k=50"]
    assert len({line.name for line in found.lines}) == 3


@pytest.mark.parametrize(
    "entry, values",
    [
        ({"from": 0.0, "to": 1.0, "count": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 16, "to": 128, "count": 4, "scale": "log"}, [16, 32, 64, 128]),
        ({"from": 10, "to": 1, "count": 4}, [10, 7, 4, 1]),
        ([1, 1.0, True], [1, 1.0, True]),  # equal, of other types: not the same value
    ],
)
def test_values_of_a_range(entry, values):
    found = ranges.parse({"grid": {"a.b": entry}}, "here")
    assert [line.settings["a.b"] for line in found.lines] == values
    assert [type(line.settings["a.b"]) for line in found.lines[:1]] == [type(entry["from"] if "from" in entry else 1)]


@pytest.mark.parametrize(
    "found, words",
    [
        ({}, "give either [grid], for all combinations, or [[line]]s"),
        ({"grid": {"a.b": [1]}, "line": [{}]}, "give either [grid]"),
        ({"gird": {}}, "there is no key 'gird'; did you mean grid?"),
        ({"grid": {}}, "[grid] is a table"),
        ({"grid": {"a.b": []}}, "[grid] a.b = []: give a list of values"),
        ({"grid": {"a.b": 1}}, "[grid] a.b = 1: give a list of values"),
        ({"grid": {"a.b": [1, 2, 1]}}, "1 occurs twice"),
        ({"grid": {"a.b": [math.inf]}}, "a.b = inf: give a finite number"),
        ({"grid": {"a.b": [None]}}, "a setting is a number, text"),
        ({"grid": {"a.b": ["x\ny"]}}, "control characters"),
        ({"grid": {"a.b": {"from": 1, "to": 2}}}, "a range needs count as well"),
        ({"grid": {"a.b": {"from": 1, "to": 2, "count": 2, "step": 1}}}, "a range has no 'step'"),
        ({"grid": {"a.b": {"from": "1", "to": 2, "count": 2}}}, "from = '1' is not a finite number"),
        ({"grid": {"a.b": {"from": 1, "to": 2, "count": 1}}}, "count = 1: give a whole number, 2 to"),
        ({"grid": {"a.b": {"from": 1, "to": 2, "count": True}}}, "count = True"),
        ({"grid": {"a.b": {"from": 0, "to": 2, "count": 3, "scale": "log"}}}, "lies above 0, not from 0 to 2"),
        ({"grid": {"a.b": {"from": 1, "to": 2, "count": 3, "scale": "ln"}}}, 'neither "linear" nor "log"'),
        ({"grid": {"a.b": {"from": 1, "to": 2, "count": 5}}}, "not all different"),
        ({"grid": {"a.b": {"from": 1, "to": 1e9, "count": 999}, "a.c": [1, 2]}}, "1,998 combinations, more than 1,000"),
        ({"grid": {"a.b": {"from": 1, "to": 1e9, "count": 999}}, "seeds": [0, 1]}, "1,998 runs, more than 1,000"),
        ({"grid": {"a.b": [1]}, "seeds": [0, 0]}, "a seed occurs twice"),
        ({"grid": {"a.b": [1]}, "seeds": 3}, "give a list of whole numbers"),
        ({"grid": {"a.b": [1]}, "seeds": [-1]}, "give a list of whole numbers"),
        ({"grid": {"train.seed": [1]}, "seeds": [0]}, "train.seed = 1, and seeds sets it too"),
        ({"grid": {"a.b": [1]}, "settings": {"train.seed": 1}, "seeds": [0]}, "[settings] sets train.seed, and seeds"),
        ({"grid": {"a.b": [1]}, "settings": {"a.b": 2}}, "a.b = 1, and [settings] sets it too"),
        ({"line": {}}, "each line begins with [[line]]"),
        ({"line": [{"name": "../x"}]}, "the name '../x' is not one of letters"),
        ({"line": [{"name": "."}]}, "the name '.' is not one of letters"),
        ({"line": [{"name": "Table.json"}]}, "the sweep has a file 'Table.json' of its own: give another name"),
        ({"line": [{"name": ".lock"}]}, "the sweep has a file '.lock' of its own"),
        ({"line": [{"name": "logs"}]}, "the sweep has a file 'logs' of its own"),
        ({"line": [{"name": "a"}, {"name": "A", "a.b": 1}]}, "two lines have the name 'A'"),
        ({"line": [{"name": "a", "a.b": 1}, {"name": "b", "a.b": 1}]}, "'a' and 'b' have the same settings"),
        (["a"], "ranges are a table"),
    ],
)
def test_what_cannot_be_is_refused(found, words):
    with pytest.raises(InputError) as raised:
        ranges.parse(found, "here")
    assert words in str(raised.value) and str(raised.value).startswith("here: ")


@pytest.mark.parametrize(
    "text, words", [("a = ", "is not TOML"), ("a = 1\na = 2", "is not TOML"), ("\x00", "not TOML")]
)
def test_a_file_that_is_not_toml_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, text)
    with pytest.raises(InputError, match="not found"):
        ranges.read(tmp_path / "missing.toml")
    with pytest.raises(InputError, match="give a .toml file"):
        ranges.read(tmp_path / "ranges.yaml")
