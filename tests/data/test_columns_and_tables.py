"""What a catalogue checks of its columns and tables, how tables follow listings, and how both become Parquet files."""

import numpy as np
import polars as pl
import pytest

from retrieval_jax.data.catalog import Catalog, Lazy, Ragged, Split, Table, take
from retrieval_jax.data.records import column_files
from retrieval_jax.errors import InputError


def test_a_table_follows_listings_that_move_and_drops_rows_whose_listings_are_gone():
    table = Table(
        {
            "photo": np.array([0, 1, 2]),
            "listings": np.array([[0, 1], [1, -1], [2, 0]]),
            "clicked": Ragged.of([[0], [], [2, 1]], np.int64),
            "words": ["a", "b", "c"],
        },
        {"photo": "query", "listings": "train", "clicked": "train"},
    )
    moved = table.moved({"train": np.array([5, 6, 7])})
    assert moved.columns["listings"].tolist() == [[5, 6], [6, -1], [7, 5]] and moved.columns["photo"].tolist() == [
        0,
        1,
        2,
    ]
    assert moved.columns["clicked"].values.tolist() == [5, 7, 6]
    moved = table.moved({"train": np.array([0, 1, -1]), "query": np.array([-1, 3, 4])})
    assert moved.columns["words"] == ["b"] and moved.columns["photo"].tolist() == [3]
    assert table.moved({"train": np.array([0, -1, 1])}).columns["words"] == []


def test_values_are_computed_once_and_only_when_read():
    calls = []
    lazy = Lazy({"a": lambda: calls.append("a") or 1, "b": lambda: calls.append("b")}, "a text")
    assert "a" in lazy and list(lazy) == ["a", "b"] and len(lazy) == 2 and "c" not in lazy and not calls
    assert lazy["a"] == lazy["a"] == 1 and calls == ["a"]
    with pytest.raises(KeyError):
        lazy["c"]


def test_columns_of_one_length_that_refer_to_what_exists():
    images = [np.zeros((2, 2, 3), np.uint8)] * 2

    def split(**columns):
        return Split("train", ["a", "b"], None, None, images, columns=columns)

    with pytest.raises(InputError, match="the train split have different numbers of rows: ids 2, text 1"):
        split(text=["x"])
    with pytest.raises(InputError, match="a table have different numbers of rows: reference 1, words 2"):
        Table({"reference": np.array([0]), "words": ["x", "y"]}, {"reference": "train"})
    with pytest.raises(InputError, match="a table has no column 'photo'; it has words"):
        Table({"words": ["x", "y"]}, {"photo": "train"})
    names = {"colour": ["red"]}
    Catalog("shop", split(colour=np.array([0, -1])), column_names=names)
    with pytest.raises(InputError, match="shop: column colour of the train split does not refer to 1 entries"):
        Catalog("shop", split(colour=np.array([0, 1])), column_names=names)
    with pytest.raises(InputError, match="column colour of the train split does not refer to 1 entries"):
        Catalog("shop", split(colour=["red", "red"]), column_names=names)
    table = Table({"targets": Ragged.of([[0, 2]])}, {"targets": "train"})
    with pytest.raises(InputError, match=r"targets of the table edits/train \(train\) does not refer to 2 entries"):
        Catalog("shop", split(), tables={"edits/train": table})
    with pytest.raises(InputError, match=r"targets of the table edits/train \(val\) does not refer to 0 entries"):
        table = Table({"targets": Ragged.of([[0]])}, {"targets": "val"})
        Catalog("shop", split(), tables={"edits/train": table})


@pytest.mark.parametrize(
    "column",
    [
        ["a", "", "c"],
        np.array([1, -1, 3], np.int32),
        np.array([[1, 2], [3, -1], [0, 0]], np.int64),
        np.array([0.5, np.nan, 1], np.float32),
        np.array([[0.5, np.nan, 1, 0]] * 3, np.float32),
        Ragged.of([[1], [], [2, 3]]),
        Ragged.of([[], [], []], np.int64),
        Ragged.of([[0.5], [], []], np.float32),
    ],
)
def test_a_column_survives_parquet(tmp_path, column):
    for name, rows in (("whole", np.arange(3)), ("none", np.arange(0))):
        before = take(column, rows)
        column_files.frame({"x": before}).write_parquet(tmp_path / f"{name}.parquet")
        after = column_files.columns(pl.read_parquet(tmp_path / f"{name}.parquet"))["x"]
        if isinstance(column, Ragged):
            np.testing.assert_array_equal(after.indptr, before.indptr)
            before, after = before.values, after.values
        if isinstance(column, list):
            assert after == before
        else:
            np.testing.assert_array_equal(after, before)
            assert after.dtype == before.dtype
