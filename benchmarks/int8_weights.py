"""What weights of eight bits cost in recall: a finished run's embeddings against those of rounded weights.

    python benchmarks/int8_weights.py runs/quickstart --claim

Both sides search with the plain cosine, exactly; the difference is paired by query. Weights are rounded as
`retrieval-jax export --weights=int8` rounds them. --claim adds the first run to benchmarks/claims.json.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import claims  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.postprocess.l2 import normalize  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.sharing import int8  # noqa: E402

NAMES = ("mar@10_capped", "recall@1", "map@10")


def flat(params) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def measure(folder: pathlib.Path) -> dict:
    """Returns sizes of the weights, similarity of the embeddings, and scores of both with their paired difference."""
    model = inference.load(folder)
    catalog = loading.load(model.config.data)
    kept = flat(model.params)
    small = int8.rounded(kept)
    back = int8.restored(small, folder)
    treedef = jax.tree.structure(model.params)
    rounded = dataclasses.replace(model, params=jax.tree.unflatten(treedef, [back[name] for name in kept]))
    vectors, similar = {"float": {}, "int8": {}}, []
    for split in ("query", "gallery"):
        found = Embeddings.load(folder / "embeddings" / "trained" / split)
        pictures = catalog.split(split).images
        other = rounded.embed([pictures[row] for row in range(len(found))])
        vectors["float"][split] = found.map(normalize)
        vectors["int8"][split] = Embeddings(found.ids, other, dict(found.meta)).map(normalize)
        one, two = (np.asarray(vectors[side][split].vectors[:]) for side in vectors)
        similar.append(float((one * two).sum(1).mean()))
    scores = {}
    for side, both in vectors.items():
        ranking = exact.Index(both["gallery"], both["gallery"].ids).search(both["query"], 100)
        scores[side] = metrics.per_query(ranking, catalog.truth, (1, 10), NAMES)
    out = {
        "run": str(model.config.name),
        "seed": str(model.config.train.seed),
        "cosine_between": similar,
        "queries": len(catalog.truth),
        "scores": {},
    }
    out["bytes"] = {"float": sum(x.nbytes for x in kept.values()), "int8": sum(x.nbytes for x in small.values())}
    for name in NAMES:
        means = {side: float(np.nanmean(found[name])) for side, found in scores.items()}
        out["scores"][name] = {**means, **bootstrap.paired_bootstrap(scores["float"][name], scores["int8"][name])}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--claim", action="store_true")
    given = parser.parse_args()
    found = []
    for folder in given.runs:
        start = time.monotonic()
        found.append(measure(folder))
        print(json.dumps(found[-1], indent=1), f"{time.monotonic() - start:.0f} s", flush=True)
    (ROOT / "benchmarks" / "int8_weights.json").write_text(json.dumps(found, indent=1) + "\n")
    if given.claim:
        row = found[0]["scores"]["recall@1"]
        claims.write(
            [
                {
                    "id": "export-int8-weights",
                    "system": "serving",
                    "statement": "Weights of eight bits: recall@1 of the embedded catalogue (plain cosine) loses at "
                    "most 1 point, also at the lower end of the interval",
                    "metric": "recall@1",
                    "value": {found[0]["seed"]: row["int8"]},
                    "baseline": {found[0]["seed"]: row["float"]},
                    "difference": [row["difference"], row["low"], row["high"]],
                    "holds": bool(row["low"] >= -0.01),
                    "command": "python benchmarks/int8_weights.py runs/quickstart --claim",
                }
            ]
        )


if __name__ == "__main__":
    main()
