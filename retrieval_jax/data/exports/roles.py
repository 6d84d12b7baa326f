"""The parts that columns of a table play, as `config.data.kwargs.columns` names them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from retrieval_jax import pairs
from retrieval_jax.errors import InputError

_SEVERAL = ("image", "categories")


@dataclasses.dataclass(frozen=True)
class Roles:
    """Which column of a table is what; "" or () where none is.

    Attributes:
      title: the product's name.
      image: columns that name pictures.
      files_named_by: column whose values the picture files are named after, where no column names pictures.
      product: equal values are one product.
      id: the row's own key, which `parent` and `children` refer to.
      parent: key of the row that a variant belongs to.
      children: keys of a row's variants ("sku=A-1,size=S|sku=A-2,size=M").
      kind: what a row is: a product, a variant, a picture.
      group: equal values are one product where the titles agree.
      language: the language or the store that a row is for.
      categories: columns of the category, coarse to fine.
    """

    title: str = ""
    image: tuple[str, ...] = ()
    files_named_by: str = ""
    product: str = ""
    id: str = ""
    parent: str = ""
    children: str = ""
    kind: str = ""
    group: str = ""
    language: str = ""
    categories: tuple[str, ...] = ()

    def columns(self) -> list[str]:
        """Returns the names of all columns that play a part, each once."""
        found = []
        for value in dataclasses.astuple(self):
            found += [value] if isinstance(value, str) else list(value)
        return list(dict.fromkeys(name for name in found if name))

    def part(self, column: str) -> str:
        """Returns the part that a column plays, "" for none."""
        for part, value in self.given().items():
            if column in ((value,) if isinstance(value, str) else value):
                return part
        return ""

    def given(self) -> dict[str, Any]:
        """Returns {part: column or columns} of the parts that a column plays."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


PARTS = tuple(field.name for field in dataclasses.fields(Roles))


def of(columns: Mapping[str, Any], found: list[str], path: str) -> dict[str, Any]:
    """Checks a setting that maps parts to columns.

    Args:
      columns: {part: name of a column, or names}; None and "" say that no column plays it.
      found: the columns of the table.
      path: of the table, for messages.

    Returns:
      {part: "name" or ("name", ...)}, arguments of `Roles`.

    Raises:
      InputError: an unknown part, or a column that the table does not have; with near names.
    """
    out = {}
    for part, value in columns.items():
        if part not in PARTS:
            raise InputError(f"config.data.kwargs.columns has {part!r}{pairs.near(part, PARTS)}")
        names = (value,) if isinstance(value, str) else tuple(value or ())
        if not all(isinstance(name, str) for name in names) or (len(names) > 1 and part not in _SEVERAL):
            kind = "a column, or a tuple of columns" if part in _SEVERAL else "a column"
            raise InputError(f"config.data.kwargs.columns.{part} is {value!r}; it names {kind} of {path}")
        names = tuple(name for name in names if name)
        for name in names:
            if name not in found:
                raise InputError(
                    f"{path} has no column {name!r} (config.data.kwargs.columns.{part}){pairs.near(name, found)}"
                )
        out[part] = names if part in _SEVERAL else "".join(names)
    return out
