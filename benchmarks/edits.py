"""Measures queries of a picture and words against what each of the two finds, their fusion, and exchanged attributes.

    python benchmarks/fashion_edits.py fashion_attributes.csv.gz fashion_other_colour.csv.gz data/fashion
    run="python -m retrieval_jax.run --config=configs/fashion_edits.py:pictures=runs/fashion_pretrained"
    $run,seed=0 --workdir=runs/edits/joint_0                                                  # and 1, 2
    $run,drop_picture=1,drop_words=0,seed=0 --workdir=runs/edits/words_0   # learns from words alone
    python benchmarks/edits.py runs/edits/joint_? --words=runs/edits/words_0 --attributes=runs/attributes --claims

    $run,drop_picture=0,drop_words=0,seed=0 --workdir=runs/edits/both_0
    $run,drop_picture=0,drop_words=1,seed=0 --workdir=runs/edits/pictures_0   # learns from pictures alone
    python benchmarks/edits.py runs/edits/joint_0 --specialists runs/edits/{both,pictures,words}_0 --claims

    for joint in concat film transformer; do $run,joint=$joint,seed=0 --workdir=runs/edits/$joint; done
    $run,loss=siamese,seed=0 --workdir=runs/edits/siamese
    python benchmarks/edits.py runs/edits/joint_0 --others runs/edits/{concat,film,transformer,siamese}

Reads finished runs and trains nothing; the first must have been embedded, since all search its gallery, and the others
only trained. The joint networks' weight of the words (`weight` of the task) is the best one of the first run on the
selection half, as that of the late fusion is. Baselines, all without the reference among the results:

- picture: the reference's vector in the space that is searched.
- words: the words' run, which has learned from edits without their pictures, given the words alone.
- late fusion: the sum of both cosines, weighted as is best on the selection half. (Train edits would be a poor place:
  the picture network has seen those pictures, and finds their like better than it finds those of new products.)
- attribute swap: the attribute run (configs/fashion_attributes.py:heads=sigmoid) predicts every field of the reference;
  the named one is exchanged for the value that the query asks for; listings are ranked by the sum of the logarithms of
  their probabilities of these values (of an excluded value, of not having it).
- picture + attribute: the picture's cosine plus that of the wanted value alone, weighted as is best on the selection
  half: the strongest that can be had without learning from edits.

Beside them stands what a search by the picture finds first among listings that truly have the wanted value and not the
unwanted one: what the knowledge of values alone could reach.

The last two baselines are given the wanted value itself, where the others read the words. Scores are of the report half
of the queries; those of seeds are averaged per query before queries are resampled (95 %). Likeness of lists is by
hand-made colours and edges, which no ranking here uses.
"""

import argparse
import dataclasses
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from retrieval_jax import inference, workdir  # noqa: E402
from retrieval_jax.data import fields, loading, pipeline  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.pictures import colour_and_edges  # noqa: E402
from retrieval_jax.data.pictures.noted import Noted  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.scoring import bootstrap, edits, intra_list, metrics  # noqa: E402
from retrieval_jax.scoring.ranking import Ranking  # noqa: E402
from retrieval_jax.workdir import sides  # noqa: E402

SCORES = ("hit@1", "hit@10", "hit@50", "ndcg@10")
SHOWN = ("hit@1", "hit@10", "hit@50", "right@10", "kept@10", "both@10", "similarity@10", "similarity_distinct@10")
GRID = tuple(step / 20 for step in range(21))  # weight of the words in the late fusion
LOGS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2)  # of the logarithm of a probability beside a cosine
WEIGHTS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)  # of what a joint network changes about the picture, as in `Model.embed`
DEPTH = 100
READ: dict = {}


