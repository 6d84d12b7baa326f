"""Writes users' photos of clothes and the fashion catalogue's gallery as plain tables, for configs/users_photos.py.

    python benchmarks/users_photos.py clothing_photos fashion_attributes.csv.gz data/fashion

The first is the folder that clothing_photos.tar was unpacked into (photos.csv, train/, validation/). Adds
<folder>/photos/ to the catalogue: query.csv (the validation photos and their kinds), gallery.csv and truth.csv: a
listing is right for a photo if its article type is one of KINDS of the photo's kind. Copies the photos, reduced to 240
px, to <folder>/Images/photos.
"""

import csv
import gzip
import pathlib
import sys

import cv2
import fashion_queries

KINDS = {  # of users' photos, and the article types that they are
    "dress": ("Dresses", "Jumpsuit", "Rompers"),
    "hat": ("Hat", "Caps"),
    "longsleeve": ("Sweatshirts", "Sweaters"),
    "outwear": ("Jackets", "Rain Jacket", "Nehru Jackets", "Blazers"),
    "pants": ("Jeans", "Trousers", "Track Pants", "Leggings", "Jeggings", "Lounge Pants", "Rain Trousers", "Tights"),
    "shirt": ("Shirts",),
    "shoes": ("Casual Shoes", "Sports Shoes", "Formal Shoes", "Heels", "Flats", "Booties", "Sandals"),
    "shorts": ("Shorts", "Lounge Shorts"),
    "skirt": ("Skirts",),
    "t-shirt": ("Tshirts", "Lounge Tshirts"),
}
SIDE = 240


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    photos, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
    with gzip.open(sys.argv[2], "rt", newline="") as file:
        types = {row["UUID"]: row["articleType"] for row in csv.DictReader(file) if row["split"] == "index"}
    with (root / "metadata" / "index.csv").open(newline="") as file:
        gallery = [
            {"id": row["UUID"], "image": row["IMAGE_PATH"], "kind": types[row["UUID"]]} for row in csv.DictReader(file)
        ]
    queries, truth, left_out = [], [], 0
    with (photos / "photos.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != "validation":
                continue
            image = cv2.imread(str(photos / row["path"]))
            if image is None:
                left_out += 1
                continue
            scale = min(1.0, SIDE / max(image.shape[:2]))
            name = f"photos/{row['category']}-{pathlib.Path(row['path']).stem}.jpg"
            (root / "Images" / "photos").mkdir(parents=True, exist_ok=True)
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(root / "Images" / name), small)
            right = " ".join(one["id"] for one in gallery if one["kind"] in KINDS[row["category"]])
            queries.append({"id": pathlib.Path(name).stem, "image": name, "kind": row["category"]})
            truth.append({"query": queries[-1]["id"], "gallery": right})
    folder = root / "photos"
    folder.mkdir(exist_ok=True)
    for name, found in (("query", queries), ("gallery", gallery), ("truth", truth)):
        fashion_queries.write(folder / f"{name}.csv", found)
    print(f"{folder}: {len(queries):,} photos ({left_out} unreadable ones left out), {len(gallery):,} listings")


if __name__ == "__main__":
    main()
