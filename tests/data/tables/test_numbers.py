"""Numbers as shops write them: what a comma means is found from the whole column."""

import numpy as np
import polars as pl
import pytest

from retrieval_jax.data.tables import columns, numbers
from retrieval_jax.data.tables.row_checks import Rows


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["24.90", "1234.5", "7", ""], ["24.90", "1234.5", "7", ""]),
        (["24,90", "1.234,50", "7", "", "x,y"], ["24.90", "1234.50", "7", "", "x,y"]),
        (["1,234", "0,5", "-1.234", "12.5"], ["1.234", "0.5", "-1234", "12.5"]),
        (["1,234", "1,234.50", "2,000,000"], ["1234", "1234.50", "2000000"]),
        (["1 234,50", "1\u202f234", "1'234.5"], ["1234.50", "1234", "1234.5"]),
        (["1,234", "2,500"], ["1,234", "2,500"]),
        (["1,234.50", "24,90"], ["1,234.50", "24,90"]),
        (["1.234", "2.500"], ["1.234", "2.500"]),
    ],
)
def test_a_comma_is_what_the_whole_column_says(given, read):
    assert numbers.written_plainly(pl.Series(given)).to_list() == read


def test_every_value_that_stays_unread_says_why():
    assert "may be 1.234 or 1234" in numbers.about("1,234")
    assert "decimal in some values and separate thousands in others" in numbers.about("24,90")
    assert numbers.about("cheap") == "not a number; correct it or leave it empty"


def _rows(values):
    frame = pl.DataFrame({"further price 0": values}, schema={"further price 0": pl.String})
    return Rows("a split", frame, ["t.csv"], np.zeros(len(values), np.int32), np.arange(len(values)))


def test_all_splits_are_read_alike_and_an_unclear_value_is_a_bad_row():
    further = [columns.Further("price", ("Preis",), "number")]
    splits = [_rows(["24,90", None]), _rows(["1,234"])]
    columns.settle_numbers(splits, further)
    for rows in splits:
        columns.check(rows, further)
        assert not rows.bad
    found = [columns.of_split(rows, np.arange(len(rows)), further, {})["price"] for rows in splits]
    assert found[0][0] == np.float32(24.9) and np.isnan(found[0][1]) and found[1].tolist() == [np.float32(1.234)]
    alone = _rows(["1,234", "5"])
    columns.settle_numbers([alone], further)
    columns.check(alone, further)
    assert list(alone.bad) == [0] and "Preis is '1,234', which may be 1.234 or 1234" in alone.bad[0][1]
