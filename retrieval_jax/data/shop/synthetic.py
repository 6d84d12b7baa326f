"""Listings of the embedded catalogue, a procedural shop: nothing is stored, all follows from seed and row number.

A product is a category in a three-level tree, attributes (colour, second colour, pattern, material, brand, two optional
parts, style) and twelve numbers of its own (proportions, shades, scale of the pattern). Four products in a row are a
family: same category and material, mostly the same colour, similar proportions. A listing is one picture of a product
and a title. Query pictures are users' photos of gallery products, gallery pictures are shop photos, train and val have
both. Train, val and gallery draw their products from different random streams: no product is in two of them.

Row r of a split is the same listing whatever the other sizes are, with two exceptions: a gallery that ends inside a
product has fewer listings of it, and when there are more queries than queried products, the queries start over with
second photos. Pictures are the same bytes on the same version of OpenCV.

How hard it is, MAR@10 (denominator capped at 10), 300 queries, 3,000 gallery listings, seed 0: chance 0.003, colour
histogram (HSV 8 x 4 x 4, whole and quarters) 0.02, with square roots 0.04, an untrained small ConvNet 0.015, the same
net trained for 9 epochs (450 steps of 100) on the words of 5,000 train titles 0.42 (seed 1: 0.01, 0.03, trained 0.39;
one run each). The difficulty was set while looking at seed 0.
"""

from __future__ import annotations

import dataclasses
import functools
import operator

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.data.shop import drawing, wording
from retrieval_jax.errors import InputError

FAMILY = 4  # products in a row that share category and material
# Listings per product, in a cycle. In the gallery every second product is queried, the others are distractors; one
# queried product in six has 14 listings, more than the ten that MAR@10 looks at.
LISTINGS = {"train": (4, 3, 6, 5), "val": (2, 1, 3, 2), "gallery": (5, 1, 2, 3, 14, 1, 1, 4, 8, 2, 3, 12)}
QUERIED = (0, 2, 4, 6, 8, 10)  # places in LISTINGS["gallery"]
STREAMS = {"train": 1, "val": 2, "gallery": 3}
USER_SHARE = {"train": 0.35, "val": 0.35, "gallery": 0.0, "query": 1.0, "photo": 1.0}
COLOUR_WEIGHTS = np.array([2, 1.6, 1.3, 1.2, 0.8, 0.8, 1, 0.8, 1.6, 0.8, 1, 1])
PATTERN_WEIGHTS = np.array([3, 1, 1, 1, 1, 1, 1, 1])
_BITS = 0xFFFFFFFFFFFFFFFF
LEVELS = ("top", "middle", "leaf")


@dataclasses.dataclass(frozen=True)
class Shop:
    """What defines an embedded catalogue; the arguments of `loading.load`.

    Attributes:
      seed: of everything.
      num_train, num_val, num_query, num_gallery: listings of each split, 0 for none.
      image_size: side of the pictures in px, at least 16.
      num_clicks, num_outfits, num_typed, num_edits: rows of the tables "clicks", "outfits", "queries" and "edits" about
        each split; row i is the same whatever their number.
      wrong_clicks: share of the clicks on the photo's product that go to another listing of the page instead, 0 to 1.
      biased_clicks: clicks depend on the place on the page and on what shoppers like about a listing (`liked`): the
        table "clicks" has places, and listings have the columns "price", "rating" and "sales".
    """

    seed: int = 0
    num_train: int = 5000
    num_val: int = 500
    num_query: int = 300
    num_gallery: int = 3000
    image_size: int = 64
    num_clicks: int = 5000
    num_outfits: int = 2000
    num_typed: int = 2000
    num_edits: int = 5000
    # Not in the text of a shop: catalogues without them have the digests that they had before.
    wrong_clicks: float = dataclasses.field(default=0.0, repr=False)
    biased_clicks: bool = dataclasses.field(default=False, repr=False)

    def size(self, split: str) -> int:
        """Returns the number of listings of a split; "photo", users' photos of train products, has as many as train."""
        return getattr(self, "num_train" if split == "photo" else f"num_{split}")


# -- random numbers by name ------------------------------------------------------------------------------


