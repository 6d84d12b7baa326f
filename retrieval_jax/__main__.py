"""The command line: `retrieval-jax <verb> ...`, or `python -m retrieval_jax.<verb> ...`; alone, it lists the verbs.

All verbs share one tree of parsers, which is built without importing any of them: a verb's module, and JAX with it, is
imported when its command line has been read. A new verb is a file at the package's root, with `main(given)` and the
three lines that start it, and a row in VERBS.
"""

import argparse
import ast
import dataclasses
import difflib
import importlib
import os
import pathlib
import sys
from collections.abc import Callable

import retrieval_jax
from retrieval_jax import errors
from retrieval_jax.errors import InputError

PROGRAM = "retrieval-jax"
STAGES = ("mine", "train", "embed", "search", "evaluate", "report")  # verbs with `run(config, workdir)` and a record


@dataclasses.dataclass(frozen=True)
class Verb:
    """A row of the table.

    Attributes:
      line: what it does, in one line.
      add: adds its options to a parser.
      examples: what follows the verb's name, twice.
      devices: whether the processes of a multi-process run join before it starts.
    """

    line: str
    add: Callable[[argparse.ArgumentParser], None]
    examples: tuple[str, str]
    devices: bool = False


# --------------------------------------------------------------------------------------------------------- the options


def _config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="NAME[:ARG]",
        help="the experiment. A bare name is one that comes with the package (`retrieval-jax configs` lists them), "
        "a path (with a slash, or ending in .py) a config file of your own. ARG goes to its get_config: runlocal, ...",
    ).complete = {"bash": "_retrieval_jax_configs", "zsh": "_files", "tcsh": "f"}
    parser.add_argument(
        "--config.SETTING",
        metavar="VALUE",
        help="another value of a setting, such as --config.search.k=200 or --config.data.image_size='(96, 96)'; may be "
        "given for any number of settings",
    )


def _workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir",
        metavar="FOLDER",
        help="folder of the results, or a URL (s3://..., gs://...); by default "
        "runs/<config>[-<arg>][-<setting>=<value>...] in the current folder",
    )


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", metavar="FIRST:LAST", help="steps of train to profile, such as 20:25")


