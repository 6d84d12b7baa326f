"""Measures outfits: fill in the blank, compatibility, completion, with and without the unlabelled losses.

    run="python -m retrieval_jax.run --config=configs/embedded_outfits.py"
    $run:labels=5,losses=labelled,seed=0 --workdir=runs/outfits/labelled_5_0     # seeds 0, 1, 2; labels 5, 10, 100
    $run:labels=5,seed=0 --workdir=runs/outfits/all_5_0
    python benchmarks/outfits.py runs/outfits --claims

    python benchmarks/outfits.py runs/ccp --name=ccp --root=data/ccp_outfits --claims

Reads finished runs named <losses>_<labels>_<seed> in a folder and trains nothing; they need no embeddings. All scores
are of the gallery's outfits, which nothing was chosen on (training and its evaluations see train and val). AUC and
blanks follow the public protocol (`scoring.outfits`); scores of seeds are averaged before outfits are resampled (95 %),
an outfit together with the one that was made of it. Beside them stand a random order; the distances of colours and
edges (`colour_and_edges`), which have no training; the distances of vectors before the projection, of the runs with
most labels; and, on the embedded catalogue, the rule itself. Completion takes an item out of every outfit that goes
together and ranks the gallery's listings of its type: random, by how many other outfits a listing is in (popularity),
by the nearest vectors, and by the run. Looks of four are completed by a run with most labels, with and without the
limit on one colour.
"""

import argparse
import collections
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading, pipeline  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.outfits import sets  # noqa: E402
from retrieval_jax.data.pictures import colour_and_edges  # noqa: E402
from retrieval_jax.data.shop import shoppers  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index.attribute.looks import Looks  # noqa: E402
from retrieval_jax.scoring import bootstrap  # noqa: E402
from retrieval_jax.scoring import outfits as scores  # noqa: E402

K = 10
NEAR = 0.01  # AUC: the paper's claim for a tenth of the labels
NAMED = {"all": "all losses", "pseudo": "pseudo-outfits", "consistency": "consistency"}


