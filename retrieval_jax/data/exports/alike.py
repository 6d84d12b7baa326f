"""Groups listings that probably show one product, where the table does not say: equal titles, nearly equal pictures."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from retrieval_jax.data.exports import likeness
from retrieval_jax.data.pictures.noted import Noted
from retrieval_jax.data.pictures.sources import FileImages
from retrieval_jax.duplicates import hashes
from retrieval_jax.errors import InputError

_GENERIC = 20  # listings: a title that more listings share, such as "T-shirt", names no product
_MOST_PICTURES = 20_000  # that are compared; reading more takes longer than loading a catalogue should
_AT_LEAST = 56  # pixels of a picture that is read for its thumbnail, as in `leaks`


def groups(titles: Sequence[str], images: FileImages) -> list[int]:
    """Returns a group for every listing.

    Args:
      titles: n texts, "" where there is none.
      images: n pictures, read at a reduced size; one that cannot be read is like no other.

    Returns:
      [n] the first listing of each one's group.
    """
    above = list(range(len(titles)))

    def root(number: int) -> int:
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    def join(one: int, other: int) -> None:
        first, second = sorted((root(one), root(other)))
        above[second] = first

    same = collections.defaultdict(list)
    for number, title in enumerate(titles):
        if plain := likeness.plain(title):
            same[plain].append(number)
    for found in same.values():
        for number in found[1:] if len(found) <= _GENERIC else ():
            join(found[0], number)
    if 1 < len(images) <= _MOST_PICTURES:
        read = FileImages(images.root, images.relative_paths, images.max_pixels, _AT_LEAST)
        kept, thumbnails = _thumbnails(read)
        if len(kept) > 1:
            pairs = hashes.find(thumbnails, hashes.Table(thumbnails), own=np.arange(len(kept)), mirrored=False)
            for one, other in zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True):
                join(int(kept[one]), int(kept[other]))
    return [root(number) for number in range(len(titles))]


def _thumbnails(images: FileImages) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the pictures that can be read, and their thumbnails."""
    noted, kept, out = Noted(images), [], []
    for number in range(len(images)):
        try:
            out.append(noted.notes(np.array([number]))[1][0])
            kept.append(number)
        except InputError:
            continue  # the checks of the catalogue name it
    return np.array(kept, np.int64), np.stack(out) if out else np.zeros((0, 192), np.uint8)
