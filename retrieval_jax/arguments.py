"""Checks of the arguments of public functions: one sentence per mistake, which names the function and the argument.

NumPy and JAX would raise their own errors deep inside, or worse, compute something: `np.asarray(1.5, np.int64)` is 1, a
negative row counts from the end, and a NaN compares as False with every limit.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import os
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from retrieval_jax.errors import InputError, short

_KINDS = {"numbers": "fiub", "integers": "iu", "flags": "b"}
_NAMED = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # numbers that NumPy itself does not know


def integer(value: object, name: str, where: str, *, low: int = 1, high: int | None = None) -> int:
    """Returns an integer of a range.

    Args:
      value: what the caller gave.
      name: name of the argument.
      where: name of the function, as the user knows it.
      low: smallest value allowed.
      high: largest value allowed, or None for any.

    Raises:
      InputError: it is not an integer (a bool and 3.0 are not), or out of range.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)):
        if value >= low and (high is None or value <= high):
            return int(value)
    expected = f"of at least {low}" if high is None else f"from {low} to {high}"
    raise InputError(f"{where}: {name}={_shown(value)}, expected an integer {expected}")


def number(
    value: object, name: str, where: str, *, low: float = -math.inf, high: float = math.inf, below: bool = False
) -> float:
    """Returns a finite number of a range.

    Args:
      value: what the caller gave.
      name: name of the argument.
      where: name of the function, as the user knows it.
      low: smallest value allowed.
      high: largest value allowed.
      below: whether `high` itself is excluded.

    Raises:
      InputError: it is not a number, not finite, or out of range.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if number and abs(value) < 1e300 and math.isfinite(value):  # an integer may be too large for a float
        if low <= value < high or (value == high and not below):
            return float(value)
    limits = ""
    if high < math.inf:
        limits = f" from {low:g} to {'below ' if below else ''}{high:g}"
    elif low > -math.inf:
        limits = f" of at least {low:g}"
    raise InputError(f"{where}: {name}={_shown(value)}, expected a finite number{limits}")


def flag(value: object, name: str, where: str) -> bool:
    """Returns True or False; raises InputError for anything else, such as "no", which Python would take for True."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InputError(f"{where}: {name}={_shown(value)}, expected True or False")


def text(value: object, name: str, where: str, example: str = "") -> str:
    """Returns a text; raises InputError for anything else."""
    if isinstance(value, str):
        return str(value)
    raise InputError(f"{where}: {name}={_shown(value)}, expected a text{f', such as {example!r}' if example else ''}")


def choice(value: object, name: str, where: str, known: Collection[str]) -> str:
    """Returns one of several texts.

    Args:
      value: what the caller gave.
      name: name of the argument.
      where: name of the function, as the user knows it.
      known: what may be chosen.

    Raises:
      InputError: it is another value.
    """
    if isinstance(value, str) and value in known:
        return value
    raise InputError(f"{where}: {name}={_shown(value)}, expected one of {', '.join(known)}")


def path(value: object, name: str, where: str) -> str | os.PathLike:
    """Returns a path as it was given; raises InputError for what cannot be one."""
    if isinstance(value, (str, os.PathLike)) and "\0" not in str(value):
        return value
    raise InputError(f"{where}: {name}={_shown(value)}, expected the path of a file or folder")


def instance(value: object, kind: type, name: str, where: str):
    """Returns an object of a class of this package; raises InputError for anything else.

    Args:
      value: what the caller gave.
      kind: the class.
      name: name of the argument.
      where: name of the function, as the user knows it.
    """
    if isinstance(value, kind):
        return value
    raise InputError(f"{where}: {name}={_shown(value)}, expected {kind.__name__}")


def mapping(value: object, name: str, where: str) -> dict:
    """Returns a mapping with texts as keys, {} for None.

    Args:
      value: what the caller gave; anything with items().
      name: name of the argument.
      where: name of the function, as the user knows it.

    Raises:
      InputError: it is not such a mapping.
    """
    if value is None:
        return {}
    if callable(getattr(value, "items", None)):
        found = dict(value.items())
        if all(isinstance(key, str) for key in found):
            return found
    raise InputError(f"{where}: {name}={_shown(value)}, expected a dict with texts as keys")