class Judge:
    """Scores rankings of one catalogue.

    Args:
      folder: a finished run.
      root: where the catalogue is now, "" for where the run says.
    """

    def __init__(self, folder: pathlib.Path, root: str):
        config = ConfigDict(workdir.read_config(folder))
        if root and "root" in config.data.kwargs:
            config.data.kwargs["root"] = root
        self.catalog = loading.load(config.data)
        self.asked = edits.of_catalog(self.catalog, tuple(config.evaluate.edits.kept), fields.read)
        self.report = ~metrics.selection_half(self.catalog.truth.query_ids)
        images = self.catalog.gallery.images
        found = []
        for start in range(0, len(images), 512):
            rows = np.arange(start, min(len(images), start + 512))
            batches = pipeline.eval_batches(
                {"image": Pictures(images)}, rows=rows, transform=(("resize", {}),), image_size=(80, 64), batch_size=64
            )
            found += [batch["image"][batch["_mask"]] for batch in batches]
        pictures = np.concatenate(found)
        self.outside = colour_and_edges.embed(pictures)
        self.thumbnails = Noted(images).notes(np.arange(len(images)))[1]

    def score(self, ranking: Ranking) -> dict[str, np.ndarray]:
        """Returns {score: [Q]} of a ranking."""
        found = metrics.per_query(ranking, self.catalog.truth, (10,), SCORES)
        found |= edits.per_query(ranking, self.asked)
        return found | intra_list.similarity(ranking, self.outside, self.thumbnails)

    def hits(self, ranking: Ranking) -> float:
        """Returns hit@10 of the selection half, by which weights are chosen."""
        found = metrics.per_query(ranking, self.catalog.truth, (10,), ("hit@10",))["hit@10"]
        return float(np.nanmean(found[~self.report]))

    def rank(self, scores: np.ndarray) -> Ranking:
        """Returns the ranking by scores [Q, G], the reference left out; ties go by row."""
        scores = np.array(scores, np.float32)
        queries = np.flatnonzero(self.asked.reference >= 0)
        scores[queries, self.asked.reference[queries]] = -np.inf
        depth = min(DEPTH, scores.shape[1] - 1)
        rows = np.argpartition(-scores, depth, axis=1)[:, :depth]
        rows.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, rows, 1), axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, 1)
        return Ranking(self.catalog.truth.query_ids, rows, np.take_along_axis(scores, rows, 1))

    def best(self, name: str, weights, made) -> tuple[Ranking, float]:
        """Returns the ranking of the weight with the best hit@10 on the selection half, and the weight."""
        found = [self.rank(made(weight)) for weight in weights]
        each = [self.hits(one) for one in found]
        at = int(np.argmax(each))
        print(f"{name}: weight {weights[at]:g}, chosen on the selection half (hit@10 {each[at]:.3f})", flush=True)
        return found[at], weights[at]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def of_gallery(folder: pathlib.Path, catalog) -> tuple[np.ndarray, str]:
    """Returns the unit vectors of the gallery that a run searches, and the name of their space."""
    side = sides.of(ConfigDict(workdir.read_config(folder)))["gallery"]
    found = Embeddings.load(folder / "embeddings" / side.folder / "gallery")
    place = {name: row for row, name in enumerate(found.ids)}
    vectors = np.asarray(found.vectors[np.array([place[name] for name in catalog.gallery.ids])])
    return unit(vectors), found.meta["space"]


def of_queries(folder: pathlib.Path, catalog, name: str, space: str, part: str = "embedding") -> np.ndarray:
    """Returns the unit vectors of the queries by a predict function of a run, in the space that is searched."""
    if (folder, name) in READ:
        return unit(READ[folder, name][part])
    model = inference.load(folder)
    function, columns = model.task.predict_fns[name], {}
    for column in function.reads:  # vectors of pictures by the same network are made once for all runs
        key = column if column == "picture" else (folder, column)
        if key not in READ:
            one = dataclasses.replace(function, reads=(column,))
            READ[key] = inference.columns(one, catalog.query, model.config, folder)[column]
        columns[column] = READ[key]
    arguments = inference.test_arguments(model.config)
    out = inference.predict(function, model.params, columns, mesh=model.mesh, **arguments)
    if out.get("space", model.space) != space:
        sys.exit(f"{folder} embeds queries into another space than the one that is searched")
    READ[folder, name] = out
    return unit(out[part])


def probabilities(folder: pathlib.Path, catalog) -> tuple[np.ndarray, list[str]]:
    """Returns the logarithms of the attribute run's probabilities [G, V] for the gallery, and their names."""
    model = inference.load(folder)
    out = inference.predict(
        model.task.predict_fns["attributes"], model.params, {"image": Pictures(catalog.gallery.images)},
        mesh=model.mesh, **inference.test_arguments(model.config),
    )  # fmt: skip
    return np.log(np.maximum(out["probabilities"].astype(np.float32), 1e-6)), list(model.data_info.label_names)


