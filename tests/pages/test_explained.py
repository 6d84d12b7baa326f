"""The section about conditions: a cell per clause and result."""

import numpy as np

from retrieval_jax.index import attribute
from retrieval_jax.pages import explained


def test_predicted_exclusions_and_unmet_clauses_are_shown_as_such():
    field = attribute.Field(["cotton", "leather"], [0, 1, 2, 2], [0, 1], np.array([0.625, 1]))
    table = attribute.build({"material": field, "price": [5, 6, np.nan]}, 3)
    given = attribute.parse({"required": [("price", 6, None)], "excluded": [("material", ("leather",))]})
    found = attribute.reasons(table, given, np.arange(3))
    (section,) = explained.sections("x", [("q", [("a", [one.to_json() for one in row]) for row in found])])
    cells = [line.split("</td>") for line in section.body.split('<tr><th scope="row">a</th>')[1:]]
    assert [[cell.removeprefix("<td>") for cell in line[:2]] for line in cells] == [
        ["no", "not excluded, predicted, cotton (62%)"],
        ["yes, 6", "excluded"],
        ["no", "unknown"],
    ]
