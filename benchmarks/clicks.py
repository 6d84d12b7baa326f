"""Measures boxes learned from clicks, and what clicks and the box bring to the search with users' photos.

    run="python -m retrieval_jax.train --config=configs/embedded_clicks.py"          # after mine; seeds 0 and 1
    $run:seed=0 --workdir=runs/clicks/located_0
    $run:located=false,seed=0 --workdir=runs/clicks/whole_0
    $run:clicks=false,located=false,seed=0 --workdir=runs/clicks/titles_0
    $run:located=false,wrong=0.2,seed=0 --workdir=runs/clicks/wrong_0
    $run:clicks=false,seed=0 --workdir=runs/clicks/box_titles_0
    python benchmarks/clicks.py --located runs/clicks/located_? --whole runs/clicks/whole_? \\
        --titles runs/clicks/titles_? --wrong runs/clicks/wrong_? --control runs/clicks/box_titles_? --name=embedded \\
        --seed=1 --ccp=ccp --claims

Reads trained runs and trains nothing; runs of one training seed are compared. Boxes are compared with the true ones
of the queries: the learned box, the whole picture, and the centred box whose height and width are best on the selection
half of the queries. Retrieval is by the plain cosine, `mar@10_capped`, with every run's own vectors of queries and
gallery. Numbers are of the report half; scores of seeds are averaged per query before queries are resampled (95 %).
--ccp reads photos with several garments (the folder that ccp.tar was unpacked into): the learned box against the
nearest garment's and against the one around all of them, beside the whole photo.
"""

import argparse
import csv
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.data.examples import Pictures  # noqa: E402
from retrieval_jax.data.pictures.sources import FileImages  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import exact  # noqa: E402
from retrieval_jax.scoring import bootstrap, boxes, metrics  # noqa: E402

SIDES = np.arange(0.3, 1.01, 0.1)  # of centred boxes


def loaded(folders: list[pathlib.Path]) -> dict:
    """Loads runs, {seed of the training: model}; exits where two have one seed."""
    found = {}
    for folder in folders:
        model = inference.load(folder)
        if (seed := str(model.config.train.seed)) in found:
            sys.exit(f"{folder} was trained with seed {seed}, as another of these runs: give one run per seed")
        found[seed] = model
    return found


def predicted(model, images, name: str) -> dict[str, np.ndarray]:
    """Returns what a predict function of a model says of pictures."""
    function, arguments = model.task.predict_fns[name], inference.test_arguments(model.config)
    return inference.predict(function, model.params, {"image": Pictures(images)}, mesh=model.mesh, **arguments)


def overlap(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boxes [n, 4] or [4] with as many true ones [n, 4], [n]."""
    found = np.broadcast_to(found, true.shape)
    return np.array([boxes.iou(one, other)[0, 0] for one, other in zip(found, true, strict=True)])


def centred(true: np.ndarray, selection: np.ndarray) -> np.ndarray:
    """Returns the centred box that overlaps the true ones of the selection half best, [4]."""
    tried = [np.array([1 - h, 1 - w, 1 + h, 1 + w]) / 2 for h in SIDES for w in SIDES]
    return max(tried, key=lambda box: overlap(box, true[selection]).mean())


def searched(model, catalog) -> np.ndarray:
    """Returns mar@10 (capped) of every query, by the run's own vectors."""
    query, gallery = (
        Embeddings(list(split.ids), predicted(model, split.images, "embed_image")["embedding"], {})
        for split in (catalog.query, catalog.gallery)
    )  # fmt: skip
    return metrics.per_query(exact.Index(gallery).search(query, 10), catalog.truth, (10,))["mar@10_capped"]


def claim(name, statement, metric, value, baseline, command) -> dict:
    """Returns a claim that one side is above another; prints it.

    Args:
      value, baseline: {seed: [n] of the same queries}.
    """
    means = [np.mean(list(side.values()), axis=0) for side in (baseline, value)]
    found = bootstrap.paired_bootstrap(*means)
    one = {
        "id": name, "system": "clicks", "statement": statement, "metric": metric,
        "value": {seed: float(np.nanmean(each)) for seed, each in value.items()},
        "baseline": {seed: float(np.nanmean(each)) for seed, each in baseline.items()},
        "difference": [found["difference"], found["low"], found["high"]], "holds": found["low"] > 0, "command": command,
    }  # fmt: skip
    sides = [", ".join(f"{number:.3f}" for number in one[side].values()) for side in ("baseline", "value")]
    print(f"{'holds' if one['holds'] else 'does not hold':14} {statement}: {sides[0]} -> {sides[1]}, difference "
          f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})", flush=True)  # fmt: skip
    return one


