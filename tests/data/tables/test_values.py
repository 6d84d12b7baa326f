"""Cells of tables: null words, repairs that have one meaning, values that have lost digits, near values."""

import polars as pl
import pytest

from retrieval_jax.data.tables import values


def _series(texts):
    return pl.Series(texts, dtype=pl.String)


NULL = [
    "NULL",
    "null",
    "(null)",
    "<NULL>",
    "nan",
    "NaN",
    "None",
    "<NA>",
    "NA",
    "\\N",
    "N/A",
    "n/a",
    "#N/A",
    "#REF!",
    "",
]
NULL += [
    "#VALUE!",
    "#NAME?",
    "#DIV/0!",
    "#NV",
    "#Н/Д",
    "NaT",
    "nil",
    "undefined",
    "-",
    "--",
    "—",
    "?",
    ".",
    "  ",
    "n.a.",
]
NOT_NULL = ["0", "na", "Nat", "nanette", "nullo", "A", "N", "#1", "#sale!", "none of these", "-1", "a-", "ñ", "null 7"]


@pytest.mark.parametrize("text", NULL)
def test_null_words(text):
    assert values.is_null(text) and values.is_null(f" {text} ")


@pytest.mark.parametrize("text", NOT_NULL)
def test_words_that_are_not_null(text):
    assert not values.is_null(text, placeholders=True)


def test_none_may_be_the_value_of_an_attribute_and_unknown_a_category():
    assert values.is_null("None") and not values.is_null("None", none=False)
    assert values.is_null("NA") and not values.is_null("NA", na=False)
    assert not values.is_null("unknown") and values.is_null("Does not apply", placeholders=True)


MEANT = {
    "4006381333931.0": "4006381333931",
    "12.00": "12",
    "12,0": "12",
    "Men\xa0 Wear": "Men Wear",
    "-3.0": "-3",
    " 12 ": "12",
    "\u200b12\ufeff": "12",
    "\xa012\t": "12",
    "'0012": "0012",
    '="0012"': "0012",
    '=" 0012 "': "0012",
    "４００６": "4006",
    "٤٠٠٦": "4006",
    "'12.0": "12",
    "4.006381333931E12": "4006381333931",
    "4.00638133393100000e+12": "4006381333931",
}
AS_IT_IS = [
    "0012",
    "12.000",
    "12.5",
    "1.10",
    "a.0",
    "1.2.0",
    "'90s",
    "'",
    "=1+1",
    "1E5",
    "4.00638E+12",
    "Home & Garden",
]
AS_IT_IS += ["9007199254740993.0", "1,000", "", "x'1", "²", "1.5E1", "٣a"]


def test_repairs_have_one_meaning_and_everything_else_stays():
    assert {text: values.cell(text) for text in MEANT} == MEANT
    assert {text: values.cell(text) for text in AS_IT_IS} == {text: text for text in AS_IT_IS}


def test_columns_are_read_like_single_cells():
    texts = [*MEANT, *AS_IT_IS, *NULL, *NOT_NULL, "Обувь", " Обувь"]
    assert values.cells(_series([*texts, None])).to_list() == [*map(values.cell, texts), ""]
    assert values.nulls(_series(texts)).tolist() == list(map(values.is_null, texts))
    joined = values.lists(_series(["12.0 '0013  14", "NULL", None, "a b", "x\u200b 4.006381333931E12"]))
    assert joined.to_list() == ["12 0013 14", "", "", "a b", "x 4006381333931"]


@pytest.mark.parametrize(
    "text",
    ["4.00638E+12", "4,00638E+12", "4.00638e12", "4E+12", "1.2E-05", "1e16", "4.006e+12", "9007199254740993.0"],
)
def test_rounded_numbers(text):
    assert values.flaws(pl.Series([values.cell(text)]))[0][0] == "rounded"


@pytest.mark.parametrize("text", ["5-Mar", "Mar-05", "01-Dec-24"])
def test_dates_that_were_codes(text):
    assert values.flaws(pl.Series([text]))[0][0] == "date in place of the"


@pytest.mark.parametrize(
    "text", ["1E5", "MAR-05", "2E-100", "12", "4006381333931", "5E", "1.2.3E4", "E+12", "March-05"]
)
def test_codes_that_only_look_like_it(text):
    assert not values.flaws(pl.Series([values.cell(text)]))


def test_near_values():
    known = ["123", "A1", "4006381333931", "café", "x-1", "12.5", "A & B"]
    wanted = [
        "0123",
        "a1",
        "4,006,381,333,931",
        "cafe\u0301",
        "x-1",
        "x1",
        "",
        "'123",
        "123",
        "#123",
        "12.50",
        "A &amp; B",
    ]
    found = values.near(wanted, known)
    assert found == {"0123": "123", "a1": "A1", wanted[2]: known[2], wanted[3]: "café", "'123": "123"} | {
        "#123": "123",
        "12.50": "12.5",
        "A &amp; B": "A & B",
    }