class Judge:
    """The outfits of a split and what is asked about them.

    Args:
      model: `inference.Model` of a run, for the catalogue and its types.
      split: whose outfits are scored.
      seed: of questions and exchanged items.
    """

    def __init__(self, model, split: str, seed: int = 0):
        self.catalog = loading.load(model.config.data)
        self.listings, kwargs = self.catalog.split(split), model.config.train.task_kwargs
        self.types = sets.types_of(self.listings, kwargs.types, model.data_info)
        self.names = [label.partition("=")[2] for label in model.data_info.label_names]
        self.products = sets.products_of(self.listings, kwargs.same_product)
        found = sets.of_table(self.catalog.table("outfits", split), self.types)
        self.good = found.good()
        self.outfits, self.groups = sets.asked(found, self.products, seed=seed)
        self.questions = sets.blanks(self.catalog, split, self.good, self.types, self.products, seed=seed)
        rng = np.random.default_rng(seed)
        left = self.good.rows.copy()
        places = np.array([rng.integers((rows >= 0).sum()) for rows in left])
        self.hidden = left[np.arange(len(left)), places].copy()
        left[np.arange(len(left)), places] = -1
        self.left = left
        every = (self.outfits.rows, self.questions.rows, self.questions.answers, self.good.rows)
        used = np.unique(np.concatenate([one[one >= 0] for one in every]))
        kinds = np.unique(self.types[used])
        self.rows = np.flatnonzero(np.isin(self.types, kinds))  # what may complete a look

    def score(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the scores of vectors [listings of the split, D]: "together" [outfits], "fitb" and "rank" [n]."""
        asked, good = self.questions, self.left
        sums = scores.sums(vectors[asked.rows], asked.rows >= 0, vectors[asked.answers])
        rank = scores.ranks(
            vectors[good],
            good >= 0,
            self.hidden,
            vectors,
            self.types,
            products=self.products,
            ids=list(self.listings.ids),
        )
        return {
            "together": scores.compatibility(vectors[self.outfits.rows], self.outfits.rows >= 0),
            "fitb": scores.fill_in_the_blank(sums, asked.right),
            "rank": rank,
        }

    def by_popularity(self) -> np.ndarray:
        """Returns the rank [n] of the hidden item by the number of other outfits that a listing is in."""
        count = np.bincount(self.good.rows[self.good.rows >= 0], minlength=len(self.listings)).astype(float)
        place = np.argsort(np.argsort(np.array(list(self.listings.ids))))
        out = []
        for rows, hidden in zip(self.left, self.hidden, strict=True):
            own = count.copy()
            own[[*rows[rows >= 0], hidden]] -= 1
            alike = np.flatnonzero(self.types == self.types[hidden])
            order = alike[np.lexsort((place[alike], -own[alike]))]
            out.append(np.argmax(self.products[order] == self.products[hidden]) + 1)
        return np.array(out)

    def at_random(self) -> float:
        """Returns the share of hidden items among K listings of their type drawn at random."""
        found = []
        for hidden in self.hidden:
            alike = self.products[self.types == self.types[hidden]]
            same, count = int((alike == self.products[hidden]).sum()), len(alike)
            missed = np.prod([(count - same - i) / (count - i) for i in range(min(K, count))])
            found.append(1 - missed)
        return float(np.mean(found))

    def rule(self) -> dict[str, float]:
        """Returns AUC and blanks of the embedded catalogue's own rule; {} elsewhere."""
        split = self.listings
        if not {"style", "colour"} <= set(split.columns):
            return {}
        truth = {name: np.asarray(split.columns[name]) for name in ("style", "colour")}

        def fits(rows):
            return shoppers.goes_together({name: column[rows] for name, column in truth.items()})

        whole = self.outfits.rows
        if (whole < 0).any() or (self.good.rows < 0).any():
            return {}
        asked = self.questions
        answers = np.stack([
            fits(np.where(asked.rows >= 0, asked.rows, answer[:, None])) for answer in asked.answers.T
        ], 1)  # fmt: skip
        fitb = scores.fill_in_the_blank(-answers.astype(float), asked.right)
        return {"auc": scores.auc(self.outfits.compatible == 1, fits(whole).astype(float)), "fitb": float(fitb.mean())}

    def auc(self, together: np.ndarray) -> float:
        """Returns the AUC of scores of the outfits."""
        return scores.auc(self.outfits.compatible == 1, together)


def embedded(model, judge: Judge, name: str) -> np.ndarray:
    """Returns vectors of the split's listings [n, D] by a predict function; zeros where nothing asks for them."""
    function = model.task.predict_fns[name]
    columns = inference.columns(function, judge.listings, model.config, model.folder)
    arguments = inference.test_arguments(model.config)
    made = inference.predict(function, model.params, columns, rows=judge.rows, mesh=model.mesh, **arguments)
    return spread(made["embedding"], judge)


def by_hand(model, judge: Judge) -> np.ndarray:
    """Returns vectors of colours and edges, unit length."""
    batches = pipeline.eval_batches(
        {"image": Pictures(judge.listings.images)}, rows=judge.rows, transform=(("resize", {}),),
        image_size=tuple(model.config.data.image_size), batch_size=64,
    )  # fmt: skip
    found = colour_and_edges.embed(np.concatenate([batch["image"][batch["_mask"]] for batch in batches]))
    return spread(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), judge)


def spread(found: np.ndarray, judge: Judge) -> np.ndarray:
    """Returns vectors of all listings, those that were not embedded at zero."""
    out = np.zeros((len(judge.listings), found.shape[1]), np.float32)
    out[judge.rows] = found
    return out


