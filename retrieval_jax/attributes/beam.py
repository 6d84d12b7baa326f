"""Counts the words of titles with Apache Beam, for more titles than one machine can read, on any cluster Beam runs on.

    python -m retrieval_jax.attributes.beam --titles='shop/part-*.csv' --column=title --out=runs/words --threshold=30
    ... --runner=DataflowRunner --project=... --region=... --temp_location=gs://... --sdk_container_image=...
    ... --runner=FlinkRunner --flink_master=...      ... --runner=SparkRunner      ... --direct_num_workers=4

Each bundle is counted with the functions that retrieval_jax.mine uses, so the output is identical byte for byte:
OUT/vocabulary.json and the tables that `statistics.load` reads: words and, with --pairs, adjacent words, but no
categories. --rule, --normalise and --segment are those of config.mine; `mine` accepts the tables
(config.mine.statistics) if its own are the same. Titles are read from one column of .csv, .tsv, .jsonl,
.ndjson or .parquet files, or from .txt files with one title per line, also compressed (.gz, .bz2, .xz). Paths may be
anything Beam reads (gs://, s3://, hdfs:// with its extras). All other options are Beam's own. Needs
requirements-beam.txt; workers of a cluster also need this package and polars, in their image or by --extra_package.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import pathlib
import posixpath
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.io import fileio, filesystem, filesystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

from retrieval_jax import output
from retrieval_jax.attributes import choosing, segmenting, statistics, words
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.data.tables import tsv
from retrieval_jax.data.tables import values as values_lib
from retrieval_jax.errors import InputError, short

_FIELD = 16 * 2**20  # longest CSV field, in characters
_SHARD = "shard-"  # prefix of the files that workers write; they are deleted at the end
_UNPACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def run(
    titles: list[str],
    out: str,
    threshold: int,
    column: str = "title",
    pairs: bool = False,
    normalise: bool = False,
    segment: bool = False,
    options: list[str] | None = None,
    rule: int = title_rule.DEFAULT,
) -> dict:
    """Counts titles and writes their statistics and vocabulary.

    Args:
      titles: file patterns.
      out: output folder; must not contain statistics yet.
      threshold: keep tokens seen more than this many times.
      column: name of the title column.
      pairs: also count adjacent tokens.
      normalise: same as config.mine.normalise.
      segment: same as config.mine.segment.
      options: Beam's own command-line options.
      rule: same as config.mine.rule.

    Returns:
      {"read": rows, "counted": titles, "set_aside": {"empty title": rows}, "tokens": tokens kept, "hash": hash of the
      vocabulary}.

    Raises:
      InputError: a pattern matches no file, a file is unreadable or lacks the column, no token is above the threshold,
        or `out` already contains statistics.
    """
    _check(titles, out)
    tables = ("tokens", "pairs") if pairs else ("tokens",)
    rules = words.Rules(normalise, segment, rule=rule)
    # Unless given the path of its Prism binary, Beam's DirectRunner downloads one from GitHub; with "none" it runs the
    # pipeline in this process.
    pipeline = beam.Pipeline(options=PipelineOptions(["--prism_location=none", *(options or [])]))
    rows = (
        pipeline
        | "patterns" >> beam.Create(titles)
        | "files" >> fileio.MatchAll()
        | "paths" >> beam.Map(_path)
        | "once" >> beam.Distinct()  # two patterns may match one file; this also spreads files over the workers
        | "open" >> fileio.ReadMatches()
        | "read" >> beam.FlatMap(_read, column)
        | "rows" >> beam.Reshuffle()  # spreads one large file over all workers
        | "bundle" >> beam.BatchElements(min_batch_size=1_000, max_batch_size=statistics.CHUNK)
        | "count" >> beam.FlatMap(_count, pairs, rules)
    )
    for table in ("num_titles", *tables):
        _ = (
            rows
            | f"{table} alone" >> beam.Filter(_is_of, table)
            | f"{table} summed" >> beam.CombinePerKey(_sum)
            | f"{table} lines" >> beam.Map(_line)
            | f"{table} written" >> beam.io.WriteToText(posixpath.join(out, _SHARD + table), file_name_suffix=".jsonl")
        )
    done = pipeline.run()
    done.wait_until_finish()

    found = _gathered(out, tables)
    filesystems.FileSystems.delete(_shards(out))
    set_aside = sum(
        counter.committed for counter in done.metrics().query(MetricsFilter().with_name("empty_titles"))["counters"]
    )
    kept = choosing.merged(found, {}, segmenting.LEFT_OUT if segment else frozenset()).tokens
    vocabulary = vocabulary_lib.build(kept, found.num_titles, threshold, rules)
    if not len(vocabulary):
        raise InputError(
            f"no token was seen more than --threshold={threshold} times in {found.num_titles:,} titles; "
            "lower the threshold"
        )
    with tempfile.TemporaryDirectory() as made:
        statistics.save(made, found, rules.counted_by)
        vocabulary.save(pathlib.Path(made) / "vocabulary.json")
        for file in sorted(pathlib.Path(made).iterdir()):
            with filesystems.FileSystems.create(
                posixpath.join(out, file.name), "application/octet-stream", filesystem.CompressionTypes.UNCOMPRESSED
            ) as written:
                written.write(file.read_bytes())
    return {
        "read": found.num_titles + set_aside,
        "counted": found.num_titles,
        "set_aside": {"empty title": set_aside},
        "tokens": len(vocabulary),
        "hash": vocabulary.hash,
    }


def _check(titles: list[str], out: str) -> None:
    for pattern, match in zip(titles, filesystems.FileSystems.match(titles), strict=True):
        if not match.metadata_list:
            raise InputError(f"{pattern}: no file matches; give --titles the pattern of your files")
        for file in match.metadata_list:
            _kind(file.path)
    if filesystems.FileSystems.exists(posixpath.join(out, statistics.NAMES_FILE)):
        raise InputError(f"{out} already contains statistics; choose another --out or remove the folder")
    if left := _shards(out):
        raise InputError(f"{left[0]} is left over from an interrupted run; remove {out}/{_SHARD}*")


def _shards(out: str, table: str = "") -> list[str]:
    # Found by file name: object stores have no folders to look for or to delete.
    pattern = posixpath.join(out, f"{_SHARD}{table}*")
    return [file.path for file in filesystems.FileSystems.match([pattern])[0].metadata_list]


def _path(file: filesystem.FileMetadata) -> str:
    return file.path


def _kind(path: str) -> str:
    name, packed = posixpath.splitext(path)
    kind = posixpath.splitext(name if packed in _UNPACKED else path)[1].lower()
    if kind not in (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"):
        raise InputError(f"{path}: titles are read from .csv, .tsv, .jsonl, .ndjson, .parquet and .txt files")
    return kind


def _read(file: fileio.ReadableFile, column: str) -> Iterator[str]:
    """Yields the titles of a file; counts empty ones and leaves them out."""
    path, empty = file.metadata.path, Metrics.counter("titles", "empty_titles")
    # The file objects of Beam's own decompression do not work with Python's readers.
    with file.open(compression_type=filesystem.CompressionTypes.UNCOMPRESSED) as packed:
        unpack = _UNPACKED.get(posixpath.splitext(path)[1], lambda content: content)
        for title in _titles(path, unpack(packed), column):
            if not isinstance(title, str | None):
                raise InputError(
                    f"{path}: {short(repr(title))} in the column {column!r} is not text; give the title "
                    "column with --column"
                )
            if title and not values_lib.is_null(title, na=False):  # as in `tables.row_checks.check_titles`
                # Titles travel between machines as UTF-8. The title rule treats "?" and a lone surrogate as a blank.
                yield title.encode("utf-8", "replace").decode("utf-8")
            else:
                empty.inc()


def _titles(path: str, opened: io.BufferedIOBase, column: str) -> Iterator[str | None]:
    kind, row = _kind(path), 0
    try:
        if kind == ".parquet":
            from pyarrow import parquet  # comes with Beam

            table = parquet.ParquetFile(opened)
            _check_column(path, column, table.schema_arrow.names)
            for batch in table.iter_batches(columns=[column]):
                yield from batch.column(0).to_pylist()
            return
        lines = io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")
        if kind == ".tsv":
            table = tsv.records(lines)
            _, header = next(table, (0, []))
            _check_column(path, column, header)
            place = header.index(column)
            for _, fields in table:
                if any(map(str.strip, fields)):
                    yield fields[place] if place < len(fields) else None
        elif kind == ".csv":
            csv.field_size_limit(_FIELD)
            table = csv.DictReader(lines)
            _check_column(path, column, table.fieldnames or [])
            for values in table:
                row = table.line_num
                yield values[column]
        elif kind == ".txt":
            for line in lines:
                yield line
        else:
            for row, line in enumerate(lines, 1):
                if line.strip():
                    values = json.loads(line)
                    _check_column(f"{path}, line {row}", column, values)
                    yield values[column]
    except (OSError, EOFError, ValueError, TypeError, RecursionError, csv.Error, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: unreadable after line {row} ({error}); repair the file or leave it out") from None


def _check_column(where: str, column: str, names: Iterable[str]) -> None:
    if column not in names:
        raise InputError(
            f"{where} has no column {column!r} (it has {', '.join(map(str, names))}); give the title column with "
            "--column"
        )


def _count(titles: list[str], pairs: bool, rules: words.Rules) -> Iterator[tuple[tuple[str, ...], tuple[int, int]]]:
    """Yields ((table, key...), counts) of one bundle."""
    tokenize = functools.partial(words.of_titles, rules=rules)
    found = statistics.count([titles], pairs=pairs, tokenize=tokenize, progress=False)
    yield ("num_titles",), (found.num_titles, 0)
    for *key, occurrences, with_it in found.tokens.iter_rows():
        yield ("tokens", *key), (occurrences, with_it)
    if found.pairs is not None:
        for *key, occurrences, with_it in found.pairs.iter_rows():
            yield ("pairs", *key), (occurrences, with_it)


def _is_of(row: tuple, table: str) -> bool:
    return row[0][0] == table


def _sum(numbers: Iterable[tuple[int, int]]) -> tuple[int, int]:
    first = second = 0
    for a, b in numbers:
        first, second = first + a, second + b
    return first, second


def _line(row: tuple) -> str:
    (_, *key), numbers = row
    return json.dumps([*key, *numbers])


def _gathered(out: str, tables: tuple[str, ...]) -> statistics.Statistics:
    """Reads the files that the workers wrote."""
    rows = {}
    for table in ("num_titles", *tables):
        rows[table] = []
        for path in _shards(out, f"{table}-"):
            with filesystems.FileSystems.open(path) as opened:
                rows[table] += [json.loads(line) for line in io.TextIOWrapper(opened, "utf-8")]
    return statistics.from_rows(sum(row[0] for row in rows["num_titles"]), **{name: rows[name] for name in tables})


def main(arguments: list[str]) -> int:
    """Parses a command line and runs it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="retrieval_jax.attributes.beam",
        allow_abbrev=False,
        description="Counts the words of titles with Apache Beam.",
    )
    parser.add_argument("--titles", action="append", required=True, help="file pattern; may be repeated")
    parser.add_argument("--column", default="title", help="the title column (default: title)")
    parser.add_argument("--out", required=True, help="folder for vocabulary.json and the tables")
    parser.add_argument("--threshold", type=int, required=True, help="keep tokens seen more often than this")
    parser.add_argument("--pairs", action="store_true", help="also count adjacent tokens")
    parser.add_argument("--rule", type=int, default=title_rule.DEFAULT, help="same as config.mine.rule")
    parser.add_argument("--normalise", action="store_true", help="same as config.mine.normalise")
    parser.add_argument("--segment", action="store_true", help="same as config.mine.segment")
    given, options = parser.parse_known_args(arguments)
    try:
        found = run(
            given.titles,
            given.out,
            given.threshold,
            given.column,
            given.pairs,
            given.normalise,
            given.segment,
            options,
            given.rule,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    # Workers import the functions by module name, so they must not come from __main__.
    from retrieval_jax.attributes import beam as this

    with output.shown():
        sys.exit(this.main(sys.argv[1:]))