def sequence(value: object, name: str, where: str) -> Sequence | np.ndarray:
    """Returns a sequence as it is, and any other iterable as a list.

    Args:
      value: what the caller gave; a text is not a sequence here, since its letters are never meant.
      name: name of the argument.
      where: name of the function, as the user knows it.

    Raises:
      InputError: it is a text, or cannot be iterated over.
    """
    if not isinstance(value, (str, bytes, bytearray, np.generic)):  # NumPy's scalars look iterable
        if isinstance(value, np.ndarray) and value.ndim:
            return value
        if hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (np.ndarray, dict)):
            with contextlib.suppress(TypeError):  # sparse arrays have a len() that raises it
                len(value)
                return value
        if isinstance(value, Iterable) and not isinstance(value, np.ndarray) and not hasattr(value, "tocsr"):
            return list(value)
    raise InputError(f"{where}: {name}={_shown(value)}, expected a list")


def array(
    value: object, name: str, where: str, shape: Sequence[int | str | None], *, kind: str = "numbers"
) -> np.ndarray:
    """Returns an array of a shape, in memory, in its own dtype.

    Args:
      value: what the caller gave: an array, or lists.
      name: name of the argument.
      where: name of the function, as the user knows it.
      shape: per dimension its length, or a letter where any length will do.
      kind: "numbers", "integers" or "flags". An empty list counts as any kind.

    Raises:
      InputError: another shape, or values of another kind.
    """
    expected = f"[{', '.join(map(str, shape))}]"
    try:
        found = np.asarray(value)
    except (ValueError, TypeError) as error:  # lists of unequal length, or an object that is not an array
        raise InputError(f"{where}: {name} is not an array ({short(str(error))}), expected {expected}") from error
    if isinstance(value, (list, tuple)) and not len(value):
        dtype = {"integers": np.int64, "flags": bool}.get(kind, np.float64)
        found = np.zeros([0, *(size if isinstance(size, int) else 0 for size in shape[1:])], dtype)
    _check(found, name, where, shape, kind)
    return found


def shape_of(value: object, name: str, where: str, shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """Checks the shape of an array without looking at its values, so that it works while JAX traces a function.

    Args:
      value: what the caller gave.
      name: name of the argument.
      where: name of the function, as the user knows it.
      shape: as for `array`.

    Raises:
      InputError: it is not an array, or of another shape.
    """
    found = getattr(value, "shape", None)
    if not isinstance(found, tuple) or not _fits(found, shape):
        got = f"shape {found}" if isinstance(found, tuple) else type(value).__name__
        raise InputError(f"{where}: {name} is an array [{', '.join(map(str, shape))}], got {got}")
    return found


def vectors(value: object, name: str, where: str, dim: int | None = None):
    """Returns vectors [n, D]: arrays and what reads like one (memory-mapped, computed on read) as they are.

    Args:
      value: what the caller gave.
      name: name of the argument.
      where: name of the function, as the user knows it.
      dim: the D expected, None for any but 0.

    Raises:
      InputError: it has another shape, or does not hold numbers. Values are checked by `finite`, where they are read.
    """
    lazy = isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "__getitem__")
    if hasattr(value, "tocsr"):
        raise InputError(f"{where}: {name} is sparse, expected a dense array [n, {'D' if dim is None else dim}]")
    if not lazy:
        value = array(value, name, where, ("n", "D" if dim is None else dim))
    _check(value, name, where, ("n", "D" if dim is None else dim), "numbers")
    if not value.shape[1]:
        raise InputError(f"{where}: {name} has vectors of 0 dimensions")
    return value


