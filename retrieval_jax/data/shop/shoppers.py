"""Simulated shoppers of the embedded catalogue: clicks after a photo, typed queries with clicks, outfits.

Clicks may go astray (`Shop.wrong_clicks`), or follow places and likes (`Shop.biased_clicks`, `liked`). Everything
follows from the true attributes, seed and number, and refers to listings of train, or of the gallery for scoring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from retrieval_jax import brief
from retrieval_jax.data.shop import liked, synthetic, wording
from retrieval_jax.errors import InputError

SHOWN = {"same": 4, "sibling": 3, "random": 3}  # listings on a page of ten results
# Probability of a click on a listing of the same product, its category and colour, its category, any other.
CLICK = {"same": 0.75, "colour": 0.2, "category": 0.05, "other": 0.02}
SOURCE = {"train": "photo", "gallery": "query"}  # split of the photos of clicks on the listings of each split
_DRAWN = 20  # typed queries that are drawn for each that is accepted, at most
POOL = 20_000  # products, from the first, that typed queries, outfits and edits refer to
QUERY_NAMES = (
    ("category",),
    ("category", "colour"),
    ("category", "brand"),
    ("category", "pattern"),
    ("category", "colour", "pattern"),
    ("category", "colour", "brand"),
    ("category", "colour", "material"),
)
OUTFIT = ("tops", "bottoms", "shoes", "bags")
HUES = {
    "red": 0,
    "orange": 30,
    "yellow": 55,
    "green": 120,
    "teal": 180,
    "blue": 225,
    "purple": 280,
    "pink": 330,
}  # others are neutral


@dataclasses.dataclass(frozen=True)
class Clicks:
    """Searches with a photo, one per row.

    Attributes:
      photos: int64 [n], rows of `synthetic.images(shop, "photo")` for train, of the queries for gallery.
      shown: int64 [n, 10], listings on the page, rows of the split; -1 where the page has fewer. With biased clicks
        they are in the order of the page.
      clicked: bool [n, 10]; shown >= 0 and not clicked are the negatives.
    """

    photos: np.ndarray
    shown: np.ndarray
    clicked: np.ndarray

    __repr__ = brief.line


@dataclasses.dataclass(frozen=True)
class TextQueries:
    """Typed queries; the products clicked after query i are rows[indptr[i]:indptr[i + 1]], most clicked first.

    Attributes:
      texts: n strings.
      names: the attributes in each text, n tuples.
      indptr: int64 [n + 1].
      rows: int64, the first listing of each clicked product, row of the split.
      clicks: int64, number of clicks.
    """

    texts: list[str]
    names: list[tuple[str, ...]]
    indptr: np.ndarray
    rows: np.ndarray
    clicks: np.ndarray

    __repr__ = brief.line


@dataclasses.dataclass(frozen=True)
class Outfits:
    """Outfits of one listing each of OUTFIT.

    Attributes:
      rows: int64 [n, 4], rows of the split.
      compatible: bool [n], see `goes_together`.
    """

    rows: np.ndarray
    compatible: np.ndarray

    __repr__ = brief.line


def clicks(shop: synthetic.Shop, num: int, split: str = "train") -> Clicks:
    """Simulates searches with a user's photo: which listings the page showed and which were clicked.

    Args:
      shop: the catalogue.
      num: searches; search i starts from photo i modulo the number of photos.
      split: "train" (users' photos of train products) or "gallery" (the queries).

    Returns:
      The `Clicks`.

    Raises:
      InputError: the split is empty.
    """
    source = SOURCE.get(split)
    if source is None or not shop.size(source) or not shop.size(split):
        raise InputError(
            f'no clicks on split {split!r} of the embedded catalogue: give "train" or "gallery", with listings'
        )
    photos = np.arange(num, dtype=np.int64) % shop.size(source)
    numbers = synthetic.product_ids(shop, source, photos) // 4
    u = synthetic.uniform(shop.seed, split + " clicks", np.arange(num), 32)
    size = shop.size(split)

    def listing(products, which):
        start, stop = synthetic.first_row(split, products), np.minimum(synthetic.first_row(split, products + 1), size)
        count = np.maximum(stop - start, 1)
        return np.where(start < size, start + (which % count), -1), count

    columns = []
    turn = (u[:, 0] * 64).astype(np.int64)
    for j in range(SHOWN["same"]):
        rows, count = listing(numbers, turn + j)
        columns.append(np.where(j < count, rows, -1))
    for j in range(1, SHOWN["sibling"] + 1):
        sibling = numbers // synthetic.FAMILY * synthetic.FAMILY + (numbers + j) % synthetic.FAMILY
        columns.append(listing(sibling, (u[:, j] * 64).astype(np.int64))[0])
    for j in range(SHOWN["random"]):
        rows = (u[:, 8 + j] * size).astype(np.int64)
        columns.append(np.where((np.stack(columns, 1) == rows[:, None]).any(1), -1, rows))
    shown = np.stack(columns, 1)
    if shop.biased_clicks:
        shown = liked.arranged(shop, split, shown, numbers)
    chance = attraction(shop, split, photos, shown)
    if shop.biased_clicks:
        chance = liked.looks(shown.shape[1]) * chance
    clicked = (u[:, 16 : 16 + shown.shape[1]] < chance) & (shown >= 0)
    if shop.wrong_clicks:
        clicked = _astray(shop, split, clicked, shown, numbers)
    return Clicks(photos, shown, clicked)


def attraction(shop: synthetic.Shop, split: str, photos: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Returns how likely a listing is clicked by a shopper who looks at it.

    Args:
      shop: the catalogue; with biased clicks, what shoppers like counts as well, and pictures are drawn.
      split: see `clicks`.
      photos: int64 [n], as of `Clicks`.
      shown: int64 [n, k], rows of the split; -1 for none.

    Returns:
      float64 [n, k], without meaning where nothing is shown.
    """
    source = SOURCE[split]
    rows = np.maximum(shown, 0)
    truth = synthetic.attributes(shop, source, photos)
    seen = synthetic.attributes(shop, split, rows.ravel())
    wanted = synthetic.product_ids(shop, source, photos)[:, None] // 4
    same = synthetic.product_ids(shop, split, rows.ravel()).reshape(shown.shape) // 4 == wanted
    category = seen["category"].reshape(shown.shape) == truth["category"][:, None]
    colour = seen["colour"].reshape(shown.shape) == truth["colour"][:, None]
    chance = np.select(
        [same, category & colour, category], [CLICK["same"], CLICK["colour"], CLICK["category"]], CLICK["other"]
    )
    return chance * liked.liking(shop, split, rows) if shop.biased_clicks else chance


def _astray(
    shop: synthetic.Shop, split: str, clicked: np.ndarray, shown: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """Returns clicks [n, k] of which a share of those on the product goes to another listing of the page instead.

    Args:
      shop, split: see `clicks`.
      clicked: bool [n, k].
      shown: int64 [n, k].
      numbers: int64 [n], the product of each photo.
    """
    same = synthetic.product_ids(shop, split, np.maximum(shown, 0).ravel()).reshape(shown.shape) // 4
    same = (same == numbers[:, None]) & (shown >= 0)
    others = ~same & (shown >= 0)
    u = synthetic.uniform(shop.seed, split + " clicks astray", np.arange(len(shown)), 2 * shown.shape[1])
    moved = clicked & same & (u[:, : shown.shape[1]] < shop.wrong_clicks) & others.any(1, keepdims=True)
    search, place = np.nonzero(moved)
    chosen = (u[search, shown.shape[1] + place] * others.sum(1)[search]).astype(np.int64)
    out = clicked & ~moved
    out[search, (np.cumsum(others, 1)[search] == chosen[:, None] + 1).argmax(1)] = True
    return out


def pool(shop: synthetic.Shop, split: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the first rows of the products that typed queries, outfits and edits refer to, int64 [n], and the true
    attributes of these products."""
    rows = synthetic.first_row(split, np.arange(min(POOL, synthetic.num_products(shop, split))))
    return rows, synthetic.attributes(shop, split, rows)


def text_queries(
    shop: synthetic.Shop, num: int, split: str = "train", accept: Callable[[tuple[str, ...], dict], bool] | None = None
) -> TextQueries:
    """Simulates typed queries, broad ("mug") and narrow ("navy striped shirt"), and the products clicked after them.

    A product is clicked if it has every attribute in the text; popular products are clicked more, and one query in
    five has a stray click.

    Args:
      shop: the catalogue.
      num: queries.
      split: "train" or "gallery".
      accept: whether shoppers type a query, by the names of its attributes and their values; None for all.

    Returns:
      The `TextQueries`; fewer than `num` where hardly any is accepted.

    Raises:
      InputError: the split is empty.
    """
    rows, truth = pool(shop, split)
    if not len(rows):
        raise InputError(f"split {split!r} of the embedded catalogue is empty: no typed queries about it")
    popularity = synthetic.uniform(shop.seed, split + " popularity", rows, 1)[:, 0]
    texts, names, found, counts = [], [], [], []
    for i in range(num if accept is None else _DRAWN * num):
        if len(texts) == num:
            break
        rng = synthetic.generator(shop.seed, split + " text query", i)
        like = int(rng.random() * len(rows))
        name = QUERY_NAMES[int(rng.random() * len(QUERY_NAMES))]
        if accept is not None and not accept(name, {key: int(truth[key][like]) for key in name}):
            continue
        texts.append(wording.query_text({key: truth[key][like] for key in name}, name, rng))
        names.append(name)
        match = np.flatnonzero(np.all([truth[key] == truth[key][like] for key in name], axis=0))
        match = match[np.argsort(-popularity[match], kind="stable")]
        count = np.maximum(1, 60 // np.arange(1, len(match) + 1))
        astray = int(rng.random() * len(rows))
        if rng.random() < 0.2 and astray not in match:
            match, count = np.append(match, astray), np.append(count, 1)
        found.append(rows[match])
        counts.append(count)
    empty = [np.zeros(0, np.int64)]
    indptr = np.concatenate([[0], np.cumsum([len(f) for f in found])]).astype(np.int64)
    return TextQueries(texts, names, indptr, np.concatenate(empty + found), np.concatenate(empty + counts))


def harmonise(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns whether two colours (rows of wording.COLOURS) match: one is neutral, or hues are near or opposite."""
    hue = np.array([HUES.get(name, -1) for name in wording.COLOURS])
    a, b = hue[first], hue[second]
    apart = np.abs(a - b)
    apart = np.minimum(apart, 360 - apart)
    return (a < 0) | (b < 0) | (apart <= 60) | (apart >= 150)


def goes_together(truth: dict[str, np.ndarray]) -> np.ndarray:
    """Returns whether pieces make an outfit: all have the same style, and every two colours harmonise.

    Args:
      truth: "style" and "colour", int [n, pieces] each, as of `synthetic.attributes`.

    Returns:
      bool [n].
    """
    style, colour = truth["style"], truth["colour"]
    return (style == style[:, :1]).all(1) & harmonise(colour[:, :, None], colour[:, None, :]).all((1, 2))


def outfits(shop: synthetic.Shop, num: int, split: str = "train") -> Outfits:
    """Makes outfits in pairs: one that goes together, and the same with one piece exchanged so that it does not.

    Args:
      shop: the catalogue.
      num: outfits.
      split: "train", "val" or "gallery".

    Returns:
      The `Outfits`.

    Raises:
      InputError: the split has too few products to make one.
    """
    rows, truth = pool(shop, split)
    middle = np.array([wording.MIDDLES.index(row[1]) for row in wording.CATEGORIES])[truth["category"]]
    pieces = [np.flatnonzero(middle == wording.MIDDLES.index(name)) for name in OUTFIT]
    style, colour = truth["style"], truth["colour"]

    def fits(chosen, candidates):
        ok = np.ones(len(candidates), bool)
        for piece in chosen:
            ok &= (style[candidates] == style[piece]) & harmonise(colour[candidates], colour[piece])
        return ok

    made, compatible = np.zeros((num, len(OUTFIT)), np.int64), np.arange(num) % 2 == 0
    for i in range(num):
        rng = synthetic.generator(shop.seed, split + " outfit", i // 2)
        for _ in range(200):
            chosen: list[int] = []
            for candidates in pieces:
                good = candidates[fits(chosen, candidates)]
                if not len(good):
                    break
                chosen.append(int(good[int(rng.random() * len(good))]))
            at = int(rng.random() * len(OUTFIT))
            rest = [piece for j, piece in enumerate(chosen) if j != at]
            bad = pieces[at][~fits(rest, pieces[at])]
            if len(chosen) == len(OUTFIT) and len(bad):
                break
        else:
            raise InputError(
                f"split {split!r} of the embedded catalogue has "
                f"{len(rows)} products, too few for outfits: give it some thousand listings"
            )
        if not compatible[i]:
            chosen[at] = int(bad[int(rng.random() * len(bad))])
        made[i] = rows[chosen]
    return Outfits(made, compatible)
