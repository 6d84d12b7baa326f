"""Loads Fashion IQ in its own layout: pairs of garments, and two sentences that say how one differs from the other.

    captions/cap.{dress,shirt,toptee}.{train,val,test}.json    [{"candidate": id, "target": id, "captions": [two]}]
    image_splits/split.{dress,shirt,toptee}.{train,val,test}.json    [id, ...]
    images/<id>.jpg or .png

Scored is one category at a time, as published: R@10 and R@50 (`hit@10`, `hit@50`) of the queries of its val split, each
with one right answer. The gallery is the whole list of the category's val pictures, or with gallery="pairs" only those
that some val query has as candidate or target (half to two thirds as many; some papers do so, and their scores are not
comparable). The candidate is never a result of its query. A query's text is both sentences, joined by "and"; training
has each of them alone, too.

Shirts and tops share pictures: 419 of the 6,346 val pictures of shirts are train pictures of tops, and 392 of the 5,373
of tops are train pictures of shirts. A model that is trained on all three categories, as published, has seen them.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from retrieval_jax import pairs
from retrieval_jax.data.catalog import Catalog
from retrieval_jax.data.edits import rows as rows_lib
from retrieval_jax.data.pictures.decoding import MAX_PIXELS
from retrieval_jax.data.tables import loading
from retrieval_jax.data.tables.building import Beyond, build
from retrieval_jax.data.tables.columns import Further
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import documents

CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("val", "test")
GALLERIES = ("list", "pairs")
ENDINGS = (".jpg", ".png", ".jpeg", ".webp")  # of a picture's file; the first that is there counts
TWICE = "in two categories"  # held against no file: shirts and tops have pictures in common
_LAYOUT = "Fashion IQ has captions/, image_splits/ and a folder of pictures below its root"
_FURTHER = (Further("words", ("captions",), "text"), Further("reference", ("candidate",), "text"))


def load_fashion_iq(
    root: str,
    category: str = "dress",
    train: Sequence[str] = CATEGORIES,
    split: str = "val",
    gallery: str = "list",
    image_root: str = "images",
    max_bad_share: float = 0.0,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads Fashion IQ: train pictures with the table "edits/train", and the queries and gallery of one category.

    Args:
      root: folder with captions/ and image_splits/.
      category: the one that is scored: "dress", "shirt" or "toptee".
      train: the categories to train on, none for a catalogue without train.
      split: "val", or "test", whose public files name no targets: it is searched, not scored.
      gallery: "list", all pictures of the category's split; or "pairs", candidates and targets only.
      image_root: folder of the pictures, below root.
      max_bad_share, max_pixels, check_images, decode_at_least, leave_out, set_aside_path: see
        `tables.loading.load_eproduct`.

    Returns:
      The `Catalog`; queries have the text columns "words" and "reference".

    Raises:
      InputError: see `data.loading.load`.

    Source: Fashion IQ, Wu et al., CVPR 2021, arXiv 1905.12794.
    """
    loading.check_arguments(root, max_bad_share, check_images)
    train = (train,) if isinstance(train, str) else tuple(train)
    for name, value, known in (
        ("category", category, CATEGORIES),
        *(("train", one, CATEGORIES) for one in train),
        ("split", split, SPLITS),
        ("gallery", gallery, GALLERIES),
    ):
        if value not in known:
            raise InputError(f"config.data.kwargs.{name} has {value!r}{pairs.near(value, known)}")
    if len(set(train)) < len(train):
        raise InputError(f"config.data.kwargs.train names a category twice: {', '.join(train)}")
    folder = pathlib.Path(root) / image_root
    paths = _picture_paths(folder)
    queries, truth = _queries(root, category, split, paths)
    within = {*queries.columns["further reference 0"], *truth.columns["gallery_ids"]} if gallery == "pairs" else None
    listed = _listings("gallery", root, [category], split, paths, within)
    splits = {"query": queries.rows(), "gallery": listed.rows()}
    tables = {}
    if train:
        splits = {"train": _listings("train", root, train, "train", paths).rows(), **splits}
        tables["edits"] = _edits(root, train).rows()
    return build(
        pathlib.Path(root).resolve().name,
        splits,
        ("category",) if "train" in splits else (),
        (max_bad_share, set_aside_path),
        *loading.picture_files(folder, splits, max_pixels, check_images, decode_at_least),
        truth=truth.rows() if any(truth.columns["gallery_ids"]) else None,
        leave_out=leave_out,
        beyond=Beyond(_FURTHER, tables=tables),
        not_held=frozenset({TWICE}),
    )


