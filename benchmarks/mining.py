"""Compares title mining with scikit-learn's CountVectorizer and with the notebook's approach, side by side in one run.

    python benchmarks/mining.py                            1,300,000 titles, and ten times as many
    python benchmarks/mining.py --titles=20000 --times=3   smaller

Titles come from generated_titles.py. Every line runs in its own process, one after the other: it holds the titles as a
Python list, as a catalogue does, then mines. Mining is all that `mine` does with words: count, keep those seen more
than --threshold times, find the targets of every title. Ours runs with polars' default number of threads, and with one.
CountVectorizer gets the same rule as its token_pattern, the same dropped words and the same threshold; a second line
uses its own pattern. The notebook's approach tests every token of a title for membership in the list of all attributes;
it is timed on --notebook titles and scaled, once with a sorted list and once with the most frequent words first, its
best case. The last line has ten times as many titles, streamed from the generator and never all in memory; it reports
processor time, minus the generator's.

Checked: the tokens of every reference title equal those of the reference tokenizer and the parity file; the words that
CountVectorizer keeps, and the number of titles with each, equal ours. Memory is anonymous memory (RssAnon) beyond that
with the titles loaded, sampled. Writes mining.json (--out) and prints a table.
"""

import argparse
import collections
import datetime
import gzip
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import generated_titles  # noqa: E402
import memory  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
from sklearn.feature_extraction.text import CountVectorizer  # noqa: E402

from retrieval_jax.attributes import statistics, titles, vocabulary  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402


class Clocked:
    """Titles from the generator, re-iterable, with the time that generating takes."""

    def __init__(self, count: int):
        self.generator, self.count, self.seconds = generated_titles.Generator(), count, 0.0

    def __iter__(self):
        blocks = self.generator.blocks(self.count)
        while True:
            start = time.perf_counter()
            block = next(blocks, None)
            self.seconds += time.perf_counter() - start
            if block is None:
                return
            yield from block


def mine(column, threshold: int) -> dict:
    counted = statistics.count([column], progress=False)
    made = vocabulary.build(counted.tokens, counted.num_titles, threshold)
    indptr, ids = made.encode(column)
    often = counted.tokens.filter(pl.col("titles") > threshold)
    return {
        "words": len(counted.tokens),
        "kept": len(made),
        "labels_per_title": len(ids) / (len(indptr) - 1),
        "same": digest(zip(often["token"].to_list(), often["titles"].to_list(), strict=True)),
        "hash": made.hash,
    }


def digest(pairs) -> str:
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


def vectorize(column: list[str], threshold: int, ours: bool) -> dict:
    rule = (
        {
            "preprocessor": lambda title: title.lower().replace("w/", " "),
            "token_pattern": r"[\w|.\-/']+",
            "stop_words": sorted(titles.DROPPED),
        }
        if ours
        else {}
    )
    made = CountVectorizer(min_df=threshold + 1, binary=True, **rule)
    rows = made.fit_transform(column)
    names, counts = made.get_feature_names_out().tolist(), np.asarray(rows.sum(axis=0)).ravel().tolist()
    return {"kept": len(names), "same": digest(zip(names, counts, strict=True))}


def notebook(column: list[str], attributes: list[str]) -> dict:
    start = time.perf_counter()
    rows = [[token for token in titles.tokenize(title) if token in attributes] for title in column]
    return {"seconds": time.perf_counter() - start, "found": sum(map(len, rows))}


