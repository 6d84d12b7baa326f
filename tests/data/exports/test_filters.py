"""Columns that a search can be filtered by: few values, or numbers, and no others."""

import pytest

from retrieval_jax.data.exports import filters

COUNT = 60
ROWS = range(COUNT)
COLUMNS = {
    "Farbe": (["Red", "Black", "Navy Blue"][row % 3] for row in ROWS),
    "Preis": (f"{row + 9},90" for row in ROWS),
    "Jahr": (str(2010 + row % 9) for row in ROWS),
    "class": ("ab"[row % 2] for row in ROWS),
    "text": ("cd"[row % 2] for row in ROWS),
    "Amount": (f"{row + 9},90 €" for row in ROWS),
    "Name": (f"A thing of its own, {row}" for row in ROWS),
    "Grams": (str(70_000 + row) for row in ROWS),
    "Mixed": ([f"{row + 1},50", "on request"][row == 7] for row in ROWS),
    "Shop": ("ours" for _ in ROWS),
    "Seen": (f"https://example.com/{row % 3}" for row in ROWS),
    "Nothing": ("" for _ in ROWS),
    "Ambiguous": (f"{row + 1},234" for row in ROWS),
}


def test_few_values_and_numbers_are_filters_and_every_other_column_has_a_reason():
    found, reasons = filters.find({name: list(values) for name, values in COLUMNS.items()}, list(ROWS))
    assert found == {
        "Farbe": ("Farbe", "category"),
        "Preis": ("Preis", "number"),
        "Jahr": ("Jahr", "number"),
        "column_class": ("class", "category"),
        "column_text": ("text", "category"),
    }
    assert set(reasons) == set(COLUMNS) - {header for header, _ in found.values()} - {"Nothing"}
    assert reasons["Name"] == "too many different values" and reasons["Shop"] == "one value"
    assert "currency" in reasons["Amount"] and "codes" in reasons["Grams"] and "not values" in reasons["Seen"]


@pytest.mark.parametrize(("sizes", "filter_"), [("SML", False), ("SSS", True)])
def test_what_differs_between_variants_is_not_a_filter(sizes, filter_):
    products = [row // 3 for row in ROWS]
    column = [sizes[row % 3] if product % 2 else sizes[0] for row, product in zip(ROWS, products, strict=True)]
    column[:3] = ["XL"] * 3
    assert bool(filters.find({"Size": column}, products)[0]) is filter_
