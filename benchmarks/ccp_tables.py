"""Unpacks the Clothing Co-Parsing photos and writes tables of their garments, for configs/ccp_regions.py.

    python benchmarks/ccp_tables.py ccp.tar data/ccp

A row is a garment: photo, label, group, and its box as shares of height and width. Photos are divided by a hash of
their names: 70 % train, 15 % val; the rest is the gallery, and every fifth photo of it the queries. Licence of the
photos: Apache-2.0 (Yang et al., "Clothing Co-Parsing by Joint Image Segmentation and Labeling", CVPR 2014).
"""

import csv
import hashlib
import pathlib
import sys
import tarfile


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    archive, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4; Debian 12 has 3.11.2
            tar.extractall(root, filter="data")
        else:
            for member in tar:
                path = (root / member.name).resolve()
                if not path.is_relative_to(root.resolve()) or not (member.isfile() or member.isdir()):
                    sys.exit(f"{sys.argv[1]}: {member.name!r} is not a plain file below its root")
                tar.extract(member, root)
    (table,) = root.rglob("garments.csv")
    rows = {name: [] for name in ("train", "val", "query", "gallery")}
    left_out = {"without a usable box": 0, "without a group": 0}
    with table.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            width, height = float(row["width"]), float(row["height"])
            x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                left_out["without a usable box"] += 1
                continue
            if not row["group"]:
                left_out["without a group"] += 1
                continue
            share = int(hashlib.sha256(row["photo"].encode()).hexdigest()[:8], 16) / 16**8
            last = "query" if share >= 0.97 else "gallery"
            split = "train" if share < 0.7 else "val" if share < 0.85 else last
            image = (table.parent / "photos" / f"{row['photo']}.jpg").relative_to(root)
            rows[split].append(
                {"id": f"{row['photo']}-{number}", "image": image, "photo": row["photo"], "label": row["label"],
                 "group": row["group"], "ymin": y0 / height, "xmin": x0 / width, "ymax": y1 / height,
                 "xmax": x1 / width}
            )  # fmt: skip
    for name, found in rows.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0].keys())
            writer.writeheader()
            writer.writerows(found)
    counts = ", ".join(f"{name} {len(found):,}" for name, found in rows.items())
    print(f"{root}: {counts} garments; left out: {', '.join(f'{n:,} {why}' for why, n in left_out.items())}")


if __name__ == "__main__":
    main()
