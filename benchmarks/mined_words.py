r"""Measures the precision of better mining on 19,406 electronics titles, labelled by rules that mining does not use.

    RETRIEVAL_JAX_REFERENCE=... python benchmarks/mined_words.py --out=benchmarks/mined_words.json
    RETRIEVAL_JAX_REFERENCE=... python benchmarks/mined_words.py --time=1300000

The second command times counting, deciding and encoding of generated titles, with all switches and with none.

All switches that need neither pictures nor categories are on, and the threshold is 10. All decisions are labelled, by
data that mining never sees (the columns supplier and short_description) and by independent rules for reading numbers:

- merged: a merge a -> b is wrong if a and b are words of different suppliers' names, if a is such a word and b is not,
  or if their digits differ. Otherwise the product descriptions decide: right if those of a are more similar to those of
  b (cosine of the mean tf-idf, leaving out a and b) than to those of 95 % of 500 other words about as frequent as b, or
  contain b more often than others do (Fisher's exact test, p < 0.05); wrong if they are less similar than the median;
  open in between.
- dropped as uninformative: wrong if the word is part of a supplier's name, has a digit, or is a colour.
- dropped as part of a phrase: wrong if more than 5 % of the titles with the word lack the phrase.
- suppliers: right if a word of the name of a supplier with more than 10 titles, itself seen in more than 10, is still
  an attribute, by itself or as part of a phrase.
- phrases: right if the words are adjacent in at least half of the descriptions that have both, wrong if in fewer, open
  if fewer than three descriptions have both.
- quantities: right if every "number unit" in a title, with or without a space, a hyphen or trailing zeros, gives the
  same word, and no word comes from two different quantities.
- models: right if a word of a title that mixes letters and digits and is not a quantity comes through unchanged.

The interval is Wilson's, 95 %.
"""

import argparse
import collections
import csv
import decimal
import functools
import gzip
import json
import math
import os
import pathlib
import re
import sys
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import generated_titles  # noqa: E402
import numpy as np  # noqa: E402
from scipy import sparse, stats  # noqa: E402

from retrieval_jax.attributes import choosing, kinds, statistics, words  # noqa: E402
from retrieval_jax.attributes import titles as title_rule  # noqa: E402

SETTINGS = {
    "threshold": 10, "normalise": True, "segment": True, "variants": {"on": True}, "phrases": {"on": True},
    "uninformative": {"on": True, "pictures": 0}, "rare": {"on": True}, "categories": {"on": True},
}  # fmt: skip
# Units as written in the titles, and their canonical spelling; deliberately not the package's table.
UNITS = {
    unit: unit
    for unit in "gb mb tb mhz ghz khz hz cm mm m kg mah ft inch dpi rpm va kva ml mbps gbps w v pcs mp".split()
}
UNITS |= {"feet": "ft", "foot": "ft", "inches": "inch", "year": "year", "years": "year", "watt": "w", "pixels": "px"}
_QUANTITY = re.compile(
    rf"(?<![–\w./\-,])(?<![x×\d] )(\d+(?:\.\d+)?)( |-|)({'|'.join(sorted(UNITS, key=len, reverse=True))})"
    r"(?![\w/\-.²³(])",
    re.I,
)


def wilson(right: int, total: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    share, z = right / total, 1.96
    middle, half = share + z * z / (2 * total), z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (middle - half) / (1 + z * z / total)), min(1.0, (middle + half) / (1 + z * z / total))