def baselines(
    judge: Judge, gallery: np.ndarray, space: str, words: pathlib.Path, attributes: pathlib.Path | None
) -> dict[str, Ranking]:
    """Returns the baselines' rankings; gallery: unit vectors [G, D] of a space."""
    if (judge.asked.reference < 0).any():
        sys.exit("every query must be about a gallery listing")
    picture = gallery[judge.asked.reference] @ gallery.T
    said = of_queries(words, judge.catalog, "embed_text", space) @ gallery.T
    found = {
        "picture": judge.rank(picture),
        "words": judge.rank(said),
        "late fusion": judge.best("late fusion", GRID, lambda weight: (1 - weight) * picture + weight * said)[0],
    }
    if attributes is None:
        return found
    logs, names = probabilities(attributes, judge.catalog)
    wanted_name = np.array([f"{field}=" for field in judge.asked.edited], object)
    number, wanted = {name: at for at, name in enumerate(names)}, 0.0
    absent = np.log(np.maximum(1.0 - np.exp(logs), 1e-6))
    for column, scores in (("wanted", logs), ("unwanted", absent)):
        if column not in judge.catalog.query.columns:
            continue
        values = judge.catalog.query.column(column)
        keys = [f"{field}{value}" if value else "" for field, value in zip(wanted_name, values, strict=True)]
        at = np.array([number.get(key, -1) for key in keys])
        print(f"attribute head: {sum(key not in number for key in keys if key)} {column} values unknown", flush=True)
        wanted = wanted + np.where(at[:, None] >= 0, scores[:, np.maximum(at, 0)].T, 0.0)
    swapped = wanted.copy()
    for field in dict.fromkeys(name.partition("=")[0] for name in names):
        columns = np.array([number[name] for name in names if name.partition("=")[0] == field])
        likely = columns[logs[judge.asked.reference][:, columns].argmax(axis=1)]
        other = wanted_name != f"{field}="
        swapped[other] += logs[:, likely[other]].T
    found["attribute swap"] = judge.rank(swapped)
    found["picture + attribute"] = judge.best("picture + attribute", LOGS, lambda weight: picture + weight * wanted)[0]
    return found


def table(rows: dict[str, dict[str, np.ndarray]], chosen: np.ndarray) -> None:
    """Prints the means of scores over chosen queries."""
    print("| ranking |", " | ".join(SHOWN), "|\n|---|" + "---:|" * len(SHOWN))
    for name, each in rows.items():
        print(f"| {name} |", " | ".join(f"{np.nanmean(each[one][chosen]):.3f}" for one in SHOWN), "|", flush=True)


