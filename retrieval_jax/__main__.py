"""The command line: `retrieval-jax <verb> ...`, or `python -m retrieval_jax.<verb> ...`; alone, it lists the verbs.

All verbs share one tree of parsers, which is built without importing any of them: a verb's module, and JAX with it, is
imported once its command line has been parsed. A new verb is a file at the package's root, with `main(given)` and the
three lines that start it, and a row in retrieval_jax/workdir/options.py.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import os
import pathlib
import sys

from retrieval_jax import __version__, errors, output, workdir
from retrieval_jax.errors import InputError
from retrieval_jax.workdir import stopping
from retrieval_jax.workdir.options import VERBS

PROGRAM = "retrieval-jax"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; `{self.prog} --help` shows every option")


def _layout(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=120)


def tree(described: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of all verbs.

    Args:
      described: the verb whose module's docstring is read for its --help.
    """
    parser = _Parser(
        PROGRAM,
        usage=f"{PROGRAM} <verb> [options]",
        description="Product retrieval in JAX: from weak labels in titles to a scored visual search.",
        epilog=f"`{PROGRAM} <verb> --help` shows the options of a verb.",
        formatter_class=_layout,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"retrieval_jax {__version__}")
    parser.add_argument(
        "--print-completion",
        metavar="SHELL",
        choices=("bash", "zsh", "tcsh"),
        help=f'print the completion of a shell; for bash: eval "$({PROGRAM} --print-completion bash)"',
    )
    parsers = parser.add_subparsers(dest="verb", title="verbs", metavar="<verb>")
    for name, verb in VERBS.items():
        one = parsers.add_parser(
            name,
            prog=f"{PROGRAM} {name}",
            help=verb.line,
            description=_about(name) if name == described else verb.line,
            epilog="examples:\n" + "\n".join(f"  {PROGRAM} {name} {words}".rstrip() for words in verb.examples),
            formatter_class=_layout,
            allow_abbrev=False,
        )
        verb.add(one)
    return parser


def _about(verb: str) -> str:
    """Returns the docstring of a verb's module, without its commands (the examples follow), not importing it."""
    source = pathlib.Path(__file__).with_name(f"{verb}.py").read_text(encoding="utf-8")
    paragraphs = (ast.get_docstring(ast.parse(source)) or VERBS[verb].line).split("\n\n")
    return "\n\n".join(text for text in paragraphs if not text.startswith(("    python -m", f"    {PROGRAM}")))


def _completion(shell: str) -> str:
    import shtab

    from retrieval_jax.workdir import config_files

    names = " ".join(config_files.experiments())
    function = f'_retrieval_jax_configs() {{ compgen -W "{names}" -- "$1"; _shtab_compgen_files "$1"; }}'
    return shtab.complete(tree(), shell, preamble={"bash": function})


# ------------------------------------------------------------------------------------------------------------ the door


def parse(argv: list[str]) -> argparse.Namespace | None:
    """Parses a command line.

    Args:
      argv: its words, without the program.

    Returns:
      What was given, `verb` among it; `config`, where the verb takes one, is the settings with overrides. None where
      there was nothing to run.

    Raises:
      InputError: an unknown verb, option, config or setting, or a wrong value.
    """
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        near = difflib.get_close_matches(argv[0], VERBS, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"there is no verb {argv[0]!r}; {hint}verbs: {', '.join(VERBS)}")
    parser = tree(argv[0] if argv else None)
    given, rest = parser.parse_known_args(argv)
    if given.print_completion:
        print(_completion(given.print_completion))
        return None
    if given.verb is None:
        parser.print_help()
        return None
    if "config" in given and not _of_two_runs(given):
        from retrieval_jax.workdir import command_line

        rest = command_line.read(given, rest)
    if rest:
        _refuse(given.verb, rest[0])
    return given


def _refuse(verb: str, word: str) -> None:
    options = argparse.ArgumentParser(allow_abbrev=False)
    VERBS[verb].add(options)
    name = word.partition("=")[0]
    near = difflib.get_close_matches(name, options._option_string_actions, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise InputError(f"{word!r} is not an option of {verb}; {hint}`{PROGRAM} {verb} --help` shows every option")


def main(argv: list[str] | None = None) -> None:
    """Runs a command line.

    Args:
      argv: its words, without the program; by default those of this process.

    Raises:
      SystemExit: after --help and the like; for an error meant for the user, see `command_line.guarded`; for a signal,
        see `stopping.heard`; and where the output cannot be written, see `output.shown`.
    """
    if argv is None:  # a process of its own: its worker processes import nothing from the current folder
        os.environ["PYTHONSAFEPATH"] = "1"
    with output.shown(), stopping.heard():
        with errors.spoken():
            given = parse(sys.argv[1:] if argv is None else argv)
        if given is not None:
            from retrieval_jax.workdir import command_line

            command_line.guarded(lambda: _start(given))


def _of_two_runs(given: argparse.Namespace) -> bool:
    """Returns whether `report` is about two finished runs, which have their configs in their work directories."""
    if given.verb != "report":
        return False
    if given.compare is None and (given.stages or given.out):
        raise InputError("--stages and --out are options of a comparison: report --compare OLD NEW")
    return given.compare is not None


def _start(given: argparse.Namespace) -> None:
    if getattr(given, "profile", None):  # not a setting: it changes no result
        os.environ["RETRIEVAL_JAX_PROFILE"] = given.profile
    if VERBS[given.verb].devices and os.environ.get("RETRIEVAL_JAX_DISTRIBUTED"):
        importlib.import_module("retrieval_jax.training.sharding").initialize()
    with stopping.serving(given.verb) if given.verb == "serve" else contextlib.nullcontext():
        module = importlib.import_module(f"retrieval_jax.{given.verb}")
        if given.verb in workdir.VERBS and not _of_two_runs(given):
            from retrieval_jax.workdir import command_line

            command_line.run_verb(given, module)
        else:
            module.main(given)


def start(verb: str) -> None:
    """Runs the command line of a module started as `python -m retrieval_jax.<verb>`, and exits."""
    main([verb, *sys.argv[1:]])
    sys.exit(0)


if __name__ == "__main__":
    main()
