"""The verbs of the command line: what each does in one line, its options, and two examples.

Longer than 400 lines: a table of data, one row per verb, beside the options of each.
"""

import argparse
import dataclasses
from collections.abc import Callable

from retrieval_jax import paths


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


def _report(parser: argparse.ArgumentParser) -> None:
    _stage(parser)
    parser.add_argument(
        "--compare",
        nargs=2,
        type=paths.expanded,
        metavar=("OLD", "NEW"),
        help="write a page of two runs instead: work directories of one catalogue, the baseline first",
    )
    parser.add_argument(
        "--stages",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="of --compare: stage or model/stage of each; by default the last",
    )
    parser.add_argument(
        "--out", type=paths.expanded, help="of --compare: page to write; by default NEW/compared_with_<OLD>.html"
    )


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
    parser.add_argument("new", nargs="+", type=paths.expanded, help="work directories of one recipe, one per seed")
    parser.add_argument("--against", nargs="+", type=paths.expanded, required=True, help="those of the other recipe")
    parser.add_argument("--against_stage", help="--stage of the other side; by default the same")
    _scored(parser)
    parser.add_argument("--out", type=paths.expanded, help="JSON file to write as well")


def _upgrade(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=paths.expanded, help="work directory whose gallery is embedded")
    parser.add_argument("--to", type=paths.expanded, required=True, help="work directory of the new model")
    parser.add_argument("--out", type=paths.expanded, required=True, metavar="FOLDER", help="of the adapter")
    parser.add_argument(
        "--kind", choices=("linear", "residual"), default="linear", help="of the map (default: %(default)s)"
    )
    parser.add_argument(
        "--rows", type=int, default=2000, help="listings to embed again and to fit on (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these listings")


