"""Reads ranges of settings (TOML, or a config's `sweep()`) as the lines of a sweep.

    seeds = [0, 1, 2]                # of every line, train.seed

    [settings]                       # the same in every line
    "train.epochs" = 4

    [grid]                           # every combination, the first setting slowest
    "train.learning_rate" = { from = 1e-4, to = 1e-2, count = 3, scale = "log" }
    "train.task_kwargs.loss" = ["softmax", "sigmoid"]

    [[line]]                         # or, instead of the grid, lines as they are listed
    name = "baseline"

The setting "config" is the experiment itself, such as "fashion_softmax:seed=1"; by default that of --config.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from retrieval_jax import pairs
from retrieval_jax.errors import InputError
from retrieval_jax.files.opening import opened
from retrieval_jax.workdir import layout

RESERVED = ("table.json", "table.csv", "table.md", "logs", "array")  # what a sweep writes beside its lines
MOST_RUNS = 1000
_MOST_BYTES = 1 << 20
_KEYS = ("seeds", "settings", "grid", "line")
_RANGE = ("from", "to", "count", "scale")
SEED = "train.seed"


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a sweep: the same settings, with every seed.

    Attributes:
      name: unique, and the name of a folder.
      settings: {dotted name: value}; "config" is the experiment.
      varied: the names of those that tell the lines apart.
    """

    name: str
    settings: dict[str, Any]
    varied: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The lines of a sweep, and the seeds of each; () for the config's own."""

    lines: tuple[Line, ...]
    seeds: tuple[int, ...]


