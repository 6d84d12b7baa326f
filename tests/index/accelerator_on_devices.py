"""Script that tests/index/test_accelerator.py runs in a separate process on eight CPU devices; prints JSON."""

import json
import sys

import jax
import numpy as np

from retrieval_jax import index
from retrieval_jax.embeddings import Embeddings

accelerator, exact = index.get("accelerator"), index.get("exact")


def same(found, wanted) -> bool:
    return np.array_equal(found.item_rows, wanted.item_rows) and np.array_equal(found.scores, wanted.scores)


def catalogue(kind: str, rng):
    """Returns queries and gallery; devices, blocks and groups do not divide the gallery."""
    queries, gallery = rng.normal(size=(23, 24)), rng.normal(size=(1501, 24))
    if kind == "ties":
        queries, gallery = rng.integers(-1, 2, (23, 24)), rng.integers(-1, 2, (1501, 24))
    if kind == "duplicates":
        gallery = np.repeat(gallery[:150], 11, 0)[rng.permutation(1650)[:1501]]
    if kind == "near_ties":
        gallery = 1 + rng.integers(-3, 4, gallery.shape) * 2.0**-10
    if kind == "zero":
        gallery[::3] = 0
        queries[4] = 0
    if kind == "small":
        gallery = gallery[:9]
    return queries.astype(np.float32), gallery.astype(np.float32)


def main():
    rng = np.random.default_rng(0)
    out = {"devices": len(jax.devices()), "same": {}, "looks": {}}
    for kind in ("plain", "ties", "duplicates", "near_ties", "zero", "small"):
        queries, gallery = catalogue(kind, rng)
        ids = [f"{row:05d}" for row in rng.permutation(len(gallery))]
        asked = [ids[3], ids[8], *(f"q{number}" for number in range(len(queries) - 2))]
        wanted = exact.Index(gallery, ids).search(Embeddings(asked, queries), 12)
        for dtype in ("bfloat16", "float32"):
            made = accelerator.Index(
                Embeddings(ids, gallery), dtype=dtype, gallery_block=64, group=4, query_block=24, margin=6
            )
            found = made.search(Embeddings(asked, queries), 12)
            out["same"][f"{kind} {dtype}"] = same(found, wanted) and found.gallery_sha256 == wanted.gallery_sha256
            out["looks"][f"{kind} {dtype}"] = made.looks
        made.final = "float32"  # scores from the device
        found = made.search(Embeddings(asked, queries), 12)
        sums = np.where(wanted.item_rows >= 0, wanted.scores, 0), np.where(found.item_rows >= 0, found.scores, 0)
        close = np.abs(sums[0] - sums[1]).max() < 1e-6
        out["same"][f"{kind} on the device"] = bool(close and ((found.item_rows < 0) == (wanted.item_rows < 0)).all())
    queries, gallery = catalogue("plain", rng)
    out["same"]["one device"] = same(
        accelerator.Index(gallery, devices=jax.devices()[:1], group=4, gallery_block=128).search(queries, 5),
        exact.Index(gallery).search(queries, 5),
    )
    gallery, queries = rng.normal(size=(20000, 64)).astype("float32"), rng.normal(size=(50, 64)).astype("float32")
    wanted = exact.Index(gallery).search(queries, 10).item_rows
    ids = [str(row) for row in range(20000)]
    made = accelerator.Index(gallery, ids, approximate=True, recall_target=0.95, gallery_block=2560, margin=0)
    found = made.search(Embeddings(["7", *("q" * 49)], queries), 10).item_rows
    out["recall"] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)])
    found = made.search(Embeddings(["7", *("q" * 49)], gallery[7:57]), 10).item_rows
    out["own id left out"] = bool(7 not in found[0] and found[1, 0] == 8)
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
