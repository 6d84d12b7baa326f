"""Measures near-duplicate search among a million pictures: time, memory and recall of hashing, and what it catches.

    python benchmarks/near_duplicates.py --rows=1000000 --out=benchmarks/near_duplicates.json

Both sides are generated thumbnails (a few thousand shapes, each with variations, like a shop's photos in one pose) with
planted copies: noise as from recompression, and mirror images. The exact search runs for some rows of the first side
against all of the second, for its time per row and the recall of the hashed search. Altered copies of the embedded
catalogue's pictures show what is caught; 500 x 500 JPEGs show what a thumbnail costs.
"""

import argparse
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import memory  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import leaks  # noqa: E402
from retrieval_jax.data.pictures import decoding, noted  # noqa: E402
from retrieval_jax.data.shop import synthetic  # noqa: E402
from retrieval_jax.duplicates import hashes, thumbnails  # noqa: E402
from retrieval_jax.workdir import provenance  # noqa: E402

SHAPES, PLANTED, LIMIT = 4000, 0.01, 0.05
CHUNK = 65_536
CHANGES = {
    "none": lambda p: p,
    "JPEG quality 75": lambda p: _jpeg(p, 75),
    "JPEG quality 40": lambda p: _jpeg(p, 40),
    "half the size": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "mirrored": lambda p: p[:, ::-1],
    "5 % darker": lambda p: cv2.convertScaleAbs(p, alpha=0.95),
    "12 % darker": lambda p: cv2.convertScaleAbs(p, alpha=0.88),
    "1 % cropped on every side": lambda p: _crop(p, 0.01),
    "2 % cropped on every side": lambda p: _crop(p, 0.02),
    "4 % cropped on every side": lambda p: _crop(p, 0.04),
}


def _jpeg(picture, quality):
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _crop(picture, share):
    cut = max(1, round(share * len(picture)))
    return picture[cut:-cut, cut:-cut]


def generate(rows: int, seed: int) -> np.ndarray:
    """Returns thumbnails, uint8 [rows, 192], of pictures of a few thousand shapes."""
    shapes = np.random.default_rng(0).standard_normal((SHAPES, 5, 5, 3), np.float32)
    rng, out = np.random.default_rng([seed, 1]), np.empty((rows, 192), np.uint8)
    # linear interpolation from 5 x 5 to 8 x 8, as one matrix
    at = np.linspace(0, 4, 8)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(5))).astype(np.float32)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        coarse = shapes[rng.integers(SHAPES, size=count)] + 0.4 * rng.standard_normal((count, 5, 5, 3), np.float32)
        fine = np.einsum("ya,xb,nabc->nyxc", weights, weights, coarse, optimize=True)
        out[start : start + count] = np.clip(128 + 45 * fine, 0, 255).reshape(count, -1)
    return out


