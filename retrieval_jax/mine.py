"""Mines pseudo-attributes from titles: a vocabulary, and the attributes of every listing in train and val.

    python -m retrieval_jax.mine --config=configs/quickstart.py --workdir=runs/quickstart

Writes attributes/{vocabulary.json, train.npz, val.npz, summary.json, mined.png} into the work directory. If a switch of
config.mine is on, also attributes/{mined.html, decisions.csv, kinds.csv}: what was kept, dropped or merged, and why.
Titles without a word to learn are refused where the task learns from words; for other tasks the vocabulary is empty.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("mine")

import contextlib
import dataclasses
import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from retrieval_jax import output
from retrieval_jax.attributes import choosing, deciding, statistics, words
from retrieval_jax.attributes import clusters as clusters_lib
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import atomic
from retrieval_jax.pages import mined, rows
from retrieval_jax.settings import sizes
from retrieval_jax.workdir import checks

PICTURE = (64, 70)  # of mined.html: longest side in px, JPEG quality
_SHOWN = 10


def check(config: Any, workdir: Any) -> None:
    """Raises an InputError for settings that cannot be; writes nothing.

    Args:
      config: the whole config.
      workdir: not read.
    """
    del workdir
    checks.check(config)


def run(config: Any, workdir: Any) -> dict:
    """Mines the catalogue of a config.

    Args:
      config: has the blocks data and mine; `mine.threshold` keeps tokens seen more often than that in train + val, None
        follows their number.
      workdir: path of the work directory.

    Returns:
      The summary: counts, coverage, labels per title, head, tail, examples, category counts, the vocabulary's hash.

    Raises:
      InputError: a setting that cannot be, no titles, or no token above the threshold.
    """
    check(config, workdir)
    catalog = loading.load(config["data"], set_aside_path=workdir / "set_aside.csv")
    found = _clusters(config["mine"], catalog, workdir / "attributes")
    splits = {name: getattr(catalog, name) for name in ("train", "val") if getattr(catalog, name) is not None}
    titles = {name: split.titles for name, split in splits.items() if split.titles is not None}
    needed = _needs_words(config["train"])
    if "train" not in titles and not needed:
        print(f"mine: the train split has no titles; the task {config['train']['task']} needs none")
        return {"titles": {}} | found
    if "train" not in titles:
        raise InputError(
            f"catalogue {catalog.name} has no titles to mine in its train split; name their column in "
            "config.data.kwargs.columns.title, or set config.train.task = 'category' or 'self_supervised'"
        )

    threshold = config["mine"]["threshold"]
    if threshold is None:
        threshold, reason = sizes.threshold(sum(map(len, titles.values())))
        print(f"mine: config.mine.threshold = {threshold}: {reason}")
        config = {**config, "mine": {**config["mine"], "threshold": threshold}}
    decisions = None
    if deciding.switches(config["mine"]):
        decisions, counted = deciding.decide(config, catalog.train, splits, titles)
        nothing = np.zeros(len(decisions.tokens), np.int64)
        vocabulary = vocabulary_lib.Vocabulary(
            decisions.tokens, nothing, counted.num_titles, int(threshold), decisions.rules
        )
    else:
        rules = choosing.base_rules(config["mine"])
        counted = statistics.count(list(titles.values()), tokenize=functools.partial(words.of_titles, rules=rules))
        vocabulary = vocabulary_lib.build(counted.tokens, counted.num_titles, int(threshold), rules)
    counts, num_titles = counted.tokens, counted.num_titles
    if not len(vocabulary) and needed:
        most = counts["occurrences"].max() if len(counts) else 0
        raise InputError(
            f"no token was seen more than config.mine.threshold = {threshold} times in {num_titles:,} titles "
            f"(the most frequent {most} times); set it to {most - 1} or less"
            if most > 1
            else f"no token was seen twice in {num_titles:,} titles, so they have nothing to learn from; set "
            "config.mine.threshold = 0 to keep every word, or set config.train.task = 'category' or 'self_supervised'"
        )

    folder = workdir / "attributes"
    folder.mkdir(parents=True, exist_ok=True)
    labels = {name: vocabulary.encode(column) for name, column in titles.items()}
    if decisions is not None:  # the counts of merged words and phrases are only known now
        present = np.concatenate([ids for _, ids in labels.values()])
        vocabulary = dataclasses.replace(
            vocabulary,
            counts=np.bincount(present, minlength=len(vocabulary)),
            num_titles=sum(map(len, titles.values())),
        )
    vocabulary.save(folder / "vocabulary.json")
    for name in titles:
        vocabulary_lib.save_targets(folder / f"{name}.npz", *labels[name], vocabulary.hash)
    if not len(vocabulary):
        print(
            f"mine: no word of {num_titles:,} titles was seen more than {threshold} times; the task "
            f"{config['train']['task']} needs none"
        )
        summary = {"titles": {name: len(column) for name, column in titles.items()}, "tokens_kept": 0} | found
        atomic.write_json(folder / "summary.json", summary)
        return summary
    summary = _summary(catalog, splits, counts, vocabulary, titles, labels) | found
    atomic.write_json(folder / "summary.json", summary)
    if decisions is not None:
        _write_decisions(folder, config, decisions, counted, titles, catalog.train.images)
    atomic.write_bytes(folder / "mined.png", _plot(counts, vocabulary, labels))
    print(_text(summary))
    return summary


def _needs_words(train: Any) -> bool:
    """Returns whether a task learns from the words of titles; one of the user's own is taken to."""
    if train["task"] in ("multilabel", "image_title"):
        options = train.get("task_kwargs") or {}
        return options.get("title_weight", 1.0) != 0 or train["task"] == "image_title"
    return train["task"] not in ("category", "self_supervised")


