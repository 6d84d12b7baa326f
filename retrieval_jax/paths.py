"""Paths that users type, and commands that messages tell them to run."""

import os
import pathlib
import shlex
import shutil
import sys

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

    It starts as this process was started: in a checkout that nobody installed, `.venv/bin/python -m retrieval_jax`.

    Args:
      *words: verb and options; paths as they are.
    """
    return shlex.join([*program(sys.orig_argv, sys.argv), *map(str, words)])


def program(original: list[str], given: list[str]) -> list[str]:
    """Returns the words that start this program as it was started; those of an installed one where it is a library.

    Args:
      original: `sys.orig_argv`, the words of the interpreter's own command line.
      given: `sys.argv`.
    """
    module = original[original.index("-m") + 1 :][:1] if "-m" in original else []
    if module and module[0].partition(".")[0] == "retrieval_jax":
        python, here = pathlib.Path(original[0]), pathlib.Path.cwd()
        if python.is_absolute() and python.is_relative_to(here):  # as launch/local.sh starts it
            python = python.relative_to(here)
        return [str(python), "-m", "retrieval_jax"]
    script = given[0] if given else ""
    if pathlib.Path(script).name == "retrieval-jax":
        found = shutil.which("retrieval-jax")
        if found is None or not os.path.exists(script) or not os.path.samefile(found, script):
            return [script]
    return ["retrieval-jax"]
