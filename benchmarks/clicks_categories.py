"""Measures which category a photo shows: softmax, vote of the nearest listings, and both fused with fitted weights.

    weights=weights/tf_efficientnet_lite0.in1k.safetensors
    for seed in 0 1; do
      config=configs/fashion_pretrained.py:path=$weights,epochs=3,seed=$seed
      for verb in mine train; do python -m retrieval_jax.$verb --config=$config --workdir=runs/lite3_$seed; done
    done
    python benchmarks/clicks_categories.py runs/lite3_0 runs/lite3_1 --attributes=fashion_attributes.csv.gz \\
        --photos=clothing_photos --vectors=vectors --claims

Reads finished runs, which learned from titles and know no categories, and trains no network. Logits are those of a
linear classifier on the run's own vectors of train; its penalty, the temperature of the softmax, and k and scale of the
vote each get the values that are best on val, for the parts alone as for the fusion, whose k is 30. The plain average
is of both parts as they are best alone. Truth are the article types of --attributes; listings of a type that train does
not have are set aside and counted.

The report half of the queries is the half that the steps of a search are never chosen on; the selection half and all
listings that no fit has seen (queries and gallery) stand beside it. Intervals (95 %) and p are of a bootstrap over
products: pictures of one product are drawn together.

--photos: users' photos of ten kinds, whose train half joins the reference set. The fitted weights stay those of the
shop's val; the network, the classifier and the temperature know no photo. The last line fits the weights again, on the
train half, each photo without itself.
"""

import argparse
import csv
import gzip
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import claims  # noqa: E402
import numpy as np  # noqa: E402
from scipy import sparse  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.data.fields import Field  # noqa: E402
from retrieval_jax.data.pictures.sources import FileImages  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import attribute, exact  # noqa: E402
from retrieval_jax.postprocess import category_fusion as fusion  # noqa: E402
from retrieval_jax.postprocess import linear_classifier  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
KS = (5, 10, 20, 30, 50)
K, MASS = 30, 0.95
PARTS = ("softmax", "vote", "plain average", "fused")
BAR = 0.01  # accuracy that the fusion must gain over the better part
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


def embedded(model, images, ids, folder: pathlib.Path) -> Embeddings:
    """Returns the vectors of pictures, without test-time views; kept in a folder, and read from there the next time."""
    if not (folder / "embeddings.json").exists():
        function = inference.named(model.task.predict_fns, model.config.embed.predict_fn)
        out = inference.predict(function, model.params, {"image": images}, mesh=model.mesh, desc=folder.name,
                                **inference.test_arguments(model.config))  # fmt: skip
        Embeddings(list(ids), out["embedding"], {"space": model.space}).save(folder)
    found = Embeddings.load(folder)
    if list(found.ids) != list(ids):
        sys.exit(f"{folder}: vectors of other pictures: remove the folder")
    return found


def truth_of(catalog, file: str) -> dict[str, np.ndarray]:
    """Returns the article type of every listing, a row of the catalogue's finest category names; -1 for others."""
    names = {name: number for number, name in enumerate(catalog.train.category_names[-1])}
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        types = {row["UUID"]: names.get(row["articleType"], -1) for row in csv.DictReader(stream)}
    out = {name: np.array([types[one] for one in split.ids]) for name, split in catalog.splits().items()}
    there = np.unique(out["train"])
    return {name: np.where(np.isin(found, there), found, -1) for name, found in out.items()}


def products(catalog) -> np.ndarray:
    """Returns a number per listing of queries, then gallery, that those of one product share."""
    truth, count = catalog.truth, len(catalog.query) + len(catalog.gallery)
    row_of = {name: row for row, name in enumerate(catalog.gallery.ids)}
    of_gallery = np.array([row_of[name] for name in truth.gallery_ids])
    query_of = {name: row for row, name in enumerate(catalog.query.ids)}
    owner = np.repeat([query_of[name] for name in truth.query_ids], np.diff(truth.indptr))
    pairs = sparse.coo_matrix(
        (np.ones(len(owner)), (owner, len(catalog.query) + of_gallery[truth.rows])), shape=(count, count)
    )
    return sparse.csgraph.connected_components(pairs, directed=False)[1]


def difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> dict:
    """Returns the mean of second - first with a 95 % interval and p, by a bootstrap over groups."""
    _, own = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(own, weights=second - first), np.bincount(own)], 1)
    draws = bootstrap.bootstrap_means(sums, 10_000, 0)
    means = draws[:, 0] / draws[:, 1]
    below, above = ((means <= 0).sum() + 1) / (len(means) + 1), ((means >= 0).sum() + 1) / (len(means) + 1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": float((second - first).mean()), "low": float(low), "high": float(high),
            "p": float(min(1, 2 * min(below, above)))}  # fmt: skip