def ccp(models: dict, folder: pathlib.Path) -> None:
    """Prints how boxes overlap the garments of street photos."""
    garments: dict[str, list] = {}
    with next(folder.rglob("garments.csv")).open(newline="") as file:
        for row in csv.DictReader(file):
            size = [float(row[side]) for side in ("height", "width")] * 2
            corners = [float(row[name]) for name in ("y0", "x0", "y1", "x1")]
            garments.setdefault(row["photo"], []).append(np.array(corners) / size)
    names = sorted(garments)
    root = next(folder.rglob("photos"))
    images = FileImages(root, [f"{name}.jpg" for name in names])
    true = [np.array(garments[name]) for name in names]
    around = np.array([np.concatenate([one[:, :2].min(0), one[:, 2:].max(0)]) for one in true])
    made = {f"learned, seed {number}": predicted(model, images, "locate")["boxes"] for number, model in models.items()}
    made["whole photo"] = np.tile(boxes.WHOLE, (len(names), 1))
    for name, found in made.items():
        nearest = np.mean([boxes.iou(box, one).max() for box, one in zip(found, true, strict=True)])
        all_of_them = overlap(found, around).mean()
        print(f"CCP, {len(names):,} photos, {name}: IoU with the nearest garment {nearest:.3f}, with the box around "
              f"all {all_of_them:.3f}", flush=True)  # fmt: skip


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (
        ("located", "with the box and clicks"), ("whole", "with clicks, without the box"),
        ("titles", "with titles alone"), ("wrong", "with wrong clicks, without the box"),
        ("control", "with the box and titles alone"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", nargs="+", default=[], type=pathlib.Path, required=name == "located",
                            help=f"runs {what}, one per seed")  # fmt: skip
    parser.add_argument("--name", default="embedded", help="of the catalogue, for claims")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the runs say")
    parser.add_argument("--seed", type=int, help="of the catalogue that is scored, if not that of training: products, "
                        "photos and boxes that no choice was made by")  # fmt: skip
    parser.add_argument("--ccp", type=pathlib.Path, help="folder of street photos with garments.csv")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    command, made = f"python benchmarks/clicks.py {' '.join(sys.argv[1:])}", []
    models = {name: loaded(getattr(given, name)) for name in ("located", "whole", "titles", "wrong", "control")}
    config = next(iter(models["located"].values())).config
    with config.unlocked():
        if given.root:
            config.data.kwargs["root"] = given.root
        if given.seed is not None:
            config.data.kwargs["seed"] = given.seed
    catalog = loading.load(config.data)
    selection = metrics.selection_half(catalog.query.ids)
    true = np.asarray(catalog.query.columns["box"])
    report = ~selection
    learned = {seed: overlap(predicted(model, catalog.query.images, "locate")["boxes"], true)[report]
               for seed, model in models["located"].items()}  # fmt: skip
    best = centred(true, selection)
    size = f"{best[2] - best[0]:.1f} x {best[3] - best[1]:.1f}"
    for name, box, what in (
        ("whole", np.array(boxes.WHOLE), "the whole picture"),
        ("centred", best, f"the best centred box ({size})"),
    ):
        same = overlap(box, true)[report]
        made.append(claim(f"clicks-box-{given.name}" + ("" if name == "whole" else "-centred"),
                          f"the box learned from clicks overlaps the true one more than {what} does, {given.name}",
                          f"mean IoU, {given.name}", learned, dict.fromkeys(learned, same), command))  # fmt: skip
    without = {seed: overlap(predicted(model, catalog.query.images, "locate")["boxes"], true)[report]
               for seed, model in models["control"].items() if seed in learned}  # fmt: skip
    if without:
        what = "the box learned from clicks and titles overlaps the true one more than from titles alone"
        made.append(claim(f"clicks-box-{given.name}-titles", f"{what}, {given.name}", f"mean IoU, {given.name}",
                          {seed: learned[seed] for seed in without}, without, command))  # fmt: skip
    if given.ccp:
        ccp(models["located"], given.ccp)
    scores = {name: {seed: searched(model, catalog)[report] for seed, model in each.items()}
              for name, each in models.items()}  # fmt: skip
    for value, baseline, name, statement in (
        ("located", "whole", "located", "the learned box finds users' photos better than the same network without"),
        ("whole", "titles", "teach", "clicks beside titles find users' photos better than titles alone"),
        ("located", "titles", "teach-located", "clicks and the learned box do better than titles alone"),
        ("wrong", "titles", "teach-wrong", "with a fifth of the clicks wrong, they still do better than titles alone"),
    ):  # fmt: skip
        if seeds := scores[value].keys() & scores[baseline].keys():
            sides = [{seed: scores[side][seed] for seed in sorted(seeds)} for side in (value, baseline)]
            made.append(claim(f"clicks-{name}-{given.name}", f"{statement}, {given.name}",
                              f"mar@10_capped, {given.name}", *sides, command))  # fmt: skip
    if given.claims:
        claims.write(made)


if __name__ == "__main__":
    main()
