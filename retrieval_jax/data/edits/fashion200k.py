"""Loads Fashion200k in its own layout, with the edits of TIRG: captions that differ in one word.

    labels/{dress,jacket,pants,skirt,top}_{train,test}_detect_all.txt    path of a picture, tab, score, tab, caption
    test_queries.txt    two paths a line, of a reference and a target (published with TIRG)
    women/...           the pictures

As published: two captions of train that become equal by leaving one word out of each make an edit, "replace red with
blue". A query's right answers are all test pictures with the caption of its target; the gallery are all test pictures,
and the reference is never a result. Published are R@1, R@10 and R@50 (`hit@1`, ...).

Two things differ from the published code. There pairs are drawn while training; here `pairs_per_listing` of them are
drawn once for every train picture, each with all pictures of the target's caption. And there leaving a word out also
cuts it out of longer words ("a" leaves "lce" of "lace").
"""

from __future__ import annotations

import collections
import logging
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval_jax.data.catalog import Catalog
from retrieval_jax.data.edits import rows as rows_lib
from retrieval_jax.data.pictures import sources
from retrieval_jax.data.pictures.decoding import MAX_PIXELS
from retrieval_jax.data.tables import loading, text_rows
from retrieval_jax.data.tables import values as values_lib
from retrieval_jax.data.tables.building import Beyond, build
from retrieval_jax.data.tables.columns import Further
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.errors import InputError, short

_log = logging.getLogger(__name__)

QUERIES = "test_queries.txt"
_FURTHER = (
    Further("words", ("words",), "text"),
    Further("reference", ("reference",), "text"),
    Further("kind", ("category",), "category"),
)