def said(mean: float, gain: dict) -> str:
    """Returns the last two columns of a table: a difference with its interval, and p."""
    return f"{mean:+.4f} ({gain['low']:+.4f}, {gain['high']:+.4f}) | {gain['p']:.4f} |"


class Fitted:
    """The parts and their fusion, fitted on train and val of one run.

    Args:
      train, val: their vectors.
      labels: {split: categories}.
      count: number of categories.
      neighbours: the vectors that vote instead of the run's own, {split: vectors}, or None.
    """

    def __init__(self, train, val, labels, count, neighbours=None):
        own = labels["val"]
        tried = []
        for penalty in PENALTIES:
            classifier = linear_classifier.fit(train, labels["train"], count, penalty=penalty)
            logits = classifier.logits(val)
            weights, fit = fusion.fit(logits, empty(len(val)), own, ks=(1,), shares=(0.0,))
            tried.append((fit["log_likelihood"], penalty, classifier, weights))
            print(f"  penalty {penalty:g}: {fit}", flush=True)
        _, self.penalty, self.classifier, self.softmax = max(tried, key=lambda one: one[0])
        sides = neighbours or {"train": train, "val": val}
        self.reference = fusion.Reference(sides["train"], labels["train"], count)
        logits, near = self.classifier.logits(val), self.reference.neighbours(sides["val"], max(KS))
        known, rows = own >= 0, np.arange(len(own))[own >= 0]
        votes = [
            (
                (fusion.vote(*(part[:, :k] for part in near), count, scale).argmax(1) == own)[known].mean(),
                fusion.vote(*(part[:, :k] for part in near), count, scale)[rows, own[known]].mean(),
                fusion.Weights(1.0, scale, 1.0, k),
            )
            for k in KS
            for scale in fusion.SCALES
        ]
        self.vote = max(votes, key=lambda one: one[:2])[2]
        self.fused, fit = fusion.fit(logits, near, own, ks=(K,))
        print(f"  softmax {self.softmax}, penalty {self.penalty:g}\n  vote {self.vote}\n  fused {self.fused}: {fit}")

    def chances(self, vectors, others=None) -> dict[str, np.ndarray]:
        """Returns the distributions of the parts and of both together, {part: [n, C]}."""
        logits = self.classifier.logits(vectors)
        near = self.reference.neighbours(vectors if others is None else others, max(KS))
        out = {"softmax": fusion.softmax(logits, self.softmax.temperature),
               "vote": fusion.fused(logits, near, self.vote)}  # fmt: skip
        out["plain average"] = (out["softmax"] + out["vote"]) / 2
        return out | {"fused": fusion.fused(logits, near, self.fused)}


