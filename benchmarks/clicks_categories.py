"""Measures which category a photo shows: softmax, vote of the nearest listings, and both fused with fitted weights.

    weights=weights/tf_efficientnet_lite0.in1k.safetensors
    for seed in 0 1; do
      config=configs/fashion_pretrained.py:path=$weights,epochs=3,seed=$seed
      for verb in mine train; do python -m retrieval_jax.$verb --config=$config --workdir=runs/lite3_$seed; done
    done
    python benchmarks/clicks_categories.py runs/lite3_0 runs/lite3_1 --attributes=fashion_attributes.csv.gz \\
        --photos=clothing_photos --vectors=vectors --claims

Reads finished runs, which learned from titles and know no categories, and trains no network. Logits are those of a
linear classifier on vectors of train: the network's, or the network's and hand-made colours and edges side by side. The
vote is by the network's, by colours and edges, or by both. Penalty, temperature, k, scale, share and which vectors vote
are those that are best on val, for the parts alone as for the fusion, whose k is 30; the plain average is of both parts
as they are best alone. The better part is the softmax of the same vectors, or the best vote. The ground truth is the
article types of --attributes; listings of a type that train does not have are set aside and counted.

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
from users_photos import KINDS  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading, pipeline  # noqa: E402
from retrieval_jax.data.catalog import Split  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.fields import Field  # noqa: E402
from retrieval_jax.data.pictures import colour_and_edges  # noqa: E402
from retrieval_jax.data.pictures.sources import FileImages  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import attribute, exact  # noqa: E402
from retrieval_jax.postprocess import category_fusion as fusion  # noqa: E402
from retrieval_jax.postprocess import linear_classifier  # noqa: E402
from retrieval_jax.postprocess.l2 import normalize  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402

PENALTIES = (1e-3, 1e-2, 1e-1)
KS = (5, 10, 20, 30, 50)
K, MASS = 30, 0.95
NETWORK, COLOURS, BOTH = SPACES = ("network", "colours and edges", "both")  # vectors; those that vote
SOFTMAX = (NETWORK, BOTH)  # and those with a classifier
BAR = 0.01  # accuracy that the fusion must gain over the better part


def embedded(split, folder: pathlib.Path, embed) -> Embeddings:
    """Returns the vectors of a split's pictures; kept in a folder, and read from there the next time."""
    if not (folder / "embeddings.json").exists():
        Embeddings(list(split.ids), embed(split), {"space": folder.parent.name}).save(folder)
    found = Embeddings.load(folder)
    if list(found.ids) != list(split.ids):
        sys.exit(f"{folder}: vectors of other pictures: remove the folder")
    return found