def child(given) -> dict:
    if given.child == "streamed":
        column = Clocked(given.titles)
    else:
        before = memory.anonymous()
        column = list(generated_titles.Generator().titles(given.titles))
        held = memory.anonymous() - before
    if given.child == "notebook":
        counted = statistics.count([column], progress=False)
        made = vocabulary.build(counted.tokens, counted.num_titles, given.threshold)
        order = made.counts.argsort(kind="stable")[::-1].tolist()
        part = column[:: max(1, len(column) // given.notebook)]
        slow, best = notebook(part, made.tokens), notebook(part, [made.tokens[place] for place in order])
        return {
            "titles": len(part),
            "attributes": len(made),
            "sorted": slow["seconds"] * given.titles / len(part),
            "frequent_first": best["seconds"] * given.titles / len(part),
        }
    with memory.Peak() as peak:
        cpu = time.process_time()
        if given.child.startswith("vectorizer"):
            found = vectorize(column, given.threshold, given.child == "vectorizer")
        else:
            found = mine(column, given.threshold)
        cpu = time.process_time() - cpu
    found |= {"seconds": peak.seconds, "cpu_seconds": cpu, "peak_bytes": peak.bytes - peak.before}
    if given.child == "streamed":
        return found | {"generator_seconds": column.seconds, "seconds": peak.seconds - column.seconds}
    return found | {"titles_bytes": held, "polars_threads": pl.thread_pool_size()}


def equal() -> dict:
    """Checks that all tokenizers agree on the reference titles; returns how many there are."""
    reference = generated_titles.reference_titles()
    found = [[] for _ in reference]
    for title, token in titles.tokenize_many(reference, rule=1).iter_rows():  # the published rule
        found[title].append(token)
    assert found == [titles.tokenize(title, rule=1) for title in reference], "tokenize_many differs from tokenize"
    checked = 0
    if reference:
        file = generated_titles.reference_root() / "parity/title_tokens.jsonl.gz"
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for place, line in enumerate(lines):  # the parity file's titles come first
                assert found[place] == json.loads(line)["tokens"], f"the tokens of title {place} differ"
                checked += 1
    return {"titles": len(reference), "of_the_parity_file": checked}


def start(given, name: str, count: int, threads: int | None = None) -> dict:
    environment = dict(os.environ)
    if threads:
        environment |= {"POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [
        sys.executable,
        __file__,
        f"--child={name}",
        f"--titles={count}",
        f"--threshold={given.threshold}",
        f"--notebook={given.notebook}",
        f"--workers={threads or 0}",
    ]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, {count:,} titles: {json.dumps(found)}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=1_300_000)
    parser.add_argument("--times", type=int, default=10, help="factor of the streamed titles, to measure growth")
    parser.add_argument("--threshold", type=int, default=30)
    parser.add_argument("--notebook", type=int, default=1000, help="titles to time the notebook's approach on")
    parser.add_argument("--rounds", type=int, default=3, help="ours and CountVectorizer alternate; medians are shown")
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_suffix(".json")))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.workers:
        statistics.WORKERS = given.workers
    if given.child:
        print(json.dumps(child(given)))
        return
    checked = equal()
    runs = collections.defaultdict(list)
    for _ in range(given.rounds):
        for name, threads in (("ours", None), ("one thread", 1), ("vectorizer", None), ("vectorizer default", None)):
            runs[name].append(start(given, name, given.titles, threads))
    assert len({run["same"] for name in ("ours", "one thread", "vectorizer") for run in runs[name]}) == 1, (
        "CountVectorizer keeps different words or counts"
    )
    middle = {name: sorted(found, key=lambda run: run["seconds"])[len(found) // 2] for name, found in runs.items()}
    slow = start(given, "notebook", given.titles)
    streamed = {count: start(given, "streamed", count) for count in (given.titles, given.times * given.titles)}
    ours, many = middle["ours"], streamed[given.times * given.titles]

    def own(found):  # the generator overlaps with counting, so only its processor time can be subtracted
        return found["cpu_seconds"] - found["generator_seconds"]

    result = {
        "date": datetime.date.today().isoformat(),
        "source": generated_titles.Generator().source,
        "cores": len(os.sched_getaffinity(0)),
        "titles": given.titles,
        "equal": checked,
        "runs": middle,
        "notebook": slow,
        "streamed": {str(count): found for count, found in streamed.items()},
        "times_the_notebook": {name: slow[name] / ours["seconds"] for name in ("sorted", "frequent_first")},
        "times_count_vectorizer": {
            name: middle["vectorizer"]["seconds"] / middle[name]["seconds"] for name in ("ours", "one thread")
        },
        "growth": {
            "titles": given.times,
            "cpu_seconds": own(many) / own(streamed[given.titles]),
            "peak": many["peak_bytes"] / streamed[given.titles]["peak_bytes"],
        },
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }
    pathlib.Path(given.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    def row(name, seconds, peak=None):
        size = "" if peak is None else f"{peak / 2**20:,.0f} MiB"
        return f"| {name} | {seconds:,.1f} s | {seconds / ours['seconds']:,.1f} | {size} |"

    print(
        f"\n{given.titles:,} titles, {result['source']}; {ours['words']:,} words, {ours['kept']:,} kept, "
        f"{ours['labels_per_title']:.2f} per title; {result['cores']} cores; tokens of {checked['titles']:,} reference "
        f"titles equal; the titles themselves take {ours['titles_bytes'] / 2**20:,.0f} MiB as a Python list\n"
    )
    print("| approach | time | relative to ours | peak memory |\n|---|---|---|---|")
    print(row("ours", ours["seconds"], ours["peak_bytes"]))
    print(row("ours, one thread", middle["one thread"]["seconds"], middle["one thread"]["peak_bytes"]))
    for name, words in (("vectorizer", "the same rule"), ("vectorizer default", "its own pattern")):
        print(row(f"CountVectorizer, {words}", middle[name]["seconds"], middle[name]["peak_bytes"]))
    print(row(f"the notebook's approach, sorted list (from {slow['titles']:,} titles)", slow["sorted"]))
    print(row("the notebook's approach, most frequent first", slow["frequent_first"]))
    for count, found in streamed.items():
        print(
            f"| ours, {count:,} titles streamed, processor time | {own(found):,.1f} s | "
            f"{own(found) / ours['cpu_seconds']:,.1f} (processor time) | {found['peak_bytes'] / 2**20:,.0f} MiB |"
        )


if __name__ == "__main__":
    main()
