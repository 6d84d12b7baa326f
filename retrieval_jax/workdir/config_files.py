"""Config files: found by name or path, loaded, checked and locked; their mistakes reported in one sentence."""

import collections.abc
import difflib
import importlib.util
import pathlib
import re
import sys
import traceback

from ml_collections import ConfigDict

from retrieval_jax import paths
from retrieval_jax.errors import InputError, short
from retrieval_jax.settings import base, tasks
from retrieval_jax.workdir import checks

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", tuple: "a tuple"}


def shipped() -> pathlib.Path:
    """Returns the folder of the experiments that come with the package: in it once installed, else in the checkout."""
    installed = _PACKAGE / "_configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def experiments(folder=None) -> dict[str, pathlib.Path]:
    """Returns the config files of a folder by name, sorted.

    Args:
      folder: a folder; by default that of the experiments that come with the package.
    """
    files = sorted(pathlib.Path(folder or shipped()).glob("*.py"))
    return {
        file.stem: file for file in files if "def get_config(" in file.read_text(encoding="utf-8", errors="replace")
    }


def find(name: str, beside=None) -> pathlib.Path:
    """Returns the file of a config.

    Args:
      name: the bare name of an experiment ("quickstart"), or the path of a config file: with a slash, or ending in .py.
      beside: folder to look in first for a bare name: that of the config which names this one as a member.

    Raises:
      InputError: there is no such file; the message lists those that exist.
    """
    path = paths.expanded(name)
    if "/" not in name and path.suffix != ".py":
        known = {**experiments(), **(experiments(beside) if beside else {})}
        if name in known:
            return known[name]
        own = path.with_suffix(".py")
        hint = f"for the file give --config=./{own}" if own.is_file() else "a file of your own is given as ./<name>.py"
        raise InputError(f"there is no experiment named {name!r}; {_near(name, known)}; {hint}")
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, {**experiments(), **experiments(path.parent)}, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(
            f"config file {path} does not exist; {hint}"
            f"`{paths.command('init', 'my_shop.csv', '--images=pictures/')}` writes one for a table and its pictures, "
            f"and `{paths.command('configs')}` lists those that come with the package"
        )
    return path


def _near(name: str, known: dict[str, pathlib.Path]) -> str:
    if near := difflib.get_close_matches(name, known, n=2):
        return f"did you mean {' or '.join(near)}? (`retrieval-jax configs` lists all)"
    return f"experiments: {', '.join(known)}"


def load(file, arg: str | None = None) -> ConfigDict:
    """Loads a config file and returns its settings, locked.

    Args:
      file: the bare name of an experiment, or the path of a Python file with `get_config()` or `get_config(arg)`.
      arg: argument of get_config, or None.

    Returns:
      The settings.

    Raises:
      InputError: there is no such file, it raises (the message names file and line), it refuses the argument, or it
        does not return settings.
    """
    file = find(str(file))

    def call(module):
        if not hasattr(module, "get_config"):
            raise InputError(f"{file} has no function get_config(): it is not an experiment")
        if arg and module.get_config.__code__.co_argcount == 0:
            raise InputError(f"{file} takes no argument, but got ':{arg}'")
        return module.get_config(arg) if arg is not None else module.get_config()

    config = _called(file, call, arg)
    if not isinstance(config, ConfigDict):
        what = (
            "returned None: end it with `return config`"
            if config is None
            else "returned no ConfigDict, such as base.defaults()"
        )
        raise InputError(f"{file}: get_config() {what}")
    config.lock()
    check(config, str(file))
    return config


def sweep(file: pathlib.Path):
    """Returns what the function `sweep()` of a config file returns, see `sweeps.ranges`.

    Args:
      file: the config file.

    Raises:
      InputError: it has no such function, or raises; the message names file and line.
    """

    def call(module):
        if not hasattr(module, "sweep"):
            raise InputError(f"{file} has no function sweep(): give the ranges as --ranges=<file>.toml, or add one")
        return module.sweep()

    return _called(file, call)


def _called(file: pathlib.Path, call, arg: str | None = None):
    """Executes a config file and returns `call(module)`; what goes wrong is reported with the file's name and line."""
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    if spec is None:
        raise InputError(f"config file {file} is not a .py file")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.path.append(str(file.resolve().parent))  # a config may import a file beside it
    try:
        spec.loader.exec_module(module)
        return call(module)
    except InputError as error:
        where = f"{file}{':' + arg if arg else ''}"
        raise InputError(str(error) if str(error).startswith(str(file)) else f"{where}: {error}") from error
    except Exception as error:
        raise InputError(_explain(file, error)) from error
    finally:
        sys.path[:] = path


def check(config: ConfigDict, where: str) -> None:
    """Checks what no single setting's type can: values by the table in checks.py, and options are those of the task.

    Args:
      config: the settings.
      where: begins the message: the config file or the option that gave the setting.

    Raises:
      InputError: a setting that cannot be, or task_kwargs holds options of another task.
    """
    checks.check(config, where)
    task, options = get(config, "train.task"), get(config, "train.task_kwargs")
    known = getattr(tasks, task, None) if isinstance(task, str) and not task.startswith("_") else None
    if known is None or getattr(known, "__module__", "") != tasks.__name__ or options is None:
        return  # another task checks its options itself
    if foreign := sorted(set(options) - set(known())):
        raise InputError(
            f"{where}: the task {task!r} has no option {' or '.join(map(repr, foreign))} in train.task_kwargs; it has "
            f"{', '.join(sorted(known()))}. In a config: config.train.task_kwargs = tasks.{task}()"
        )


