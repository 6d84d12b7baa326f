"""Writes typed queries about the fashion catalogue as plain tables, for configs/fashion_text.py.

    python benchmarks/fashion_queries.py fashion_attributes.csv.gz data/fashion

Adds <folder>/text/ to the catalogue: train.csv, val.csv and gallery.csv (the listings with titles; the gallery holds
those of the splits "index" and "query"), queries.csv (id, query, kind, combination, and the values that a query names,
which only benchmarks/text.py reads), truth.csv (query, gallery) and clicks.csv (text, clicked, count, position;
simulated on train listings).

Queries are made from true attributes. Kinds that are scored, by what a query names: type; colour + type; gender +
colour + type; usage + type; gender + type + season; and two that change the words: synonym, misspelt. Relevant is every
listing with all of these values. What the clicks do not show, so that scores are of something new:

- Families: nobody in train types gender + colour + type, usage + type alone, or gender + type + season. Train has their
  parts: gender + type, usage + gender + type, usage + colour + type, season + type, season + colour + type.
- Wordings: those of a family that both have are different ("red shirt" is scored, "shirt red" is clicked).
- Combinations: a quarter of the pairs of a type with a colour, a usage or a season are in no query of train, by a hash;
  the column "combination" says whether a query has one.

Synonyms ("trainers" for sports shoes) are typed in train too, with other combinations: they are learned from clicks.

Clicks: a page of 40 listings in an order of popularity (a hash) that puts those that fit first more often than not;
position p is looked at with probability p ** -0.7, and a listing that is looked at is clicked with probability .6 if
it fits, .04 otherwise; a query is typed 20 to 400 times. Listings that were shown and not clicked have a count of 0.
"""

import csv
import gzip
import hashlib
import pathlib
import sys

import numpy as np

FITS, OTHERWISE, BIAS, PAGE = 0.6, 0.04, 0.7, 40
TRAIN_QUERIES, PER_KIND = 4000, 150
HELD_OUT = 0.25
TRAIN = {  # names in the query: wordings
    ("type",): ("{type}",),
    ("colour", "type"): ("{type} {colour}", "{colour} coloured {type}"),
    ("gender", "type"): ("{gender} {type}", "{type} for {gender}"),
    ("usage", "gender", "type"): ("{usage} {type} {gender}", "{gender} {usage} {type}"),
    ("usage", "colour", "type"): ("{usage} {colour} {type}", "{colour} {type} {usage}"),
    ("season", "type"): ("{season} {type}", "{type} for {season}"),
    ("season", "colour", "type"): ("{colour} {type} {season}",),
}
SCORED = {
    ("type",): ("{type}",),
    ("colour", "type"): ("{colour} {type}", "{type} in {colour}"),
    ("gender", "colour", "type"): ("{gender} {colour} {type}", "{colour} {type} for {gender}"),
    ("usage", "type"): ("{usage} {type}", "{type} {usage}"),
    ("gender", "type", "season"): ("{gender} {type} {season}", "{season} {type} for {gender}"),
}
CHANGED = (("colour", "type"), ("gender", "colour", "type"), ("usage", "type"))  # what synonyms and typos are put into
SINGULAR = {"Dresses": "dress", "Watches": "watch", "Clutches": "clutch", "Scarves": "scarf", "Dupatta": "dupatta"}
PLURAL = {"Jeans", "Shorts", "Trousers", "Briefs", "Heels", "Flats", "Socks", "Sunglasses", "Leggings", "Tights",
          "Capris", "Track Pants", "Flip Flops", "Night suits", "Cufflinks", "Earrings", "Casual Shoes",
          "Sports Shoes", "Formal Shoes", "Innerwear Vests"}  # fmt: skip
