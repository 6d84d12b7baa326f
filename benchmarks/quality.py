"""Measures the last stage by listing quality: nDCG by clicks against what it costs in relevance, on the embedded shop.

    python benchmarks/quality.py --claims                      # colours and edges, no training: 6 minutes
    for seed in 0 1 2; do python -m retrieval_jax.run --config=configs/embedded_quality.py:seed=$seed,shop=$seed; done
    python benchmarks/quality.py --runs runs/embedded_quality-seed=*   # the ranking of networks instead

Every seed is a shop of its own: other products, prices and shoppers. A log is simulated on the pages of the search
itself: the first 20 results of a photo, in an order that varies a little, as where a shop tries out its order; shoppers
look less at lower places and like some listings better (`data.shop.liked`). The last stage learns from the pages of the
selection half of the queries; scores are of the report half.

- by clicks: nDCG@10 with the true probability that one who looks at a listing clicks it as its gain, relative to the
  best order of the first 100 results. No simulated click is used for scoring.
- by relevance: nDCG@10 of the listings of the photo's product.

Beside it, each with its weight chosen as that of the last stage is, within the same cost:

- best column: similarity and one column, up or down, as its place among the results.
- without places: the same last stage, learned from clicks per showing, whatever the place.
- any order: the first results in a random order (no weight to choose).
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import workdir  # noqa: E402
from retrieval_jax.data import listing_quality  # noqa: E402
from retrieval_jax.data.catalog import Catalog, Table  # noqa: E402
from retrieval_jax.data.examples import Ragged  # noqa: E402
from retrieval_jax.data.pictures import hand_made  # noqa: E402
from retrieval_jax.data.shop import liked, loading, shoppers, synthetic  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.postprocess import State, quality, whitening_by_parts  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402
from retrieval_jax.scoring.ranking import Ranking, Truth, read_stages  # noqa: E402

SHOP = {"num_train": 100, "num_val": 10, "num_query": 600, "num_gallery": 6000, "biased_clicks": True}
DEPTH, POOL = 20, 100  # results on a page; results among which the best order is the ideal
VARIES = 3.0  # places by which the order of a page varies, a standard deviation
MODEL = "colour_and_edges"


def searched(catalog: Catalog, run: pathlib.Path | None) -> tuple[State, Ranking]:
    """Returns the embeddings and the ranking before the last stage."""
    if run is None:
        module, sides = hand_made.MODELS[MODEL], []
        for split in (catalog.query, catalog.gallery):
            blocks = [split.images[start : start + 256] for start in range(0, len(split), 256)]
            vectors = np.concatenate([module.embed(np.stack(block)) for block in blocks])
            sides.append(Embeddings(split.ids, vectors, {**module.META, "space": module.SPACE}))
        state = whitening_by_parts.step(State([tuple(sides)]))
        return state, exact.Index(state.members[0][1]).search(state.members[0][0], POOL)
    sides = [Embeddings.load(run / "embeddings" / "trained" / split) for split in ("query", "gallery")]
    stage = [one["stage"] for one in read_stages(run) if one["model"] == "trained" and one["step"] != "quality"][-1]
    return State([tuple(sides)]), Ranking.load(run / "rankings" / "trained" / stage)


def logged(catalog: Catalog, ranking: Ranking, chances: np.ndarray, searches: int, seed: int, places: bool) -> Catalog:
    """Returns the catalogue with the clicks of searches with every photo on the pages of a ranking.

    Args:
      catalog: of the queries.
      ranking: of them.
      chances: [Q, POOL] that one who looks at a result clicks it.
      searches: with each photo.
      seed: of pages and clicks.
      places: whether places are logged.
    """
    rng = np.random.default_rng((seed, 1))
    photo = np.repeat(np.arange(len(ranking)), searches)
    page = np.argsort(np.arange(POOL) + rng.normal(0, VARIES, (len(photo), POOL)), axis=1)[:, :DEPTH]
    shown = np.take_along_axis(ranking.item_rows[photo], page, 1)
    clicked = rng.random(shown.shape) < liked.looks(DEPTH) * np.take_along_axis(chances[photo], page, 1)
    columns = {"photo": photo}
    for name, chosen in (("clicked", clicked), ("unclicked", ~clicked)):
        indptr = np.concatenate([[0], np.cumsum(chosen.sum(1))])
        columns[name] = Ragged(indptr, shown[chosen])
        if places:
            columns[f"{name}_position"] = Ragged(indptr, np.nonzero(chosen)[1].astype(np.int32) + 1)
    table = Table(columns, {"photo": "query", "clicked": "gallery", "unclicked": "gallery"})
    return dataclasses.replace(catalog, tables={"clicks/gallery": table})


def best_column(ranking: Ranking, numbers: dict, judged: Truth, clicked: Truth, cost: float) -> tuple[Ranking, str]:
    """Returns the ranking by similarity and the column that raises nDCG by clicks most on the selection half."""
    head = dataclasses.replace(ranking, item_rows=ranking.item_rows[:, :DEPTH], scores=ranking.scores[:, :DEPTH])
    among = quality.features(head, np.stack(list(numbers.values())))[..., -len(numbers) :]
    found = []
    for number, name in enumerate(numbers):
        for sign, said in ((1, "high"), (-1, "low")):
            scores = sign * np.nan_to_num(among[..., number], nan=0.5)
            weight, tried, _ = quality.choose(ranking, scores, judged, clicked, cost)
            gain = next(one["gain"] for one in tried if one["weight"] == weight)
            found.append((gain, weight, f"{said} {name}, weight {weight:g}", scores))
    _, weight, said, scores = max(found, key=lambda one: one[0])
    return quality.reordered(ranking, scores, weight), said


def measure(seed: int, run: pathlib.Path | None, searches: int, cost: float) -> dict[str, dict[str, np.ndarray]]:
    """Returns {system: {"clicks", "relevance": [queries of the report half]}} of one shop."""
    kwargs = {**SHOP, "seed": seed}
    if run is not None:
        kwargs = {**workdir.read_config(run)["data"]["kwargs"], "biased_clicks": True}
    catalog = loading.load(**kwargs)
    shop = synthetic.make_shop(**kwargs)
    state, ranking = searched(catalog, run)
    chances = shoppers.attraction(shop, "gallery", np.arange(len(ranking)), ranking.item_rows)
    indptr = np.arange(len(ranking) + 1) * POOL
    truth = Truth(catalog.query.ids, catalog.gallery.ids, indptr, ranking.item_rows.ravel(), chances.ravel())
    chosen = metrics.selection_half(catalog.query.ids)
    judged = catalog.truth.moved(catalog.query.ids, catalog.gallery.ids, chosen)
    numbers = listing_quality.of_split(catalog.gallery, quality.COLUMNS)

    def learned(places: bool) -> tuple[Ranking, Truth]:
        log = logged(catalog, ranking, chances, searches, seed, places)
        clicked = listing_quality.clicked(log, chosen)
        with tempfile.TemporaryDirectory() as folder:
            given = dataclasses.replace(
                state, ranking=ranking, judged=judged, clicked=clicked, listed=numbers, folder=pathlib.Path(folder)
            )
            return quality.step(given, depth=DEPTH, cost=cost).ranking, clicked

    made = {"similarity": ranking}
    made["last stage"], clicked = learned(places=True)
    made["without places"], _ = learned(places=False)
    made["best column"], said = best_column(ranking, numbers, judged, clicked, cost)
    print(f"seed {seed}: best column: {said}", flush=True)
    made["any order"] = quality.reordered(ranking, np.random.default_rng(seed).random((len(ranking), DEPTH)), 1.0)
    out = {}
    for name, one in made.items():
        first = np.sort(one.item_rows[:, :DEPTH], 1)
        assert np.array_equal(first, np.sort(ranking.item_rows[:, :DEPTH], 1)), name  # permutes, and nothing else
        out[name] = {
            "clicks": metrics.per_query(one, truth, (), ("ndcg@10",), gain="linear")["ndcg@10"][~chosen],
            "relevance": metrics.per_query(one, catalog.truth, (), ("ndcg@10",))["ndcg@10"][~chosen],
        }
    return out


def difference(found: dict[int, dict], name: str, base: str, score: str) -> list[float]:
    """Returns [mean, low, high] of the difference of two systems over the queries of all shops, 95 %."""
    one, other = (np.concatenate([each[system][score] for each in found.values()]) for system in (name, base))
    made = bootstrap.paired_bootstrap(other, one)
    return [made[key] for key in ("difference", "low", "high")]


def told(found: dict[int, dict]) -> None:
    """Prints the table, and what each shop pays by itself."""
    print(
        "\nnDCG@10 by clicks and by relevance of each shop, and the difference from similarity alone in points (95 %)"
    )
    for name in next(iter(found.values())):
        parts = [name.ljust(15)]
        for score in ("clicks", "relevance"):
            means = ", ".join(f"{np.nanmean(each[name][score]):.4f}" for each in found.values())
            mean, low, high = (100 * value for value in difference(found, name, "similarity", score))
            parts.append(f"{score} {means}  {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
        print("  ".join(parts))
    for seed, each in found.items():
        mean, low, high = (100 * value for value in difference({seed: each}, "last stage", "similarity", "relevance"))
        print(f"shop {seed}: the last stage changes relevance by {mean:+.2f} [{low:+.2f}, {high:+.2f}]")


def claimed(found: dict[int, dict], command: str, cost: float) -> list[dict]:
    """Returns the claims."""

    def mean(name, score):
        return {str(seed): round(float(np.nanmean(each[name][score])), 4) for seed, each in found.items()}

    out = []
    for key, base, said in (
        ("gain", "similarity", "similarity alone"),
        ("column", "best column", "similarity and the best single column with a tuned weight"),
        ("places", "without places", "the same last stage learned from clicks that are not corrected for places"),
    ):
        value = difference(found, "last stage", base, "clicks")
        out.append(
            {
                "id": f"clicks-quality-{key}",
                "system": "clicks",
                "statement": f"A last stage that learns listing quality from clicks orders results better than {said}",
                "metric": f"ndcg@10, gain = true probability of a click; report half, {len(found)} shops",
                "value": mean("last stage", "clicks"),
                "baseline": mean(base, "clicks"),
                "difference": [round(one, 4) for one in value],
                "holds": value[1] > 0,
                "command": command,
            }
        )
    value = difference(found, "last stage", "similarity", "relevance")
    lost = {
        seed: np.nanmean(each["similarity"]["relevance"] - each["last stage"]["relevance"])
        for seed, each in found.items()
    }
    out.append(
        {
            "id": "clicks-quality-cost",
            "system": "clicks",
            "statement": f"The last stage costs at most {100 * cost:g} points of nDCG@10 by relevance: the mean of "
            "every shop, and the upper end over all shops",
            "metric": f"ndcg@10 by relevance; report half, {len(found)} shops",
            "value": mean("last stage", "relevance"),
            "baseline": mean("similarity", "relevance"),
            "difference": [round(one, 4) for one in value],
            "holds": bool(max(lost.values()) <= cost and value[1] >= -cost),
            "command": command,
        }
    )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the shops; 0 was tried with")
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", help="finished runs, one shop each, in place of seeds")
    parser.add_argument("--searches", type=int, default=20, help="with every photo in the log")
    parser.add_argument("--cost", type=float, default=0.01, help="allowed, in nDCG@10 by relevance")
    parser.add_argument("--claims", action="store_true", help="write benchmarks/claims.json")
    given = parser.parse_args()
    runs = given.runs or [None] * len(given.seeds)
    seeds = range(len(runs)) if given.runs else given.seeds
    found = {seed: measure(seed, run, given.searches, given.cost) for seed, run in zip(seeds, runs, strict=True)}
    told(found)
    if given.claims:
        claims.write(claimed(found, " ".join(["python benchmarks/quality.py", *sys.argv[1:]]), given.cost))


if __name__ == "__main__":
    main()
