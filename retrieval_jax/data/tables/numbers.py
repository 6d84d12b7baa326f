r"""Reads numbers as shops write them: "24.90", "24,90", "1.234,50", "1,234.50", "1 234,50".

What a comma means is a matter of the whole column, since "1,234" alone may be 1.234 or 1234:

    "24,90", "0,125", "1.234,50"      decimal commas, so "1,234" beside them is 1.234, and "1.234" is 1234
    "1,234.50", "1,234,567"           commas between thousands, so "1,234" beside them is 1234
    "1,234" alone, or both kinds      not read; each such value is reported
"""

from __future__ import annotations

import polars as pl

_SIGN = r"^[-+]?"
_BETWEEN = r"[\s'’]"  # separators of thousands that mean nothing else
_DECIMAL = rf"{_SIGN}(?:[0-9]*|[0-9]{{1,3}}(?:(?:\.|{_BETWEEN})[0-9]{{3}})+),[0-9]+$"
_THOUSANDS = rf"{_SIGN}[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+(?:\.[0-9]+)?$"
_GROUPED = rf"{_SIGN}[0-9]{{1,3}}(?:{_BETWEEN}[0-9]{{3}})+(?:\.[0-9]+)?$"
_POINTS = rf"{_SIGN}[1-9][0-9]{{0,2}}(?:\.[0-9]{{3}})+$"


def written_plainly(column: pl.Series) -> pl.Series:
    """Returns a column with its numbers in the form "1234.5"; what cannot be read stays as it is.

    Args:
      column: texts of a whole column, of all splits.
    """
    column = column.str.replace_all(_BETWEEN, "").zip_with(column.str.contains(_GROUPED), column)
    decimal, thousands = column.str.contains(_DECIMAL), column.str.contains(_THOUSANDS)
    is_decimal, is_thousands = (decimal & ~thousands).any(), (thousands & ~decimal).any()
    if is_decimal and not is_thousands:
        grouped = column.str.contains(_POINTS)
        bare = column.str.replace_all(rf"\.|{_BETWEEN}", "")
        return bare.str.replace(",", ".", literal=True).zip_with(decimal | grouped, column)
    if is_thousands and not is_decimal:
        return column.str.replace_all(",", "", literal=True).zip_with(thousands, column)
    return column


def about(text: str) -> str:
    """Returns why a value is not a number, and what to do, the end of a sentence that begins with the value.

    Args:
      text: the value, after `written_plainly`.
    """
    value = pl.Series([text])
    if value.str.contains(_DECIMAL).any() and value.str.contains(_THOUSANDS).any():
        return (
            f"which may be {text.replace(',', '.')} or {text.replace(',', '')}, and no other value of the column says "
            "which; write it with a decimal point or without the comma"
        )
    if value.str.contains(_DECIMAL).any() or value.str.contains(_THOUSANDS).any():
        return (
            "but commas of this column are decimal in some values and separate thousands in others; write all with a "
            "decimal point and nothing between thousands"
        )
    return "not a number; correct it or leave it empty"