def read() -> list[dict]:
    """Returns the rows of the reference titles."""
    default = pathlib.Path(__file__).resolve().parents[2] / "shared"
    path = pathlib.Path(os.environ.get("RETRIEVAL_JAX_REFERENCE", default)) / "data/icecat_titles.csv.gz"
    if not path.exists():
        raise SystemExit(f"{path} not found: set RETRIEVAL_JAX_REFERENCE to the folder of the reference data")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(settings: dict = SETTINGS) -> dict:
    """Returns, for every kind of decision, how many are right, wrong and open, with examples."""
    rows = read()
    base = choosing.base_rules(settings)
    tokenize = functools.partial(words.of_titles, rules=base)
    made = choosing.decide(statistics.count([[row["title"] for row in rows]], pairs=True, tokenize=tokenize), settings)
    title_words = [words.of_title(row["title"], base) for row in rows]
    title_sets = [set(found) for found in title_words]
    described = [set(words.of_title(row["short_description"] or "", base)) for row in rows]
    supplier_titles = collections.Counter(row["supplier"] for row in rows)
    supplier_of = collections.defaultdict(set)
    for name in supplier_titles:
        for word in words.of_title(name, base):
            if word not in title_rule.DROPPED:
                supplier_of[word].add(name)
    having = collections.defaultdict(list)
    for place, found in enumerate(title_sets):
        for word in found:
            having[word].append(place)
    labels = {
        "merged": _merged(made, supplier_of, having, title_sets, described),
        "dropped, uninformative": _dropped(made, supplier_of),
        "dropped, part of a phrase": _inside(made, having, title_words),
        "suppliers kept": _suppliers(made, supplier_titles, base, having),
        "phrases": _phrases(made, rows, base),
        "quantities": _quantities(rows, base),
        "models": _models(rows, base),
    }
    out = {}
    for name, found in labels.items():
        counts = collections.Counter(label for _, label in found)
        decided = counts["right"] + counts["wrong"]
        low, high = wilson(counts["right"], decided)
        out[name] = {
            "right": counts["right"],
            "wrong": counts["wrong"],
            "open": counts["open"],
            "precision": counts["right"] / decided if decided else None,
            "low": low,
            "high": high,
            "wrong_ones": sorted(word for word, label in found if label == "wrong")[:20],
            "open_ones": sorted(word for word, label in found if label == "open")[:20],
        }
    tally = made.table.group_by("rule", "decision").len().sort("rule", "decision").rows()
    return {
        "titles": len(rows),
        "settings": settings,
        "attributes": len(made.tokens),
        "labelled": out,
        "decisions": [list(row) for row in tally],
    }


def _merged(made, supplier_of, having, title_sets, described) -> list:
    found, like = [], _likeness(having, described)
    for word, target in made.rules.merges.items():
        name = f"{word} -> {target}"
        if re.findall(r"\d+", word) != re.findall(r"\d+", target) or (
            supplier_of.get(word) and not supplier_of[word] & supplier_of.get(target, set())
        ):
            found.append((name, "wrong"))
            continue
        places = [place for place in having[word] if target not in title_sets[place]]
        hits = sum(target in described[place] for place in places)
        others = len(described) - len(places)
        rest = sum(target in one for one in described) - hits
        p = stats.fisher_exact([[hits, len(places) - hits], [rest, others - rest]], alternative="greater").pvalue
        rank = like(word, target)
        found.append((name, "right" if rank >= 0.95 or (hits and p < 0.05) else "wrong" if rank < 0.5 else "open"))
    return found


def _likeness(having, described):
    """Returns a function of two words: the share of other words whose descriptions are less similar."""
    column = {word: place for place, word in enumerate(sorted(set().union(*described)))}
    cells = [(row, column[word]) for row, one in enumerate(described) for word in one]
    table = sparse.csr_matrix((np.ones(len(cells)), np.transpose(cells)), shape=(len(described), len(column)))
    table = table @ sparse.diags(np.log(len(described) / np.asarray(table.sum(0)).ravel()))
    random = np.random.default_rng(0)

    def mean(word, left_out):
        found = np.asarray(table[having[word]].mean(0)).ravel()
        found[[column[one] for one in left_out if one in column]] = 0
        return found / max(np.linalg.norm(found), 1e-9)

    def like(word, target):
        near = [
            other
            for other, places in sorted(having.items())
            if other not in (word, target) and len(having[target]) / 2 <= len(places) <= 2 * len(having[target])
        ]
        chosen = random.choice(near, size=min(500, len(near)), replace=False).tolist()
        own = mean(word, (word, target))
        return float(
            np.mean([own @ mean(other, (word, target, other)) < own @ mean(target, (word, target)) for other in chosen])
        )

    return like


def _dropped(made, supplier_of) -> list:
    rows = made.table.filter((made.table["decision"] == "dropped") & (made.table["rule"] == "uninformative"))
    colours = set(kinds.SEEDS["colour"].split())
    return [
        (word, "wrong" if word in supplier_of or re.search(r"\d", word) or word in colours else "right")
        for word in rows["word"]
    ]


def _inside(made, having, title_words) -> list:
    rows = made.table.filter((made.table["decision"] == "dropped") & (made.table["rule"] == "phrases"))
    found = []
    for word in rows["word"]:
        phrases = {pair for pair in made.rules.phrases if word in pair}
        merged = [[made.rules.merges.get(one, one) for one in title_words[place]] for place in having[word]]
        lacking = sum(not phrases & set(zip(one, one[1:], strict=False)) for one in merged)
        found.append((word, "wrong" if lacking > 0.05 * len(merged) else "right"))
    return found


