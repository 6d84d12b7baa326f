"""Sections of the report about attributes: what was mined from titles, and what the network predicts."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np

from retrieval_jax.attributes.vocabulary import Vocabulary, load_targets
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.pages import charts, fields
from retrieval_jax.pages.parts import Section, absent, choose, meter, percent, side_by_side
from retrieval_jax.pages.rows import COLUMNS, item
from retrieval_jax.pages.templates import render
from retrieval_jax.scoring.attributes import calibration

MOST_FREQUENT, RAREST, PREDICTIONS = 24, 12, 8  # shown


def mined_section(workdir: pathlib.Path, missing: str) -> Section:
    """Returns the section about the mined vocabulary.

    Args:
      workdir: the work directory.
      missing: why nothing may have been mined here, for the reader.
    """
    file = workdir / "attributes" / "vocabulary.json"
    if not file.exists():
        return Section("Mined attributes", absent(f"there is no vocabulary; {missing}."))
    vocabulary = Vocabulary.load(file)
    counts = np.asarray(vocabulary.counts)
    if not len(counts):
        return Section("Mined attributes", absent(f"no word was seen more than {vocabulary.threshold} times."))
    order = np.argsort(-counts, kind="stable")
    targets = [_targets(workdir, split, vocabulary) for split in ("train", "val")]
    per_title = np.concatenate([np.diff(found[0]) for found in targets if found] or [np.zeros(0, np.int64)])
    ranked = list(zip(range(1, len(counts) + 1), counts[order].tolist(), strict=True))
    drawn = charts.curves(
        "Titles per attribute, most frequent first", {"titles": ranked}, "rank of the attribute", "titles", log=True
    )
    if len(per_title):
        drawn += charts.bars("Attributes per title", np.bincount(per_title), "attributes of a title", "titles")
    body = render(
        "mined_attributes.html",
        count=len(counts),
        vocabulary=vocabulary,
        mean=f"{per_title.mean():.2f}" if len(per_title) else "",
        without=percent(per_title == 0) if len(per_title) else "",
        charts=drawn,
        top=[(vocabulary.tokens[i], int(counts[i]), meter(counts[i] / counts.max())) for i in order[:MOST_FREQUENT]],
        rarest=", ".join(vocabulary.tokens[i] for i in order[::-1][:RAREST]),
    )
    return Section("Mined attributes", body)


def predicted_section(settings, workdir: pathlib.Path, catalog, picture: Callable, missing: str) -> Section:
    """Returns the section that compares predicted with mined attributes on listings of the val split.

    Args:
      settings: the config's report block: rows (how many listings), seed (of their choice).
      workdir: the work directory.
      catalog: `Catalog` with the val split.
      picture: (split name, row) -> data URI.
      missing: why nothing may have been predicted here, for the reader.
    """
    title = "Predicted against mined attributes"
    file = workdir / "embeddings" / "trained" / "val_attributes.npz"
    if not file.exists() or not (workdir / "attributes" / "val.npz").exists() or catalog.val is None:
        return Section(
            title,
            absent(
                f"the val split has no predicted attributes with mined ones to compare: the task predicts none, or "
                f"{missing}."
            ),
        )
    vocabulary = Vocabulary.load(workdir / "attributes" / "vocabulary.json")
    tokens, targets = vocabulary.tokens, _targets(workdir, "val", vocabulary)
    kinds = {"rows": (("int64",), 1), "label_ids": (("int32",), 2), "probabilities": (("float32",), 2)}
    arrays = load_npz(file, kinds, remedy="run embed again")
    rows, label_ids, probabilities = arrays["rows"], arrays["label_ids"], arrays["probabilities"]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    label_ids = np.take_along_axis(label_ids, order, 1)
    probabilities = np.take_along_axis(probabilities, order, 1)
    mined = [targets[1][targets[0][row] : targets[0][row + 1]].tolist() for row in rows.tolist()]
    named = [i for i, labels in enumerate(mined) if labels]
    if not named:
        return Section(title, absent("no listing of the val split has a mined attribute."))
    depth = min(COLUMNS, label_ids.shape[1])
    first = percent([label_ids[i, 0] in mined[i] for i in named])
    covered = percent([np.isin(mined[i], label_ids[i, :depth]).mean() for i in named])
    right = np.array([np.isin(row, labels) for row, labels in zip(label_ids, mined, strict=True)])
    measured = calibration(probabilities.ravel(), right.ravel(), equal_counts=True)
    chosen = choose(named, settings["rows"], settings["seed"])
    largest = max(float(probabilities[chosen].max(initial=0)), 1e-9)
    cards = []
    for i in chosen:
        shown = list(zip(label_ids[i, :PREDICTIONS].tolist(), probabilities[i, :PREDICTIONS].tolist(), strict=True))
        predicted = [(tokens[label], label in mined[i], f"{p:.2f}", meter(p / largest)) for label, p in shown]
        real = [(tokens[label], label in dict(shown), "", "") for label in mined[i]]
        lists = {"predicted": predicted, "mined": real}
        cards.append({"item": item(catalog, "val", int(rows[i]), picture), "lists": lists})
    body = render(
        "attribute_cards.html",
        first=first,
        listings=len(named),
        depth=depth,
        covered=covered,
        cards=cards,
        shape=label_ids.shape,
        ece=f"{measured['ece']:.3f}",
        chart=side_by_side(fields.reliability({"val": measured})),
    )
    return Section(title, body)


def _targets(workdir, split, vocabulary):
    """Returns (indptr, label_ids) of a split's mined attributes, or None."""
    file = workdir / "attributes" / f"{split}.npz"
    return load_targets(file, vocabulary.hash) if file.exists() else None