def _stage(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _workdir(parser)
    parser.add_argument("--again", action="store_true", help="run even though the result is complete and unchanged")


def _train(parser: argparse.ArgumentParser) -> None:
    _stage(parser)
    _profile(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _workdir(parser)
    _profile(parser)
    parser.add_argument(
        "--estimate", action="store_true", help="print steps, memory, rough time and disk, and start nothing"
    )


def _leaks(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _workdir(parser)


def _prepare(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("--out", metavar="FOLDER", help="folder to write; the same command resumes an interrupted one")
    parser.add_argument(
        "--side",
        type=int,
        default=256,
        help="shorter side in pixels (default: %(default)s); smaller pictures stay as they are",
    )
    parser.add_argument("--quality", type=int, default=90, help="of the written JPEGs, 1 to 100 (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=0, help="that decode; 0 for one per core")
    parser.add_argument("--shard_rows", type=int, default=8192, help="listings per file (default: %(default)s)")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("new", nargs="+", type=pathlib.Path, help="work directories of one recipe, one per seed")
    parser.add_argument("--against", nargs="+", type=pathlib.Path, required=True, help="those of the other recipe")
    parser.add_argument("--stage", default="", help="stage or model/stage; by default the last of each run")
    parser.add_argument("--against_stage", help="the same for the other side; by default as --stage")
    names = ["mar@10_capped", "recall@1", "map@10", "ndcg@10", "precision@10"]
    parser.add_argument(
        "--metrics", nargs="+", default=names, help="the verdict is about the first (default: %(default)s)"
    )
    halves = ("all", "selection", "report")
    parser.add_argument(
        "--half",
        choices=halves,
        default="all",
        help="of the queries (default: %(default)s): choose on one, report the other",
    )
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write as well")


def _propose_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=pathlib.Path, help="work directory with embeddings")
    parser.add_argument(
        "--recall", type=float, default=0.98, help="wanted, against exact search (default: %(default)s)"
    )
    parser.add_argument("--k", type=int, default=10, help="results per query (default: %(default)s)")
    parser.add_argument("--max_bytes", type=float, default=0, help="of memory per vector; 0 for no limit")
    parser.add_argument("--model", default="", help="whose embeddings; by default the trained model's")
    parser.add_argument("--whiten", action="store_true", help="vectors as after the step `whitening`")
    parser.add_argument("--queries", type=int, default=1000, help="to measure with (default: %(default)s)")
    parser.add_argument(
        "--candidates",
        type=int,
        nargs="+",
        default=(1, 4, 16),
        help="multiples of k to re-score (default: %(default)s)",
    )
    parser.add_argument("--factories", nargs="+", default=(), help="faiss factory strings; by default a choice by size")


def _evaluate_checkpoints(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="of the training, which may not have started yet")
    parser.add_argument("--out", help="local folder to write to; by default <workdir>/checkpoint_scores")
    parser.add_argument("--full", action="store_true", help="score as embed, search, evaluate do, with every stage")
    parser.add_argument("--metric", default="", help="that chooses the best, such as whitening/mar@10_capped")
    parser.add_argument("--soup", type=int, default=0, metavar="N", help="average the last N checkpoints at the end")
    parser.add_argument("--once", action="store_true", help="score the checkpoints that are there and stop")
    parser.add_argument("--poll_seconds", type=float, default=10.0, help="between two looks (default: %(default)s)")
    parser.add_argument(
        "--idle_seconds", type=float, default=0.0, help="stop after so long without a new one; 0: never"
    )


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="of the training")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--step", type=int, help="of the checkpoint; by default the latest")
    parser.add_argument(
        "--which",
        choices=("ema", "params"),
        default="ema",
        help="moving average or raw parameters (default: %(default)s)",
    )
    platforms = ("cpu", "cuda", "tpu", "rocm")
    parser.add_argument(
        "--platforms", nargs="+", choices=platforms, default=platforms[:3], help="to compile for (default: %(default)s)"
    )


_QUICKSTART = "--config=quickstart"
VERBS = {
    "run": Verb(
        "runs a whole experiment, from mine to report; skips what is complete and unchanged",
        _run,
        (_QUICKSTART, "--config=shop/mine.py:seed=1 --config.search.k=200 --workdir=runs/shop"),
        devices=True,
    ),
    "mine": Verb(
        "mines attributes from titles",
        _stage,
        (_QUICKSTART, f"{_QUICKSTART} --config.mine.threshold=50 --workdir=runs/mine"),
    ),
    "train": Verb(
        "trains an embedder",
        _train,
        (_QUICKSTART, f"{_QUICKSTART}:seed=1 --config.train.epochs=2 --profile=20:25"),
        devices=True,
    ),
    "embed": Verb(
        "embeds queries and gallery",
        _stage,
        (_QUICKSTART, f"{_QUICKSTART} --config.embed.batch_size=64 --again"),
        devices=True,
    ),
    "search": Verb(
        "searches the gallery: whitening, ensembles, re-ranking; one ranking per stage",
        _stage,
        (_QUICKSTART, f"{_QUICKSTART} --config.search.steps=\"(('whitening', {{}}),)\" --workdir=runs/mine"),
    ),
    "evaluate": Verb(
        "scores the rankings, with confidence intervals",
        _stage,
        (_QUICKSTART, f"{_QUICKSTART} --config.evaluate.ks='(1, 5, 10)'"),
    ),
    "report": Verb(
        "writes the report, one HTML page",
        _stage,
        (_QUICKSTART, f"{_QUICKSTART} --config.report.rows=24 --workdir=runs/mine"),
    ),
    "configs": Verb(
        "lists the experiments that come with the package, with hardware and expected score",
        lambda parser: parser.add_argument("name", nargs="?", help="shows all about one of them"),
        ("", "fashion_best"),
    ),
    "prepare": Verb(
        "resizes a catalogue's pictures once, into files that are fast to read",
        _prepare,
        (
            "--config=eproduct_convnext_xl --out=prepared/eproduct",
            "--config=shop/mine.py --out=prepared/shop --side=384 --processes=8",
        ),
    ),
    "leaks": Verb(
        "finds pictures that splits share, and lists those to leave out",
        _leaks,
        ("--config=fashion_best --workdir=runs/leaks", "--config=shop/mine.py --config.leaks.altered=true"),
    ),
    "compare": Verb(
        "says whether one run is better than another, or whether that is noise",
        _compare,
        (
            "runs/new-seed=0 runs/new-seed=1 --against runs/old-seed=0 runs/old-seed=1",
            "runs/new --stage=whitening --against runs/new --against_stage=cosine",
        ),
    ),
    "propose_index": Verb(
        "measures approximate indexes and proposes the cheapest for a wanted recall",
        _propose_index,
        (
            "runs/quickstart --recall=0.98",
            "runs/quickstart --whiten --k=100 --max_bytes=300 --factories HNSW32 IVF64,SQ8",
        ),
    ),
    "evaluate_checkpoints": Verb(
        "follows a training and scores its checkpoints; keeps the best, averages the last",
        _evaluate_checkpoints,
        ("--workdir=runs/quickstart", "--workdir=runs/quickstart --soup=3 --once"),
    ),
    "export": Verb(
        "writes a trained model as a folder that serves without the training code",
        _export,
        (
            "--workdir=runs/quickstart --out=served/quickstart",
            "--workdir=runs/quickstart/checkpoint_scores/best --out=served/best --platforms cuda",
        ),
    ),
}


# ------------------------------------------------------------------------------------------------------------ the tree


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
        description=retrieval_jax.__doc__,
        epilog=f"`{PROGRAM} <verb> --help` shows the options of a verb.",
        formatter_class=_layout,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"retrieval_jax {retrieval_jax.__version__}")
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
    if "config" in given:
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
      SystemExit: after --help and the like, and for an error meant for the user, see `command_line.guarded`.
    """
    with errors.spoken():
        given = parse(sys.argv[1:] if argv is None else argv)
    if given is not None:
        from retrieval_jax.workdir import command_line

        command_line.guarded(lambda: _start(given))


def _start(given: argparse.Namespace) -> None:
    if getattr(given, "profile", None):  # not a setting: it changes no result
        os.environ["RETRIEVAL_JAX_PROFILE"] = given.profile
    if VERBS[given.verb].devices and os.environ.get("RETRIEVAL_JAX_DISTRIBUTED"):
        importlib.import_module("retrieval_jax.training.sharding").initialize()
    module = importlib.import_module(f"retrieval_jax.{given.verb}")
    if given.verb in STAGES:
        from retrieval_jax.workdir import command_line

        command_line.run_verb(given, module.run)
    else:
        module.main(given)


def start(verb: str) -> None:
    """Runs the command line of a module started as `python -m retrieval_jax.<verb>`, and exits."""
    main([verb, *sys.argv[1:]])
    sys.exit(0)


if __name__ == "__main__":
    main()
