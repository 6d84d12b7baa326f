"""Shop pictures pasted on cluttered backgrounds: users' photos of a real catalogue, with a true box and with clicks.

The catalogue is one in eProduct's layout whose pictures have a plain, light background. Its queries, and the photos
that clicks refer to, show a listing at about half of its size somewhere in front of pieces of other listings, in other
light. Everything follows from seed and row. Clicks are simulated: a page shows the photo's own product (equal titles),
and others, ever less like it. The first of its product is the very picture that was pasted, so that learning is easier
than the test, whose gallery has other pictures of the product.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from retrieval_jax.data.catalog import PHOTO, Catalog, Lazy, Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.shop import synthetic
from retrieval_jax.data.tables import loading
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.errors import InputError

SIZE = (160, 120)  # of the photos, height and width in px
SIDES = (0.4, 0.75)  # of the product's longer side, as a share of the photo's
SHOWN = {"same": 3, "leaf": 3, "middle": 2, "any": 2}  # listings on a page of ten results
CLICK = {"same": 0.75, "leaf": 0.06, "middle": 0.03, "any": 0.02}
_PIECES = (3, 7)  # of other listings in a background
_LIGHT = 18  # a pixel this near to one of the background next to it, in each channel, is background too


class Pasted:
    """A source of photos: pictures of a source, cut out and pasted in front of others.

    Args:
      source: random access to uint8 [h, w, 3], the pictures that are pasted.
      others: pictures that backgrounds are made of, likewise.
      seed: of everything.
      name: of the split; two splits with one seed differ.
    """

    def __init__(self, source, others, seed: int, name: str):
        self.source, self.others, self.seed, self.name = source, others, seed, name

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> np.ndarray:
        rng = synthetic.generator(self.seed, f"pasted {self.name}", row)
        picture, place = _placed(self.source[row], rng)
        return _photo(picture, place, self.others, rng)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """The true boxes, float32 [n, 4], ymin, xmin, ymax, xmax as shares; reads the pictures, not the backgrounds."""
        found = np.empty((len(self), 4), np.float32)
        for row in range(len(self)):
            rng = synthetic.generator(self.seed, f"pasted {self.name}", row)
            picture, (top, left) = _placed(self.source[row], rng)
            height, width = picture.shape[:2]
            found[row] = np.array([top, left, top + height, left + width]) / (*SIZE, *SIZE)
        return found


def cut_out(image: np.ndarray) -> np.ndarray:
    """Returns what is in front of a plain background, uint8 [h, w, 4]: RGB and how opaque it is, without its margins.

    The background is what is joined to a white frame around the picture by small steps from pixel to pixel: soft
    shadows go with it, and so may parts of a light product whose edge is soft. A picture that has no plain, light
    background is returned whole.

    Args:
      image: uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    filled = np.zeros((height + 4, width + 4), np.uint8)
    cv2.floodFill(framed, filled, (0, 0), 0, (_LIGHT,) * 3, (_LIGHT,) * 3, 4 | cv2.FLOODFILL_MASK_ONLY | 255 << 8)
    opaque = np.where(filled[2:-2, 2:-2] > 0, 0, 255).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(opaque)
    if w < 4 or h < 4:
        opaque[:], (x, y, w, h) = 255, (0, 0, width, height)
    return np.dstack([image, cv2.blur(opaque, (2, 2))])[y : y + h, x : x + w]