def plant(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Makes some rows of first copies of rows of second, half of them mirrored; returns (rows of first, of second)."""
    rng = np.random.default_rng(2)
    count = int(PLANTED * len(first))
    rows, others = np.sort(rng.permutation(len(first))[:count]), rng.integers(len(second), size=count)
    copies = second[others].astype(np.float32) + rng.normal(size=(count, 192)) * rng.uniform(0, 2.0, (count, 1))
    copies = np.clip(np.rint(copies), 0, 255).astype(np.uint8)
    copies[::2] = hashes.mirror(copies[::2])
    first[rows] = copies
    return rows, others


def search(rows: int, exact_rows: int) -> dict:
    """Times the hashed search of `rows` against `rows`, and the exact search for `exact_rows` of them."""
    first, second = generate(rows, 1), generate(rows, 2)
    planted, sources = plant(first, second)
    with memory.Peak() as built:
        table = hashes.Table(second)
    with memory.Peak() as peak:
        found = hashes.find(first, table, LIMIT)
    # planted copies that can be found: those that are near-duplicates by the thumbnails themselves
    turned = first[planted].copy()
    turned[::2] = hashes.mirror(turned[::2])
    true = hashes.differences(turned, second[sources])[0] <= LIMIT
    caught = np.isin(planted, found.rows)
    chosen = np.sort(
        np.concatenate(
            [planted[1::2][: exact_rows // 2], np.random.default_rng(3).permutation(rows)[: exact_rows // 2]]
        )
    )
    chosen = np.unique(chosen)
    start = time.perf_counter()
    exact, _, _ = thumbnails.find(first[chosen], second, LIMIT)
    exact_seconds = time.perf_counter() - start
    plain = hashes.find(first[chosen], table, LIMIT, mirrored=False)
    seconds = built.seconds + peak.seconds
    return {
        "rows_a_side": rows,
        "bits": hashes.BANDS * table.bits,
        "table_seconds": round(built.seconds, 2),
        "search_seconds": round(peak.seconds, 2),
        "pairs_proposed": found.proposed,
        "lookups_cut": found.cut,
        "share_of_all_pairs": found.proposed / (2 * rows**2),
        "found": len(found.rows),
        "planted_near": int(true.sum()),
        "planted_recall": float(caught[true].mean()),
        "exact_rows": len(chosen),
        "exact_found": len(exact),
        "recall_against_exact": float(np.isin(exact, plain.rows).mean()) if len(exact) else None,
        "exact_seconds_a_row": exact_seconds / len(chosen),
        "exact_seconds_for_all_and_mirrored": round(2 * exact_seconds / len(chosen) * rows),
        "ratio": round(2 * exact_seconds / len(chosen) * rows / seconds, 1),
        "peak_megabytes_beside_thumbnails": round((max(peak.bytes, built.bytes) - built.before) / 2**20),
    }


def caught(count: int, gallery_size: int) -> list[dict]:
    """Alters pictures in many ways and counts which are found in a gallery that holds the originals."""
    shop = synthetic.Shop(num_gallery=gallery_size, num_query=0, image_size=128)
    pictures = list(synthetic.images(shop, "gallery"))
    table = hashes.Table(np.stack([noted.thumbnail(picture) for picture in pictures]))
    rows = np.arange(0, gallery_size, max(1, gallery_size // count))
    out = []
    for name, change in CHANGES.items():
        small = np.stack([noted.thumbnail(np.ascontiguousarray(change(pictures[row]))) for row in rows.tolist()])
        entry = {"change": name, "pictures": len(rows)}
        for setting in ("default", "altered"):
            found = hashes.find(small, table, LIMIT, altered=setting == "altered")
            right = found.others == rows[found.rows]
            entry |= {setting: float(right.sum() / len(rows)), f"{setting}_wrong": int((~right).sum())}
        out.append(entry)
    return out


def cost(count: int) -> dict:
    """Times decoding a 500 x 500 JPEG, whole and reduced, plus its thumbnail, on one thread."""
    shop = synthetic.Shop(num_gallery=8, num_query=0, image_size=500)
    encoded = [
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        for picture in synthetic.images(shop, "gallery")
    ]
    out = {"bytes": int(np.mean([len(data) for data in encoded]))}
    for name, at_least in (("whole", None), ("reduced", leaks.AT_LEAST)):
        start = time.perf_counter()
        for i in range(count):
            noted.thumbnail(decoding.decode(encoded[i % 8], at_least=at_least))
        out[f"milliseconds_{name}"] = round(1e3 * (time.perf_counter() - start) / count, 3)
    return out


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="pictures per side")
    parser.add_argument("--exact_rows", type=int, default=2000, help="rows that the exact search looks up")
    parser.add_argument("--gallery", type=int, default=3000, help="pictures among which altered copies are searched")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    given = parser.parse_args()
    result = {
        "hardware": provenance.hardware(),
        "commit": provenance.commit(),
        "max_difference": LIMIT,
        "search": search(given.rows, given.exact_rows),
    }
    print(json.dumps(result["search"], indent=1), flush=True)
    result["caught"] = caught(300, given.gallery)
    print("| change | found | wrong | with altered=True | wrong |\n|---|---|---|---|---|")
    for row in result["caught"]:
        print(
            f"| {row['change']} | {row['default']:.3f} | {row['default_wrong']} | {row['altered']:.3f} | "
            f"{row['altered_wrong']} |"
        )
    result["cost"] = cost(400)
    print(json.dumps(result["cost"]))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run()