def _check(found, name: str, where: str, shape: Sequence[int | str | None], kind: str) -> None:
    if not _fits(tuple(found.shape), shape):
        raise InputError(f"{where}: {name} has the shape {list(found.shape)}, expected [{', '.join(map(str, shape))}]")
    dtype = getattr(found, "dtype", np.dtype(np.float32))  # what reads like an array may leave it out
    if np.dtype(dtype).kind not in _KINDS[kind] and not (kind == "numbers" and str(dtype) in _NAMED):
        raise InputError(f"{where}: {name} holds values of the type {dtype}, expected {kind}")


def _fits(found: tuple[int, ...], shape: Sequence[int | str | None]) -> bool:
    if len(found) != len(shape):
        return False
    return all(not isinstance(want, int) or have == want for have, want in zip(found, shape, strict=True))


def rows(value: object, name: str, where: str, shape: Sequence[int | str | None], count: int, padding: bool = False):
    """Returns row numbers, int64, all of which exist.

    Args:
      value: what the caller gave.
      name: name of the argument.
      where: name of the function, as the user knows it.
      shape: as for `array`.
      count: number of rows that exist.
      padding: whether -1 is allowed, for no row.

    Raises:
      InputError: another shape, numbers that are not integers, or rows that do not exist.
    """
    found = array(value, name, where, shape, kind="integers")
    if found.size and (found.min() < (-1 if padding else 0) or found.max() >= count):
        meaning = " (-1 is padding)" if padding else ""
        raise InputError(
            f"{where}: {name} refers to rows {found.min()} to {found.max()}, but there are {count:,} rows{meaning}"
        )
    return found.astype(np.int64, copy=False)


def finite(found: np.ndarray, what: str, ids: Sequence[str] | None = None, first: int | slice | np.ndarray = 0) -> None:
    """Raises InputError where vectors hold NaN or infinity, with their count and the first one's row and id.

    Nothing that is computed from such a vector means anything, and comparisons with NaN hide that: its cosines would
    come out as 0, and its neighbours in the order of their ids.

    Args:
      found: [n, D] vectors as they were read.
      what: whose vectors, such as "gallery".
      ids: ids of all rows, or None.
      first: the row of the first vector, or the row of each [n].
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if not found.size or np.isfinite(np.sum(found, dtype=np.float32 if found.dtype == np.float16 else None)):
            return  # one pass at the speed of memory: NaN and infinity survive a sum
    bad = ~np.isfinite(found).all(1)
    if not bad.any():  # finite numbers whose sum is not
        return
    row = int(bad.argmax())
    if isinstance(first, np.ndarray):
        row = int(first[row])
    else:
        row += int((first.start or 0) if isinstance(first, slice) else first)
    name = f" ({short(ids[row])})" if ids is not None else ""
    count = int(bad.sum())
    raise InputError(
        f"{what}: {count:,} of {len(found):,} vectors {'is' if count == 1 else 'are'} non-finite (NaN or too large), "
        f"first row {row}{name}: embed again; if it stays, look at that listing and at the checkpoint"
    )


def memory(size: int, what: str, where: str, remedy: str) -> None:
    """Raises InputError for arrays that this machine has no memory for.

    Args:
      size: bytes.
      what: what takes them, for the message.
      where: name of the function, as the user knows it.
      remedy: what to do.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > total:
        raise InputError(
            f"{where}: {what} would take {size / 2**30:,.0f} GiB, and this machine has {total / 2**30:,.0f}: {remedy}"
        )


@contextlib.contextmanager
def library(where: str, remedy: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns the errors that a library raises for what it was given into InputErrors.

    Args:
      where: what the library was asked to do, with the user's setting.
      remedy: what to do instead.
      *errors: the exceptions that it raises then.
    """
    try:
        yield
    except InputError:
        raise
    except errors as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{where}: {short(lines[0], 200)}: {remedy}") from error


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array {value.dtype} {list(value.shape)}"
    try:
        return short(repr(value), 80)
    except Exception:  # an object whose repr fails
        return type(value).__name__