def _mix(x: np.ndarray) -> np.ndarray:
    """Applies splitmix64, a bijection of 64-bit numbers that looks random (Steele, Lea, Flood, OOPSLA 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=256)
def _key(seed: int, name: str) -> int:
    key = seed & _BITS
    for byte in name.encode():
        key = _mix_one(key ^ byte)
    return key


def _mix_one(x: int) -> int:
    """Applies `_mix` to one Python number, much faster than to an array of one."""
    x = (x + 0x9E3779B97F4A7C15) & _BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _BITS
    return x ^ (x >> 31)


def _hash_one(seed: int, name: str, number: int) -> int:
    return _mix_one(_mix_one(number) ^ _key(seed, name))


def _hash(seed: int, name: str, numbers: np.ndarray) -> np.ndarray:
    return _mix(_mix(np.asarray(numbers, np.int64).astype(np.uint64)) ^ np.uint64(_key(seed, name)))


def uniform(seed: int, name: str, numbers: np.ndarray, width: int) -> np.ndarray:
    """Draws uniform numbers that depend on (seed, name, number) only, not on what was drawn before.

    Args:
      seed: of the catalogue.
      name: what the numbers are for.
      numbers: int [n], such as those of rows or products.
      width: how many to draw for each.

    Returns:
      float64 [n, width] in [0, 1).
    """
    keys = _hash(seed, name, numbers)[:, None] + np.arange(width, dtype=np.uint64)
    return (_mix(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, name: str, row: int) -> np.random.Generator:
    """Returns the random numbers of one row for one purpose.

    Args:
      seed: of the catalogue.
      name: what the numbers are for.
      row: the row's number.
    """
    return np.random.Generator(np.random.Philox(key=_hash_one(seed, name, row)))


# -- which product a row shows ---------------------------------------------------------------------------


def _place(split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the product number of each row, and the listing's number among the product's, both int64 [n]."""
    sizes = np.array(LISTINGS[split])
    block, within = np.divmod(np.asarray(rows, np.int64), sizes.sum())
    place = np.repeat(np.arange(len(sizes)), sizes)[within]
    return block * len(sizes) + place, within - (np.cumsum(sizes) - sizes)[place]


def first_row(split: str, numbers: np.ndarray) -> np.ndarray:
    """Returns where products begin; the listings of a product are in consecutive rows.

    Args:
      split: "train", "val" or "gallery".
      numbers: int [n], numbers of products.

    Returns:
      int64 [n], the first row of each.
    """
    sizes = np.array(LISTINGS[split])
    block, place = np.divmod(np.asarray(numbers, np.int64), len(sizes))
    return block * sizes.sum() + (np.cumsum(sizes) - sizes)[place]


def num_products(shop: Shop, split: str) -> int:
    """Returns the number of products that train, val or gallery has listings of."""
    size = shop.size(split)
    return int(_place(split, np.array([size - 1]))[0][0]) + 1 if size else 0


def _num_queried(shop: Shop) -> int:
    whole, rest = divmod(num_products(shop, "gallery"), len(LISTINGS["gallery"]))
    return whole * len(QUERIED) + sum(place < rest for place in QUERIED)


