"""Searches a run's gallery by picture files, and writes what was found as a table.

    retrieval-jax query photos/ --workdir=runs/shop --out=found.csv

A row of the table is one result: picture, place, id, score, title, the file of the result's picture and its product.
Pictures that cannot be read have a row with the reason in place of a result, and are counted.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("query")

import csv
import io
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tqdm

from retrieval_jax import arguments, output
from retrieval_jax.data.exports import loading as exports
from retrieval_jax.data.pictures import colour
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, opening
from retrieval_jax.postprocess import new_queries
from retrieval_jax.server import bodies, messages, pictures, runs, searching

HEADER = ("picture", "place", "id", "score", "title", "problem", "file", "product")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


def files(given: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Returns picture files, those of folders by their endings and in the order of their names.

    Args:
      given: files and folders.

    Raises:
      InputError: one that does not exist, or nothing to search by.
    """
    found: list[pathlib.Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist: give picture files, or folders of them")
    if not found:
        raise InputError(f"no pictures in {', '.join(map(str, given))}: files end in {', '.join(ENDINGS)}")
    return found


def find(
    folder: pathlib.Path,
    given: Sequence[pathlib.Path],
    k: int,
    stage: str = "",
    words: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Iterator:
    """Yields (file, its results, "") of pictures in their order; (file, [], the problem) of one that cannot be read.

    A result is (place, id, score, title, file of its picture, product), the last two "" where the catalogue has none.

    Args:
      folder: work directory, or folder of an exported model.
      given: picture files.
      k: results per picture, at most 1,000.
      stage: of the run's search; "" for its last.
      words: conditions for all pictures, such as "-striped colour:red"; "" for none.
      say: called with sentences about what takes long, and about a stage that new pictures cannot be searched by.

    Raises:
      InputError: a folder that cannot be searched by pictures, an unknown stage, or words that are not conditions.
    """
    k = arguments.integer(k, "k", "query", low=1, high=messages.MOST_RESULTS)
    start, run = time.monotonic(), runs.Run(folder.name, folder)
    if not stage and (note := run.note()):
        say(note)
    say(f"loading {folder}: about half a minute")
    version = run.get()
    say(f"loaded {len(version.gallery):,} listings in {time.monotonic() - start:.0f} s; compiling the network")
    gallery, made = version.gallery, version.networks
    way = new_queries.named(gallery.stages, stage)
    if made.pictures is None:
        raise InputError(f"{folder} is not searched by pictures: {made.without_pictures}")
    rest, conditions = bodies.words(version, messages.Search(words=words))
    if rest:
        raise InputError(f"--words has {rest!r}, which is not a condition: write -value or field:value")
    for start in range(0, len(given), runs.SIZES[-1]):
        some = given[start : start + runs.SIZES[-1]]
        read = [_read(file) for file in some]
        images = [image for image in read if isinstance(image, np.ndarray)]
        if images and made.boxes is not None:
            boxes = runs.embed((made, "boxes"), images)
            images = [colour.crop(image, np.asarray(box, float)) for image, box in zip(images, boxes, strict=True)]
        vectors = runs.embed((made, "pictures"), images) if images else []
        queries = [
            searching.Query(conditions, k, parts=tuple(searching.of_networks(way, {"picture": vector}, 1.0)))
            for vector in vectors
        ]
        answers = iter(searching.run((gallery, way), queries))
        for file, image in zip(some, read, strict=True):
            if isinstance(image, str):
                yield file, [], image
                continue
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            yield file, [_result(version, hit) for hit in answer.hits], ""


def _say(text: str) -> None:
    print(f"query: {text}", file=sys.stderr, flush=True)


def _result(version: runs.Loaded, hit: searching.Hit) -> tuple:
    gallery, row = version.gallery, int(version.gallery.rows[hit.row])
    listing, images = gallery.names[hit.row], gallery.split.images
    while not isinstance(images, FileImages) and hasattr(images, "source"):  # a cache of it
        images = images.source
    path = os.path.join(images.root, images.relative_paths[row]) if isinstance(images, FileImages) else ""
    if "product" in gallery.split.columns:
        product = str(gallery.split.columns["product"][row])
    else:
        product = exports.product_of(listing) if _is_one_table(version.config["data"]) else ""
    return hit.place, listing, hit.score, gallery.title(hit.row), path, product


def _is_one_table(data: Mapping) -> bool:
    """Returns whether a catalogue is one table of a shop, whose listings are pictures of products."""
    return data.get("source") == "table" and isinstance((data.get("kwargs") or {}).get("files"), str)


def _read(file: pathlib.Path) -> np.ndarray | str:
    """Returns a picture, or what is wrong with its file."""
    try:
        with opening.opened(file) as stream:
            return pictures.decoded(stream.read())
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    text, read, bad = io.StringIO(), 0, 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    paths = files(given.pictures)
    answers = find(given.workdir, paths, given.k, given.stage, given.words, _say)
    for file, found, problem in tqdm.tqdm(answers, "query", len(paths), unit="picture", mininterval=1, delay=1):
        read, bad = read + 1, bad + bool(problem)
        for place, listing, score, title, path, product in found:
            row = (str(file), place, listing, f"{score:.6f}", title, "", path, product)
            writer.writerow(map(output.cell, row))
        if problem:
            writer.writerow(map(output.cell, (str(file), "", "", "", "", problem, "", "")))
    atomic.write_text(given.out, text.getvalue())
    print(f"query: {read:,} pictures = {read - bad:,} searched by + {bad:,} that cannot be read; {given.out}")
