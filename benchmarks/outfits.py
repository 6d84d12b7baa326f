"""Measures outfits: fill in the blank, compatibility, completion, with and without the unlabelled losses.

    run="python -m retrieval_jax.run --config=configs/embedded_outfits.py"
    $run:labels=5,losses=labelled,seed=0 --workdir=runs/outfits/labelled_5_0     # seeds 0, 1, 2; labels 5, 10, 100
    $run:labels=5,seed=0 --workdir=runs/outfits/all_5_0
    python benchmarks/outfits.py runs/outfits --start=runs/embedded_outfits_titles --claims

    python benchmarks/outfits.py runs/ccp --name=ccp --root=data/ccp_outfits --claims

Reads finished runs named <losses>_<labels>_<seed> in a folder and trains nothing; they need no embeddings. All scores
are of the gallery's outfits, which nothing was chosen on (training and its evaluations see train and val). AUC and
blanks follow the public protocol (`scoring.outfits`); scores of seeds are averaged, and intervals (95 %) are over
outfits, which share products, for the networks as trained. Beside them stand a random order; distances without
training: colours and edges (`colour_and_edges`), colours alone, and the mean colour of what differs from the ground,
which is also what light does to a picture; the network that training starts from (--start; where that is public
weights, a run of `steps=1` with --config.train.learning_rate=1e-12); the vectors before the projection, of the runs
with most labels; and, on the embedded catalogue, the rule itself, and what its two halves would score alone. Completion
takes an item out of every outfit that goes together and ranks the gallery's listings of its type: random, by how many
other outfits a listing is in (popularity), by the nearest vectors, and by the run. Looks of four are completed by a run
with most labels, with and without the limit on one colour. Runs of `sets=true` (named sets_<labels>_<seed>, say) are
also scored by their model of whole outfits.

Longer than 400 lines: what is asked, the floors and the claims are read side by side.
"""

import argparse
import collections
import functools
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference, workdir  # noqa: E402
from retrieval_jax.data import loading, pipeline  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.outfits import sets  # noqa: E402
from retrieval_jax.data.pictures import colour_and_edges  # noqa: E402
from retrieval_jax.data.shop import shoppers  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index.attribute.looks import Looks  # noqa: E402
from retrieval_jax.scoring import outfits as scores  # noqa: E402
from retrieval_jax.settings.outfits import LOSSES  # noqa: E402
from retrieval_jax.workdir import hashes  # noqa: E402

