r"""Measures pseudo-product clusters against the truth (purity, completeness, pairs), and how time and memory scale.

    python benchmarks/clusters.py --root=data/fashion --out=benchmarks/clusters.json
    python benchmarks/clusters.py --root=data/fashion --workdir=runs/fashion_best --out=benchmarks/clusters.json

Truth: in the embedded catalogue, the product instances. In the fashion catalogue's train split, equal titles within a
leaf category; since the truth is the title, only clusters of pictures are measured there. For its queries and gallery
(which have neither titles nor categories), the pairs of ground_truth.csv, by thumbnails and, with a work directory, by
its embeddings. The same clusters assigned to listings at random give the chance level.
"""

import argparse
import functools
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import memory  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.attributes import clusters  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.data.pictures.noted import Noted  # noqa: E402
from retrieval_jax.data.shop import synthetic  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

SHARES, LIMITS = (0.0, 0.5, 0.8, 1.0), (0.3, 0.5, 0.7, 0.8, 0.9)
MAX_SIZE = 50


def of_products(name, titles, pictures, categories, product, shares) -> list[dict]:
    """Clusters listings whose products are known, for every title share and limit."""
    rows = []
    for share in shares:
        for limit in LIMITS:
            start = time.perf_counter()
            found = clusters.find(
                functools.partial(clusters.vectors_of, titles, pictures, share), categories, limit, MAX_SIZE
            )
            seconds = time.perf_counter() - start
            by_chance = clusters.scores(np.random.default_rng(0).permutation(found), product)
            rows.append(
                {
                    "catalogue": name,
                    "title_share": share,
                    "max_difference": limit,
                    "clusters": int(found.max(initial=-1) + 1),
                    **clusters.scores(found, product),
                    "pair_precision_by_chance": by_chance["pair_precision"],
                    "seconds": round(seconds, 2),
                }
            )
            print(line(rows[-1]), flush=True)
    return rows


def of_pairs(name, vectors, truth, num_gallery) -> list[dict]:
    """Clusters gallery and queries together and counts which query-gallery pairs share a cluster and are right."""
    rows = []
    for limit in LIMITS:
        found = clusters.find(lambda some: vectors[some], np.zeros(len(vectors), int), limit, MAX_SIZE)
        gallery, queries = found[:num_gallery], found[num_gallery:]
        right = together = wanted = 0
        for query, cluster in enumerate(queries.tolist()):
            relevant = truth.relevant(query)
            wanted += len(relevant)
            if cluster >= 0:
                members = np.flatnonzero(gallery == cluster)
                together += len(members)
                right += len(np.intersect1d(members, relevant))
        rows.append(
            {
                "catalogue": name,
                "title_share": 0.0,
                "max_difference": limit,
                "clusters": int(found.max(initial=-1) + 1),
                "clustered": float((found >= 0).mean()),
                "pair_precision": right / together if together else None,
                "pair_recall": right / wanted,
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def line(row) -> str:
    def number(name):
        return "-" if row.get(name) is None else f"{row[name]:.3f}"

    names = (
        "clustered",
        "purity",
        "completeness",
        "v_measure",
        "pair_precision",
        "pair_recall",
        "pair_precision_by_chance",
    )
    return (
        f"| {row['catalogue']} | {row['title_share']} | {row['max_difference']} | {row['clusters']:,} | "
        + " | ".join(number(name) for name in names)
        + " |"
    )


def growth(sizes) -> list[dict]:
    """Times one category of each size: generated titles of a dozen words and noisy thumbnails, five per product."""
    out = []
    for size in sizes:
        rng = np.random.default_rng(0)
        product = rng.integers(size // 5, size=size)
        words = rng.zipf(1.3, (size // 5, 12)) % 50_000
        spoken = rng.random((size, 12)) < 0.8
        titles = [" ".join(f"w{word}" for word in words[row][spoken[i]]) for i, row in enumerate(product.tolist())]
        pictures = rng.integers(0, 256, (size // 5, 192))[product] + rng.normal(0, 20, (size, 192))
        pictures = np.clip(pictures, 0, 255).astype(np.uint8)
        with memory.Peak() as peak:
            vectors = functools.partial(clusters.vectors_of, titles, pictures, 0.5)
            found = clusters.find(vectors, np.zeros(size, int), 0.7, MAX_SIZE)
        scores = clusters.scores(found, product)
        out.append(
            {
                "listings": size,
                "seconds": round(peak.seconds, 2),
                "peak_megabytes": round((peak.bytes - peak.before) / 2**20),
                "purity": scores["purity"],
                "pair_recall": scores["pair_recall"],
            }
        )
        print(json.dumps(out[-1]), flush=True)
    return out


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="", help="folder of the fashion catalogue; skipped if not given")
    parser.add_argument("--workdir", type=pathlib.Path, help="work directory with embeddings of the fashion catalogue")
    parser.add_argument("--listings", type=int, default=5000, help="listings of the embedded catalogue")
    parser.add_argument("--sizes", type=int, nargs="*", default=(5000, 10000, 20000, 50000), help="category sizes")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    given = parser.parse_args()
    print(
        "| catalogue | title share | max difference | clusters | clustered | purity | completeness | V | precision "
        "of pairs | recall of pairs | precision by chance |\n|" + "---|" * 11
    )
    shop = synthetic.Shop(num_train=given.listings, num_val=0, num_query=0, num_gallery=0)
    split = loading.load({"source": "synthetic", "kwargs": vars(shop)}).train
    every = np.arange(len(split))
    rows = of_products(
        "embedded",
        list(split.titles),
        Noted(split.images).notes(every)[1],
        split.categories[:, -1],
        synthetic.product_ids(shop, "train", every),
        SHARES,
    )
    if given.root:
        catalog = loading.load({"source": "eproduct", "kwargs": {"root": given.root, "check_images": False}})
        split = catalog.train
        leaf = split.categories[:, -1]
        names = [f"{category} {title.lower()}" for category, title in zip(leaf.tolist(), split.titles, strict=True)]
        product = np.unique(names, return_inverse=True)[1]
        rows += of_products(
            "fashion train, truth: titles",
            None,
            Noted(split.images).notes(np.arange(len(split)))[1],
            leaf,
            product,
            (0.0,),
        )
        both = np.concatenate(
            [Noted(part.images).notes(np.arange(len(part)))[1] for part in (catalog.gallery, catalog.query)]
        )
        rows += of_pairs(
            "fashion gallery + query, thumbnails", clusters.picture_vectors(both), catalog.truth, len(catalog.gallery)
        )
        if given.workdir:
            sides = [
                Embeddings.load(given.workdir / "embeddings" / "trained" / name).vectors
                for name in ("gallery", "query")
            ]
            rows += of_pairs(
                "fashion gallery + query, embeddings",
                clusters.picture_vectors(np.concatenate(sides)),
                catalog.truth,
                len(catalog.gallery),
            )
    result = {
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "max_size": MAX_SIZE,
        "rows": rows,
        "growth": growth(given.sizes),
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run()
