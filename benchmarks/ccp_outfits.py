"""Cuts the garments of the Clothing Co-Parsing photos out by their masks, for configs/ccp_outfits.py.

    python benchmarks/ccp_outfits.py data/ccp data/ccp_outfits
    python benchmarks/ccp_outfits.py data/ccp data/ccp_same_light --light=0

The first folder is the unpacked archive (garments.csv, photos/, masks/, labels.json). A listing is a garment on white,
an outfit the garments of a photo, one of each group (the largest). Photos are divided by a hash of their names: 55 %
train, 10 % val, 32 % gallery, whose outfits are scored (a smaller share tells little), and 3 % query; no photo is in
two of them. --light is how much the light of a garment may differ, each by itself: brightness by that share, each
colour by half of it. Licence of the photos: Apache-2.0 (Yang et al., "Clothing Co-Parsing by Joint Image Segmentation
and Labeling", CVPR 2014).
"""

import argparse
import csv
import hashlib
import json
import pathlib

import cv2
import numpy as np

SIDE = 128  # of the pictures, px
SMALLEST = 150  # px of a garment
SPLITS = (("train", 0.55), ("val", 0.65), ("gallery", 0.97), ("query", 1.0))


def cut_out(photo: np.ndarray, inside: np.ndarray, light: float, name: str) -> np.ndarray:
    """Returns a garment on white, uint8 [SIDE, SIDE, 3], in a light of its own that follows from its name."""
    rng = np.random.default_rng(int(hashlib.sha256(f"light {name}".encode()).hexdigest()[:15], 16))
    bright, tint = rng.uniform(-light, light), rng.uniform(-light / 2, light / 2, 3)
    lit = np.clip(photo.astype(np.float32) * (1 + bright) * (1 + tint), 0, 255)
    picture = np.where(inside[..., None], lit, 255.0).astype(np.uint8)
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=pathlib.Path, help="the unpacked archive")
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument("--light", type=float, default=0.5, help="how much a garment's light may differ; 0 for not")
    given = parser.parse_args()
    (table,) = given.archive.rglob("garments.csv")
    labels = json.loads((table.parent / "labels.json").read_text())
    (given.out / "garments").mkdir(parents=True, exist_ok=True)
    garments, left_out = {}, {"without a group": 0, "too small": 0, "beside a larger one of its group": 0}
    with table.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if not row["group"] or int(row["pixels"]) < SMALLEST:
                left_out["too small" if row["group"] else "without a group"] += 1
                continue
            garments.setdefault(row["photo"], []).append((int(row["pixels"]), number, row))
    rows, outfits = {name: [] for name, _ in SPLITS}, []
    for photo, found in garments.items():
        picture = cv2.imread(str(table.parent / "photos" / f"{photo}.jpg"))
        mask = cv2.imread(str(table.parent / "masks" / f"{photo}.png"), cv2.IMREAD_GRAYSCALE)
        share = int(hashlib.sha256(photo.encode()).hexdigest()[:8], 16) / 16**8
        split = next(name for name, below in SPLITS if share < below)
        groups, ids = set(), []
        for _, number, row in sorted(found, key=lambda one: (-one[0], one[1])):
            if row["group"] in groups:
                left_out["beside a larger one of its group"] += 1
                continue
            groups.add(row["group"])
            name = f"{photo}-{number}"
            x0, y0, x1, y1 = (int(float(row[key])) for key in ("x0", "y0", "x1", "y1"))
            place = slice(y0, y1 + 1), slice(x0, x1 + 1)
            inside = mask[place] == labels.index(row["label"])
            cv2.imwrite(str(given.out / f"garments/{name}.png"), cut_out(picture[place], inside, given.light, name))
            rows[split].append({"id": name, "image": f"garments/{name}.png", "photo": photo, "label": row["label"],
                                "group": row["group"]})  # fmt: skip
            ids.append(name)
        if len(ids) >= 2:
            outfits.append({"listings": " ".join(ids)})
    for name, listed in {**rows, "outfits": outfits}.items():
        with (given.out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, listed[0].keys())
            writer.writeheader()
            writer.writerows(listed)
    counts = ", ".join(f"{name} {len(listed):,}" for name, listed in rows.items())
    print(f"{given.out}: {len(outfits):,} outfits; garments: {counts}; left out: "
          f"{', '.join(f'{n:,} {why}' for why, n in left_out.items())}")  # fmt: skip


if __name__ == "__main__":
    main()