SYNONYMS = {
    "type": {
        "Tshirts": "tee", "Trousers": "pants", "Sports Shoes": "trainers", "Casual Shoes": "sneakers",
        "Handbags": "purse", "Sunglasses": "shades", "Sweaters": "pullover", "Sweatshirts": "jumper",
        "Flip Flops": "beach slippers", "Backpacks": "rucksack", "Perfume and Body Mist": "fragrance",
        "Innerwear Vests": "undershirt", "Heels": "stilettos", "Wallets": "billfold", "Watches": "timepiece",
        "Formal Shoes": "oxfords", "Briefs": "underpants", "Track Pants": "joggers", "Nightdress": "nightie",
        "Jeans": "denims", "Flats": "ballerinas", "Caps": "headgear", "Deodorant": "antiperspirant",
    },
    "colour": {"Grey": "gray", "Navy Blue": "midnight", "Maroon": "wine", "Beige": "sand", "Multi": "rainbow",
               "Purple": "violet", "Red": "scarlet", "White": "ivory", "Black": "jet", "Brown": "chocolate"},
    "gender": {"Men": "gents", "Women": "ladies", "Boys": "lads", "Girls": "lasses"},
    "usage": {"Casual": "everyday", "Sports": "gym", "Formal": "office", "Ethnic": "traditional"},
    "season": {"Summer": "hot weather", "Winter": "cold weather", "Fall": "autumn"},
}  # fmt: skip
COLUMNS = {"type": "articleType", "colour": "baseColour", "gender": "gender", "usage": "usage", "season": "season"}
KEYS = "qwertyuiop asdfghjkl zxcvbnm".split()