K = 10
RECALL = f"recall@{K}"
NEAR = 0.01  # AUC: a tenth of the labels is as good as all within it
STYLES, BEFORE = "styles alone", "before outfits"
SCORES = {  # of `Judge.score`, and what is averaged of it
    "AUC": ("together", np.asarray),
    "FITB": ("fitb", np.asarray),
    RECALL: ("rank", lambda rank: rank <= K),
}
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
        self.listings = self.catalog.split(split)
        self.types, self.products = sets.described(self.listings, model.config.train.task_kwargs, model.data_info)
        self.names = [label.partition("=")[2] for label in model.data_info.label_names]
        found = sets.of_table(self.catalog.table("outfits", split), self.types)
        self.good = found.good()
        self.outfits = sets.asked(found, self.products, seed=seed)
        self.questions = sets.blanks(self.catalog, split, self.good, self.types, self.products, seed=seed)
        rng = np.random.default_rng(seed)
        left = self.good.rows.copy()
        places = np.array([rng.integers((rows >= 0).sum()) for rows in left])
        self.hidden = left[np.arange(len(left)), places].copy()
        left[left == self.hidden[:, None]] = -1
        self.left = left
        every = (self.outfits.rows, self.questions.rows, self.questions.answers, self.good.rows)
        used = np.unique(np.concatenate([one[one >= 0] for one in every]))
        kinds = np.unique(self.types[used])
        self.rows = np.flatnonzero(np.isin(self.types, kinds))  # what may complete a look
        asked = self.questions
        self.members = {  # products of an outfit, or of a question and its answers; what shares one is not independent
            "AUC": self.of_products(self.outfits.rows),
            "FITB": self.of_products(np.concatenate([asked.rows, asked.answers], axis=1)),
            RECALL: self.of_products(self.good.rows),
        }

    def of_products(self, rows: np.ndarray) -> np.ndarray:
        """Returns the product of each listing, by its row; -1 for an empty place."""
        return np.where(rows >= 0, self.products[rows], -1)

    def score(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the scores of vectors [listings of the split, D]: "together" [outfits], "fitb" and "rank" [n]."""
        asked, ids = self.questions, list(self.listings.ids)
        sums = scores.sums(vectors, asked.rows, asked.answers)
        return {
            "together": scores.compatibility(vectors, self.outfits.rows),
            "fitb": scores.fill_in_the_blank(sums, asked.right),
            "rank": scores.ranks(vectors, self.left, self.hidden, self.types, products=self.products, ids=ids),
        }

    def as_sets(self, model, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Returns "together" and "fitb" of `score` by the run's model of whole outfits, from its vectors."""

        def scored(rows):
            types = np.where(rows >= 0, self.types[rows], -1).astype(np.int32)
            batch = {"vectors": vectors[rows], "types": types}
            return np.asarray(model.task.predict_fns["score_outfit"](model.params, batch)["score"], np.float64)

        asked = self.questions
        totals = [-scored(np.concatenate([asked.rows, one[:, None]], axis=1)) for one in asked.answers.T]
        return {
            "together": scored(self.outfits.rows),
            "fitb": scores.fill_in_the_blank(np.stack(totals, axis=1), asked.right),
        }

    def completing(self, number: int) -> np.ndarray:
        """Returns the listings of the type of an outfit's hidden item, without those that the outfit still has."""
        alike = np.flatnonzero(self.types == self.types[self.hidden[number]])
        return np.setdiff1d(alike, self.left[number])

    def by_popularity(self) -> np.ndarray:
        """Returns the rank [n] of the hidden item by the number of other outfits that a listing is in."""
        worn = [np.unique(rows[rows >= 0]) for rows in self.good.rows]
        count = np.bincount(np.concatenate(worn), minlength=len(self.listings)).astype(float)
        place = np.argsort(np.argsort(np.array(list(self.listings.ids))))
        out = []
        for number, hidden in enumerate(self.hidden):
            others, alike = count.copy(), self.completing(number)
            others[worn[number]] -= 1
            order = alike[np.lexsort((place[alike], -others[alike]))]
            out.append(np.argmax(self.products[order] == self.products[hidden]) + 1)
        return np.array(out)

    def at_random(self) -> np.ndarray:
        """Returns how often the hidden item [n] is among K listings of its type drawn at random."""
        found = []
        for number, hidden in enumerate(self.hidden):
            alike = self.products[self.completing(number)]
            same, count = int((alike == self.products[hidden]).sum()), len(alike)
            missed = np.prod([(count - same - i) / (count - i) for i in range(min(K, count))])
            found.append(1 - missed)
        return np.array(found)

    def rule(self, read: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Returns "together" and "fitb" of `score` by the embedded catalogue's own rule, of "style", "colour" or both;
        {} elsewhere."""
        split = self.listings
        if not {"style", "colour"} <= set(split.columns):
            return {}
        truth = {name: np.asarray(split.columns[name]) * (name in read) for name in ("style", "colour")}

        def fits(rows):
            return shoppers.goes_together({name: column[rows] for name, column in truth.items()})

        whole = self.outfits.rows
        if (whole < 0).any() or (self.good.rows < 0).any():
            return {}
        asked = self.questions
        answers = np.stack([
            fits(np.where(asked.rows >= 0, asked.rows, answer[:, None])) for answer in asked.answers.T
        ], 1)  # fmt: skip
        filled = scores.fill_in_the_blank(-answers.astype(float), asked.right)
        return {"together": fits(whole).astype(float), "fitb": filled}


def embedded(model, judge: Judge, name: str) -> np.ndarray:
    """Returns vectors of the split's listings [n, D] by a predict function; zeros where nothing asks for them."""
    function = model.task.predict_fns[name]
    columns = inference.columns(function, judge.listings, model.config, model.folder)
    arguments = inference.test_arguments(model.config)
    made = inference.predict(function, model.params, columns, rows=judge.rows, mesh=model.mesh, **arguments)
    return spread(made["embedding"], judge)


def by_hand(model, judge: Judge) -> dict[str, np.ndarray]:
    """Returns vectors that need no training: {name: [n, D]}."""
    batches = pipeline.eval_batches(
        {"image": Pictures(judge.listings.images)}, rows=judge.rows, transform=(("resize", {}),),
        image_size=tuple(model.config.data.image_size), batch_size=64,
    )  # fmt: skip
    pictures = np.concatenate([batch["image"][batch["_mask"]] for batch in batches])
    both = colour_and_edges.embed(pictures)
    border = (
        pictures[:, 0].mean(1) + pictures[:, -1].mean(1) + pictures[:, :, 0].mean(1) + pictures[:, :, -1].mean(1)
    ) / 4
    apart = np.abs(pictures - border[:, None, None]).max(-1) > 16
    apart |= ~apart.any((1, 2), keepdims=True)
    mean = np.stack([picture[there].mean(0) for picture, there in zip(pictures, apart, strict=True)])
    found = {
        "colours and edges": both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12),
        "colours": np.stack([colour_and_edges.colours(picture) for picture in pictures]),
        "mean colour": mean / 255,
    }
    return {name: spread(vectors.astype(np.float32), judge) for name, vectors in found.items()}


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


def difference(judge: Judge, first: dict, second: dict) -> dict[str, tuple[float, float, float]]:
    """Returns {score: (difference, low, high)} of the second runs {seed: scores} over the first, seeds averaged."""
    out, labels = {}, judge.outfits.compatible == 1
    for metric, (key, number) in SCORES.items():
        if all(key in one for side in (first, second) for one in side.values()):
            sides = [np.stack([number(one[key]) for one in side.values()]) for side in (first, second)]
            compare = functools.partial(scores.auc_difference, labels) if metric == "AUC" else scores.mean_difference
            out[metric] = compare(*sides, judge.members[metric])
    return out


def finished(
    folder: pathlib.Path, split: str
) -> tuple[dict[tuple[str, int], dict[int, pathlib.Path]], dict[tuple[str, int], int]]:
    """Returns {(losses, labels): {seed: folder}} of the runs of a folder that have ended, and their steps, or exits."""
    runs, steps, alike = collections.defaultdict(dict), {}, {}
    for path in sorted(folder.iterdir()):
        losses, *rest = path.name.split("_")
        if len(rest) != 2 or not all(part.isdigit() for part in rest):
            continue
        if (record := workdir.read_record(path, "train")) is None:
            print(f"{path} is left out: its training has not ended", file=sys.stderr)
            continue
        config = workdir.read_config(path)
        train, kwargs = config["train"], dict(config["train"]["task_kwargs"])
        kwargs.setdefault("max_items", hashes.BEFORE["train.task_kwargs.max_items"])  # of runs of earlier versions
        made = (round(100 * kwargs.pop("labels")), train["seed"])
        if made != tuple(map(int, rest)):
            sys.exit(f"{path} has {made[0]} % of the labels and seed {made[1]}: its name says otherwise")
        weights = tuple(kwargs.pop(f"{name}_weight") for name in ("pseudo", "consistency", "set"))
        if losses in LOSSES and weights != (*LOSSES[losses], 0.0):
            sys.exit(
                f"{path} has the weights {weights} of pseudo-outfits, consistency and sets: its name says otherwise"
            )
        facts = {"data": workdir.without_free("data", config["data"]), "task_kwargs": kwargs}
        if any(weights[:2]):
            facts["unlabelled"] = dict(train["unlabelled"])
            if facts["unlabelled"]["split"] == split:
                sys.exit(f"{path} learned from pictures of {split}, which is scored here")
        same = "init_from batch_size model learning_rate learning_rate_rules weight_decay schedule ema_decay transforms"
        facts |= {key: train[key] for key in same.split()}
        if unlike := [key for key, value in facts.items() if value != alike.setdefault(key, value)]:
            sys.exit(f"{path} has another {', '.join(unlike)} than the runs before it: compare like with like")
        if steps.setdefault((losses, made[0]), record["summary"]["steps"]) != record["summary"]["steps"]:
            sys.exit(f"{path} has another number of steps than the other seeds of {losses}, {made[0]} %")
        runs[losses, made[0]][made[1]] = path
    if not runs:
        sys.exit(f"{folder} has no finished run named <losses>_<labels>_<seed>, such as all_5_0")
    for (losses, share), seeds in runs.items():
        if (base := runs.get(("labelled", share))) is not None and not seeds.keys() & base.keys():
            sys.exit(
                f"{losses}, {share} %, has the seeds {sorted(seeds)}, and labelled {sorted(base)}: none is of both"
            )
    return runs, steps


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="of the runs, named <losses>_<labels>_<seed>")
    parser.add_argument("--split", default="gallery")
    parser.add_argument("--name", default="embedded", help="of the catalogue, for the claims")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the runs say")
    parser.add_argument("--start", type=pathlib.Path, help="the run that training started from, which saw no outfit")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    runs, steps = finished(given.folder, given.split)
    # The runs with most labels, of labelled outfits alone if there are any: also their vectors before the projection.
    best_key = max(runs, key=lambda key: (key[1], key[0] == "labelled", key[0]))
    judge, found, wholes, plain, last = None, {}, {}, {}, None
    for key, seeds in runs.items():
        for seed, path in seeds.items():
            model = inference.load(path)
            if given.root:
                with model.config.unlocked():
                    model.config.data.kwargs["root"] = given.root
            if judge is None:
                judge = Judge(model, given.split)
                hand = {name: judge.score(vectors) for name, vectors in by_hand(model, judge).items()}
            vectors = embedded(model, judge, "embed_item")
            found.setdefault(key, {})[seed] = judge.score(vectors)
            if "score_outfit" in model.task.predict_fns:
                wholes.setdefault(key, {})[seed] = judge.as_sets(model, vectors)
            if key == best_key:
                plain[seed] = judge.score(embedded(model, judge, "embed_image"))
                last = vectors if last is None else last
    values = {metric: lambda one, read=read: float(read[1](one[read[0]]).mean()) for metric, read in SCORES.items()}
    values["AUC"] = lambda one: scores.auc(judge.outfits.compatible == 1, one["together"])
    result = {}

    def table(seeds):
        """Returns {metric: a number for each seed} of runs {seed: scores}, of the metrics that they have."""
        first = next(iter(seeds.values()))
        return {
            metric: [value(one) for one in seeds.values()]
            for metric, value in values.items()
            if SCORES[metric][0] in first
        }

    def row(seeds):
        """Returns the cells of runs {seed: scores}: the mean, and each seed where there are several."""
        cells, numbers = [], table(seeds)
        for metric in values:
            each = numbers.get(metric, [])
            some = f" ({', '.join(f'{one:.3f}' for one in each)})" if len(each) > 1 else ""
            cells.append(f"{np.mean(each):.3f}{some}" if each else "")
        return cells

    print(f"{given.split}: {len(judge.outfits):,} outfits, {len(judge.questions):,} blanks, {len(judge.good):,} to "
          f"complete; {given.folder}\n| | AUC | FITB | recall@{K} |\n|---|---:|---:|---:|")  # fmt: skip
    chance = 1 / judge.questions.answers.shape[1]
    lucky, popular = judge.at_random(), (judge.by_popularity() <= K).astype(float)
    print(f"| random | .500 | {chance:.3f} | {lucky.mean():.3f} |")
    print(f"| popularity | | | {popular.mean():.3f} |")
    fixed = {name: {0: one} for name, one in hand.items()}
    if given.start:
        model = inference.load(given.start)
        fixed[BEFORE] = {0: judge.score(embedded(model, judge, model.config.embed.predict_fn))}
    fixed[f"not projected ({best_key[0]}, {best_key[1]} %)"] = plain
    halves = {"the rule itself": ("style", "colour"), STYLES: ("style",), "colours alone": ("colour",)}
    fixed |= {name: {0: rule} for name, read in halves.items() if (rule := judge.rule(read))}
    for name, seeds in fixed.items():
        print(f"| {name} | {' | '.join(row(seeds))} |")
        result[name] = table(seeds)
    result["random"] = {RECALL: [float(lucky.mean())]}
    result["popularity"] = {RECALL: [float(popular.mean())]}
    for (losses, share), seeds in sorted(found.items(), key=lambda one: (one[0][1], one[0][0])):
        print(f"| {losses}, {share} %, {steps[losses, share]} steps | {' | '.join(row(seeds))} |")
        result[f"{losses}_{share}"] = table(seeds)
        if whole := wholes.get((losses, share)):
            print(f"| {losses}, {share} %, its set model | {' | '.join(row(whole))} |")
            result[f"{losses}_{share}, its set model"] = table(whole)

    made, command = [], f"python benchmarks/outfits.py {' '.join(sys.argv[1:])}"

    def claim(name, statement, metric, value, base, gain, holds=None):
        """Prints and keeps a claim on numbers {seed: number} over a baseline's; it holds above it by default."""
        holds = gain[1] > 0 if holds is None else holds
        if len(value) == 1:
            statement += f" (seed {next(iter(value))} alone)"
        value, base = ({str(seed): float(one) for seed, one in side.items()} for side in (value, base))
        of_split = "" if given.split == "gallery" else f"-{given.split}"
        made.append({
            "id": f"outfits-{name}-{given.name}{of_split}", "system": "outfits", "statement": statement,
            "metric": f"{metric}, {given.name}, {given.split}", "value": value, "baseline": base,
            "difference": list(gain), "holds": bool(holds), "command": command,
        })  # fmt: skip
        low_high = "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain)
        print(f"{'holds' if holds else 'does not hold'}: {statement}: {metric} {low_high}, seeds {', '.join(value)}")

    def by_seed(metric, seeds):
        return {seed: values[metric](one) for seed, one in seeds.items()}

    def both(first, second):
        """Returns two sides {seed: scores}, by the seeds that both have; {} and {} where one was not trained."""
        seeds = [seed for seed in found.get(first, {}) if seed in found.get(second, {})]
        return tuple({seed: found[key][seed] for seed in seeds} for key in (first, second))

    shares = sorted({share for _, share in found})
    for share in shares:
        for losses, words in NAMED.items():
            base, more = both(("labelled", share), (losses, share))
            for metric, gain in difference(judge, base, more).items() if base else ():
                what = (
                    f"with {share} % of the outfits, training with {words} ({steps[losses, share]} steps) is above "
                    f"labelled outfits only ({steps['labelled', share]} steps)"
                )
                claim(f"{losses}-{share}-{metric.lower().replace('@', '-')}", what, metric,
                      by_seed(metric, more), by_seed(metric, base), gain)  # fmt: skip
    gaps = {share: sides for share in shares if all(sides := both(("labelled", share), ("all", share)))}
    for few, many in [(min(gaps), share) for share in sorted(gaps)[1:]]:
        (base, more), (base_many, more_many) = gaps[few], gaps[many]
        seeds = sorted(base.keys() & base_many.keys())
        # (more - base) - (more_many - base_many) is twice the difference of two means of two sides.
        below = [side[seed] for side in (base, more_many) for seed in seeds]
        above = [side[seed] for side in (more, base_many) for seed in seeds]
        gains = difference(judge, dict(enumerate(below)), dict(enumerate(above))) if seeds else {}
        for metric in ("AUC", "FITB") if seeds else ():
            of, pairs = values[metric], (gaps[few], gaps[many])
            sides = [{seed: of(added[seed]) - of(without[seed]) for seed in seeds} for without, added in pairs]
            what = f"what the unlabelled losses add to labelled outfits is more at {few} % than at {many} %"
            gain = [2 * one for one in gains[metric]]
            claim(f"gap-{few}-{many}-{metric.lower()}", what, f"gain in {metric}", *sides, gain)
    base, more = both(("labelled", 100), ("all", 10))
    if base:
        gain = difference(judge, base, more)["AUC"]
        what = f"with all losses, a tenth of the labels is on average within {NEAR} AUC of all labels without them"
        claim("tenth-of-labels", what, "AUC", by_seed("AUC", more), by_seed("AUC", base), gain, gain[0] >= -NEAR)
    for (losses, share), whole in wholes.items():
        base = found[losses, share]
        for metric, gain in difference(judge, base, whole).items():
            what = (
                f"with {share} % of the outfits, a model of whole outfits is above distances of pairs, of the same runs"
            )
            claim(f"{losses}-{share}-sets-{metric.lower()}", what, metric,
                  by_seed(metric, whole), by_seed(metric, base), gain)  # fmt: skip
    floors = {metric: max(hand, key=lambda name: values[metric](hand[name])) for metric in ("AUC", "FITB")}
    for losses in ("labelled", "all"):
        runs_of = found.get((losses, shares[-1]), {})
        for metric, floor in floors.items() if runs_of else ():
            base = dict.fromkeys(runs_of, hand[floor])
            what = f"with {shares[-1]} % of the labels, distances are above those of {floor}, the best without training"
            gain = difference(judge, base, runs_of)[metric]
            claim(f"above-{losses}-{metric.lower()}", f"{what} ({losses})", metric,
                  by_seed(metric, runs_of), by_seed(metric, base), gain)  # fmt: skip
    best = found[best_key]
    if STYLES in fixed and best_key[1] == 100:
        base = dict.fromkeys(best, fixed[STYLES][0])
        styles, value = by_seed("AUC", base), by_seed("AUC", best)
        what = f"{best_key[0]}, 100 %: an AUC of at least .90; the baseline is a rule that reads styles alone"
        gains = difference(judge, base, best)
        claim("auc", what, "AUC", value, styles, gains["AUC"], np.mean(list(value.values())) >= 0.9)
        what = f"{best_key[0]}, 100 %: more blanks are filled than by a rule that reads styles alone"
        claim("above-styles-fitb", what, "FITB", by_seed("FITB", best), by_seed("FITB", base), gains["FITB"])
    hits = np.mean([one["rank"] <= K for one in best.values()], axis=0)
    others = {"a random order": ("random", lucky)}
    if (np.unique(judge.good.rows[judge.good.rows >= 0], return_counts=True)[1] > 1).any():
        others["the most popular listings"] = ("popularity", popular)
    nearest = {name: one[0]["rank"] <= K for name, one in fixed.items() if name in (*hand, BEFORE)}
    name = max(nearest, key=lambda name: nearest[name].mean())
    others[f"the nearest by {name}, the best that saw no outfit"] = ("nearest", nearest[name])
    for what, (name, other) in others.items():
        gain = scores.mean_difference(other, hits, judge.members[RECALL])
        statement = f"{best_key[0]}, {best_key[1]} %: looks are completed with what was worn more often than by {what}"
        base = dict.fromkeys(best, other.mean())
        claim(f"completion-{name}", statement, RECALL, by_seed(RECALL, best), base, gain)
    colours = judge.listings.columns.get("colour")
    if colours is not None:
        names = np.array([*judge.listings.column_names["colour"], ""], object)
        colours = names[np.asarray(colours)]
    shown = looks_of(judge, last, colours)
    print("completed looks: " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))
    if given.out:
        given.out.write_text(json.dumps({**result, "looks": shown, "claims": made}, indent=1) + "\n")
    if given.claims:
        claims.write(made)


if __name__ == "__main__":
    main()