def _numbers(shop: Shop, split: str, rows: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns the stream that a split's products come from, and their numbers in it."""
    rows = np.asarray(rows, np.int64)
    if split == "query":
        block, place = np.divmod(rows % max(1, _num_queried(shop)), len(QUERIED))
        return "gallery", block * len(LISTINGS["gallery"]) + np.array(QUERIED)[place]
    if split == "photo":
        return "train", (_hash(shop.seed, "photo of", rows) % np.uint64(max(1, num_products(shop, "train")))).astype(
            np.int64
        )
    return split, _place(split, rows)[0]


def product_ids(shop: Shop, split: str, rows: np.ndarray) -> np.ndarray:
    """Returns the product of every row, int64 [n]; equal ids are the same product, in every split.

    Args:
      shop: the catalogue.
      split: "train", "val", "query", "gallery" or "photo" (users' photos of train products).
      rows: int [n].
    """
    stream, numbers = _numbers(shop, split, rows)
    return numbers * 4 + STREAMS[stream]


# -- what a product is -----------------------------------------------------------------------------------


def _choose(u: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(weights) / np.sum(weights), u, side="right").astype(np.int32)


_TREE = np.array(
    [(wording.TOPS.index(row[0]), wording.MIDDLES.index(row[1]), leaf) for leaf, row in enumerate(wording.CATEGORIES)],
    np.int32,
)
_MATERIALS = [
    [list(wording.MATERIALS).index(name) for name in wording.MATERIALS_OF[row[1]]] for row in wording.CATEGORIES
]
_STYLE_OF = np.array([wording.STYLES.index(brand[2]) for brand in wording.BRANDS])


def _leaves(seed: int, stream: str, families: np.ndarray) -> np.ndarray:
    return (uniform(seed, stream + " family", families, 1)[:, 0] * len(wording.LEAVES)).astype(np.int32)


def _products(seed: int, stream: str, numbers: np.ndarray) -> dict[str, np.ndarray]:
    numbers = np.asarray(numbers, np.int64)
    family = uniform(seed, stream + " family", numbers // FAMILY, 16)
    own = uniform(seed, stream + " product", numbers, 24)
    leaf = (family[:, 0] * len(wording.LEAVES)).astype(np.int32)
    colour = _choose(np.where(own[:, 0] < 0.3, own[:, 1], family[:, 1]), COLOUR_WEIGHTS)
    second = (colour + 1 + (own[:, 2] * (len(wording.COLOURS) - 1)).astype(np.int32)) % len(wording.COLOURS)
    material = np.array(
        [_MATERIALS[c][int(u * len(_MATERIALS[c]))] for c, u in zip(leaf, family[:, 2], strict=True)], np.int32
    )
    brand = (np.where(own[:, 3] < 0.3, family[:, 3], own[:, 4]) * len(wording.BRANDS)).astype(np.int32)
    details = own[:, 8:20].copy()
    details[:, :8] = 0.5 * details[:, :8] + 0.5 * family[:, 4:12]
    # A sum of two uniforms huddles in the middle; stretch it back over [0, 1) or all products would look alike.
    details[:, :8] = np.where(details[:, :8] < 0.5, 2 * details[:, :8] ** 2, 1 - 2 * (1 - details[:, :8]) ** 2)
    return {
        "category": leaf,
        "colour": colour,
        "second": second,
        "pattern": _choose(own[:, 5], PATTERN_WEIGHTS),
        "material": material,
        "brand": brand,
        "part1": (own[:, 6] < 0.5).astype(np.int32),
        "part2": (own[:, 7] < 0.5).astype(np.int32),
        "style": _STYLE_OF[brand],
        "details": details,
    }


def attributes(shop: Shop, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the true attributes of the products of some rows.

    Args:
      shop: the catalogue.
      split: as of `product_ids`.
      rows: int [n].

    Returns:
      int32 [n] each: "category" (row of wording.CATEGORIES), "colour", "second" (of wording.COLOURS), "pattern",
      "material", "brand", "style" (of the tables of those names), "part1", "part2" (1 if the product has the part
      that its category names); and "details", float64 [n, 12].
    """
    return _products(shop.seed, *_numbers(shop, split, rows))


def _one(columns: dict[str, np.ndarray], at: int = 0) -> dict:
    return {name: column[at] for name, column in columns.items()}


def categories(shop: Shop, split: str) -> np.ndarray:
    """Returns the category of every listing of a split, int32 [n, 3]: top, middle, leaf."""
    size = shop.size(split)
    found = np.empty((size, len(LEVELS)), np.int32)
    for start in range(0, size, 1 << 18):  # in blocks, so that ten million rows need little besides the result
        rows = np.arange(start, min(start + (1 << 18), size))
        stream, numbers = _numbers(shop, split, rows)
        families, back = np.unique(numbers // FAMILY, return_inverse=True)
        found[rows] = _TREE[_leaves(shop.seed, stream, families)[back]]
    return found


# -- listings --------------------------------------------------------------------------------------------


def listing_id(shop: Shop, split: str, row: int) -> str:
    """Returns the id of a listing: split and sixteen hexadecimal digits that do not reveal the product."""
    return f"{split}-{_hash_one(shop.seed, split + ' id', row):016x}"


def title(shop: Shop, split: str, row: int) -> str:
    """Returns the title of a listing, as its seller wrote it."""
    return wording.title(_one(attributes(shop, split, np.array([row]))), generator(shop.seed, split + " title", row))


def picture(shop: Shop, split: str, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the picture of a listing.

    Args:
      shop: the catalogue.
      split: as of `product_ids`.
      row: of the split.

    Returns:
      (picture uint8 [image_size, image_size, 3] RGB, box of the product in it float32 [4]: ymin, xmin, ymax, xmax, as
      shares of the side).
    """
    rng = generator(shop.seed, split + " picture", row)
    user = bool(rng.random() < USER_SHARE[split])
    stream, number = _numbers(shop, split, np.array([row]))
    other = None
    if user and rng.random() < 0.2:
        other = _one(_products(shop.seed, "clutter", np.array([int(rng.random() * 2**40)])))
    return drawing.photo(_one(_products(shop.seed, stream, number)), rng, shop.image_size, user=user, other=other)


def boxes(shop: Shop, split: str, rows: np.ndarray) -> np.ndarray:
    """Returns the product's boxes in the pictures of some rows, float32 [n, 4], as `picture`; draws the pictures."""
    return np.array([picture(shop, split, int(row))[1] for row in rows], np.float32).reshape(-1, 4)


class Column:
    """A lazy sequence over the rows of a split: length, rows and slices, iteration.

    Args:
      shop: the catalogue.
      split: as of `product_ids`.
      make: (shop, split, row) -> value.
    """

    def __init__(self, shop: Shop, split: str, make):
        self.shop, self.split, self.make = shop, split, make

    def __len__(self) -> int:
        return self.shop.size(self.split)

    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = operator.index(row)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {self.split}, which has {len(self)} rows")
        return self.make(self.shop, self.split, row % len(self))


def made_of(shop: Shop, split: str) -> str:
    """Returns a text that is equal for equal listings: all that the pictures and attributes of a split depend on."""
    products_of = {"query": "gallery", "photo": "train"}.get(split, split)
    return f"seed {shop.seed}, {split} {shop.size(split)} of {shop.size(products_of)}, {shop.image_size} px"


def _image(shop: Shop, split: str, row: int) -> np.ndarray:
    return picture(shop, split, row)[0]


def images(shop: Shop, split: str) -> Column:
    """Returns the pictures of a split as a random-access source; "photo" gives users' photos of train products."""
    return Column(shop, split, _image)


def relevant(shop: Shop) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gallery rows that show the product of each query: indptr int64 [num_query + 1] and rows int64,
    ascending."""
    numbers = _numbers(shop, "query", np.arange(shop.num_query))[1]
    start = first_row("gallery", numbers)
    count = np.minimum(first_row("gallery", numbers + 1), shop.num_gallery) - start
    indptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    return indptr, np.repeat(start - indptr[:-1], count) + np.arange(indptr[-1])


def make_shop(**kwargs) -> Shop:
    """Checks the arguments of `loading.load`.

    Args:
      **kwargs: fields of `Shop`.

    Returns:
      The `Shop`, for the functions of this module.

    Raises:
      InputError: an argument that does not exist, or a value out of range.
    """
    known = [field.name for field in dataclasses.fields(Shop)]
    for name, value in kwargs.items():
        if name not in known:
            raise InputError(f"the embedded catalogue has no argument {name!r}{pairs.near(name, known)}")
        if name == "wrong_clicks":
            arguments.number(value, name, "the embedded catalogue", low=0, high=1)
        elif name == "biased_clicks":
            if not isinstance(value, bool):
                raise InputError(f"biased_clicks of the embedded catalogue is {value!r}; give True or False")
        elif not isinstance(value, int | np.integer) or isinstance(value, bool) or (value < 0 and name != "seed"):
            raise InputError(f"{name} of the embedded catalogue is {value!r}; give a whole number, 0 or more")
    shop = Shop(**{name: type(getattr(Shop, name))(value) for name, value in kwargs.items()})
    if shop.image_size < 16:
        raise InputError(f"image_size of the embedded catalogue is {shop.image_size}; give 16 px or more")
    if shop.num_query and not shop.num_gallery:
        raise InputError("the embedded catalogue has queries but num_gallery is 0; give it a gallery or num_query=0")
    return shop
