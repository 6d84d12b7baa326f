"""Paths that users type, and commands that messages tell them to run."""

import os
import pathlib
import shlex

from retrieval_jax.errors import InputError


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """Returns a path with "~" replaced by the home folder, which a shell does not do after "--workdir=".

    Args:
      path: as a user gave it.

    Raises:
      InputError: it begins with "~name", and there is no such user.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{os.fspath(path)}: there is no user of that name; give the whole path") from None


def expanded_text(value: object) -> object:
    """Returns settings in which every text that begins with "~/" is an expanded path; for dicts and lists of them."""
    if isinstance(value, str):
        return str(expanded(value)) if value == "~" or value.startswith("~/") else value
    if isinstance(value, dict):
        return {key: expanded_text(item) for key, item in value.items()}
    return type(value)(map(expanded_text, value)) if type(value) in (tuple, list) else value


def command(*words: object) -> str:
    """Returns a command for a message, quoted so that it can be pasted: `retrieval-jax run '--workdir=my runs/x'`.

    Args:
      *words: verb and options; paths as they are.
    """
    return shlex.join(["retrieval-jax", *map(str, words)])