def share(text: str) -> float:
    """Returns a number from 0 to 1 that depends on a text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def held_out(values: dict) -> bool:
    """Returns whether a query has a combination that is kept for scoring."""
    return any(
        share(f"{values['type']}|{name}|{values[name]}") < HELD_OUT
        for name in ("colour", "usage", "season")
        if name in values
    )


def word(name: str, value: str, rng, synonym: float) -> str:
    """Returns what a shopper types for a value: a synonym with some probability, otherwise its own word."""
    other = SYNONYMS[name].get(value)
    if other and rng.random() < synonym:
        return other
    if name != "type" or value in PLURAL:
        return value.lower()
    return SINGULAR.get(value, value.removesuffix("s")).lower()


def misspelt(text: str, rng) -> str:
    """Returns a text with a typo in one of its longer words: a letter dropped, doubled, swapped or hit beside."""
    words = text.split(" ")
    long = [at for at, one in enumerate(words) if len(one) > 3] or [0]
    at = long[rng.integers(len(long))]
    typed, made = words[at], words[at]
    while made == typed:
        place, kind = rng.integers(1, len(typed)), rng.integers(4)
        row = next((row for row in KEYS if typed[place] in row), typed[place])
        beside = row[min(len(row) - 1, row.index(typed[place]) + 1)]
        made = (
            typed[:place] + typed[place + 1 :],
            typed[:place] + typed[place] + typed[place:],
            typed[: place - 1] + typed[place] + typed[place - 1] + typed[place + 1 :],
            typed[:place] + beside + typed[place + 1 :],
        )[kind]
    words[at] = made
    return " ".join(words)


def draw(listings: list[dict], families: dict, rng, synonym: float = 0.0):
    """Returns a query about a listing that is drawn: its text and values; or None where the listing lacks a value."""
    names = list(families)[rng.integers(len(families))]
    listing = listings[rng.integers(len(listings))]
    values = {name: listing[name] for name in names}
    if any(value in ("", "NA", "Home", "Unisex", "Free Gifts", "Multi") for value in values.values()):
        return None
    words = {name: word(name, value, rng, synonym) for name, value in values.items()}
    return families[names][rng.integers(len(families[names]))].format(**words), values


def matching(index: dict, values: dict) -> np.ndarray:
    """Returns the rows whose values are these, ascending."""
    rows = None
    for name, value in values.items():
        found = index[name].get(value, np.zeros(0, np.int64))
        rows = found if rows is None else np.intersect1d(rows, found, assume_unique=True)
    return rows


def indexed(listings: list[dict]) -> dict:
    """Returns {name: {value: rows}}."""
    return {
        name: {
            value: np.array([row for row, one in enumerate(listings) if one[name] == value], np.int64)
            for value in {one[name] for one in listings}
        }
        for name in COLUMNS
    }


def scored(listings: list[dict], rng) -> list[dict]:
    """Returns the queries to be scored, with the rows of `listings` that are relevant."""
    index, found, taken = indexed(listings), [], set()
    plans = [(" + ".join(names), {names: wordings}) for names, wordings in SCORED.items()]
    changed = {names: SCORED[names] for names in CHANGED}
    for kind, families in (*plans, ("synonym", changed), ("misspelt", changed)):
        for _ in range(200 * PER_KIND):
            if sum(one["kind"] == kind for one in found) == PER_KIND:
                break
            drawn = draw(listings, families, rng, float(kind == "synonym"))
            if drawn is None:
                continue
            text, values = drawn
            if kind == "misspelt":
                text = misspelt(text, rng)
            if kind == "synonym" and not any(values[name] in SYNONYMS[name] for name in values):
                continue
            if text in taken:
                continue
            taken.add(text)
            combination = "unseen" if held_out(values) else "seen"
            named = {f"named_{name}": values.get(name, "") for name in COLUMNS}
            query = {"query": text, "kind": kind, "combination": combination, **named}
            found.append({**query, "rows": matching(index, values)})
    return found


def clicks(listings: list[dict], rng) -> list[dict]:
    """Returns simulated queries on train listings: text, rows shown, their clicks and positions."""
    index, found, taken = indexed(listings), [], set()
    popularity = np.array([share(f"popular {one['id']}") for one in listings])
    seen = np.arange(1, PAGE + 1) ** -BIAS
    while len(found) < TRAIN_QUERIES:
        drawn = draw(listings, TRAIN, rng, 0.3)
        if drawn is None:
            continue
        text, values = drawn
        if text in taken or held_out(values):
            continue
        taken.add(text)
        fits = matching(index, values)
        others = rng.integers(len(listings), size=PAGE // 2)
        near = index["type"][values["type"]]
        others = np.setdiff1d(np.append(others, near[rng.integers(len(near), size=PAGE // 2)]), fits)
        shown = np.append(fits, others)
        score = popularity[shown] + 0.5 * np.isin(shown, fits) + 0.3 * rng.random(len(shown))
        shown = shown[np.argsort(-score, kind="stable")][:PAGE]
        chance = seen[: len(shown)] * np.where(np.isin(shown, fits), FITS, OTHERWISE)
        count = rng.binomial(int(20 * 20 ** rng.random()), chance)
        found.append({"text": text, "rows": shown, "count": count, "position": np.arange(1, len(shown) + 1)})
    return found


def write(file: pathlib.Path, rows: list[dict]) -> None:
    """Writes a CSV."""
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def listings(attributes: pathlib.Path, root: pathlib.Path) -> dict[str, list[dict]]:
    """Returns {"train", "val", "gallery": listings with image, title and attributes}; the gallery is index and query.

    Args:
      attributes: fashion_attributes.csv, or the same compressed.
      root: the folder of the catalogue.
    """
    images = {}
    for name in ("train", "val", "index", "query"):
        with (root / "metadata" / f"{name}.csv").open(newline="") as file:
            images |= {row["UUID"]: row["IMAGE_PATH"] for row in csv.DictReader(file)}
    found = {"train": [], "val": [], "gallery": []}
    opened = gzip.open if attributes.suffix == ".gz" else open
    with opened(attributes, "rt", newline="") as file:
        for row in csv.DictReader(file):
            split = {"index": "gallery", "query": "gallery"}.get(row["split"], row["split"])
            one = {"id": row["UUID"], "image": images[row["UUID"]], "title": row["title"]}
            found[split].append(one | {name: row[theirs] for name, theirs in COLUMNS.items()})
    return found


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    root = pathlib.Path(sys.argv[2])
    found = listings(pathlib.Path(sys.argv[1]), root)
    folder = root / "text"
    folder.mkdir(exist_ok=True)
    for split, rows in found.items():
        write(folder / f"{split}.csv", rows)
    queries = scored(found["gallery"], np.random.default_rng(7))  # those of 0 were looked at to choose settings
    ids = [one["id"] for one in found["gallery"]]
    write(
        folder / "queries.csv",
        [{"id": f"q{number:04d}"} | {name: one[name] for name in one if name != "rows"}
         for number, one in enumerate(queries)],
    )  # fmt: skip
    write(
        folder / "truth.csv",
        [{"query": f"q{number:04d}", "gallery": " ".join(ids[row] for row in one["rows"])}
         for number, one in enumerate(queries)],
    )  # fmt: skip
    made = clicks(found["train"], np.random.default_rng(1))
    ids = [one["id"] for one in found["train"]]
    write(
        folder / "clicks.csv",
        [{"text": one["text"], "clicked": " ".join(ids[row] for row in one["rows"]),
          "count": " ".join(map(str, one["count"])), "position": " ".join(map(str, one["position"]))} for one in made],
    )  # fmt: skip
    total = sum(int(one["count"].sum()) for one in made)
    counts = ", ".join(f"{split} {len(rows):,}" for split, rows in found.items())
    print(f"{folder}: {counts} listings; {len(queries):,} queries to be scored, {len(made):,} with {total:,} clicks")


if __name__ == "__main__":
    main()
