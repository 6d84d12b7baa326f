"""What shoppers of the embedded catalogue like about a listing, beside what it shows, and where they look on a page.

A listing has a price (a typical one of its product, times its own factor), a rating (unknown for one in five) and a
number of sales. Shoppers like a low price for the product, good service, which only rating and sales tell of, and a
sharp picture. They look at a place with the probability place ** -`FADES`. So a click says where a listing was shown
and what it costs, not only whether it shows what was meant.
"""

from __future__ import annotations

import numpy as np

from retrieval_jax.data import listing_quality
from retrieval_jax.data.shop import synthetic

FADES = 0.7  # how fast looks fade down the page
LEAST = 0.2  # a listing that nobody likes is clicked so often, relative to one that everybody likes
LIKES = {
    "cheap": 0.9,
    "service": 0.9,
    "sharp": 0.5,
}  # weights of what shoppers like, each about 0 with a deviation of 1
SHARP = (8.0, 0.32)  # mean and deviation of `listing_quality.sharpness` of pictures of 64 px
NEW = 0.2  # share of listings without a rating
MIXED = 1.5  # how much the order of a page varies; what was meant is ahead by 2
NAMES = ("price", "rating", "sales")  # columns


def _normal(shop: synthetic.Shop, name: str, numbers: np.ndarray, width: int) -> np.ndarray:
    """Returns about normal numbers [n, width] that depend on name and number only: sums of twelve uniform ones."""
    u = synthetic.uniform(shop.seed, name, numbers, 12 * width)
    return u.reshape(len(u), width, 12).sum(2) - 6


def _drawn(shop: synthetic.Shop, split: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns normal numbers of some listings: [n, 5] cheapness, service, noise of rating, noise of sales, how long it
    has been on sale; and [n] of their products."""
    products = synthetic.product_ids(shop, split, rows)
    return _normal(shop, split + " liked", rows, 5), _normal(shop, "price of a product", products, 1)[:, 0]


def columns(shop: synthetic.Shop, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the columns of `NAMES` of some listings, float32 [n] each; a rating is NaN where it is unknown.

    Args:
      shop: the catalogue.
      split: "train", "val" or "gallery".
      rows: int [n].
    """
    own, product = _drawn(shop, split, rows)
    leaf = synthetic.attributes(shop, split, rows)["category"]
    price = np.exp(3 + 0.1 * (leaf % 17) + 0.3 * product - 0.25 * own[:, 0])
    rating = np.clip(np.round(4.1 + 0.35 * own[:, 1] + 0.25 * own[:, 2], 1), 1, 5)
    rating[synthetic.uniform(shop.seed, split + " new", rows, 1)[:, 0] < NEW] = np.nan
    sales = np.floor(np.exp(2 + 0.6 * (own[:, 0] + own[:, 1]) + 0.6 * own[:, 3] + 0.5 * own[:, 4]))
    return {"price": np.round(price, 2).astype(np.float32), "rating": rating.astype(np.float32)} | {
        "sales": sales.astype(np.float32)
    }


def liking(shop: synthetic.Shop, split: str, rows: np.ndarray) -> np.ndarray:
    """Returns how likely a shopper who looks at a listing of what was meant clicks it, relative to the best listings.

    Draws the pictures.

    Args:
      shop, split, rows: see `columns`.

    Returns:
      float64 [n], from LEAST to 1.
    """
    rows = np.asarray(rows, np.int64)
    listed, back = np.unique(rows, return_inverse=True)
    own, _ = _drawn(shop, split, listed)
    sharp = np.array([listing_quality.sharpness(synthetic.picture(shop, split, row)[0]) for row in listed.tolist()])
    sharp = (sharp - SHARP[0]) / SHARP[1]
    worth = LIKES["cheap"] * own[:, 0] + LIKES["service"] * own[:, 1] + LIKES["sharp"] * sharp
    return (LEAST + (1 - LEAST) / (1 + np.exp(-1.5 * worth)))[back.reshape(rows.shape)]


def looks(places: int) -> np.ndarray:
    """Returns the probability that each place of a page is looked at, float64 [places]."""
    return np.arange(1, places + 1) ** -FADES


def arranged(shop: synthetic.Shop, split: str, shown: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Puts the listings of every page in the order of a search that is often right; -1 goes to the end.

    Args:
      shop, split: see `columns`.
      shown: int64 [n, k], rows of the split, -1 for none.
      products: int64 [n], the number of the product that was meant.
    """
    there = shown >= 0
    found = synthetic.product_ids(shop, split, np.maximum(shown, 0).ravel()).reshape(shown.shape) // 4
    same = found == products[:, None]
    alike = found // synthetic.FAMILY == products[:, None] // synthetic.FAMILY
    score = same * 1.0 + alike * 1.0 + MIXED * _normal(shop, split + " page", np.arange(len(shown)), shown.shape[1])
    return np.take_along_axis(shown, np.argsort(np.where(there, -score, np.inf), axis=1, kind="stable"), 1)