def vectors_of(model, splits: dict, folder: pathlib.Path) -> dict[str, dict[str, Embeddings]]:
    """Returns the vectors of splits, {space: {split: vectors}}; the network's are without test-time views."""
    arguments = inference.test_arguments(model.config)

    def network(split):
        function = inference.named(model.task.predict_fns, model.config.embed.predict_fn)
        columns = {"image": Pictures(split.images)}
        return inference.predict(function, model.params, columns, mesh=model.mesh, desc=split.name, **arguments)[
            "embedding"
        ]

    def colours(split):
        out = [colour_and_edges.embed(batch["image"][: int(batch["_mask"].sum())])
               for batch in pipeline.eval_batches({"image": Pictures(split.images)}, **arguments)]  # fmt: skip
        return np.concatenate(out)

    out = {NETWORK: {name: embedded(split, folder / split.name, network) for name, split in splits.items()}}
    beside = folder.with_name("colours_and_edges")  # the same for all networks of one picture size
    out[COLOURS] = {name: embedded(split, beside / split.name, colours) for name, split in splits.items()}
    out[BOTH] = {}
    for name, split in splits.items():
        parts = [normalize(out[space][name].vectors[:]) for space in (NETWORK, COLOURS)]
        out[BOTH][name] = Embeddings(list(split.ids), np.concatenate(parts, axis=1), {})
    return out


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
    """Softmax, vote and fusion by several vectors, fitted on train and val.

    Args:
      spaces: {name: {split: vectors}} of SPACES.
      labels: {split: categories}.
      count: number of categories.
    """

    def __init__(self, spaces, labels, count):
        own = labels["val"]
        known, rows = own >= 0, np.arange(len(own))[own >= 0]
        self.classifiers, self.references, self.votes, self.weights, logits = {}, {}, {}, {}, {}
        for name in SOFTMAX:
            tried = []
            for penalty in PENALTIES:
                classifier = linear_classifier.fit(spaces[name]["train"], labels["train"], count, penalty=penalty)
                found = classifier.logits(spaces[name]["val"])
                weights, fit = fusion.fit(found, empty(len(own)), own, ks=(1,), shares=(0.0,))
                tried.append((fit["log_likelihood"], penalty, classifier, weights, found))
                print(f"  softmax of {name}, penalty {penalty:g}: {fit}", flush=True)
            _, penalty, *self.classifiers[name], logits[name] = max(tried, key=lambda one: one[0])
            print(f"  softmax of {name}: penalty {penalty:g}, {self.classifiers[name][1]}")
        for space in SPACES:
            self.references[space] = fusion.Reference(spaces[space]["train"], labels["train"], count)
            near = self.references[space].neighbours(spaces[space]["val"], max(KS))
            tried = []
            for k in KS:
                for scale in fusion.SCALES:
                    chances = fusion.vote(*(part[:, :k] for part in near), count, scale)
                    right = (chances.argmax(1) == own)[known].mean(), chances[rows, own[known]].mean()
                    tried.append((right, fusion.Weights(1.0, scale, 1.0, k)))
            self.votes[space] = max(tried, key=lambda one: one[0])
            print(f"  vote of {space}: {self.votes[space]}", flush=True)
            for name in SOFTMAX:
                self.weights[name, space] = fusion.fit(logits[name], near, own, ks=(K,))
                print(f"  {name} with the vote of {space}: {self.weights[name, space]}", flush=True)
        self.voter = max(SPACES, key=lambda space: self.votes[space][0])
        self.partner = {name: max(SPACES, key=lambda space: self.weights[name, space][1]["log_likelihood"])
                        for name in SOFTMAX}  # fmt: skip

    def chances(self, spaces, split) -> dict[str, np.ndarray]:
        """Returns the distributions of every part and fusion for a split, {name: [n, C]}."""
        near = {space: self.references[space].neighbours(spaces[space][split], max(KS)) for space in SPACES}
        logits = {name: one.logits(spaces[name][split]) for name, (one, _) in self.classifiers.items()}
        out = {f"softmax, {name}": fusion.softmax(logits[name], self.classifiers[name][1].temperature)
               for name in SOFTMAX}  # fmt: skip
        out |= {f"vote, {space}": fusion.fused(logits[NETWORK], near[space], self.votes[space][1]) for space in SPACES}
        out["vote"] = out[f"vote, {self.voter}"]
        out["plain average"] = (out[f"softmax, {NETWORK}"] + out["vote"]) / 2
        for name, space in self.weights:
            out[f"fused, {name} and {space}"] = fusion.fused(logits[name], near[space], self.weights[name, space][0])
        return out | {f"fused, {name}": out[f"fused, {name} and {space}"] for name, space in self.partner.items()}


