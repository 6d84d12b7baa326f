"""One line for objects that hold much: what a notebook shows of models, catalogues, embeddings and rankings."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sized

_TEXT = 40  # characters of a text
_LINE = 300


def line(thing) -> str:
    """Returns one line about a dataclass: its fields, and of what is large the type and size. Use: `__repr__ = line`.

    Args:
      thing: instance of a dataclass.
    """
    fields = (f"{field.name}={_short(getattr(thing, field.name))}" for field in dataclasses.fields(thing))
    text = f"{type(thing).__name__}({', '.join(fields)})"
    return text if len(text) <= _LINE else f"{text[: _LINE - 4]}...)"


def size(thing) -> str:
    """Returns "12,345 vectors of 64 dimensions" for an array, or the like, of shape [rows, dim]."""
    rows, dim = thing.shape
    return f"{rows:,} vectors of {dim} dimensions"


def _short(value) -> str:
    name = type(value).__name__
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _TEXT else value[:_TEXT] + "...")
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if hasattr(value, "shape"):
        return f"{getattr(value, 'dtype', name)}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        shown = list(value)[:4]
        return "{" + ", ".join(key[:_TEXT] for key in shown) + (", ..." if len(value) > len(shown) else "") + "}"
    if isinstance(value, tuple) and len(value) <= 4 and all(isinstance(one, int | float | str) for one in value):
        return f"({', '.join(map(_short, value))})"
    if isinstance(value, Sized):
        return f"<{name} of {len(value):,}>"
    return f"<{getattr(value, '__qualname__', name)}>"