def looks_of(judge: Judge, vectors: np.ndarray, colours, most: int = 100) -> dict[str, float]:
    """Completes looks of four from one item; returns the colours and the score with and without the limit on one."""
    rows = judge.rows
    types = [judge.names[kind] for kind in judge.types[rows]]
    ids = [judge.listings.ids[int(row)] for row in rows]
    gallery = Embeddings(ids, vectors[rows], {})
    made = Looks(gallery, types, colours=None if colours is None else colours[rows], products=judge.products[rows])
    found = collections.defaultdict(list)
    for own in judge.good.rows[:most]:
        first, *others = [int(row) for row in own if row >= 0]
        slots = [judge.names[judge.types[row]] for row in others]
        for name, share in (("limited", 0.5), ("not limited", 1.0)):
            looks = made.complete([judge.listings.ids[first]], slots, 4, most_of_a_colour=share)
            found[f"score, {name}"].append(np.mean([look.score for look in looks]))
            for slot in slots if colours is not None else ():
                seen = [colours[rows][look.rows[slot]] for look in looks if slot in look.rows]
                found[f"colours of 4, {name}"].append(len(set(seen)))
    return {name: float(np.mean(values)) for name, values in found.items()}


def difference(judge: Judge, first: list[dict], second: list[dict]) -> dict[str, tuple[float, float, float]]:
    """Returns {score: (difference, low, high)} of the second runs over the first, seeds averaged."""
    labels = judge.outfits.compatible == 1
    together = [np.stack([one["together"] for one in side]) for side in (first, second)]
    blanks = bootstrap.paired_bootstrap(*(np.mean([one["fitb"] for one in side], axis=0) for side in (first, second)))
    hits = bootstrap.paired_bootstrap(
        *(np.mean([one["rank"] <= K for one in side], axis=0) for side in (first, second))
    )
    return {
        "AUC": scores.auc_difference(labels, *together, judge.groups),
        "FITB": tuple(blanks[name] for name in ("difference", "low", "high")),
        f"recall@{K}": tuple(hits[name] for name in ("difference", "low", "high")),
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="of the runs, named <losses>_<labels>_<seed>")
    parser.add_argument("--split", default="gallery")
    parser.add_argument("--name", default="embedded", help="of the catalogue, for the claims")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the runs say")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    runs = collections.defaultdict(dict)
    for path in sorted(given.folder.iterdir()):
        losses, *rest = path.name.split("_")
        if len(rest) == 2 and all(part.isdigit() for part in rest) and (path / "checkpoints").exists():
            runs[losses, int(rest[0])][int(rest[1])] = path
    if not runs:
        sys.exit(f"{given.folder} has no run named <losses>_<labels>_<seed>, such as all_5_0")
    # The runs with most labels, of labelled outfits alone if there are any: also their vectors before the projection.
    best_key = max(runs, key=lambda key: (key[1], key[0] == "labelled", key[0]))
    judge, found, plain, last = None, {}, {}, None
    for key, seeds in runs.items():
        for seed, path in seeds.items():
            model = inference.load(path)
            if given.root:
                with model.config.unlocked():
                    model.config.data.kwargs["root"] = given.root
            if judge is None:
                judge = Judge(model, given.split)
                hand = judge.score(by_hand(model, judge))
            vectors = embedded(model, judge, "embed_item")
            found.setdefault(key, {})[seed] = judge.score(vectors)
            if key == best_key:
                plain[seed] = judge.score(embedded(model, judge, "embed_image"))
                last = vectors if last is None else last
    values = {
        "AUC": lambda one: judge.auc(one["together"]),
        "FITB": lambda one: float(one["fitb"].mean()),
        f"recall@{K}": lambda one: float(np.mean(one["rank"] <= K)),
    }
    result = {}

    def row(seeds):
        """Returns the cells of runs {seed: scores}: the mean, and each seed where there are several."""
        cells = []
        for value in values.values():
            each = [value(one) for one in seeds.values()]
            some = f" ({', '.join(f'{one:.3f}' for one in each)})" if len(each) > 1 else ""
            cells.append(f"{np.mean(each):.3f}{some}")
        return cells

    print(f"{given.split}: {len(judge.outfits):,} outfits, {len(judge.questions):,} blanks, {len(judge.good):,} to "
          f"complete; {given.folder}\n| | AUC | FITB | recall@{K} |\n|---|---:|---:|---:|")  # fmt: skip
    chance = 1 / judge.questions.answers.shape[1]
    print(f"| random | .500 | {chance:.3f} | {judge.at_random():.3f} |")
    print(f"| popularity | | | {np.mean(judge.by_popularity() <= K):.3f} |")
    fixed = {"colours and edges": {0: hand}, f"not projected ({best_key[0]}, {best_key[1]} %)": plain}
    for name, seeds in fixed.items():
        print(f"| {name} | {' | '.join(row(seeds))} |")
    if rule := judge.rule():
        print(f"| the rule itself | {rule['auc']:.3f} | {rule['fitb']:.3f} | |")
    for (losses, share), seeds in sorted(found.items(), key=lambda one: (one[0][1], one[0][0])):
        print(f"| {losses}, {share} % | {' | '.join(row(seeds))} |")
        result[f"{losses}_{share}"] = {name: [value(one) for one in seeds.values()] for name, value in values.items()}

    made, command = [], f"python benchmarks/outfits.py {' '.join(sys.argv[1:])}"

    def claim(name, statement, metric, runs_of, base, gain, holds):
        """Adds a claim on runs {seed: scores} over a baseline {seed: scores}."""
        value, of = ({str(seed): values[metric](one) for seed, one in side.items()} for side in (runs_of, base))
        made.append({
            "id": f"outfits-{name}-{given.name}", "system": "outfits", "statement": statement,
            "metric": f"{metric}, {given.name}, {given.split}", "value": value, "baseline": of,
            "difference": list(gain), "holds": bool(holds), "command": command,
        })  # fmt: skip

    shares = sorted({share for _, share in found})
    for share in shares:
        base = found.get(("labelled", share))
        for losses in ("all", "pseudo", "consistency"):
            if base is None or (losses, share) not in found:
                continue
            gains = difference(judge, list(base.values()), list(found[losses, share].values()))
            for metric, gain in gains.items():
                shown = "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain)
                print(f"{losses} over labelled only, {share} %, {metric}: {shown}")
                if metric != f"recall@{K}":
                    claim(
                        f"{losses}-{share}-{metric.lower()}",
                        f"with {share} % of the outfits, training with {NAMED[losses]} is above labelled outfits only",
                        metric, found[losses, share], base, gain, gain[1] > 0,
                    )  # fmt: skip
    if ("all", 10) in found and ("labelled", 100) in found:
        gain = difference(judge, list(found["labelled", 100].values()), list(found["all", 10].values()))["AUC"]
        what = f"with all losses, a tenth of the labels is within {NEAR} AUC of all labels without them"
        claim("tenth-of-labels", what, "AUC", found["all", 10], found["labelled", 100], gain, gain[0] >= -NEAR)
    best = found[best_key]
    if best_key[1] == 100:
        of_hand = dict.fromkeys(best, hand)
        over = difference(judge, [hand], list(best.values()))
        claim("above-colours", "with all labels, distances are above those of colours and edges", "AUC", best, of_hand,
              over["AUC"], over["AUC"][1] > 0)  # fmt: skip
        if rule:
            mean = np.mean([values["AUC"](one) for one in best.values()])
            what = "the rule is recovered from all labels: AUC of at least .90"
            claim("rule", what, "AUC", best, of_hand, over["AUC"], mean >= 0.9)
        near = difference(judge, list(plain.values()), list(best.values()))
        claim("completion", f"recall@{K} of completed looks is above the nearest vectors before the projection",
              f"recall@{K}", best, plain, near[f"recall@{K}"], near[f"recall@{K}"][1] > 0)  # fmt: skip
    colours = judge.listings.columns.get("colour")
    if colours is not None:
        names = np.array([*judge.listings.column_names["colour"], ""], object)
        colours = names[np.asarray(colours)]
    shown = looks_of(judge, last, colours)
    print("completed looks: " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))
    if given.out:
        given.out.write_text(json.dumps({**result, "looks": shown}, indent=1) + "\n")
    if given.claims:
        claims.write(made)


if __name__ == "__main__":
    main()