def read(file: str | os.PathLike) -> Sweep:
    """Reads a TOML file of ranges.

    Args:
      file: its path.

    Raises:
      InputError: it is missing, is not TOML, or asks for what cannot be; the message names the entry.
    """
    if pathlib.Path(file).suffix != ".toml":
        raise InputError(f"--ranges={file}: give a .toml file; docs/sweeps.md shows one")
    try:
        with opened(file, _MOST_BYTES) as stream:
            found = tomllib.loads(stream.read(_MOST_BYTES + 1).decode("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"--ranges={file} not found") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"--ranges={file} is not TOML: {error}") from error
    return parse(found, str(file))


def parse(found: Any, where: str) -> Sweep:
    """Checks what a file of ranges holds and expands it.

    Args:
      found: see the top of this file, as nested dicts and lists.
      where: begins messages: the file.

    Returns:
      The `Sweep`.

    Raises:
      InputError: an unknown key, an empty or repeated value, a range that cannot be, two equal lines or names, or more
        than `MOST_RUNS` runs.
    """
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: ranges are a table with {', '.join(_KEYS)}, not {found!r}")
    for key in found:
        if key not in _KEYS:
            raise InputError(
                f"{where}: there is no key {key!r}{pairs.near(key, _KEYS)}. Settings go below [settings], [grid] or "
                '[[line]], dotted names in quotes: "train.learning_rate" = [1e-3, 3e-3]'
            )
    grid, listed = found.get("grid"), found.get("line")
    if (grid is None) == (listed is None):
        raise InputError(f"{where}: give either [grid], for all combinations, or [[line]]s")
    fixed = _settings(found.get("settings", {}), f"{where}: [settings]")
    seeds = _seeds(found.get("seeds", []), where)
    lines = _listed(listed, where) if grid is None else _combined(grid, where)
    used = {SEED} if seeds else set()
    for line in lines:
        for key, value in line.settings.items():
            if key in used or key in fixed:
                other = "seeds" if key in used else "[settings]"
                raise InputError(f"{where}: {line.name}: {key} = {value!r}, and {other} sets it too: delete one")
    if clash := used & set(fixed):
        raise InputError(f"{where}: [settings] sets {clash.pop()}, and seeds too: delete one")
    _distinct(lines, where)
    if (count := len(lines) * max(1, len(seeds))) > MOST_RUNS:
        raise InputError(f"{where}: {count:,} runs, more than {MOST_RUNS:,}: give fewer values or seeds")
    return Sweep(tuple(Line(one.name, {**fixed, **one.settings}, one.varied) for one in lines), seeds)


def words(settings: Mapping[str, Any]) -> list[str]:
    """Returns settings as words of a command line: {"train.epochs": 4} as ["--config.train.epochs=4"].

    Args:
      settings: {dotted name: value}; "config" is left out.
    """
    return [f"--config.{key}={text(value)}" for key, value in settings.items() if key != "config"]


def text(value: Any) -> str:
    """Returns a value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(_tuples(value))


def _tuples(value: Any) -> Any:
    """Returns a value whose lists are tuples, as configs have them."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


# ------------------------------------------------------------------------------------------------------------ entries


def _settings(found: Any, where: str) -> dict[str, Any]:
    """Returns checked settings; nested tables that TOML makes of unquoted dotted names are joined again."""
    if not isinstance(found, Mapping):
        raise InputError(f'{where} is a table of settings, such as "train.epochs" = 4')
    return {key: _value(value, f"{where} {key}") for key, value in _flat(found).items()}


def _flat(found: Mapping, prefix: str = "") -> dict[str, Any]:
    """Returns {"train.epochs": 4} for {"train": {"epochs": 4}}; a table below a dotted name in quotes stays whole."""
    out: dict[str, Any] = {}
    for key, value in found.items():
        nested = isinstance(value, Mapping) and "." not in key and not set(value) <= set(_RANGE)
        out |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return out


def _value(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _value(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item, where) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} = {value}: give a finite number")
    if not isinstance(value, bool | int | float | str):
        raise InputError(f"{where} = {value!r}: a setting is a number, text, true, false, or a list of those")
    if isinstance(value, str) and not value.isprintable():
        raise InputError(f"{where} = {value!r}: control characters, such as a line break, cannot be in a setting")
    return value


def _seeds(found: Any, where: str) -> tuple[int, ...]:
    seeds = found if isinstance(found, list | tuple) else None
    if seeds is None or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in seeds):
        raise InputError(f"{where}: seeds = {found!r}: give a list of whole numbers from 0, such as [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{where}: seeds = {found!r}: a seed occurs twice")
    return tuple(seeds)


def _values(found: Any, where: str) -> list:
    """Returns the values of one entry of the grid."""
    if isinstance(found, Mapping):
        return _between(found, where)
    if not isinstance(found, list | tuple) or not found:
        raise InputError(f"{where} = {found!r}: give a list of values, or {{ from = 1e-4, to = 1e-2, count = 3 }}")
    values = [_value(value, where) for value in found]
    for number, value in enumerate(values):
        if any(value == other and type(value) is type(other) for other in values[:number]):
            raise InputError(f"{where}: {value!r} occurs twice")
    return values


def _between(found: Mapping, where: str) -> list:
    """Returns the values of a range: evenly spaced, or by a constant factor; whole numbers between whole numbers."""
    for key in found:
        if key not in _RANGE:
            raise InputError(f"{where}: a range has no {key!r}{pairs.near(key, _RANGE)}")
    if missing := [key for key in _RANGE[:3] if key not in found]:
        raise InputError(
            f"{where}: a range needs {', '.join(missing)} as well: {{ from = 1e-4, to = 1e-2, count = 3 }}"
        )
    low, high, count, scale = (found.get(key, "linear") for key in _RANGE)
    for key, value in (("from", low), ("to", high)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where}: {key} = {value!r} is not a finite number")
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= MOST_RUNS:
        raise InputError(f"{where}: count = {count!r}: give a whole number, 2 to {MOST_RUNS:,}")
    if scale not in ("linear", "log"):
        raise InputError(f'{where}: scale = {scale!r} is neither "linear" nor "log"')
    if scale == "log" and min(low, high) <= 0:
        raise InputError(f"{where}: a logarithmic range lies above 0, not from {low} to {high}")
    shares = [step / (count - 1) for step in range(count)]
    if scale == "log":
        values = [low * (high / low) ** share for share in shares]
    else:
        values = [low + (high - low) * share for share in shares]
    whole = isinstance(low, int) and isinstance(high, int)
    values = [low, *(round(value) if whole else float(f"{value:.4g}") for value in values[1:-1]), high]
    if len(set(values)) < count:
        raise InputError(f"{where}: {count} values from {low} to {high} are not all different: {values}")
    return values


# -------------------------------------------------------------------------------------------------------------- lines


def _combined(grid: Any, where: str) -> list[Line]:
    if not isinstance(grid, Mapping) or not grid:
        raise InputError(f'{where}: [grid] is a table of settings, such as "train.learning_rate" = [1e-3, 3e-3]')
    axes = {key: _values(value, f"{where}: [grid] {key}") for key, value in _flat(grid).items()}
    if (count := math.prod(map(len, axes.values()))) > MOST_RUNS:
        raise InputError(f"{where}: [grid] has {count:,} combinations, more than {MOST_RUNS:,}: give fewer values")
    made = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    return [Line(_name(one, tuple(axes)), one, tuple(axes)) for one in made]


def _listed(found: Any, where: str) -> list[Line]:
    if not isinstance(found, list | tuple) or not found or not all(isinstance(one, Mapping) for one in found):
        raise InputError(f"{where}: each line begins with [[line]], in two brackets")
    lines = []
    for number, one in enumerate(found):
        settings, name = dict(one), one.get("name")
        settings.pop("name", None)
        settings = _settings(settings, f"{where}: line {number + 1}")
        if name is None:
            name = _name(settings, tuple(settings)) if settings else "config"
        if not isinstance(name, str) or layout.safe_name(name) != name or not name.strip("."):
            raise InputError(
                f"{where}: line {number + 1}: the name {name!r} is not one of letters, digits, . _ = + , -"
            )
        if name.startswith(".") or name.casefold() in RESERVED:
            raise InputError(f"{where}: line {number + 1}: the sweep has a file {name!r} of its own: give another name")
        lines.append(Line(name, settings, tuple(settings)))
    varied = tuple(dict.fromkeys(key for line in lines for key in line.settings))
    return [Line(line.name, line.settings, varied) for line in lines]


def _name(settings: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Returns "learning_rate=0.001,loss=softmax": the last parts of the names, or whole names where those are equal."""
    last = [key.rpartition(".")[2] for key in keys]
    short = last if len(set(last)) == len(last) else keys
    return layout.safe_name(",".join(f"{name}={text(settings[key])}" for name, key in zip(short, keys, strict=True)))


def _distinct(lines: list[Line], where: str) -> None:
    """Raises InputError where two lines have one name or the same settings."""
    names: dict[str, Line] = {}
    seen: dict[str, Line] = {}
    for line in lines:
        key = repr(sorted((name, text(value)) for name, value in line.settings.items()))
        if line.name.casefold() in names:  # file systems may not tell the cases apart
            raise InputError(f"{where}: two lines have the name {line.name!r}: give each one of its own")
        if key in seen:
            raise InputError(f"{where}: the lines {seen[key].name!r} and {line.name!r} have the same settings")
        names[line.name.casefold()] = seen[key] = line
