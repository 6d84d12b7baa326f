"""The Beam pipeline on Beam's DirectRunner: the same bytes as the local count, for any number of workers.

Beam has a folder of its own (requirements-beam.txt), installed once into the tests' cache.
"""

import csv
import functools
import gzip
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import polars as pl
import pytest

from retrieval_jax.attributes import choosing, statistics, vocabulary, words
from retrieval_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TITLES = [
    f"Red {i % 7} GB grey 防水の und shoe w/ {'Éclair ' * (i % 3)}x{i % 50} \udc80of\n{i % 11}" for i in range(2500)
]

# What pip and uv print when an index does not answer.
UNREACHABLE = re.compile("Retrying|Failed to fetch|error sending request|dns error|Connection", re.IGNORECASE)

# Runs several command lines in one process: Beam takes seconds to import.
RUNS = """
import contextlib, io, json, sys
from retrieval_jax.attributes import beam
done = []
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = beam.main(arguments)
    done.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


def packages() -> list[str]:
    """Returns the folder of Beam for PYTHONPATH; an empty list if Beam is installed in this environment.

    Skips if no package index can be reached; fails if the requirements cannot be met.
    """
    if importlib.util.find_spec("apache_beam"):
        return []
    file = ROOT / "requirements-beam.txt"
    name = hashlib.sha256(file.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = pathlib.Path(os.environ.get("RETRIEVAL_JAX_CACHE", pathlib.Path.home() / ".cache" / "retrieval_jax"))
    folder = cache / f"beam-{name}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as part:
            # 600 MB, and most of the time is downloading; modules are compiled when imported.
            pip = (
                ["uv", "pip", "install", "--python", sys.executable]
                if shutil.which("uv")
                else [sys.executable, "-m", "pip", "install", "--no-compile"]
            )
            made = pathlib.Path(part) / "packages"
            done = subprocess.run([*pip, "--target", made, "-r", file], capture_output=True, text=True)
            if done.returncode:
                why = f"requirements-beam.txt could not be installed: {done.stderr.strip()[-300:]}"
                (pytest.skip if UNREACHABLE.search(done.stderr) else pytest.fail)(why)
            try:
                made.rename(folder)
            except OSError:
                pass  # another run was faster
    return [str(folder)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The same titles in files of every kind, in several pieces; two titles are empty."""
    root = tmp_path_factory.mktemp("shop")
    rows = [
        ["id", "title"],
        *([str(i), title.replace("\udc80", "?")] for i, title in enumerate(TITLES)),
        ["e", ""],
        ["f", "  "],
    ]
    for number in range(3):
        with open(root / f"part-{number}.csv", "w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([rows[0], *rows[1 + number :: 3]])
    with gzip.open(root / "some.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"title": title}) + "\n" for title in [*TITLES[:1000], None])
    pl.DataFrame({"title": [title.replace("\udc80", "?") for title in TITLES[1000:2000]] + [None]}).write_parquet(
        root / "more.parquet"
    )
    (root / "rest.txt").write_text(
        "".join(title.replace("\n", " ").replace("\udc80", "?") + "\n" for title in TITLES[2000:]), encoding="utf-8"
    )
    (root / "other.csv").write_text("id,name\n1,red\n")
    (root / "broken.csv").write_bytes(b"title\nred\n\xff\xfe\n")
    (root / "left").mkdir()
    (root / "left" / "statistics.json").write_text("{}")
    (root / "stopped").mkdir()
    (root / "stopped" / "shard-tokens-00000-of-00007.jsonl").write_text('["red", 1, 1]\n')
    (root / "number.jsonl").write_text('{"title": "red"}\n{"title": 7}\n')
    damaged = bytearray((root / "some.jsonl.gz").read_bytes())
    damaged[200:260] = bytes(60)
    (root / "damaged.jsonl.gz").write_bytes(damaged)
    return root


@pytest.fixture(scope="module")
def done(shop):
    def line(out, *titles, flags=(), **options):
        options = {"threshold": 30} | options
        return [
            *(f"--titles={shop}/{name}" for name in titles),
            f"--out={shop}/{out}",
            "--pairs",
            *flags,
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    lines = {
        "plain": line("plain", "part-*.csv", "part-1.csv"),  # a file counts once
        "workers": line("workers", "part-*.csv", direct_num_workers=2, direct_running_mode="multi_processing"),
        "kinds": line("kinds", "some.jsonl.gz", "more.parquet", "rest.txt", runner="DirectRunner"),
        "switches": line("switches", "part-*.csv", flags=("--normalise", "--segment")),
        "column": line("column", "part-*.csv", column="name"),
        "nothing": line("nothing", "part-9.csv"),
        "kind": line("kind", "part-1.csv", "left/statistics.json"),
        "high": line("high", "part-*.csv", threshold=10**6),
        "left": line("left", "part-*.csv"),
        "broken": line("broken", "broken.csv", threshold=0),
        "stopped": line("stopped", "part-*.csv"),
        "number": line("number", "number.jsonl", threshold=0),
        "damaged": line("damaged", "damaged.jsonl.gz"),
    }
    path = os.pathsep.join([*packages(), str(ROOT)])
    ran = subprocess.run(
        [sys.executable, "-c", RUNS],
        input=json.dumps(list(lines.values())),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=shop,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return dict(zip(lines, json.loads(ran.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name, empty", [("plain", 2), ("workers", 2), ("kinds", 2)])
def test_vocabulary_and_tables_equal_the_local_count(shop, done, tmp_path, name, empty):
    status, printed, errors = done[name]
    assert status == 0, errors
    counted = statistics.count([TITLES], pairs=True)
    made = vocabulary.build(counted.tokens, counted.num_titles, 30)
    made.save(tmp_path / "vocabulary.json")
    assert (shop / name / "vocabulary.json").read_bytes() == (tmp_path / "vocabulary.json").read_bytes()
    assert json.loads(printed) == {
        "read": len(TITLES) + empty,
        "counted": len(TITLES),
        "set_aside": {"empty title": empty},
        "tokens": len(made),
        "hash": made.hash,
    }
    found = statistics.load(shop / name)
    assert found.num_titles == len(TITLES)
    assert found.tokens.equals(counted.tokens) and found.pairs.equals(counted.pairs)
    assert sorted(file.name for file in (shop / name).iterdir()) == [
        "pairs.parquet",
        "statistics.json",
        "tokens.parquet",
        "vocabulary.json",
    ]


def test_switches_match_those_of_mine(shop, done):
    status, _, errors = done["switches"]
    assert status == 0, errors
    settings = {"threshold": 30, "normalise": True, "segment": True}
    rules = choosing.base_rules(settings)
    counted = statistics.count([TITLES], pairs=True, tokenize=functools.partial(words.of_titles, rules=rules))
    decisions = choosing.decide(counted, settings)
    made = vocabulary.Vocabulary.load(shop / "switches" / "vocabulary.json")
    assert made.tokens == decisions.tokens and made.rules.as_json() == decisions.rules.as_json()
    assert {"6gb", "gray", "防水"} <= set(made.tokens) and not {"und", "の", "gb"} & set(made.tokens)
    indptr, ids = made.encode(TITLES)
    assert made.num_titles == len(indptr) - 1 and made.counts.tolist() == [
        (ids == place).sum() for place in range(len(made))
    ]
    found = statistics.load(shop / "switches", rules.counted_by)
    assert found.tokens.equals(counted.tokens) and found.pairs.equals(counted.pairs)
    with pytest.raises(InputError, match="counted by the title rule 'titles-2 normalised-1 segmented-1'"):
        statistics.load(shop / "switches")


@pytest.mark.parametrize(
    "name, says",
    [
        ("column", "part-0.csv has no column 'name' (it has id, title); give the title column with --column"),
        ("nothing", "part-9.csv: no file matches"),
        ("kind", "titles are read from .csv"),
        ("high", "no token was seen more than --threshold=1000000 times in 2,500 titles"),
        ("left", "left already contains statistics"),
        ("broken", "broken.csv: unreadable after line"),
        ("stopped", "shard-tokens-00000-of-00007.jsonl is left over from an interrupted run"),
        ("number", "number.jsonl: 7 in the column 'title' is not text"),
        ("damaged", "damaged.jsonl.gz: unreadable after line"),
    ],
)
def test_bad_input_is_reported_in_one_sentence(done, name, says):
    status, printed, errors = done[name]
    assert (status, printed) == (2, "")
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and says in re.sub("part-[12]", "part-0", lines[0]), errors
