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

_GENERIC = 20  # listings: a title or a picture that more listings share, such as "T-shirt", shows no product
_MOST_PICTURES = 20_000  # that are compared; reading more takes longer than loading a catalogue should
_AT_LEAST = 56  # pixels of a picture that is read for its thumbnail, as in `leaks`


def groups(titles: Sequence[str], images: FileImages | None) -> list[int]:
    """Returns a group for every listing.

    Args:
      titles: n texts, "" without a title.
      images: n pictures, read at a reduced size; one that cannot be read is like no other. None for titles alone.

    Returns:
      [n] the first listing of each one's group.
    """
    above = list(range(len(titles)))
    same = collections.defaultdict(list)
    for number, title in enumerate(titles):
        if plain := likeness.plain(title):
            same[plain].append(number)
    pictures = () if images is None or not 1 < len(images) <= _MOST_PICTURES else _same_pictures(images)
    for found in (*same.values(), *pictures):
        for number in found[1:] if len(found) <= _GENERIC else ():
            _join(above, found[0], number)
    return [_root(above, number) for number in range(len(titles))]


def _root(above: list[int], number: int) -> int:
    while above[number] != number:
        above[number] = above[above[number]]
        number = above[number]
    return number


def _join(above: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(above, one), _root(above, other)))
    above[second] = first


def _same_pictures(images: FileImages) -> list[list[int]]:
    """Returns the numbers of nearly equal pictures, a list for each set of several."""
    read = FileImages(images.root, images.relative_paths, images.max_pixels, _AT_LEAST)
    kept, thumbnails = _thumbnails(read)
    if len(kept) < 2:
        return []
    above = list(range(len(kept)))
    pairs = hashes.find(thumbnails, hashes.Table(thumbnails), own=np.arange(len(kept)), mirrored=False)
    for one, other in zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True):
        _join(above, one, other)
    of = collections.defaultdict(list)
    for place, number in enumerate(kept.tolist()):
        of[_root(above, place)].append(number)
    return [found for found in of.values() if len(found) > 1]


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