def empty(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns no neighbours, for a fit of the softmax alone."""
    return np.full((count, 1), -1), np.full((count, 1), -np.inf)


def categories(catalog, vectors, labels) -> tuple[dict, Fitted]:
    """Measures one run; prints the tables, and returns {side: result} with the difference to the better part."""
    count = len(catalog.train.category_names[-1])
    fitted = Fitted(vectors["train"], vectors["val"], labels, count)
    found = [fitted.chances(vectors[name]) for name in ("query", "gallery")]
    chances = {part: np.concatenate([one[part] for one in found]) for part in PARTS}
    own, groups = np.concatenate([labels["query"], labels["gallery"]]), products(catalog)
    half = metrics.selection_half(list(catalog.query.ids), 0.5)
    gallery = np.zeros(len(catalog.gallery), bool)
    sides = {"selection half": np.concatenate([half, gallery]), "report half": np.concatenate([~half, gallery]),
             "all unseen": np.ones(len(own), bool)}  # fmt: skip
    train = catalog.train.categories
    print("\n| side | level | listings | " + " | ".join(PARTS) + " | fused - better part (95 %) | p |")
    print("|---|---|---:|" + "---:|" * len(PARTS) + "---|---:|")
    out = {}
    for side, chosen in sides.items():
        chosen = chosen & (own >= 0)
        for level, name in reversed(list(enumerate(catalog.train.category_levels))):
            above = np.full(count, -1)
            above[train[:, -1]] = train[:, level]
            width = len(catalog.train.category_names[level])
            right = {part: (fusion.coarser(one[chosen], above, width).argmax(1) == above[own[chosen]]).astype(float)
                     for part, one in chances.items()}  # fmt: skip
            better = max(("softmax", "vote"), key=lambda part: right[part].mean())
            gain = difference(right[better], right["fused"], groups[chosen])
            print(f"| {side} | {name} | {chosen.sum():,} | "
                  + " | ".join(f"{right[part].mean():.4f}" for part in PARTS)
                  + f" | {said(gain['mean'], gain)}")  # fmt: skip
            if level == train.shape[1] - 1:
                out[side] = {"fused": right["fused"].mean(), "better": right[better].mean(), "part": better, **gain,
                             "right": right, "groups": groups[chosen]}  # fmt: skip
    print(f"\n{(own < 0).sum():,} of {len(own):,} unseen listings are of a type that train does not have: set aside")
    return out, fitted


def searched(catalog, vectors, labels, fitted: Fitted) -> dict:
    """Measures mar@10 of a search that prefers the likely categories against one that does not; report half."""
    names = list(catalog.train.category_names[-1])
    own = labels["gallery"]
    field = Field(names, np.concatenate([[0], np.cumsum(own >= 0)]), own[own >= 0].astype(np.int32))
    index = attribute.Index(vectors["gallery"], fields={"type": field})
    chances = fitted.chances(vectors["query"])["fused"]
    truth = catalog.truth.moved(vectors["query"].ids, vectors["gallery"].ids)
    conditions = fusion.conditions(chances, names, "type", MASS, index.table.values()["type"])
    plain = exact.Index(vectors["gallery"]).search(vectors["query"], 10)
    preferring = index.find(vectors["query"], 10, conditions).ranking
    half = metrics.selection_half(list(vectors["query"].ids), 0.5)
    scores = [metrics.per_query(one, truth, (10,))["mar@10_capped"][~half] for one in (plain, preferring)]
    gain = bootstrap.paired_bootstrap(*scores)
    right = np.mean([row[label] for row, label in zip(fusion.top(chances, MASS), labels["query"], strict=True)
                     if label >= 0])  # fmt: skip
    print(f"\nsearch, report half: mar@10_capped {np.nanmean(scores[0]):.4f} plain, {np.nanmean(scores[1]):.4f} where "
          f"the categories with {MASS} of the mass come first ({fusion.top(chances, MASS).sum(1).mean():.2f} of them; "
          f"the right one is among them for {right:.4f} of the queries): {gain['difference']:+.4f} "
          f"({gain['low']:+.4f}, {gain['high']:+.4f}), p {gain['p']:.4f}")  # fmt: skip
    return {"plain": np.nanmean(scores[0]), "preferring": np.nanmean(scores[1]), **gain}


def users_photos(catalog, vectors, labels, fitted: Fitted, model, folder: pathlib.Path, cache: pathlib.Path) -> dict:
    """Measures what the train half of users' photos adds to the reference set; prints a table."""
    with open(folder / "photos.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    kinds = list(KINDS)
    photos, theirs = {}, {}
    for half in ("train", "validation"):
        some = [row for row in rows if row["split"] == half]
        images = FileImages(str(folder), [row["path"] for row in some])
        photos[half] = embedded(model, images, [row["path"] for row in some], cache / f"photos_{half}")
        theirs[half] = np.array([kinds.index(row["category"]) for row in some])
    above = np.full(len(catalog.train.category_names[-1]), -1)
    for number, types in enumerate(KINDS.values()):
        for one in types:
            above[catalog.train.category_names[-1].index(one)] = number
    shop = {name: np.where(found >= 0, above[found], -1) for name, found in labels.items()}

    def logits(side):
        chances = fusion.softmax(fitted.classifier.logits(side), fitted.softmax.temperature)
        return np.log(fusion.coarser(chances, above, len(kinds)) + 1e-12)

    reference = fusion.Reference(vectors["train"], shop["train"], len(kinds))
    weights, fit = fusion.fit(logits(vectors["val"]), reference.neighbours(vectors["val"], K), shop["val"])
    grown = reference.add(photos["train"], theirs["train"])
    again, refit = fusion.fit(logits(photos["train"]), grown.neighbours(photos["train"], K), theirs["train"])
    print(f"\nphotos: shop's val {weights} {fit}; fitted again {again} {refit}")
    asked, own = logits(photos["validation"]), theirs["validation"]
    right = {"softmax": asked.argmax(1) == own}
    for name, one in (("shop", reference), ("shop and photos", grown)):
        near = one.neighbours(photos["validation"], K)
        right[f"vote, {name}"] = fusion.vote(*near, len(kinds), weights.scale).argmax(1) == own
        right[f"fused, {name}"] = fusion.fused(asked, near, weights).argmax(1) == own
    right["fused, weights fitted again"] = fusion.fused(asked, near, again).argmax(1) == own
    right = {name: one.astype(float) for name, one in right.items()}
    before = right["fused, shop"]
    print(f"\n| photos' reference set | accuracy, {len(kinds)} kinds | - fused, shop (95 %) | p |\n|---|---:|---|---:|")
    out = {}
    for name, one in right.items():
        gain = bootstrap.paired_bootstrap(before, one)
        out[name] = {"accuracy": one.mean(), **gain}
        print(f"| {name} | {one.mean():.4f} | {said(gain['difference'], gain)}")
    nearest = exact.Index(photos["train"]).search(photos["validation"], 1).scores[:, 0]
    print(f"{(nearest > 0.99).sum()} of {len(own)} validation photos have a cosine above .99 with a train photo; "
          f"{len(theirs['train']):,} photos join {len(reference):,} listings of the ten kinds")  # fmt: skip
    return out | {"right": right}


def claims_of(found: dict[str, dict], photos: dict[str, dict], command: str) -> list[dict]:
    """Returns the claims: the fusion on either side, over the mean of both networks, and the photos."""
    made = []
    for side, name in (("report half", "report"), ("all unseen", "unseen")):
        results = {seed: one[side] for seed, one in found.items()}
        first = np.mean([one["right"][one["part"]] for one in results.values()], 0)
        second = np.mean([one["right"]["fused"] for one in results.values()], 0)
        gain = difference(first, second, next(iter(results.values()))["groups"])
        holds = all(one["mean"] >= BAR and one["p"] < 0.01 for one in results.values())
        why = "; ".join(f"seed {seed}: {one['mean']:+.4f} ({one['low']:+.4f}, {one['high']:+.4f}), p {one['p']:.4f}, "
                        f"over the {one['part']}" for seed, one in results.items())  # fmt: skip
        made.append({
            "id": f"clicks-category-{name}", "system": "clicks",
            "statement": f"fashion, article types, {side}: softmax and vote, fused with weights fitted on val, are "
                         "right at least 1.0 points more often than the better of both, p < .01, with every seed",
            "metric": "accuracy", "value": {seed: one["fused"] for seed, one in results.items()},
            "baseline": {seed: one["better"] for seed, one in results.items()},
            "difference": [gain["mean"], gain["low"], gain["high"]], "holds": holds,
            **({} if holds else {"why": why}), "command": command,
        })  # fmt: skip
    if photos:
        name = "fused, shop and photos"
        first, second = (np.mean([one["right"][key] for one in photos.values()], 0) for key in ("fused, shop", name))
        gain = bootstrap.paired_bootstrap(first, second)
        made.append({
            "id": "clicks-category-photos", "system": "clicks",
            "statement": "users' photos of ten kinds: their train half in the reference set makes the fused category "
                         "right more often, without training and without fitting the weights again",
            "metric": "accuracy", "value": {seed: one[name]["accuracy"] for seed, one in photos.items()},
            "baseline": {seed: one["fused, shop"]["accuracy"] for seed, one in photos.items()},
            "difference": [gain["difference"], gain["low"], gain["high"]],
            "holds": all(one[name]["low"] > 0 for one in photos.values()), "command": command,
        })  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="work directories of trained runs, in the order of their seeds")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the runs say")
    parser.add_argument("--attributes", required=True, help="CSV (gzip) with UUID and articleType of every listing")
    parser.add_argument("--photos", default="", help="folder with photos.csv (path, split, category)")
    parser.add_argument("--vectors", required=True, help="folder to keep vectors in")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    args = parser.parse_args()
    found, photos = {}, {}
    for number, run in enumerate(args.runs):
        model, seed = inference.load(run), str(number)
        if args.root:
            with model.config.unlocked():
                model.config.data.kwargs["root"] = args.root
        catalog, cache = loading.load(model.config.data), pathlib.Path(args.vectors) / pathlib.Path(run).name
        vectors = {name: embedded(model, split.images, split.ids, cache / name)
                   for name, split in catalog.splits().items()}  # fmt: skip
        labels = truth_of(catalog, args.attributes)
        print(f"\n{run}: {vectors['train'].dim} dimensions", flush=True)
        found[seed], fitted = categories(catalog, vectors, labels)
        searched(catalog, vectors, labels, fitted)
        if args.photos:
            photos[seed] = users_photos(catalog, vectors, labels, fitted, model, pathlib.Path(args.photos), cache)
    if args.claims:
        command = f"python benchmarks/clicks_categories.py {' '.join(sys.argv[1:])}"
        claims.write(claims_of(found, photos, command))


if __name__ == "__main__":
    main()