def _picture_paths(folder: pathlib.Path) -> dict[str, str]:
    """Returns {id: name of its file} of a folder of pictures."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: the folder of the pictures does not exist; name it in config.data.kwargs.image_root"
        )
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    found: dict[str, str] = {}
    for ending in ENDINGS:
        for name in names:
            if name.lower().endswith(ending):
                found.setdefault(name[: -len(ending)], name)
    return found


def _read(root: str, path: str) -> list:
    return documents.read(
        pathlib.Path(root) / path,
        list,
        remedy="download the file again",
        missing=f"{_LAYOUT}; add the file or correct config.data.kwargs",
    )


def _listings(
    name: str, root: str, categories: Sequence[str], split: str, paths: dict[str, str], within: set[str] | None = None
) -> rows_lib.Gathered:
    """Returns the pictures of one split of some categories, or those of them with certain ids."""
    found = rows_lib.empty(name, "id", "image", "category_0")
    category_of: dict[str, str] = {}
    for category in categories:
        found.files.append(f"image_splits/split.{category}.{split}.json")
        for number, one in enumerate(_read(root, found.files[-1]), 1):
            wrong = None
            if not isinstance(one, str):
                one, wrong = "", ("not an id", f"{short(str(one))!r} is not the text of an id; correct it")
            elif within is not None and one not in within:
                continue
            elif (other := category_of.setdefault(one, category)) != category:
                wrong = TWICE, f"{other} has this picture too, where it counts"
            found.add(number, wrong, id=one, image=paths.get(one, f"{one}{ENDINGS[0]}"), category_0=category)
    return found


def texts(captions: Sequence[str]) -> list[str]:
    """Returns the texts of a pair: its sentences joined by "and", and each of them alone.

    Args:
      captions: sentences; empty ones do not count.
    """
    clean = [text for caption in captions if (text := " ".join(caption.split()).strip(" .,?"))]
    return list(dict.fromkeys([" and ".join(clean), *clean])) if clean else []


def _pair(entry: Any, targeted: bool) -> tuple[str, str, list[str], tuple[str, str] | None]:
    """Returns candidate, target, texts and what is wrong, of an entry of a file of captions."""
    entry = entry if isinstance(entry, dict) else {}
    candidate, target, captions = entry.get("candidate"), entry.get("target", ""), entry.get("captions")
    if (
        not isinstance(candidate, str)
        or not isinstance(target, str)
        or not isinstance(captions, list)
        or not all(isinstance(caption, str) for caption in captions)
    ):
        problem = "an entry has a candidate, a target and a list of captions, all texts; correct it"
        return "", "", [], ("not an entry", problem)
    words, wrong = texts(captions), None
    if not words:
        wrong = "missing value", "captions are empty; fill them in or remove the entry"
    elif targeted and not target:
        wrong = "missing value", "target is empty; fill it in or remove the entry"
    elif candidate == target:
        wrong = "target is the candidate", "candidate and target are one picture; correct the entry or remove it"
    return candidate, target, words, wrong


def _queries(
    root: str, category: str, split: str, paths: dict[str, str]
) -> tuple[rows_lib.Gathered, rows_lib.Gathered]:
    """Returns the queries of a category and their truth; targets are "" where the file has none."""
    found = rows_lib.empty("query", "id", "image", "category_0", "further words 0", "further reference 0")
    truth = rows_lib.empty("ground_truth", "id", "gallery_ids")
    path = f"captions/cap.{category}.{split}.json"
    entries = _read(root, path)
    targeted = split == "val" or any(isinstance(entry, dict) and entry.get("target") for entry in entries)
    for gathered in (found, truth):
        gathered.files.append(path)
    for number, entry in enumerate(entries, 1):
        candidate, target, words, wrong = _pair(entry, targeted)
        one = f"{category}-{split}-{number:05d}"
        found.add(
            number,
            wrong,
            id=one,
            image=paths.get(candidate, f"{candidate}{ENDINGS[0]}"),
            category_0=category,
            **{"further words 0": words[0] if words else "", "further reference 0": candidate},
        )
        if not wrong:
            truth.add(number, id=one, gallery_ids=target)
    return found, truth


def _edits(root: str, categories: Sequence[str]) -> rows_lib.Gathered:
    """Returns the table of edits of the train split: up to three rows per entry, see `texts`."""
    found = rows_lib.empty("edits", "id", "reference", "words", "targets")
    for category in categories:
        found.files.append(f"captions/cap.{category}.train.json")
        for number, entry in enumerate(_read(root, found.files[-1]), 1):
            candidate, target, words, wrong = _pair(entry, targeted=True)
            for text in words or [""]:
                found.add(number, wrong, id=candidate, reference=candidate, words=text, targets=target)
    return found