def _safe(table: pl.DataFrame) -> pl.DataFrame:
    """Returns a table whose texts no spreadsheet takes for formulas."""
    texts = [name for name, kind in table.schema.items() if kind == pl.String]
    return table.with_columns(pl.Series(name, map(output.cell, table[name]), dtype=pl.String) for name in texts)


def _write_decisions(folder: Any, config: Any, decisions: Any, counted: Any, titles: dict, images: Any) -> None:
    """Writes decisions.csv, mined.html and, if config.mine.kinds is on, kinds.csv."""
    atomic.write_text(folder / "decisions.csv", _safe(decisions.table).write_csv())
    examples, kinds = deciding.shown(config, decisions, counted, titles)
    if kinds is not None:
        atomic.write_text(folder / "kinds.csv", _safe(kinds).write_csv())
    text = mined.page(
        decisions,
        num_titles=counted.num_titles,
        threshold=int(config["mine"]["threshold"]),
        switches=deciding.switches(config["mine"]),
        examples={word: titles["train"][row] for word, row in examples.items()},
        pictures={} if isinstance(images, NoPictures) else _pictures(images, examples, mined.pictured(decisions)),
        kinds=kinds,
    )
    atomic.write_text(folder / "mined.html", text)


def _pictures(images: Any, examples: dict[str, int], words: Sequence[str]) -> dict[str, str]:
    """Returns {word: picture of its example, as a data URI}; a machine that mines may not have all pictures."""
    found = {}
    for word in words:
        with contextlib.suppress(InputError):
            if word in examples:
                found[word] = rows.data_uri(images[examples[word]], *PICTURE)
    return found


def _clusters(mine: Any, catalog: Any, folder: Any) -> dict:
    """Clusters the train listings into pseudo-products and writes clusters.npz; returns counts for the summary."""
    settings = mine.get("clusters")
    if settings is None or settings["max_difference"] == 0:
        return {}
    split, share, noise = catalog.split("train"), settings["title_share"], settings["noise"]
    if not 0 <= share <= 1 or (share > 0 and split.titles is None) or noise not in ("none", "own"):
        raise InputError(
            f"config.mine.clusters: title_share is {share!r} (0 to 1; 0 without titles) and noise "
            f"{noise!r} (none or own)"
        )
    thumbnails = None if share == 1 else Noted(split.images).notes(np.arange(len(split)))[1]
    vectors = functools.partial(
        clusters_lib.vectors_of, split.titles, thumbnails, share, rule=choosing.base_rules(mine).rule
    )
    categories = np.zeros(len(split), np.int32) if split.categories is None else split.categories[:, -1]
    found = clusters_lib.find(vectors, categories, settings["max_difference"], settings["max_size"])
    sizes = np.bincount(found[found >= 0], minlength=1)
    folder.mkdir(parents=True, exist_ok=True)
    clusters_lib.save(folder / "clusters.npz", clusters_lib.with_own_instances(found) if noise == "own" else found)
    counts = {
        "clusters": int(found.max(initial=-1) + 1),
        "clustered": int((found >= 0).sum()),
        "listings": len(found),
        "largest": int(sizes.max()),
    }
    print(
        "clusters        {clustered:,} of {listings:,} train listings in {clusters:,} clusters, the largest of "
        "{largest}".format(**counts)
    )
    return {"clusters": counts}


