"""Sections of the report about attributes: what was mined from titles, and what the network predicts."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Callable

import numpy as np

from retrieval_jax.attributes.vocabulary import Vocabulary, load_targets
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.pages import charts
from retrieval_jax.pages.parts import absent, choose, meter, percent, section
from retrieval_jax.pages.rows import COLUMNS, item_html

escape = html.escape


def mined_section(workdir: pathlib.Path, missing: str) -> str:
    """Returns the section about the mined vocabulary.

    Args:
      workdir: the work directory.
      missing: why nothing may have been mined here, for the reader.
    """
    file = workdir / "attributes" / "vocabulary.json"
    if not file.exists():
        return section("Mined attributes", absent(f"there is no vocabulary; {missing}."))
    vocabulary = Vocabulary.load(file)
    counts = np.asarray(vocabulary.counts)
    if not len(counts):
        return section("Mined attributes", absent(f"no word was seen more than {vocabulary.threshold} times."))
    order = np.argsort(-counts, kind="stable")
    targets = [_targets(workdir, split, vocabulary) for split in ("train", "val")]
    per_title = np.concatenate([np.diff(found[0]) for found in targets if found] or [np.zeros(0, np.int64)])
    ranked = list(zip(range(1, len(counts) + 1), counts[order].tolist(), strict=True))
    drawn = charts.curves(
        "Titles per attribute, most frequent first", {"titles": ranked}, "rank of the attribute", "titles", log=True
    )
    mean = ""
    if len(per_title):
        drawn += charts.bars("Attributes per title", np.bincount(per_title), "attributes of a title", "titles")
        mean = f" On average a title has {per_title.mean():.2f} of them; {percent(per_title == 0)} have none."
    top = "".join(
        f'<li><span>{escape(vocabulary.tokens[i])}</span><small class="quiet">{counts[i]:,}</small>'
        f"{meter(counts[i] / counts.max())}</li>"
        for i in order[:24]
    )
    rarest = ", ".join(vocabulary.tokens[i] for i in order[::-1][:12])
    return section(
        "Mined attributes",
        f"<p>{len(counts):,} attributes were seen more than {vocabulary.threshold:,} times in "
        f'{vocabulary.num_titles:,} titles.{mean}</p><div class="charts">{drawn}</div>'
        f'<h3>Most frequent</h3><ul class="top">{top}</ul>'
        f'<p class="note">Rarest: {escape(rarest)}.</p>',
    )


def predicted_section(settings, workdir: pathlib.Path, catalog, picture: Callable, missing: str) -> str:
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
        return section(
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
        return section(title, absent("no listing of the val split has a mined attribute."))
    depth = min(COLUMNS, label_ids.shape[1])
    first = percent([label_ids[i, 0] in mined[i] for i in named])
    covered = percent([np.isin(mined[i], label_ids[i, :depth]).mean() for i in named])
    chosen = choose(named, settings["rows"], settings["seed"])
    largest = max(float(probabilities[chosen].max(initial=0)), 1e-9)
    cards = []
    for i in chosen:
        shown = list(zip(label_ids[i, :8].tolist(), probabilities[i, :8].tolist(), strict=True))
        predicted = "".join(_attribute(tokens[label], label in mined[i], p, p / largest) for label, p in shown)
        real = "".join(_attribute(tokens[label], label in [label for label, _ in shown]) for label in mined[i])
        item = item_html(catalog, "val", int(rows[i]), picture)
        cards.append(
            f'<div class="card">{item}<div class="lists">'
            f'<div><h4>predicted</h4><ul class="labels">{predicted}</ul></div>'
            f'<div><h4>mined</h4><ul class="labels">{real}</ul></div></div></div>'
        )
    return section(
        title,
        "<p>Randomly chosen listings of the val split, which is not used for training. The top prediction is in the "
        f"title for {first} of {len(named):,} listings; the top {depth} cover {covered} of a title's attributes on "
        "average. A tick marks agreement; bars show probability relative to the largest.</p>"
        f'<div class="cards">{"".join(cards)}</div>',
    )


def _attribute(token: str, agrees: bool, probability: float | None = None, share: float = 0) -> str:
    number = "" if probability is None else f'<small class="quiet">{probability:.2f}</small>{meter(share)}'
    start = '<li class="agree">' if agrees else "<li>"
    return f'{start}<span title="{escape(token)}">{"✓ " * agrees}{escape(token)}</span>{number}</li>'


def _targets(workdir, split, vocabulary):
    """Returns (indptr, label_ids) of a split's mined attributes, or None."""
    file = workdir / "attributes" / f"{split}.npz"
    return load_targets(file, vocabulary.hash) if file.exists() else None
