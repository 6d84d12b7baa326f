"""What a command line does with a config: finds and loads it, overrides settings, runs a verb of the work directory."""

import contextlib
import faulthandler
import io
import os
import pathlib
import re
import sys
import time
import traceback

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from retrieval_jax import errors, output, workdir
from retrieval_jax.errors import InputError
from retrieval_jax.settings import base
from retrieval_jax.workdir import config_files, freshness, layout, stopping

load_config = config_files.load


def load_member(member: str, folder) -> ConfigDict:
    """Loads the config of an ensemble's member, or of the run that a training starts from.

    Args:
      member: "name" or "name:arg".
      folder: that of the config which names it: a config there goes before one that comes with the package.
    """
    name, _, arg = member.partition(":")
    return config_files.load(config_files.find(name, folder), arg or None)


def read(given, words: list[str]) -> list[str]:
    """Loads the config of a parsed command line and applies the overrides.

    Args:
      given: what the parser found. `config` becomes the settings, locked; `config_file` is added; `workdir`, where the
        verb has one, becomes a path, by default runs/<config>[-arg][-key=value...]; `words` are those that give the
        same config to another process. Nothing is created.
      words: the words that the parser did not know, overrides among them.

    Returns:
      The remaining words.

    Raises:
      InputError: no config or an unknown one, an unknown setting, a value of another type.
    """
    if not given.config:
        names = ", ".join(config_files.experiments())
        raise InputError(f"which experiment? Give --config=<name>, one of {names}; or --config=<path of a config file>")
    name, colon, arg = given.config.partition(":")
    given.config_file = config_files.find(name)
    given.config = config_files.load(given.config_file, arg if colon else None)
    if {"runlocal", "runlocal=true", "runlocal=1"} & set(arg.lower().split(",")):  # reports say so
        given.config.name += layout.RUNLOCAL
    overrides, rest = _split(given.config, words)
    place = os.path.abspath(given.config_file) if "/" in name or name.endswith(".py") else name
    given.words = [f"--config={place}{colon}{arg}", *overrides]
    values = override(given.config, overrides)
    if "workdir" in given:
        default = pathlib.Path("runs") / workdir.default_name(given.config_file.stem, arg, values)
        given.workdir = workdir.as_path(given.workdir or default)
    return rest


def _split(config, words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the overrides among words, with values that stand in a word of their own, and all other words."""
    overrides, rest, words = [], [], list(words)
    while words:
        word = words.pop(0)
        if match := re.match(r"--(no)?config\.([^=]+)(=)?", word):
            _check_key(config, match[2])
            overrides.append(word)
            if not (match[1] or match[3] or isinstance(config_files.get(config, match[2]), bool)) and words:
                overrides.append(words.pop(0))
        else:
            rest.append(word)
    return overrides, rest


def override(config: ConfigDict, words: list[str]) -> dict:
    """Overrides settings, in place: --config.key=value, --config.key value, --config.flag, --noconfig.flag.

    Args:
      config: the settings.
      words: such words; values as in Python, text without quotes. A value has the type of the setting.

    Returns:
      The overridden settings by dotted name.

    Raises:
      InputError: a value of another type, or of a setting that cannot be overridden.
    """
    if not words:
        return {}
    from ml_collections import config_flags  # here, because it takes as long as everything else together

    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *words])
        values(["", *words])
    except flags.IllegalFlagValueError as error:
        match = re.match(r"flag --config\.([^=]+)=(.*?): ", str(error), re.DOTALL)
        raise InputError(config_files.explain_value(config, *match.groups()) if match else str(error)) from error
    except flags.Error as error:
        raise InputError(str(error)) from error
    config_files.check(config, " ".join(words))
    return values["config"].override_values


def _check_key(config, key: str) -> None:
    """Raises an InputError that lists the near names unless the dotted key is a setting."""
    found = config
    for part in key.split("."):
        part = part.partition("[")[0]
        if not hasattr(found, "keys") or part not in found:
            near = config_files.near_names(key, config_files.setting_names(config))
            text = f"did you mean {' or '.join(near)}?" if near else "blocks are " + ", ".join(sorted(config.keys()))
            block, _, name = key.rpartition(".")
            if block in base.OPEN:
                text = f"to add it, give the whole block: --config.{block}=\"{{'{name}': ...}}\""
            raise InputError(f"--config.{key}: there is no setting {key}; {text}")
        found = found[part]


def run_verb(given, module) -> None:
    """Runs a verb of the work directory and records it, unless its result is complete and unchanged.

    Args:
      given: a command line after `read`, with the verb.
      module: the verb's, with `run(config, workdir)` and maybe `check(config, workdir)`.

    Raises:
      InputError: a verb before it is not complete, or an ensemble leaves this verb to its members.
    """
    from retrieval_jax.data import loading

    with loading.shared():  # the digest of the data and the verb read one catalogue
        _run_verb(given, module)


def _run_verb(given, module) -> None:
    verb = given.verb
    if verb not in workdir.verbs(given.config):
        members = workdir.members(given.config)
        raise InputError(
            f"{given.config_file.name} is an ensemble: its members do {verb}, {', '.join(members)}"
            if members
            else f"{given.config_file.name} has no {verb}: it starts at {workdir.verbs(given.config)[0]}"
        )
    folder = workdir.prepare(given.config, given.workdir)
    data = workdir.Data(given.config, folder) if freshness.reads(given.config, verb) or verb != "search" else None
    workdir.require_earlier(given.config, folder, verb, data)
    reason = workdir.reason_to_run(given.config, folder, verb, data)
    if reason is None and not given.again:
        if data is not None:
            workdir.refresh(folder, verb, data)
        print(f"{verb}: complete and unchanged in {folder}; --again runs it anyway")
        return
    print(f"{verb}: runs in {folder}, because {reason or 'of --again'}", flush=True)
    if hasattr(module, "check"):
        module.check(given.config, folder)
    record = workdir.run_stage(given.config, folder, verb, module.run, data)
    print(workdir.done(record))


def guarded(action) -> None:
    """Calls `action()`; prints an error meant for the user as one message and exits.

    Exits with status 2 for an `InputError`, 1 for a `RunFailed` or a disk that does not accept what is written, and
    `Preempted.REQUEUE` for a run that was asked to stop and resumes when it is started again.

    Args:
      action: function without arguments.
    """
    with contextlib.suppress(io.UnsupportedOperation):  # a stderr that is not a file
        faulthandler.enable()
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().addFilter(output.clean_record)
    try:
        action()
    except Exception as error:
        if stopping.requested():
            raise stopping.Stopped from error
        jax, explained = sys.modules.get("jax"), errors.explain(error)
        several = jax is not None and jax.process_count() > 1
        if explained is None and not several:
            raise
        message, status = explained or (traceback.format_exc(), 1)
        sys.stdout.flush()
        print(message, file=sys.stderr, flush=True)
        if several and not isinstance(error, errors.Preempted):
            # An orderly exit would wait for the other processes, and they for this one. They notice that it is gone.
            # The coordinator goes with the first process, so it lets the others report first.
            time.sleep(1.0 if jax.process_index() == 0 else 0.0)
            os._exit(status)
        sys.exit(status)