def _suppliers(made, supplier_titles, base, having) -> list:
    kept = set(made.tokens)
    parts = {part for pair in made.rules.phrases for part in pair}
    found = []
    for supplier, titles in supplier_titles.items():
        for word in words.of_title(supplier, base) if titles > 10 else ():
            if word not in title_rule.DROPPED and len(having[word]) > 10:
                word = made.rules.merges.get(word, word)
                found.append((f"{word} ({supplier})", "right" if word in kept or word in parts else "wrong"))
    return found


def _phrases(made, rows, base) -> list:
    both, beside = collections.Counter(), collections.Counter()
    parts = collections.defaultdict(set)
    for first, second in made.rules.phrases:
        parts[first].add(second)
    for row in rows:
        text = [made.rules.merges.get(word, word) for word in words.of_title(row["short_description"] or "", base)]
        there, adjacent = set(text), set(zip(text, text[1:], strict=False))
        for first in there & set(parts):
            for second in parts[first] & there:
                both[first, second] += 1
                beside[first, second] += (first, second) in adjacent
    return [
        (" ".join(pair), "open" if both[pair] < 3 else "right" if beside[pair] >= both[pair] / 2 else "wrong")
        for pair in sorted(made.rules.phrases)
    ]


def _quantities(rows, base) -> list:
    found, made_of = [], collections.defaultdict(set)
    for row in rows:
        made = set(words.of_title(row["title"], base))
        for number, _, unit in _QUANTITY.findall(row["title"]):  # "40 x 30 cm" has only one to read
            value = (decimal.Decimal(number).normalize(), UNITS[unit.lower()])
            expected = f"{value[0]:f}{value[1]}"
            made_of[expected].add(value)
            found.append((f"{number} {unit} in {row['title'][:60]}", "right" if expected in made else "wrong"))
    found += [(word, "wrong") for word, values in made_of.items() if len(values) > 1]
    return found


def _models(rows, base) -> list:
    found = {}
    for row in rows:
        made = set(words.of_title(row["title"], base))
        for token in title_rule.tokenize(row["title"]):
            model = token.strip("|.-/'")
            # Digits between letters, or letters before digits, cannot be a quantity.
            if re.fullmatch(r"[a-z]+[\-]?[a-z]*\d[a-z0-9\-]*", model) and "'" not in token:
                found[model] = "right" if model in made else "wrong"
    return list(found.items())


def take_time(count: int) -> None:
    """Times mining of generated titles in 200 made-up categories, plain and with all switches."""
    titles = list(generated_titles.Generator(0).titles(count))
    categories = [zlib.crc32(title[:3].encode()) % 200 for title in titles]
    total = {}
    for name, settings in {"plain": {"threshold": 30}, "all switches": SETTINGS | {"threshold": 30}}.items():
        tokenize = functools.partial(words.of_titles, rules=choosing.base_rules(settings))
        pairs, by_category = choosing.needs(settings)
        start = time.perf_counter()
        counted = statistics.count(
            [titles], categories=[categories] if by_category else None, pairs=pairs, tokenize=tokenize
        )
        seen = time.perf_counter()
        made = choosing.decide(counted, settings)
        decided = time.perf_counter()
        statistics.encode(titles, made.tokens, functools.partial(words.of_titles, rules=made.rules))
        end = time.perf_counter()
        total[name] = end - start
        print(
            f"{name:<13} {len(titles):,} titles: count {seen - start:.1f} s, decide {decided - seen:.1f} s, "
            f"encode {end - decided:.1f} s, together {end - start:.1f} s; {len(made.tokens):,} attributes"
        )
    print(f"all switches take {total['all switches'] / total['plain']:.1f} x the time of plain")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="results file to write")
    parser.add_argument("--time", type=int, default=0, help="only time mining, on this many generated titles")
    given = parser.parse_args()
    if given.time:
        return take_time(given.time)
    results = run()
    if given.out:
        given.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{results['titles']:,} titles, {results['attributes']:,} attributes\n")
    print("| decision | right | wrong | open | precision [95 %] |\n|---|---|---|---|---|")
    for name, row in results["labelled"].items():
        share = "" if row["precision"] is None else f"{row['precision']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
        print(f"| {name} | {row['right']:,} | {row['wrong']:,} | {row['open']:,} | {share} |")
    for name, row in results["labelled"].items():
        for label in ("wrong", "open"):
            if row[f"{label}_ones"]:
                print(f"\n{name}, {label}: {'; '.join(row[f'{label}_ones'])}")


if __name__ == "__main__":
    main()
