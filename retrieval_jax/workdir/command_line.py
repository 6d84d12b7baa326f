"""What every verb's command line shares: --config=file.py:arg, --config.key=value, --workdir, and readable errors."""

import collections.abc
import dataclasses
import difflib
import importlib.util
import os
import pathlib
import re
import sys
import time
import traceback

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from retrieval_jax import errors, workdir
from retrieval_jax.errors import InputError

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
      config: the settings, overrides applied, locked.
      workdir: the work directory, given or by default runs/<config>-<arg>-<overrides>; not created yet.
      config_file: the config's file.
      again: whether a complete verb is to run all the same.
    """

    config: ConfigDict
    workdir: pathlib.Path
    config_file: pathlib.Path
    again: bool = False


def main(run, verb: str | None = None) -> None:
    """Is the whole command line of a module: `if __name__ == "__main__": command_line.main(run)`.

    A verb of the work directory checks that the verbs before it are complete, runs unless its own result is complete
    and unchanged, and records what it did. Any other module ("serve", "export") just runs.

    Args:
      run: function of (config, workdir).
      verb: the module's name; by default that of the module started with `python -m`.
    """
    spec = sys.modules["__main__"].__spec__
    verb = verb or (spec.name.rpartition(".")[2] if spec else pathlib.Path(sys.argv[0]).stem)
    if verb in workdir.VERBS:
        start(lambda command: _run_shared(command, run, verb))
    else:
        start(lambda command: run(command.config, command.workdir))


def _run_shared(command: Command, run, verb: str) -> None:
    from retrieval_jax.data import loading

    with loading.shared():
        _run_verb(command, run, verb)


def _run_verb(command: Command, run, verb: str) -> None:
    if verb not in workdir.verbs(command.config):
        raise InputError(
            f"{command.config_file.name} is an ensemble: {verb} is done by its members, "
            f"{', '.join(workdir.members(command.config))}"
        )
    folder = workdir.prepare(command.config, command.workdir)
    data = None if verb == "search" else workdir.Data(command.config, folder)  # search alone reads no catalogue
    workdir.require_earlier(command.config, folder, verb, data)
    reason = workdir.reason_to_run(command.config, folder, verb, data)
    if reason is None and not command.again:
        print(f"{verb}: complete and unchanged in {folder}; --again runs it all the same")
        return
    print(f"{verb}: runs in {folder}, because {reason or 'of --again'}", flush=True)
    record = workdir.run_stage(command.config, folder, verb, run, data)
    print(f"{verb}: done in {record['seconds']:.1f} s")


def start(action) -> None:
    """Parses sys.argv and calls `action(command)`; prints an error that speaks to the user as one message.

    Exits with status 2 for an `InputError`, 1 for a `RunFailed` or a disk that does not take what is written, and
    `Preempted.REQUEUE` for a run that was asked to stop and goes on when it is started again.

    Args:
      action: function of a `Command`.
    """
    flags.DEFINE_string("workdir", None, "Folder of results; by default runs/<config>[-arg][-key=value...].")
    flags.DEFINE_boolean("again", False, "Run a single verb even when its result is complete and unchanged.")
    flags.DEFINE_string("profile", None, "Steps of train that the profiler looks at, first:last, such as 20:25.")
    config_flags.DEFINE_config_file("config", None, "Settings: configs/<name>.py[:arg].", lock_config=True)
    parsed = []

    def parse(argv):
        if not any(re.fullmatch(r"--?(help|helpfull|helpshort|helpxml|h|\?)", word) for word in argv[1:]):
            parsed.append(_parse(argv))
            return [argv[0]]
        return app.parse_flags_with_usage(argv)

    def run(_):
        absl_logging.set_verbosity(absl_logging.WARNING)
        if flags.FLAGS.profile:  # no setting: it changes no result
            os.environ["RETRIEVAL_JAX_PROFILE"] = flags.FLAGS.profile
        action(parsed[0])

    try:
        app.run(run, flags_parser=parse)
    except Exception as error:
        jax, explained = sys.modules.get("jax"), errors.explain(error)
        several = jax is not None and jax.process_count() > 1
        if explained is None and not several:
            raise
        message, status = explained or (traceback.format_exc(), 1)
        sys.stdout.flush()
        print(message, file=sys.stderr, flush=True)
        if several and not isinstance(error, errors.Preempted):
            # An orderly end would wait for the other processes, and these for this one. They notice that it is gone;
            # with the first goes the coordinator of all, so it lets the others speak.
            time.sleep(1.0 if jax.process_index() == 0 else 0.0)
            os._exit(status)
        sys.exit(status)


def _parse(argv: list[str]) -> Command:
    """Parses a command line with the flags defined; turns everything a user can get wrong into an InputError."""
    text = _config_value(argv)
    name, colon, arg = text.partition(":")
    config = load_config(name, arg if colon else None)
    for key in _override_keys(argv):
        _check_key(config, key)
    try:
        rest = flags.FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        raise InputError(_explain_value(config, str(error))) from error
    except flags.Error as error:
        raise InputError(str(error)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is no option; there are --config=..., --config.<setting>=... and --workdir=...")
    overrides = flags.FLAGS["config"].override_values
    folder = flags.FLAGS.workdir
    if not folder:
        folder = pathlib.Path("runs") / workdir.default_name(pathlib.Path(name).stem, arg, overrides)
    return Command(flags.FLAGS.config, workdir.as_path(folder), pathlib.Path(name), flags.FLAGS.again)


def _config_value(argv: list[str]) -> str:
    for i, word in enumerate(argv[1:], 1):
        if re.fullmatch(r"--?config", word) and i + 1 < len(argv):
            return argv[i + 1]
        if match := re.fullmatch(r"--?config=(.+)", word, re.DOTALL):
            return match[1]
    raise InputError("which experiment? Give --config=configs/<name>.py; " + _existing(pathlib.Path("configs")))


def _override_keys(argv: list[str]) -> list[str]:
    found = []
    for word in argv[1:]:
        if word == "--":
            break
        if match := re.match(r"--?(?:no)?config\.([^=]+)", word):
            found.append(match[1])
    return found


# ----------------------------------------------------------------------------------------------------- config files


def load_config(file, arg: str | None = None) -> ConfigDict:
    """Loads a config file and returns its settings, locked.

    Args:
      file: path of a Python file with `get_config()` or `get_config(arg)`.
      arg: argument of get_config, or None.

    Returns:
      The settings.

    Raises:
      InputError: when there is no such file (the message lists those that exist) or it refuses the argument.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise InputError(f"config file {file} not found; {_existing(file.parent, file.stem)}")
    _make_importable(file)
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    if spec is None:
        raise InputError(f"config file {file} is not a .py file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{file} has no function get_config(): it is no experiment; {_existing(file.parent)}")
    if arg and module.get_config.__code__.co_argcount == 0:
        raise InputError(f"{file} takes no argument, but got ':{arg}'")
    try:
        config = module.get_config(arg) if arg is not None else module.get_config()
    except ValueError as error:
        raise InputError(f"{file}{':' + arg if arg else ''}: {error}") from error
    config.lock()
    return config


