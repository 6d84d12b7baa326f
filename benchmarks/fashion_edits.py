"""Writes edits of the fashion catalogue ("the same in red") as plain tables, for configs/fashion_edits.py.

    python benchmarks/fashion_edits.py fashion_attributes.csv.gz fashion_other_colour.csv.gz data/fashion

Adds <folder>/edits/ to the catalogue: train.csv, val.csv and gallery.csv (listings with attributes; the gallery holds
those of the splits "index" and "query"), edits.csv (reference, words, targets: what is learned from), queries.csv (id,
image, reference, words, edited, wanted, kind, phrasing, combination) and truth.csv (query, gallery).

The second file says which listing is another in a named colour: the same title without its colour words, gender and
type. Its train rows are learned from, its "index" rows scored, all of them; no family of titles is in both. Words are
wordings of the colour, as people write them (Fashion IQ's captions served as the model):

- "phrasing" says whether a query's wording is one that training has seen; half of them, by a hash of the row, are not.
- "combination" says whether training has an edit of a listing of this type into this colour.
- "kind" is the colour's group: "common" are the twelve that training asks for most, "rare" the others.
"""

import collections
import csv
import gzip
import pathlib
import sys

import fashion_queries

SEEN = (
    "{c}",
    "is {c}",
    "in {c}",
    "the same in {c}",
    "is {c} in color",
    "same but {c}",
    "comes in {c}",
    "has more {c}",
    "a solid {c} one",
    "is {c} instead of {old}",
    "{c} and not {old}",
    "make it {c}",
    "the {c} version",
)
UNSEEN = (
    "is {c} colored",
    "i would like this one in {c}",
    "has a {c} color",
    "is {c} rather than {old}",
    "not {old} but {c}",
    "do you have it in {c}",
)
COMMON = 12


def words(row: dict, old: str, scored: bool) -> tuple[str, str]:
    """Returns the words of an edit, and whether their wording is one that training has seen."""
    key = f"{row['REFERENCE_UUID']} {row['WORDS']}"
    unseen = scored and fashion_queries.share(f"phrasing {key}") < 0.5
    wordings = UNSEEN if unseen else SEEN
    wordings = [one for one in wordings if old or "{old}" not in one]
    chosen = wordings[int(fashion_queries.share(f"wording {key}") * len(wordings))]
    return chosen.format(c=row["WORDS"], old=old), "unseen" if unseen else "seen"


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    listings = fashion_queries.listings(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3]))
    by_id = {one["id"]: one for found in listings.values() for one in found}
    folder = pathlib.Path(sys.argv[3]) / "edits"
    folder.mkdir(exist_ok=True)
    for split, found in listings.items():
        fashion_queries.write(folder / f"{split}.csv", found)
    with gzip.open(sys.argv[2], "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {one["colour"].lower(): one["colour"] for one in by_id.values()}
    edits, queries, truth, asked = [], [], [], collections.Counter()
    seen = set()
    for row in rows:
        if row["split"] != "train":
            continue
        reference = by_id[row["REFERENCE_UUID"]]
        asked[row["WORDS"]] += 1
        seen.add((reference["type"], row["WORDS"]))
        said, _ = words(row, reference["colour"].lower(), False)
        edits.append({"reference": reference["id"], "words": said, "targets": row["TARGET_UUIDS"]})
    common = {name for name, _ in asked.most_common(COMMON)}
    for row in rows:
        if row["split"] != "index":
            continue
        reference = by_id[row["REFERENCE_UUID"]]
        said, phrasing = words(row, reference["colour"].lower(), True)
        queries.append(
            {
                "id": f"edit-{len(queries):05d}",
                "image": reference["image"],
                "reference": reference["id"],
                "words": said,
                "edited": "colour",
                "wanted": names[row["WORDS"]],
                "kind": "common" if row["WORDS"] in common else "rare",
                "phrasing": phrasing,
                "combination": "seen" if (reference["type"], row["WORDS"]) in seen else "unseen",
            }
        )
        truth.append({"query": queries[-1]["id"], "gallery": row["TARGET_UUIDS"]})
    for name, found in (("edits", edits), ("queries", queries), ("truth", truth)):
        fashion_queries.write(folder / f"{name}.csv", found)
    counts = ", ".join(f"{split} {len(found):,}" for split, found in listings.items())
    print(f"{folder}: {counts} listings; {len(edits):,} edits to learn from, {len(queries):,} to be scored")
    for column in ("kind", "phrasing", "combination"):
        print(column, dict(collections.Counter(one[column] for one in queries)))


if __name__ == "__main__":
    main()