def _placed(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns the cut-out at the size it has in the photo, and the place of its upper left corner."""
    cut, (height, width) = cut_out(image), SIZE
    side, down, across, mirrored = rng.random(4)
    side = SIDES[0] + (SIDES[1] - SIDES[0]) * side
    scale = side / max(cut.shape[0] / height, cut.shape[1] / width)
    size = max(4, round(scale * cut.shape[1])), max(4, round(scale * cut.shape[0]))
    cut = cv2.resize(cut, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if mirrored < 0.5:
        cut = cut[:, ::-1]
    return cut, (int(down * (height - size[1] + 1)), int(across * (width - size[0] + 1)))


def _photo(cut: np.ndarray, place: tuple[int, int], others, rng: np.random.Generator) -> np.ndarray:
    height, width = SIZE
    photo = _piece(others, rng, height, width, 0.3).astype(np.float32)
    photo = cv2.blur(photo, (9, 9)) * (0.5 + 0.5 * rng.random()) + 60 * (rng.random(3) - 0.5)
    for _ in range(int(rng.integers(*_PIECES))):
        h, w = int(height * rng.uniform(0.15, 0.5)), int(width * rng.uniform(0.15, 0.5))
        top, left = int(rng.random() * (height - h)), int(rng.random() * (width - w))
        photo[top : top + h, left : left + w] = _piece(others, rng, h, w, 0.25)
    if rng.random() < 0.5:
        photo = cv2.blur(photo, (5, 5))
    (top, left), (h, w) = place, cut.shape[:2]
    opaque = cut[:, :, 3:].astype(np.float32) / 255
    part = photo[top : top + h, left : left + w]
    photo[top : top + h, left : left + w] = cut[:, :, :3] * opaque + part * (1 - opaque)
    photo = photo * (rng.uniform(0.75, 1.15) * rng.uniform(0.9, 1.1, 3)) + rng.normal(0, 4, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8)


def _piece(others, rng: np.random.Generator, height: int, width: int, share: float) -> np.ndarray:
    """Returns a part of the middle of another picture, enlarged, uint8 [height, width, 3]."""
    image = others[int(rng.random() * len(others))]
    h, w = (max(2, round(share * side)) for side in image.shape[:2])
    top = int((0.2 + 0.6 * rng.random()) * (image.shape[0] - h))
    left = int((0.2 + 0.6 * rng.random()) * (image.shape[1] - w))
    return cv2.resize(image[top : top + h, left : left + w], (width, height), interpolation=cv2.INTER_LINEAR)


def load_pasted(
    root: str,
    seed: int = 0,
    num_clicks: int = 20_000,
    max_bad_share: float = 0.0,
    check_images: bool | str = True,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads a catalogue in eProduct's layout with pasted photos for queries, and clicks on train.

    Args:
      root: the folder.
      seed: of photos and clicks.
      num_clicks: pages of the table "clicks"; page i starts from photo i modulo the number of photos.
      max_bad_share, check_images, leave_out, set_aside_path: see `tables.loading.load_eproduct`.

    Returns:
      The `Catalog`: photos of train listings, and queries, have the column "box".

    Raises:
      InputError: see `data.loading.load`; or there is no train split with titles and categories.
    """
    found = loading.load_eproduct(
        root, max_bad_share, check_images=check_images, leave_out=leave_out, set_aside_path=set_aside_path
    )
    train = found.train
    if train is None or train.titles is None or train.categories is None:
        raise InputError(f"{root}: pasted photos need a train split with titles and categories, for clicks")
    made_of = f"pasted {seed}"
    photos = Pasted(train.images, train.images, seed, "train")
    photo = Split(
        PHOTO,
        [f"photo-{name}" for name in train.ids],
        None,
        None,
        photos,
        columns=Lazy({"box": lambda: photos.boxes}, made_of),
    )
    query = found.query
    if query is not None:
        queries = Pasted(query.images, train.images, seed, "query")
        query = dataclasses.replace(query, images=queries, columns=Lazy({"box": lambda: queries.boxes}, made_of))
    table = functools.partial(clicks, train.titles, train.categories, num_clicks, seed)
    tables = Lazy({"clicks/train": table}, f"{made_of}, {num_clicks} clicks")
    return dataclasses.replace(found, photo=photo, query=query, tables=tables)


def clicks(titles: Sequence[str], categories: np.ndarray, num: int, seed: int) -> Table:
    """Simulates searches with photos of train listings: what pages show and what is clicked.

    Args:
      titles: n; listings of equal titles are one product.
      categories: int [n, levels], coarse to fine.
      num: pages.
      seed: of the table.

    Returns:
      The table "clicks".
    """
    photos = np.arange(num, dtype=np.int64) % len(titles)
    names = [" ".join(title.casefold().split()) for title in titles]
    keys = {"same": np.unique(names, return_inverse=True)[1], "leaf": categories[:, -1]}
    keys |= {"middle": categories[:, -2] if categories.shape[1] > 1 else categories[:, -1]}
    keys["any"] = np.zeros(len(titles), np.int64)
    u = synthetic.uniform(seed, "pasted clicks", np.arange(num), 2 * sum(SHOWN.values()))
    columns, chances, at = [], [], 0
    for name, count in SHOWN.items():
        key = keys[name]
        order = np.argsort(key, kind="stable")
        low, high = (np.searchsorted(key[order], key[photos], side=side) for side in ("left", "right"))
        for place in range(count):
            # Listings of the product one after the other, its own first; of a category any.
            if name == "same":
                rows = order[low + (np.argsort(order)[photos] - low + place) % (high - low)]
                rows = np.where(place < high - low, rows, -1)
            else:
                rows = order[low + (u[:, at] * (high - low)).astype(np.int64)]
                twice = (np.stack(columns, 1) == rows[:, None]).any(1) | (keys["same"][rows] == keys["same"][photos])
                rows = np.where(twice, -1, rows)
            columns.append(rows)
            chances.append(CLICK[name])
            at += 1
    shown = np.stack(columns, 1)
    clicked = (u[:, at:] < np.array(chances)) & (shown >= 0)
    out = {"photo": photos}
    for name, chosen in (("clicked", clicked), ("unclicked", ~clicked & (shown >= 0))):
        out[name] = Ragged(np.concatenate([[0], np.cumsum(chosen.sum(1))]), shown[chosen])
    return Table(out, {"photo": PHOTO, "clicked": "train", "unclicked": "train"})