def load_fashion200k(
    root: str,
    queries: str | None = QUERIES,
    pairs_per_listing: int = 4,
    seed: int = 0,
    max_bad_share: float = 0.0,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    encoding: str = "utf-8",
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads Fashion200k: train pictures with the table "edits/train", all test pictures as gallery, and TIRG's queries.

    Args:
      root: folder with labels/ and women/.
      queries: file of queries below root; None for a catalogue without them.
      pairs_per_listing: edits that are drawn for every train picture whose caption differs in one word from another.
      seed: of that draw.
      max_bad_share, max_pixels, check_images, decode_at_least, encoding, leave_out, set_aside_path: see
        `tables.loading.load_eproduct`.

    Returns:
      The `Catalog`; ids are paths, titles are captions, and queries have the text columns "words" and "reference", and
      the attribute "kind", their category.

    Raises:
      InputError: see `data.loading.load`.

    Source: Fashion200k, Han et al., ICCV 2017; its edits, Vo et al. (TIRG), CVPR 2019, arXiv 1812.07119.
    """
    loading.check_arguments(root, max_bad_share, check_images)
    if not isinstance(pairs_per_listing, int) or not 1 <= pairs_per_listing <= 1000:
        raise InputError(f"config.data.kwargs.pairs_per_listing is {pairs_per_listing!r}; give a number from 1 to 1000")
    folder = pathlib.Path(root)
    gathered = {
        split: _listings(split, folder, part, encoding) for split, part in (("train", "train"), ("gallery", "test"))
    }
    gathered = {split: listings for split, listings in gathered.items() if listings.files}
    if not gathered:
        found = ", ".join(sorted(file.name for file in (folder / "labels").glob("*"))[:10]) or "nothing"
        raise InputError(
            f"{folder / 'labels'}: there is no file such as dress_train_detect_all.txt or dress_test_detect_all.txt "
            f"(found: {short(found, 200)}); unpack the labels of Fashion200k there"
        )
    splits, tables, truth = {name: listings.rows() for name, listings in gathered.items()}, {}, None
    if "train" in gathered:
        tables["edits"] = _edits(gathered["train"], pairs_per_listing, seed).rows()
    if queries and "gallery" in gathered:
        asked, right = _queries(folder, queries, gathered["gallery"], encoding)
        splits["query"], truth = asked.rows(), right.rows()
    return build(
        folder.resolve().name,
        splits,
        ("category",) if "train" in splits else (),
        (max_bad_share, set_aside_path),
        *loading.picture_files(folder, splits, max_pixels, check_images, decode_at_least),
        truth=truth,
        leave_out=leave_out,
        beyond=Beyond(_FURTHER, tables=tables),
    )


def _listings(name: str, root: pathlib.Path, part: str, encoding: str) -> rows_lib.Gathered:
    """Returns the pictures of train or test, of all categories."""
    found = rows_lib.empty(name, "id", "image", "title", "category_0")
    for file in sorted((root / "labels").glob(f"*_{part}_detect_all.txt")):
        found.files.append(f"labels/{file.name}")
        category = re.sub(f"_{part}_detect_all.txt$", "", file.name)
        for number, line in text_rows.lines(file, found.files[-1], encoding):
            fields, wrong = line.rstrip("\r\n").split("\t"), None
            if len(fields) != 3:
                wrong = (
                    "wrong number of fields",
                    f"the line has {len(fields)} fields, expected three with tabs between: path, score, caption",
                )
            path, caption = fields[0].strip(), " ".join(fields[2].split()) if not wrong else ""
            found.add(number, wrong, id=path, image=path, title=caption, category_0=category)
    return found


def replaced(caption: str, other: str) -> str:
    """Returns what makes one caption the other, "replace red with blue": the first word of each that the other lacks,
    or its last one where the other has them all, as published.

    Args:
      caption: in view, one word or more.
      other: wanted, likewise.
    """
    words, wanted = caption.split(), other.split()
    old = next((word for word in words if word not in wanted), words[-1])
    new = next((word for word in wanted if word not in words), wanted[-1])
    return f"replace {old} with {new}"


def _edits(train: rows_lib.Gathered, pairs_per_listing: int, seed: int) -> rows_lib.Gathered:
    """Returns the table of edits: for every picture some captions that differ from its own in one word."""
    found = rows_lib.empty("edits", "id", "reference", "words", "targets")
    found.files = train.files
    listed: dict[str, list[str]] = collections.defaultdict(list)
    for one, caption in zip(train.columns["id"], train.columns["title"], strict=True):
        if caption and one:
            listed[caption].append(one)
    children: dict[str, list[str]] = collections.defaultdict(list)
    parents: dict[str, list[str]] = {}
    for caption in listed:
        words = caption.split()
        parents[caption] = list(dict.fromkeys(" ".join(words[:at] + words[at + 1 :]) for at in range(len(words))))
        for parent in parents[caption]:
            children[parent].append(caption)
    parents = {caption: [one for one in ours if len(children[one]) > 1] for caption, ours in parents.items()}
    draws = np.random.Generator(np.random.Philox(key=seed)).random((len(train.places), pairs_per_listing, 2)).tolist()
    have = 0
    for row, (one, caption) in enumerate(zip(train.columns["id"], train.columns["title"], strict=True)):
        ours = parents.get(caption)
        have += bool(ours)
        chosen = set()
        for which, whom in draws[row] if ours else ():
            siblings = children[ours[int(which * len(ours))]]
            other = siblings[int(whom * (len(siblings) - 1))]  # any of them but the caption itself
            chosen.add(siblings[-1] if other == caption else other)
        for other in sorted(chosen):
            if set(other.split()) != set(caption.split()):  # a word may be there twice
                words = replaced(caption, other)
                found.copy(train, row, id=one, reference=one, words=words, targets=" ".join(listed[other]))
    _log.info("%s of %s train captions differ in one word from another", f"{have:,}", f"{len(train.places):,}")
    if not found.places:
        raise InputError(
            f"{', '.join(train.files)}: no two captions differ in one word, so there is nothing to learn; check the "
            "third field of the labels"
        )
    return found


def _queries(
    root: pathlib.Path, path: str, gallery: rows_lib.Gathered, encoding: str
) -> tuple[rows_lib.Gathered, rows_lib.Gathered]:
    """Returns the published queries and their truth."""
    if problem := sources.path_problem(path):
        raise InputError(f"config.data.kwargs.queries: the file {path!r} leaves the root ({problem})")
    if not (root / path).is_file():
        raise InputError(
            f"{root / path}: there is no such file; TIRG published it for Fashion200k; add it, or set "
            "config.data.kwargs.queries = None to go without queries"
        )
    about = {
        one: (caption, category)
        for one, caption, category in zip(
            *(gallery.columns[name] for name in ("id", "title", "category_0")), strict=True
        )
    }
    listed: dict[str, list[str]] = collections.defaultdict(list)
    for one, (caption, _) in about.items():
        listed[caption].append(one)
    found = rows_lib.empty("query", "id", "image", "category_0", *(next(iter(one.wanted)) for one in _FURTHER))
    truth = rows_lib.empty("ground_truth", "id", "gallery_ids")
    for gathered in (found, truth):
        gathered.files.append(path)
    lines = [(number, line.split()) for number, line in text_rows.lines(root / path, path, encoding)]
    near = values_lib.near({one for _, fields in lines for one in fields if one not in about}, list(about))
    for number, fields in lines:
        wrong = None
        if len(fields) != 2:
            wrong = "wrong number of fields", f"the line has {len(fields)} fields, expected two paths; correct it"
        elif unknown := [one for one in fields if one not in about]:
            there = values_lib.there_is(near, unknown[0])
            what = f"{short(unknown[0])!r} is not among the test labels{there}; correct it or remove the line"
            wrong = "unknown listing", what
        reference, target = fields if not wrong else ("", "")
        (caption, category), (other, _) = about.get(reference, ("", "")), about.get(target, ("", ""))
        if not wrong and not (caption and other):
            wrong = "missing value", "one of the captions is empty; correct the labels or remove the line"
        words = replaced(caption, other) if not wrong else ""
        one = f"query-{number:05d}"
        further = {"further words 0": words, "further reference 0": reference, "further kind 0": category}
        found.add(number, wrong, id=one, image=reference, category_0=category, **further)
        if not wrong:
            truth.add(number, id=one, gallery_ids=" ".join(listed[other]))
    if not truth.places:
        raise InputError(
            f"{path}: no line names two test pictures; give TIRG's file, or set config.data.kwargs.queries = None"
        )
    return found, truth
