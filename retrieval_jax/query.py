"""Searches a run's gallery by picture files, and writes what was found as a table.

    retrieval-jax query photos/ --workdir=runs/shop --out=found.csv

A row of the table is one result: picture, place, id, score, title. Pictures that cannot be read have a row with the
reason in place of a result, and are counted.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("query")

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from retrieval_jax import arguments, output
from retrieval_jax.data.pictures import colour
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, opening
from retrieval_jax.postprocess import new_queries
from retrieval_jax.server import bodies, messages, pictures, runs, searching

HEADER = ("picture", "place", "id", "score", "title", "problem")
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


def find(folder: pathlib.Path, given: Sequence[pathlib.Path], k: int, stage: str = "", words: str = "") -> Iterator:
    """Yields (file, its results, "") of pictures in their order; (file, [], the problem) of one that cannot be read.

    Args:
      folder: work directory, or folder of an exported model.
      given: picture files.
      k: results per picture, at most 1,000.
      stage: of the run's search; "" for its last.
      words: conditions for all pictures, such as "-striped colour:red"; "" for none.

    Raises:
      InputError: a folder that cannot be searched by pictures, an unknown stage, or words that are not conditions.
    """
    k = arguments.integer(k, "k", "query", low=1, high=messages.MOST_RESULTS)
    version = runs.Run(folder.name, folder).get()
    gallery, made = version.gallery, version.networks
    way = new_queries.named(gallery.stages, stage)
    if made.pictures is None:
        raise InputError(f"{folder} is not searched by pictures: its network reads text")
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
            ids = gallery.embeddings.ids
            yield file, [(hit.place, ids[hit.row], hit.score, gallery.title(hit.row)) for hit in answer.hits], ""


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
    for file, found, problem in find(given.workdir, files(given.pictures), given.k, given.stage, given.words):
        read, bad = read + 1, bad + bool(problem)
        for place, listing, score, title in found:
            named = (output.cell(str(file)), output.cell(listing), output.cell(title))
            writer.writerow((named[0], place, named[1], f"{score:.6f}", named[2], ""))
        if problem:
            writer.writerow(map(output.cell, (str(file), "", "", "", "", problem)))
    atomic.write_text(given.out, text.getvalue())
    print(f"query: {read:,} pictures = {read - bad:,} searched by + {bad:,} that cannot be read; {given.out}")