def _summary(catalog: Any, splits: dict, counts: pl.DataFrame, vocabulary: Any, titles: dict, labels: dict) -> dict:
    per_title = np.concatenate([np.diff(indptr) for indptr, _ in labels.values()])
    order = np.lexsort((np.arange(len(vocabulary)), -vocabulary.counts))  # most frequent first, then by token
    listed = [[vocabulary.tokens[i], int(vocabulary.counts[i])] for i in order]
    indptr, ids = labels["train"]
    rows = np.linspace(0, len(titles["train"]) - 1, min(5, len(titles["train"]))).astype(int)
    categories = {}
    for name, split in splits.items():
        info = info_lib.of_split(split)
        categories[name] = {
            level: {"names": len(column), "seen": int((column > 0).sum())}
            for level, column in zip(catalog.category_levels, info.category_counts, strict=False)
        }
    return {
        "titles": {name: len(column) for name, column in titles.items()},
        "rows": {
            name: {key: count[key] for key in ("read", "kept", "set_aside")}
            for name, count in catalog.counts.items()
            if isinstance(count, dict) and {"read", "kept", "set_aside"} <= set(count)
        },
        "threshold": vocabulary.threshold,
        "tokens_seen": len(counts),
        "occurrences_seen": int(counts["occurrences"].sum()),
        "tokens_kept": len(vocabulary),
        "occurrences_kept": int(
            counts.filter(pl.col("token").replace(vocabulary.rules.merges).is_in(vocabulary.tokens))[
                "occurrences"
            ].sum()
        ),
        "coverage": float((per_title > 0).mean()),
        "labels_per_title": {"mean": float(per_title.mean()), "min": int(per_title.min()), "max": int(per_title.max())}
        | {
            name: float(value)
            for name, value in zip(("q25", "median", "q75"), np.quantile(per_title, [0.25, 0.5, 0.75]), strict=True)
        },
        "head": listed[:_SHOWN],
        "tail": listed[-_SHOWN:],
        "examples": [
            [titles["train"][row], [vocabulary.tokens[i] for i in ids[indptr[row] : indptr[row + 1]]]]
            for row in rows.tolist()
        ],
        "categories": categories,
        "vocabulary_hash": vocabulary.hash,
    }


def _text(summary: dict) -> str:
    """Returns the summary as it is printed."""
    labels, shown = summary["labels_per_title"], [("head", summary["head"]), ("tail", summary["tail"])]
    lines = [
        ("titles", ", ".join(f"{name} {n:,}" for name, n in summary["titles"].items())),
        (
            "set aside",
            ", ".join(
                f"{name} {sum(rows['set_aside'].values()):,} of {rows['read']:,}"
                for name, rows in summary["rows"].items()
                if rows["set_aside"]
            )
            or "no rows",
        ),
        (
            "tokens",
            f"{summary['tokens_seen']:,} seen, {summary['tokens_kept']:,} kept (more than "
            f"{summary['threshold']} times), "
            f"{summary['occurrences_kept'] / summary['occurrences_seen']:.1%} of all occurrences",
        ),
        ("coverage", f"{summary['coverage']:.2%} of the titles have a label"),
        (
            "labels/title",
            f"mean {labels['mean']:.2f}, quartiles {labels['q25']:g} / {labels['median']:g} / "
            f"{labels['q75']:g}, from {labels['min']} to {labels['max']}",
        ),
        *((name, ", ".join(f"{short(token)} {count:,}" for token, count in tokens)) for name, tokens in shown),
        *(
            (
                "categories",
                f"{name}: "
                + ", ".join(f"{level} {count['seen']:,} of {count['names']:,}" for level, count in levels.items()),
            )
            for name, levels in summary["categories"].items()
            if levels
        ),
        *(
            ("example", f"{short(title, 200)}  ->  {short(', '.join(tokens), 200) or 'nothing'}")
            for title, tokens in summary["examples"]
        ),
        ("vocabulary", summary["vocabulary_hash"]),
    ]
    return "\n".join(f"{name:<15} {value}" for name, value in lines)


def _plot(counts: pl.DataFrame, vocabulary: Any, labels: dict) -> bytes:
    """Plots token frequencies with the threshold, and the number of labels per title; returns a PNG."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    seen = np.sort(counts["occurrences"].to_numpy())[::-1]
    left.loglog(np.arange(1, len(seen) + 1), seen, color="tab:blue")
    left.axhline(
        max(vocabulary.threshold, 0.5),
        color="tab:red",
        linestyle="--",
        label=f"threshold {vocabulary.threshold}: {len(vocabulary):,} of {len(seen):,} tokens kept",
    )
    left.set(xlabel="rank of the token", ylabel="occurrences in train + val", title="Head and tail")
    left.legend()
    per_title = np.concatenate([np.diff(indptr) for indptr, _ in labels.values()])
    right.hist(per_title, bins=np.arange(per_title.max() + 2) - 0.5, color="tab:blue", edgecolor="white")
    right.set(
        xlabel="labels per title",
        ylabel="titles",
        title=f"mean {per_title.mean():.2f}, {(per_title > 0).mean():.1%} covered",
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, metadata={"Software": None})
    return content.getvalue()