def _make_importable(file: pathlib.Path) -> None:
    # Configs share blocks by `from configs import common`, from whatever folder they are started.
    for root in (file.resolve().parents[1], CHECKOUT):
        if (root / "configs" / "common.py").exists():
            if str(root) not in sys.path:
                sys.path.insert(0, str(root))
            return


def _existing(folder: pathlib.Path, stem: str | None = None) -> str:
    """Returns which configs exist in a folder, else in the checkout, the nearest name first."""
    if not list(folder.glob("*.py")):
        folder = CHECKOUT / "configs"
    names = sorted(file.stem for file in folder.glob("*.py") if "def get_config(" in file.read_text(encoding="utf-8"))
    if not names:
        return f"there are none in {folder}"
    near = difflib.get_close_matches(stem or "", names, n=1)
    return (f"did you mean {folder / near[0]}.py? " if near else "") + f"{folder} has: {', '.join(names)}"


# ----------------------------------------------------------------------------------------------------- settings


def _check_key(config, key: str) -> None:
    """Raises an InputError that lists the near names unless the dotted key is a setting."""
    found = config
    for part in key.split("."):
        part = part.partition("[")[0]
        if not hasattr(found, "keys") or part not in found:
            near = near_names(key, setting_names(config))
            text = f"did you mean {' or '.join(near)}?" if near else "blocks are " + ", ".join(sorted(config.keys()))
            raise InputError(f"--config.{key}: there is no setting {key}; {text}")
        found = found[part]


def setting_names(config, prefix: str = "") -> list[str]:
    """Returns the dotted names of all settings, leaves only."""
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


def _explain_value(config, message: str) -> str:
    """Returns absl's message about a value of the wrong type, with the type that is wanted."""
    match = re.match(r"flag --config\.([^=]+)=(.*?): ", message, re.DOTALL)
    if not match:
        return message
    key, given = match.groups()
    found = config
    for part in key.split("."):
        if not hasattr(found, "keys") or part not in found:
            return message
        found = found[part]
    if hasattr(found, "keys"):
        return f"--config.{key}={given}: {key} is a block of settings: {', '.join(setting_names(found, key + '.'))}"
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text", tuple: "a tuple"}
    kind = kinds.get(type(found), f"a {type(found).__name__}")
    return f"--config.{key}={given}: {key} wants {kind} (it is {found!r}), and {given!r} is none"
