"""Random embeddings that cluster like a shop's: products of about ten listings, ensemble members that partly agree.

A listing's vector is its product's centre (the sum of three of 4,096 styles), plus three styles of its own (the same
for all members: what a picture shows besides the product), a few strong directions in which all listings vary (the
reason to whiten), a mean, and noise specific to the member. Shards are float16; a shard's rows depend only on the seed
and the shard number.
"""

import pathlib

import numpy as np

from retrieval_jax import embeddings

STYLES, NUISANCES, SHARD_ROWS = 4096, 32, 32768
NOISE = 6.0  # member noise, relative to six styles of 1


def styles_of(split: str, count: int, products: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the product [n] of every listing and its six styles [n, 6], equal for all members."""
    rng = np.random.default_rng([seed, 0, split == "query"])
    product = rng.integers(products, size=count)
    of_product = np.random.default_rng([seed, 1]).integers(STYLES, size=(products, 3), dtype=np.int32)
    return product, np.concatenate([of_product[product], rng.integers(STYLES, size=(count, 3), dtype=np.int32)], 1)


def write(folder: pathlib.Path, split: str, *, count: int, products: int, dim: int, member: int, seed: int) -> None:
    """Writes one member's embeddings of one split as float16 shards.

    Args:
      folder: where to write them.
      split: "query" or "gallery".
      count: number of listings.
      products: number of products to draw from.
      dim: dimension of the vectors.
      member: number of the member.
      seed: seed of everything.
    """
    rng = np.random.default_rng([seed, 2, member])
    centres = rng.standard_normal((STYLES, dim), np.float32)
    strength = 1.2 / (1 + np.arange(NUISANCES, dtype=np.float32))
    strong = rng.standard_normal((NUISANCES, dim), np.float32) * strength[:, None]
    mean = rng.standard_normal(dim, np.float32)
    _, styles = styles_of(split, count, products, seed)

    def blocks():
        for number, start in enumerate(range(0, count, SHARD_ROWS)):
            rng = np.random.default_rng([seed, 3, member, split == "query", number])
            some = styles[start : start + SHARD_ROWS]
            block = rng.standard_normal((len(some), dim), np.float32)
            block *= NOISE
            block += mean
            block += rng.standard_normal((len(some), NUISANCES), np.float32) @ strong
            for column in range(6):
                block += centres[some[:, column]]
            yield (block / 16).astype(np.float16)

    ids = [f"{split}{row:08d}" for row in range(count)]
    embeddings.write(folder, ids, blocks(), {"space": f"member{member}", "split": split}, dim=dim, dtype="float16")
