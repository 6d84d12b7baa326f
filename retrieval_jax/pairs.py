"""Names that a config gives: modules looked up by name, and (name, arguments) pairs checked in one place.

Transforms, views, search steps, samplings, evaluations and losses are all configured as a name with keyword arguments.
One checker means one sentence for a misspelt name or argument, whatever the pair is for.
"""

import difflib
import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Iterable, Mapping

from retrieval_jax.errors import InputError, short


def names(package: types.ModuleType) -> list[str]:
    """Returns the names of the modules of a package that can be looked up, sorted; folders count, private ones do not.

    Args:
      package: the package whose modules are looked up.
    """
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def module(package: types.ModuleType, name: str, what: str, known: Iterable[str] | None = None) -> types.ModuleType:
    """Returns a module of a package by its name.

    Args:
      package: the package to look in.
      name: name of the module.
      what: what the name stands for, with the setting that gives it, such as "step in config.search.steps".
      known: names that may be looked up; all modules of the package by default.

    Raises:
      InputError: there is no such module; the message lists the names.
    """
    known = names(package) if known is None else list(known)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"there is no {what} named {short(repr(name))}{near(name, known)}")
    return importlib.import_module(f"{package.__name__}.{name}")


def near(name: object, known: Iterable[str]) -> str:
    """Returns the end of a sentence about an unknown name: the near names, and all that exist."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=2)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} (available: {', '.join(known) or 'nothing'})"


def split(entry: object, setting: str, example: str) -> tuple[str, dict]:
    """Returns name and arguments of a pair.

    Args:
      entry: what the config holds, a (name, arguments) pair.
      setting: dotted name of the setting, such as "config.search.steps".
      example: a right pair, as text, such as "('whitening', {})".

    Raises:
      InputError: it is not such a pair.
    """
    if isinstance(entry, (tuple, list)) and len(entry) == 2 and isinstance(entry[0], str):
        if isinstance(entry[1], Mapping) or hasattr(entry[1], "items"):
            return entry[0], dict(entry[1])
    raise InputError(f"{setting} holds {entry!r}: write (name, arguments), such as {example}")


def check(name: str, kwargs: Mapping, known: Mapping[str, Iterable[str]], setting: str, what: str) -> None:
    """Checks a name and its arguments.

    Args:
      name: as the config gives it.
      kwargs: its arguments.
      known: {name: names of its arguments}.
      setting: dotted name of the setting.
      what: what the name stands for: "transform", "view", "step" ...

    Raises:
      InputError: an unknown name or argument; the message lists what exists.
    """
    if name not in known:
        raise InputError(f"{setting}: there is no {what} named {name!r}{near(name, known)}")
    check_arguments(name, kwargs, known[name], setting, what)


def check_arguments(name: str, kwargs: Mapping, accepted: Iterable[str], setting: str, what: str) -> None:
    """Raises an InputError that lists the accepted arguments if one of `kwargs` is not among them; see `check`."""
    accepted = list(accepted)
    for key in kwargs:
        if key not in accepted:
            raise InputError(f"{setting}: {what} {name!r} has no argument {key!r}{near(key, accepted)}")


def arguments(function: Callable, skip: int = 1) -> list[str]:
    """Returns the names of a function's arguments that a config may give.

    Args:
      function: the function that receives them.
      skip: how many leading arguments the caller fills in.
    """
    return list(inspect.signature(function).parameters)[skip:]
