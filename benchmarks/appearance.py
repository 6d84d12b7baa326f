"""Measures appearance (a middle stage, binarised) and colour, alone and as a weighted sum fitted on train.

    python benchmarks/appearance.py --config=configs/pretrained.py:catalogue=fashion --root=data/fashion \
        --path=weights/tf_efficientnet_lite0.in1k.safetensors
    python benchmarks/appearance.py --run runs/fashion_attributes --root=data/fashion

Without --run, appearance is that of public weights, so nothing was trained on the catalogue; with it, that run's
network, whose own embedding joins as a third part. Pairs of the same product are train listings with equal titles (the
embedded catalogue: equal products); the others are drawn at random from the same leaf category. Prints mar@10 (capped)
on both halves of the queries. Two cores: about two minutes on the fashion catalogue.
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from retrieval_jax import inference, tasks  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.pictures import colour  # noqa: E402
from retrieval_jax.data.shop import synthetic  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.models import pixels, pretrained  # noqa: E402
from retrieval_jax.postprocess import binarise, fitted_weights  # noqa: E402
from retrieval_jax.postprocess.ensemble import concatenate  # noqa: E402
from retrieval_jax.scoring import metrics  # noqa: E402
from retrieval_jax.workdir import command_line  # noqa: E402

STAGE, GRID = 4, (4, 3)  # of Lite0: maps at 1/16 of the picture's size, in cells


def products(catalog) -> np.ndarray:
    """Returns a number per train listing, equal for the same product."""
    split = catalog.train
    if catalog.name == "synthetic":
        return synthetic.product_ids(split.ids.shop, "train", np.arange(len(split)))
    return np.unique([split.titles[row] for row in range(len(split))], return_inverse=True)[1]


def pairs(same: np.ndarray, leaf: np.ndarray, most: int) -> np.ndarray:
    """Returns rows [n, 3]: a listing, another of its product, and one of another product and the same category."""
    rng, out = np.random.default_rng(0), []
    order = np.argsort(same, kind="stable")
    twins = np.flatnonzero(same[order][1:] == same[order][:-1])
    for place in rng.permutation(twins)[:most]:
        one, other = order[place], order[place + 1]
        strangers = np.flatnonzero((leaf == leaf[one]) & (same != same[one]))
        if len(strangers):
            out.append((one, other, rng.choice(strangers)))
    return np.asarray(out)


class Parts:
    """What embeds pictures: {part: vectors of rows of a split}."""

    def __init__(self, given, config):
        self.model = None
        if given.run:
            self.model = inference.load(given.run)
            self.arguments = inference.test_arguments(self.model.config)
            settings = self.model.config.copy_and_resolve_references()
            with settings.unlocked():
                settings.embed.model_kwargs = {"pool_stages": (given.stage,), "pool_bands": (GRID,)}
            self.middle = inference.make_task(settings, self.model.data_info).predict_fns["embed_image"]
            self.params = self.model.params
        else:
            name = config.embed.pretrained.name
            info = pretrained.info(name, given.path or None)
            module, self.params = pretrained.load(
                name, given.path or None, pool_stages=(given.stage,), pool_bands=(GRID,)
            )
            self.arguments = inference.test_arguments(config)

            def middle(params, batch):
                images = pixels.normalize(batch["image"], module.dtype, info.mean, info.std)
                return {"embedding": module.apply({"params": params}, images)["embedding"]}

            self.middle = tasks.Predict(middle)

    def __call__(self, split, rows) -> dict[str, Embeddings]:
        ids, columns = [split.ids[int(row)] for row in rows], {"image": Pictures(split.images)}
        vectors = inference.predict(self.middle, self.params, columns, rows=rows, **self.arguments)["embedding"]
        found = {"appearance": binarise.codes(Embeddings(ids, vectors, {}))}
        found["colour"] = Embeddings(ids, np.concatenate([colour.embed(split.images[int(row)][None]) for row in rows]))
        if self.model is not None:
            function = self.model.task.predict_fns["embed_image"]
            out = inference.predict(function, self.params, columns, rows=rows, **self.arguments)
            found["network"] = Embeddings(ids, out["embedding"], {})
        return found


def unit(side: Embeddings) -> np.ndarray:
    vectors = np.asarray(side.block(0, len(side)), np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/pretrained.py:catalogue=fashion")
    parser.add_argument("--run", type=pathlib.Path, help="run whose network gives appearance and a third part")
    parser.add_argument("--path", default="", help="file of the public weights")
    parser.add_argument("--root", default="", help="where the catalogue is now")
    parser.add_argument("--stage", type=int, default=STAGE, help="of the network, for appearance")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    given = parser.parse_args()
    file, _, arg = given.config.partition(":")
    config = inference.load(given.run).config if given.run else command_line.load_config(file, arg or None)
    with config.unlocked():
        if given.root:
            config.data.kwargs["root"] = given.root
    catalog, parts = loading.load(config.data), Parts(given, config)
    same = products(catalog)
    triples = pairs(same, catalog.train.categories[:, -1], given.pairs)
    rows = np.unique(triples)
    place = np.searchsorted(rows, triples)
    train = {name: unit(side) for name, side in parts(catalog.train, rows).items()}
    cosines = np.stack(
        [[(side[place[:, 0]] * side[place[:, other]]).sum(1) for other in (1, 2)] for side in train.values()], -1
    )
    weights = fitted_weights.fit(*cosines)
    names, truth = list(train), catalog.truth
    sides = {name: parts(split, np.arange(len(split))) for name, split in catalog.splits().items()
             if name in ("query", "gallery")}  # fmt: skip
    half = metrics.selection_half(truth.query_ids, 0.5)

    def score(queries, gallery):
        each = metrics.per_query(exact.Index(gallery).search(queries, 10), truth, (10,))["mar@10_capped"]
        return float(np.nanmean(each[half])), float(np.nanmean(each[~half]))

    found = {name: score(sides["query"][name], sides["gallery"][name]) for name in names}
    for title, chosen in (("equal weights", np.full(len(names), 1 / len(names))), ("fitted weights", weights)):
        found[title] = score(*(concatenate(list(sides[side].values()), chosen) for side in ("query", "gallery")))
    print(f"{len(triples):,} pairs of train; weights "
          + ", ".join(f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True))
          + "\n\n| part | selection half | report half |\n|---|---:|---:|")  # fmt: skip
    for name, (first, second) in found.items():
        print(f"| {name} | {100 * first:.1f} | {100 * second:.1f} |")
    if given.out:
        given.out.write_text(json.dumps({"weights": dict(zip(names, weights.tolist(), strict=True)), "scores": found}))


if __name__ == "__main__":
    main()
