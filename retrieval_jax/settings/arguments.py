"""The argument of a config, what follows the colon of `--config=name:arg`: flags and key=value, separated by commas."""

import difflib
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from retrieval_jax.errors import InputError


def parse(arg: str | None, **defaults) -> ConfigDict:
    """Parses the argument of a config.

    Args:
      arg: "runlocal", "runlocal,seed=2", or None or "" for the defaults.
      **defaults: every key the config knows, with its default; the default's type is the value's. `runlocal` (a version
        of the experiment that finishes within minutes on a laptop) is always known.

    Returns:
      The values by name.

    Raises:
      InputError: an unknown key (the message lists the near ones), or a value of another type.
    """
    values = {"runlocal": False, **defaults}
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in values:
            near = difflib.get_close_matches(key, values, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it takes {', '.join(sorted(values))}"
            raise InputError(f"there is no argument {key!r}; {hint}")
        values[key] = _value(key, text if equals else "true", values[key])
    return ConfigDict(values)


def _value(key: str, text: str, default):
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise InputError(f"the argument {key} must be true or false, not {text!r}")
        return text.lower() in ("true", "1")
    if default is None:
        return text
    try:
        return type(default)(text)
    except ValueError:
        kind = {int: "a whole number", float: "a number"}.get(type(default), type(default).__name__)
        raise InputError(f"the argument {key} must be {kind}, not {text!r}") from None


def choice(key: str, value: str, choices: Iterable[str]) -> str:
    """Returns a value of the argument, after checking that it is one of the choices.

    Args:
      key: name of the argument.
      value: what was given.
      choices: what may be given.

    Raises:
      InputError: it is not one of them; the message lists them.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"there is no {key} named {value!r}; {hint}choices: {', '.join(choices)}")
    return value


def apply_changes(config: ConfigDict, key: str, names: str, changes: Mapping[str, Mapping]) -> None:
    """Applies one of several named changes, or some of them joined by "+".

    Args:
      config: a config or one of its blocks, changed in place.
      key: name of the argument, for messages.
      names: "gem" or "gem+bands".
      changes: {name: {dotted setting: value}}.

    Raises:
      InputError: an unknown name.
    """
    for name in names.split("+"):
        config.update_from_flattened_dict(changes[choice(key, name, changes)])