def get(config, dotted: str):
    """Returns the setting of a dotted name, or None where there is none."""
    for part in dotted.split("."):
        config = config.get(part) if hasattr(config, "get") else None
    return config


# ------------------------------------------------------------------------------------------------- what a file raises


def _explain(file: pathlib.Path, error: Exception) -> str:
    """Returns one sentence about an exception that a config file raised: where, and what to do."""
    line, code = _place(file, error)
    where = f"{file}, line {line}" + (f" ({short(code)})" if code else "") if line else str(file)
    message = error
    while isinstance(message, Exception):  # ConfigDict's AttributeErrors wrap a KeyError
        message = message.args[0] if message.args else ""
    message = str(message)
    if found := re.match(r'Key "([\w.]+)" (?:does not exist|cannot be set)', message) or re.match(r"'(\w+)'", message):
        return f"{where}: {_no_setting(found[1], code)}"
    if found := re.search(r"override field '(\w+)'.*?\. (.*) is of original type .* to type <class '(.+)'>", message):
        return f"{where}: {_wrong_type(*found.groups())}"
    if message.startswith("This ConfigDict is locked"):
        return f"{where}: settings are locked; delete one inside `with config.unlocked():`"
    if isinstance(error, SyntaxError):
        return f"{where}: {error.msg}"
    hint = "; what configs share is in retrieval_jax.settings" if "'configs'" in message else ""
    return f"{where}: {type(error).__name__}: {' '.join(message.split())}{hint}"


def _place(file: pathlib.Path, error: Exception) -> tuple[int, str]:
    """Returns the last line of the file that an exception passed through, and its code."""
    here = file.resolve()
    if isinstance(error, SyntaxError) and pathlib.Path(error.filename or "").resolve() == here:
        return error.lineno or 0, (error.text or "").strip()
    frames = [one for one in traceback.extract_tb(error.__traceback__) if pathlib.Path(one.filename).resolve() == here]
    return (frames[-1].lineno, (frames[-1].line or "").strip()) if frames else (0, "")


def _no_setting(key: str, code: str) -> str:
    found = re.search(r"config\.([\w.]*\b" + re.escape(key.rpartition(".")[2]) + r"\b[\w.]*)", code)
    dotted = key if "." in key or found is None else found[1]
    near = near_names(dotted, setting_names(base.defaults()))
    text = f"; did you mean {' or '.join(near)}?" if near else "."
    if dotted.rpartition(".")[0] in base.OPEN:
        return f"there is no setting {dotted} yet. After `with config.unlocked():` call `base.lock(config)`"
    return f"there is no setting {dotted}{text} A setting of your own is added inside `with config.unlocked():`"


def _wrong_type(key: str, value: str, kind: str) -> str:
    if key == "image_size":
        return f"image_size must be (height, width): write ({value}, {value})"
    words = {one.__name__: text for one, text in _KINDS.items()}.get(kind, f"a {kind.rpartition('.')[2]}")
    return f"{key} must be {words}, not {value}"


def explain_value(config, key: str, given: str) -> str:
    """Returns a sentence about a value on the command line that does not have the type of its setting.

    Args:
      config: the settings.
      key: dotted name of the setting.
      given: the value, as text.
    """
    found = get(config, key)
    if hasattr(found, "keys"):
        names = setting_names(found, key + ".")
        return f"--config.{key}={given}: {key} is a block of settings: {', '.join(names) or 'empty'}"
    words = _KINDS.get(type(found), f"a {type(found).__name__}")
    return f"--config.{key}={given}: {key} must be {words} (it is {found!r}), not {given!r}"


# ---------------------------------------------------------------------------------------------------- names of settings


def setting_names(config, prefix: str = "") -> list[str]:
    """Returns the dotted names of all settings, leaves only; an empty block counts as one.

    Args:
      config: settings, or a block of them.
      prefix: what the names begin with: "" for whole settings, "search." for a block.
    """
    names = []
    for key in config.keys():
        value = config[key]
        if isinstance(value, collections.abc.Mapping) or hasattr(value, "keys"):
            names += setting_names(value, f"{prefix}{key}.") or [prefix + key]
        else:
            names.append(prefix + key)
    return names


def near_names(key: str, names: list[str], count: int = 4) -> list[str]:
    """Returns the names most like a mistyped dotted one: by spelling, part by part, and by initials (lr)."""

    def likeness(name):
        parts, wanted = name.split("."), key.split(".")
        last = difflib.SequenceMatcher(None, wanted[-1], parts[-1]).ratio()
        initials = "".join(word[:1] for word in parts[-1].split("_"))
        if len(wanted[-1]) > 1 and wanted[-1] == initials:
            last = 0.95
        block = difflib.SequenceMatcher(None, ".".join(wanted[:-1]), ".".join(parts[:-1])).ratio()
        return 0.7 * last + 0.3 * block

    scored = sorted(((likeness(name), name) for name in names), key=lambda pair: (-pair[0], pair[1]))
    return [name for score, name in scored[:count] if score >= 0.6 and score >= scored[0][0] - 0.2]