def _nas(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=paths.expanded, help="work directory of a super-net's run")
    parser.add_argument(
        "--out", type=paths.expanded, metavar="FOLDER", help="of the search; by default one below <folder>/nas"
    )
    parser.add_argument("--flops", type=float, default=0.0, help="operations of a query picture, at most")
    parser.add_argument("--ms", type=float, default=0.0, help="instead: measured milliseconds of a picture, at most")
    parser.add_argument(
        "--method",
        choices=("random", "evolution"),
        default="random",
        help="how candidates are found (default: %(default)s)",
    )
    parser.add_argument(
        "--evaluations",
        type=int,
        default=64,
        help="candidates to score (default: %(default)s); more continue a search that has ended",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")


def _scored(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", default="", help="stage or model/stage; by default the last of each run")
    names = ["mar@10_capped", "recall@1", "map@10", "ndcg@10", "precision@10"]
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=names,
        help="the verdict is about the first (default: %(default)s; of edits also hit@10, right@10, kept@10, both@10)",
    )
    halves = ("all", "selection", "report")
    parser.add_argument(
        "--half",
        choices=halves,
        default="all",
        help="of the queries (default: %(default)s): choose on one, report the other",
    )


def _sweep(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument(
        "--ranges", type=paths.expanded, metavar="FILE", help="TOML file of ranges; by default the config's sweep()"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="of the runs and the table; by default sweeps/<config>[-<arg>][-<ranges>]",
    )
    parser.add_argument("--parallel", type=int, metavar="N", help="runs at a time (default: 1; Slurm: all)")
    parser.add_argument(
        "--slurm",
        nargs="?",
        const="",
        metavar="OPTIONS",
        help="submit the runs as an array of jobs; OPTIONS go to sbatch, such as --slurm='--time=4:00:00 --nodes=1'",
    )
    parser.add_argument("--table", action="store_true", help="write the table of the finished runs, and start nothing")
    parser.add_argument("--dry-run", action="store_true", help="check the ranges, print the commands, start nothing")
    _scored(parser)


def _propose_index(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=paths.expanded, help="work directory with embeddings")
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
    parser.add_argument("--once", action="store_true", help="score the existing checkpoints and stop")
    parser.add_argument("--poll_seconds", type=float, default=10.0, help="polling interval (default: %(default)s)")
    parser.add_argument(
        "--idle_seconds", type=float, default=0.0, help="stop after that long without a new checkpoint; 0: never"
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
    parser.add_argument(
        "--weights",
        choices=("float", "float16", "int8"),
        default="float",
        help="float16, int8: half or a quarter of the size, rounded (default: %(default)s)",
    )
    parser.add_argument(
        "--whitened", action="store_true", help="add a program whose vectors are whitened as the run's search does"
    )
    parser.add_argument("--onnx", action="store_true", help="write ONNX files of the programs as well")


def _hub(parser: argparse.ArgumentParser) -> None:
    actions = ("push", "pull", "pack")
    parser.add_argument("action", choices=actions, help="upload a folder, fetch a model, or make one file of a folder")
    parser.add_argument(
        "source", help="push, pack: the exported folder; pull: owner/name, a packed file (.tar), or ./folder"
    )
    parser.add_argument("target", help="push: owner/name; pull: the folder to write; pack: the file to write, .tar")
    parser.add_argument("--revision", default="", help="pull: branch, tag or commit of a repository (default: main)")
    parser.add_argument("--private", action="store_true", help="push: a new repository is private")
    licence = "push, pack: licence of the model for the card, such as apache-2.0"
    parser.add_argument("--licence", default="", help=licence)
    parser.add_argument("--dry-run", action="store_true", help="push: check the folder and print the card")


def _serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir",
        required=True,
        action="append",
        type=paths.expanded,
        metavar="FOLDER",
        help="of a finished run, or of an exported model; may be repeated",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--token_file", type=paths.expanded, metavar="FILE", help="holds the token that every request must have"
    )
    parser.add_argument("--lazy", action="store_true", help="load a run when it is first asked for, not at the start")


def _query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", type=paths.expanded, nargs="+", help="picture files, and folders of them")
    parser.add_argument(
        "--workdir", required=True, type=paths.expanded, metavar="FOLDER", help="of a finished run or an exported model"
    )
    parser.add_argument("--out", required=True, type=paths.expanded, metavar="FILE", help="CSV to write")
    parser.add_argument("--k", type=int, default=10, help="results per picture (default: %(default)s)")
    parser.add_argument("--stage", default="", help="of the run's search; by default its last")
    parser.add_argument("--words", default="", help='conditions for all results, such as "-striped colour:red"')


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=paths.expanded, help="the products: CSV, TSV, JSON Lines or Parquet")
    parser.add_argument(
        "--images", type=paths.expanded, metavar="FOLDER", help="the pictures; by default the folder of the table"
    )
    parser.add_argument(
        "--out", type=paths.expanded, metavar="FILE", help="config to write; by default beside the table, named like it"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing config")


def _pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=paths.expanded, help="table of products that names pictures by address")
    parser.add_argument(
        "--out", type=paths.expanded, required=True, metavar="FOLDER", help="of the pictures; created where missing"
    )
    parser.add_argument(
        "--allow_private",
        action="append",
        default=[],
        metavar="NETWORK",
        help="private addresses that may be fetched from, such as 10.0.0.5 or 10.1.0.0/16; may be repeated",
    )
    parser.add_argument("--per_host", type=int, default=4, help="requests to a host at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="per attempt at a picture (default: %(default)s)")
    parser.add_argument("--max_mb", type=float, default=20.0, help="megabytes per picture (default: %(default)s)")
    parser.add_argument(
        "--max_gb", type=float, default=100.0, help="gigabytes to receive in all (default: %(default)s)"
    )
    parser.add_argument(
        "--max_pictures", type=int, default=1_000_000, help="pictures to fetch in all (default: %(default)s)"
    )


def _import_clicks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", type=paths.expanded, nargs="+", help="its files: .ndjson, .jsonl (.gz), .csv, .parquet")
    _config(parser)
    parser.add_argument(
        "--out", type=paths.expanded, required=True, metavar="FOLDER", help="of the tables, below the catalogue's root"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=(),
        metavar="OURS=THEIRS",
        help="names in flat logs: query, product, action, query_id, session, time, position; usual names are found",
    )
    parser.add_argument(
        "--photos",
        action="store_true",
        help="searches were by photo: the log's queries are ids of the catalogue's photos",
    )
    parser.add_argument(
        "--searches", type=int, default=200, help="of a session; with more it is a robot's (default: %(default)s)"
    )
    parser.add_argument("--clicks", type=int, default=500, help="likewise (default: %(default)s)")
    parser.add_argument(
        "--per_minute", type=int, default=60, help="searches and clicks of a session, likewise (default: %(default)s)"
    )
    parser.add_argument(
        "--val_share", type=float, default=0.1, help="of the queries, for validation (default: %(default)s)"
    )
    parser.add_argument(
        "--query_share", type=float, default=0.1, help="of the queries, held out for scoring (default: %(default)s)"
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
        "writes the report, one HTML page; of one run, or of two that are compared",
        _report,
        (_QUICKSTART, "--compare runs/old runs/new"),
    ),
    "configs": Verb(
        "lists the experiments that come with the package, with hardware and expected score",
        lambda parser: parser.add_argument("name", nargs="?", help="shows all about one of them"),
        ("", "fashion_best"),
    ),
    "init": Verb(
        "looks at a shop's table and pictures, and writes a config for them",
        _init,
        ("products.csv --images=pictures/", "export/catalog_product.csv --images=export/media --out=shop.py"),
    ),
    "pictures": Verb(
        "fetches the pictures that a table names by address",
        _pictures,
        (
            "products.csv --out=pictures/",
            "products.csv --out=pictures/ --per_host=2 --allow_private=10.1.0.0/16",
        ),
    ),
    "import_clicks": Verb(
        "reads a click log of typed queries, or of searches by photo, as tables of clicks",
        _import_clicks,
        (
            "log.ndjson.gz --config=shop/mine.py --out=shop/clicks",
            "photos.csv --config=shop/mine.py --out=shop/clicks --photos --columns query=photo",
        ),
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
    "upgrade": Verb(
        "maps a gallery that an old model has embedded into a new model's space",
        _upgrade,
        ("runs/old --to runs/new --out runs/adapter", "runs/old --to runs/new --out runs/adapter --rows=10000"),
    ),
    "nas": Verb(
        "searches the small networks of a super-net for the best one under a budget",
        _nas,
        ("runs/embedded_nas --flops=1.5e6", "runs/embedded_nas --ms=0.8 --method=random --evaluations=100 --seed=1"),
    ),
    "sweep": Verb(
        "runs an experiment over ranges of settings and seeds; one table, each line against the first",
        _sweep,
        (
            "--config=quickstart --ranges=rates.toml --parallel=2",
            "--config=fashion_softmax --ranges=rates.toml --out=/shared/rates --slurm='--time=4:00:00'",
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
    "serve": Verb(
        "serves runs and exported models: a search page and a JSON API",
        _serve,
        ("--workdir=runs/quickstart", "--workdir=runs/new --workdir=runs/old --port=8080 --lazy"),
    ),
    "query": Verb(
        "searches a gallery by picture files, and writes what was found as a table",
        _query,
        ("photos/ --workdir=runs/shop --out=found.csv", "a.jpg b.jpg --workdir=served/shop --out=found.csv --k=50"),
    ),
    "hub": Verb(
        "shares exported models: pushes or packs one with its model card, pulls and checks one",
        _hub,
        (
            "push served/fashion me/fashion --licence=apache-2.0 --dry-run",
            "pull me/fashion served/fashion --revision=v1",
        ),
    ),
}
