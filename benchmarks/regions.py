"""Measures regions: average precision with and without the known type, and retrieval with the region against without.

    python benchmarks/regions.py runs/embedded_regions runs/embedded_regions-seed=1 --embedder runs/quickstart --claims
    python benchmarks/regions.py runs/ccp_regions --split=val --name=ccp

Reads finished runs and trains nothing; several runs are seeds. The difference with and without the known type is
resampled over pictures (95 %). With --embedder, the queries' regions (best box, a tenth wider on each side) are
embedded by that run's network in place of whole photos, and searched in its gallery of whole pictures and in that of
regions; the difference is paired over queries. A query without a box is embedded whole.
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax import regions as finding  # noqa: E402
from retrieval_jax.data import fields, loading, regions  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.pictures import colour  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.scoring import bootstrap, boxes, metrics  # noqa: E402

MARGIN = 0.1


def precision(model, catalog, name: str, draws: int) -> dict:
    """Returns average precision on a split, with and without the known types, and the difference over resamples."""
    split, kwargs = catalog.split(name), model.config.train.task_kwargs
    target = regions.of_split(split, fields.read(split, kwargs.types), model.data_info, kwargs.group)
    true, raw = target.true(), finding.predicted(model, split, target.rows)
    plain = boxes.regions(raw)
    given = boxes.regions(raw, given=[np.unique(one["types"]) for one in true])
    scores = [boxes.average_precision(one, true)["map"] for one in (plain, given)]
    rng, gains = np.random.default_rng(0), []
    for _ in range(draws):
        rows = rng.integers(len(true), size=len(true))
        both = [boxes.average_precision([one[row] for row in rows], [true[row] for row in rows])["map"]
                for one in (plain, given)]  # fmt: skip
        gains.append(both[1] - both[0])
    low, high = np.percentile(gains, (2.5, 97.5)) if gains else (float("nan"),) * 2
    main, there = boxes.main_box(plain)
    return {
        "pictures": len(true), "listings_without_box": target.left_out, "map": scores[0], "map_given": scores[1],
        "difference": [scores[1] - scores[0], float(low), float(high)], "with_box": float(there.mean()),
        "best_iou": float(np.mean([boxes.iou(box, one["boxes"]).max() for box, one in zip(main, true, strict=True)
                                   if len(one["boxes"])])),
    }  # fmt: skip


def embedded(model, split, source) -> Embeddings:
    """Returns the embeddings of a split's pictures, read from a source."""
    function, arguments = model.task.predict_fns[model.config.embed.predict_fn], inference.test_arguments(model.config)
    out = inference.predict(function, model.params, {"image": Pictures(source)}, mesh=model.mesh, **arguments)
    return Embeddings([split.ids[row] for row in range(len(split))], out["embedding"], {})


def retrieval(finder, embedder, catalog) -> dict:
    """Returns mar@10 (capped) of every query: whole, its region, its region of the known type, and both by regions."""
    queries, gallery = catalog.split("query"), catalog.split("gallery")
    index = exact.Index(embedded(embedder, gallery, gallery.images))
    raw, found = finding.predicted(finder, queries), {}
    best = colour.Cropped(gallery.images, finding.main_boxes(finder, gallery)[0], MARGIN)
    cropped = exact.Index(embedded(embedder, gallery, best))
    for name, given in (("region", None), ("region, type given", finding.known_types(finder, queries))):
        main, _ = boxes.main_box(boxes.regions(raw, given=given))
        source = colour.Cropped(queries.images, main, MARGIN)
        found[name] = embedded(embedder, queries, source)
    found["whole"] = embedded(embedder, queries, queries.images)
    searched = {name: index.search(side, 10) for name, side in found.items()}
    searched["region of both sides"] = cropped.search(found["region"], 10)
    return {name: metrics.per_query(one, catalog.truth, (10,))["mar@10_capped"] for name, one in searched.items()}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, help="runs of the task 'regions', one per seed")
    parser.add_argument("--embedder", type=pathlib.Path, help="run whose network embeds regions")
    parser.add_argument("--split", default="query")
    parser.add_argument("--name", default="embedded", help="of the catalogue, for the claims")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the runs say")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    models, made = [inference.load(folder) for folder in given.runs], []
    with models[0].config.unlocked():
        if given.root:
            models[0].config.data.kwargs["root"] = given.root
    catalog = loading.load(models[0].config.data)
    scores = [precision(model, catalog, given.split, given.draws) for model in models]
    print("| seed | pictures | mAP | mAP, type given | difference (95 %) | IoU of the best box |\n"
          "|---|---:|---:|---:|---:|---:|")  # fmt: skip
    for number, one in enumerate(scores):
        gain = "{:+.3f} ({:+.3f} to {:+.3f})".format(*one["difference"])
        print(f"| {number} | {one['pictures']:,} | {one['map']:.3f} | {one['map_given']:.3f} | {gain} | "
              f"{one['best_iou']:.3f} |")  # fmt: skip
    command = f"python benchmarks/regions.py {' '.join(sys.argv[1:])}"
    gain = np.mean([one["difference"] for one in scores], axis=0).tolist()
    made.append({
        "id": f"attributes-regions-{given.name}", "system": "attributes",
        "statement": "the mean average precision of regions at an overlap of .5 is not lower with the type given",
        "metric": f"mAP@.5, {given.name}", "value": {str(i): one["map_given"] for i, one in enumerate(scores)},
        "baseline": {str(i): one["map"] for i, one in enumerate(scores)}, "difference": gain,
        "holds": gain[0] >= 0, "command": command,
    })  # fmt: skip
    result = {"precision": scores}
    if given.embedder:
        embedder = inference.load(given.embedder)
        each = [retrieval(model, embedder, catalog) for model in models]
        mean = {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
        for name in ("region", "region, type given", "region of both sides"):
            found = bootstrap.paired_bootstrap(mean["whole"], mean[name])
            print(f"mar@10_capped of users' photos, {name}: {np.nanmean(mean[name]):.4f}, whole: "
                  f"{np.nanmean(mean['whole']):.4f}, difference {found['difference']:+.4f} "
                  f"({found['low']:+.4f} to {found['high']:+.4f})")  # fmt: skip
            result[name] = found
            made.append({
                "id": f"attributes-{name.replace(', ', '-').replace(' ', '-')}-retrieval-{given.name}",
                "system": "attributes", "metric": "mar@10_capped",
                "statement": f"users' photos are found better by their {name} than whole",
                "value": {str(i): float(np.nanmean(one[name])) for i, one in enumerate(each)},
                "baseline": {str(i): float(np.nanmean(one["whole"])) for i, one in enumerate(each)},
                "difference": [found["difference"], found["low"], found["high"]], "holds": found["difference"] > 0,
                "command": command,
            })  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.claims:
        claims.write(made)


if __name__ == "__main__":
    main()