def empty(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns no neighbours, for a fit of the softmax alone."""
    return np.full((count, 1), -1), np.full((count, 1), -np.inf)


def categories(catalog, spaces, labels) -> tuple[dict, Fitted, np.ndarray]:
    """Measures one run and prints its tables.

    Returns:
      {(side, softmax): result}, with the difference to the better part; what was fitted; the queries' distributions.
    """
    count = len(catalog.train.category_names[-1])
    fitted = Fitted(spaces, labels, count)
    queries, gallery = (fitted.chances(spaces, name) for name in ("query", "gallery"))
    chances = {part: np.concatenate([queries[part], gallery[part]]) for part in queries}
    own, groups = np.concatenate([labels["query"], labels["gallery"]]), products(catalog)
    half, rest = metrics.selection_half(list(catalog.query.ids), 0.5), np.zeros(len(catalog.gallery), bool)
    sides = {"selection half": np.concatenate([half, rest]), "report half": np.concatenate([~half, rest]),
             "all unseen": np.ones(len(own), bool)}  # fmt: skip
    sides = {side: chosen & (own >= 0) for side, chosen in sides.items()}
    train, levels = catalog.train.categories, catalog.train.category_levels

    def right(part, side, level):
        above = np.full(count, -1)
        above[train[:, -1]] = train[:, level]
        found = fusion.coarser(chances[part][sides[side]], above, len(catalog.train.category_names[level]))
        return (found.argmax(1) == above[own[sides[side]]]).astype(float)

    finest = len(levels) - 1
    columns = [*((side, finest) for side in sides), *(("all unseen", level) for level in range(finest - 1, -1, -1))]
    print("\n| | " + " | ".join(f"{side}, {levels[level]} ({sides[side].sum():,})" for side, level in columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for part in chances:
        if part not in ("vote", *(f"fused, {name}" for name in SOFTMAX)):
            print(f"| {part} | " + " | ".join(f"{right(part, *column).mean():.4f}" for column in columns) + " |")
    print(f"\nchosen on val: the vote of {fitted.voter}; beside the softmax, that of {fitted.partner}")
    print("\n| side | fused | better part | fused - better part (95 %) | p |\n|---|---:|---:|---|---:|")
    out = {}
    for name in SOFTMAX:
        for side, chosen in sides.items():
            parts = {part: right(part, side, finest) for part in (f"softmax, {name}", "vote")}
            part = max(parts, key=lambda one: parts[one].mean())
            found = right(f"fused, {name}", side, finest)
            gain = difference(parts[part], found, groups[chosen])
            out[side, name] = {"fused": found.mean(), "better": parts[part].mean(), "part": part, **gain,
                               "right": (parts[part], found), "groups": groups[chosen]}  # fmt: skip
            print(f"| {name}, {side} | {found.mean():.4f} | {parts[part].mean():.4f} ({part}) | "
                  f"{said(gain['mean'], gain)}")  # fmt: skip
    print(f"\n{(own < 0).sum():,} of {len(own):,} unseen listings are of a type that train does not have: set aside")
    return out, fitted, queries[f"fused, {NETWORK}"]


def searched(catalog, vectors, labels, chances: np.ndarray) -> None:
    """Measures mar@10 of a search that prefers the likely categories against one that does not; report half."""
    names = list(catalog.train.category_names[-1])
    own = labels["gallery"]
    field = Field(names, np.concatenate([[0], np.cumsum(own >= 0)]), own[own >= 0].astype(np.int32))
    index = attribute.Index(vectors["gallery"], fields={"type": field})
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


def users_photos(catalog, model, spaces, labels, fitted: Fitted, folder: pathlib.Path, cache: pathlib.Path) -> dict:
    """Measures what the train half of users' photos adds to the reference set; prints a table."""
    with open(folder / "photos.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    kinds, splits, theirs = list(KINDS), {}, {}
    for half in ("train", "validation"):
        some = [row for row in rows if row["split"] == half]
        images = FileImages(str(folder), [row["path"] for row in some])
        splits[half] = Split(f"photos_{half}", [row["path"] for row in some], None, None, images)
        theirs[half] = np.array([kinds.index(row["category"]) for row in some])
    photos = vectors_of(model, splits, cache)
    voter = fitted.partner[NETWORK]
    classifier, weights = fitted.classifiers[NETWORK]
    above = np.full(len(catalog.train.category_names[-1]), -1)
    for number, types in enumerate(KINDS.values()):
        for one in types:
            above[catalog.train.category_names[-1].index(one)] = number
    shop = {name: np.where(found >= 0, above[found], -1) for name, found in labels.items()}

    def logits(side):
        chances = fusion.softmax(classifier.logits(side), weights.temperature)
        return np.log(fusion.coarser(chances, above, len(kinds)) + 1e-12)

    reference = fusion.Reference(spaces[voter]["train"], shop["train"], len(kinds))
    near = reference.neighbours(spaces[voter]["val"], K)
    fused, fit = fusion.fit(logits(spaces[NETWORK]["val"]), near, shop["val"])
    grown = reference.add(photos[voter]["train"], theirs["train"])
    near = grown.neighbours(photos[voter]["train"], K)
    again, refit = fusion.fit(logits(photos[NETWORK]["train"]), near, theirs["train"])
    print(f"\nphotos, vote of {voter}: shop's val {fused} {fit}; fitted again {again} {refit}")
    asked, own = logits(photos[NETWORK]["validation"]), theirs["validation"]
    right = {"softmax": asked.argmax(1) == own}
    for name, one in (("shop", reference), ("shop and photos", grown)):
        near = one.neighbours(photos[voter]["validation"], K)
        right[f"vote, {name}"] = fusion.vote(*near, len(kinds), fused.scale).argmax(1) == own
        right[f"fused, {name}"] = fusion.fused(asked, near, fused).argmax(1) == own
    right["fused, weights fitted again"] = fusion.fused(asked, near, again).argmax(1) == own
    right = {name: one.astype(float) for name, one in right.items()}
    before = right["fused, shop"]
    print(f"\n| photos' reference set | accuracy, {len(kinds)} kinds | - fused, shop (95 %) | p |\n|---|---:|---|---:|")
    out = {}
    for name, one in right.items():
        gain = bootstrap.paired_bootstrap(before, one)
        out[name] = {"accuracy": one.mean(), **gain}
        print(f"| {name} | {one.mean():.4f} | {said(gain['difference'], gain)}")
    nearest = exact.Index(photos[NETWORK]["train"]).search(photos[NETWORK]["validation"], 1).scores[:, 0]
    print(f"{(nearest > 0.99).sum()} of {len(own)} validation photos have a cosine above .99 with a train photo; "
          f"{len(theirs['train']):,} photos join {len(reference):,} listings of the ten kinds")  # fmt: skip
    return out | {"right": right}


def claims_of(found: dict[str, dict], photos: dict[str, dict], command: str) -> list[dict]:
    """Returns the claims: the fusion on either side, over the mean of both networks, and the photos."""
    made = []
    for (side, softmax), name in {("report half", NETWORK): "report", ("all unseen", NETWORK): "unseen",
                                  ("all unseen", BOTH): "unseen-both"}.items():  # fmt: skip
        results = {seed: one[side, softmax] for seed, one in found.items()}
        first, second = (np.mean([one["right"][number] for one in results.values()], 0) for number in (0, 1))
        gain = difference(first, second, next(iter(results.values()))["groups"])
        holds = all(one["mean"] >= BAR and one["p"] < 0.01 for one in results.values())
        why = "; ".join(f"seed {seed}: {one['mean']:+.4f} ({one['low']:+.4f}, {one['high']:+.4f}), p {one['p']:.4f}, "
                        f"over the {one['part']}" for seed, one in results.items())  # fmt: skip
        of = "the network's vectors" if softmax == NETWORK else "the network's vectors and colours and edges"
        made.append({
            "id": f"clicks-category-{name}", "system": "clicks",
            "statement": f"fashion, article types, {side}: the softmax of {of} and the vote, fused with weights fitted "
                         "on val, are right at least 1.0 points more often than the better of both, p < .01, with "
                         "every seed",
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
        spaces, labels = vectors_of(model, catalog.splits(), cache), truth_of(catalog, args.attributes)
        sizes = ", ".join(f"{name} {one['train'].dim}" for name, one in spaces.items())
        print(f"\n{run}: dimensions of the vectors: {sizes}", flush=True)
        found[seed], fitted, chances = categories(catalog, spaces, labels)
        searched(catalog, spaces[NETWORK], labels, chances)
        if args.photos:
            folder = pathlib.Path(args.photos)
            photos[seed] = users_photos(catalog, model, spaces, labels, fitted, folder, cache)
    if args.claims:
        command = f"python benchmarks/clicks_categories.py {' '.join(sys.argv[1:])}"
        claims.write(claims_of(found, photos, command))


if __name__ == "__main__":
    main()