def claim(name, statement, metric, value, baseline, rows, command, least: float = 0.0) -> dict:
    """Returns a claim that `value`, by seed, is more than `least` above `baseline` [Q], over the queries `rows`."""
    each = [one[rows] for one in value]
    found = bootstrap.paired_bootstrap(baseline[rows], np.mean(each, 0))
    return {
        "id": f"edits-{name}", "system": "edits", "statement": statement, "metric": metric,
        "value": {str(seed): float(np.nanmean(one)) for seed, one in enumerate(each)},
        "baseline": {str(seed): float(np.nanmean(baseline[rows])) for seed in range(len(each))},
        "difference": [found["difference"], found["low"], found["high"]], "holds": found["low"] > least,
        "command": command,
    }  # fmt: skip


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("joint", nargs="+", type=pathlib.Path, help="runs of the joint network, one per seed")
    parser.add_argument("--words", type=pathlib.Path, help="run that learned from words alone")
    parser.add_argument("--attributes", type=pathlib.Path, help="run of the attribute head")
    parser.add_argument("--specialists", nargs=3, type=pathlib.Path, help="runs of both, a picture alone, words alone")
    parser.add_argument("--others", nargs="*", default=[], type=pathlib.Path, help="runs to show beside them")
    parser.add_argument("--root", default="", help="where the catalogue is")
    parser.add_argument("--name", default="fashion", help="of the catalogue, for claims")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    command = f"python benchmarks/edits.py {' '.join(sys.argv[1:])}"
    judge = Judge(given.joint[0], given.root)
    gallery, space = of_gallery(given.joint[0], judge.catalog)

    def cosines(folder, at=1.0):
        query = of_queries(folder, judge.catalog, "embed_edit", space)
        if at != 1.0:
            reference = of_queries(folder, judge.catalog, "embed_edit", space, "reference")
            query = unit(reference + at * (query - reference))
        return query @ gallery.T

    weight = judge.best("joint", WEIGHTS, lambda at: cosines(given.joint[0], at))[1]
    runs, plain = ([judge.score(judge.rank(cosines(folder, at))) for folder in given.joint] for at in (weight, 1.0))
    joint, whole = ({name: np.mean([one[name] for one in each], axis=0) for name in runs[0]} for each in (runs, plain))
    rows, others, made = {}, {}, []
    others["joint, weight 1"] = whole
    picture = gallery[judge.asked.reference] @ gallery.T
    for start in range(0, len(gallery), 512):  # 2: above every cosine
        block = picture[:, start : start + 512]
        block += 2.0 * edits.right(judge.asked, np.tile(np.arange(start, start + block.shape[1]), (len(picture), 1)))
    others["picture, where truly right"] = judge.score(judge.rank(picture))
    others |= {folder.name: judge.score(judge.rank(cosines(folder))) for folder in given.others}
    if given.words:
        found = baselines(judge, gallery, space, given.words, given.attributes)
        rows = {name: judge.score(one) for name, one in found.items()}
        text = f"{given.name}, a picture and words: the joint network is at least .08 above late fusion"
        scores = [one["hit@10"] for one in runs]
        key, base = f"{given.name}-joint-over-late-fusion-by-08", rows["late fusion"]["hit@10"]
        made.append(claim(key, text, "hit@10", scores, base, judge.report, command, 0.08))
        made.append(
            claim(
                f"{given.name}-deepstyle-similarity",
                f"{given.name}, a picture and words: results of the joint network are 1.18 times as similar to each "
                "other as those of the picture alone (the baseline is 1.18 times theirs)",
                "similarity@10", [one["similarity@10"] for one in runs], 1.18 * rows["picture"]["similarity@10"],
                judge.report, command,
            )
        )  # fmt: skip
        chance = edits.chance(judge.asked)
        rows["random order"] = {name: chance.get(name, np.full(len(judge.report), np.nan)) for name in joint}
    if given.specialists:
        made += specialists(judge, gallery, space, given.joint[0], given.specialists, given.name, command)
    parts = {"all": np.ones(len(judge.report), bool), **slices(judge.catalog)}
    for part, chosen in parts.items():
        print(f"\n{part}: {int((judge.report & chosen).sum()):,} queries")
        table({**rows, "joint": joint, **others}, judge.report & chosen)
        for name, base in rows.items():
            for metric in ("hit@10", "both@10"):
                chosen_too = part == "all" or (metric == "both@10" and part.split()[0] != "phrasing")
                if np.isnan(base[metric]).all() or not chosen_too:
                    continue
                about = "" if part == "all" else f" ({part})"
                made.append(
                    claim(
                        "-".join([given.name, *([] if part == "all" else part.split()), "joint-over"])
                        + f"-{name.replace(' ', '-')}-{metric}",
                        f"{given.name}, a picture and words{about}: the joint network is above {name}",
                        metric, [one[metric] for one in runs], base[metric], judge.report & chosen, command,
                    )
                )  # fmt: skip
    for one in made:
        low, high = one["difference"][1:]
        print(f"{'holds' if one['holds'] else 'does not hold':14} {one['statement']}: {one['metric']} "
              f"{one['difference'][0]:+.4f} ({low:+.4f} to {high:+.4f})")  # fmt: skip
    print("by seed, hit@10:", " ".join(f"{np.nanmean(one['hit@10'][judge.report]):.4f}" for one in runs))
    if given.claims:
        claims.write(made)


def specialists(
    judge: Judge,
    gallery: np.ndarray,
    space: str,
    one: pathlib.Path,
    folders: list[pathlib.Path],
    name: str,
    command: str,
) -> list[dict]:
    """Prints one model beside three specialists; returns the claims that it is at most .02 below each."""
    made = []
    for kind, function, folder in zip(
        ("a picture and words", "a picture alone", "words alone"),
        ("embed_edit", "embed_reference", "embed_text"),
        folders,
        strict=True,
    ):
        found = []
        for run in (one, folder):
            vectors = of_queries(run, judge.catalog, function, space)
            found.append(judge.score(judge.rank(vectors @ gallery.T))["hit@10"])
        text = (
            f"{name}, {kind}: one model for all three is at most .02 below a model for this alone, at 95 % confidence"
        )
        key = f"{name}-one-model-{kind.replace(' ', '-')}"
        made.append(claim(key, text, "hit@10", [found[0]], found[1], judge.report, command, -0.02))
        mean = [float(np.nanmean(each[judge.report])) for each in found]
        print(f"{kind}: one model {mean[0]:.3f}, specialist {mean[1]:.3f}", flush=True)
    return made


def slices(catalog) -> dict[str, np.ndarray]:
    """Returns {what: bool [Q]} by the query split's columns kind, phrasing and combination."""
    found = {}
    for column in ("kind", "phrasing", "combination"):
        for number, value in enumerate(catalog.query.column_names.get(column, ())):
            found[f"{column} {value}"] = np.asarray(catalog.query.column(column)) == number
    return found


if __name__ == "__main__":
    main()
