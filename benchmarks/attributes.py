"""Measures predicted attributes: known ones given against not given, and sequences against sigmoid heads.

    python benchmarks/attributes.py --sequence runs/fashion_attributes runs/fashion_attributes-seed=1 \
        --sigmoid runs/fashion_attributes-heads=sigmoid runs/fashion_attributes-heads=sigmoid,seed=1 \
        --root=data/fashion --claims

Reads finished runs and trains nothing; runs of one kind are seeds, in the same order for both kinds. Scores are of the
listings of --split (query): of their selection half with --side=selection, which is for choosing, of the other half
with --side=report. Each listing's scores are averaged over seeds, then listings are resampled in pairs, for intervals
of 95 %. For many-valued fields of the sigmoid heads the threshold with the best F1 on val is taken. "Unseen" is the
share of listings whose predicted values no training listing has together. Prints Markdown tables; --out writes all of
it as JSON, --plot a reliability plot, --claims claims.json. Two cores: half a minute per run of 1,000 listings.
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import claims  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax import inference  # noqa: E402
from retrieval_jax.data import loading  # noqa: E402
from retrieval_jax.evaluators import attributes as evaluator  # noqa: E402
from retrieval_jax.scoring import attributes as scores  # noqa: E402
from retrieval_jax.scoring import bootstrap, metrics  # noqa: E402

BARS = {"type": 0.85, "colour": 0.66}  # accuracy to reach
THRESHOLDS = np.arange(0.1, 0.91, 0.05)


def predicted(model, target, name, columns) -> dict:
    """Returns "chosen" and "probabilities" of the listings of a target."""
    function = inference.named(model.task.predict_fns, name)
    arguments = inference.test_arguments(model.config)
    return inference.predict(function, model.params, columns, rows=target.rows, mesh=model.mesh, **arguments)


def with_thresholds(model, out, val_out, val) -> dict:
    """Returns a prediction of sigmoid heads whose many-valued fields have the threshold that is best on val."""
    chosen = out["chosen"].copy()
    for number, field in enumerate(model.data_info.fields):
        own = val.field_of == number
        if field.many and val_out is not None and val.known[:, number].any():
            rows = val.known[:, number]
            truth, found = val.true[rows][:, own], val_out["probabilities"][rows][:, own]

            def f1(threshold, truth=truth, found=found):
                said = found >= threshold
                return 2 * (said & truth).sum() / max(1, said.sum() + truth.sum())

            chosen[:, own] = out["probabilities"][:, own] >= max(THRESHOLDS, key=f1)
    return {**out, "chosen": chosen}


def measure(folder, root, split, side, guide, combinations) -> dict:
    """Returns per-listing scores of a run, guided and not, and what they are of."""
    model = inference.load(folder)
    config = model.config
    if root:
        with config.unlocked():
            config.data.kwargs["root"] = root
    catalog, info, task = loading.load(config.data), model.data_info, model.task
    listings = catalog.split(split)
    rows = np.arange(len(listings))
    if side != "all":
        half = metrics.selection_half([listings.ids[row] for row in rows], config.evaluate.selection_share)
        rows = np.flatnonzero(half if side == "selection" else ~half)
    target = evaluator.labelled(task, listings, config, folder, info, rows)
    train = evaluator.labelled(task, catalog.split("train"), config, folder, info)
    guiding = evaluator.numbers(target.names, guide, "--guide")
    combined = [evaluator.numbers(target.names, fields, "--combination") for fields in combinations]
    plain = predicted(model, target, "attributes", target.columns)
    guided = predicted(model, target, "attributes_given", target.given(guiding))
    if config.train.task_kwargs.heads == "sigmoid" and any(field.many for field in info.fields):
        val = evaluator.labelled(task, catalog.split("val"), config, folder, info)
        val_out = predicted(model, val, "attributes", val.columns)
        plain = with_thresholds(model, plain, val_out, val)
    found = {"names": target.names, "known": target.known, "num_listings": len(rows)}
    for name, out in (("plain", plain), ("guided", guided)):
        counted = scores.counts(out["chosen"], target.true, target.known, target.field_of)
        shown = out["chosen"] & target.known[:, target.field_of]
        found[name] = {
            **scores.per_listing(counted, target.known),
            "summary": evaluator.score(out, target),
            "calibration": scores.calibration(out["probabilities"][shown], target.true[shown]),
            "unseen": scores.unseen(out["chosen"], train.true, target.field_of, combined),
        }
    found["true_unseen"] = scores.unseen(target.true, train.true, target.field_of, combined)
    found["majority"] = {}
    for number, name in enumerate(target.names):
        share = None if info.fields[number].many else scores.majority(train.true, target.true, target.field_of, number)
        if share is not None:
            found["majority"][name] = share
    return found


def mean_over(runs, kind, name) -> np.ndarray:
    """Returns the mean of per-listing scores over seeds."""
    return np.mean([run[kind][name] for run in runs], axis=0)


def interval(first, second) -> list[float]:
    """Returns [mean, low, high] of second - first, over listings that have both."""
    both = ~(np.isnan(first) | np.isnan(second))
    found = bootstrap.paired_bootstrap(first[both], second[both])
    return [found["difference"], found["low"], found["high"]]


def seeds(runs, kind, name) -> dict[str, float]:
    """Returns {seed: score}."""
    return {str(number): run[kind]["summary"][name] for number, run in enumerate(runs)}


def shown(value) -> str:
    return " / ".join(f"{one:.4f}" for one in value.values()) if isinstance(value, dict) else f"{value:+.4f}"


def report(sequence, sigmoid, guide, combinations, command, what, catalogue) -> list[dict]:
    """Prints the tables and returns the claims."""
    names, known, made = sequence[0]["names"], sequence[0]["known"], []

    def claim(key, statement, metric, value, baseline, difference, holds):
        made.append({"id": f"attributes-{catalogue}-{key}", "system": "attributes",
                     "statement": f"{catalogue}: {statement}", "metric": metric,
                     "value": value, "baseline": baseline, "difference": difference, "holds": bool(holds),
                     "command": command})  # fmt: skip

    fields = [(number, name) for number, name in enumerate(names) if known[:, number].any()]
    given = "+".join(guide)
    print(f"\n{what}: {sequence[0]['num_listings']:,} listings\n\n| field | majority | sequence | guided by {given} | "
          "guided - not (95 %) |" + (" sigmoid |" if sigmoid else "") + "\n|---|---:|---:|---:|---:|"
          + ("---:|" if sigmoid else ""))  # fmt: skip
    for number, name in fields:
        plain, guided = (mean_over(sequence, kind, "f1")[:, number] for kind in ("plain", "guided"))
        gain = interval(plain, guided)
        major = {str(i): run["majority"].get(name, float("nan")) for i, run in enumerate(sequence)}
        other = f" {shown(seeds(sigmoid, 'plain', f'{name}_f1'))} |" if sigmoid else ""
        print(f"| {name} | {major['0']:.4f} | {shown(seeds(sequence, 'plain', f'{name}_f1'))} | "
              f"{shown(seeds(sequence, 'guided', f'{name}_f1'))} | {gain[0]:+.4f} ({gain[1]:+.4f} to {gain[2]:+.4f}) |"
              f"{other}")  # fmt: skip
        if name not in guide:
            claim(f"guided-{name}", f"with {given} given, {name} is predicted at least as well as without",
                  f"{name} F1", seeds(sequence, "guided", f"{name}_f1"), seeds(sequence, "plain", f"{name}_f1"), gain,
                  gain[0] >= 0)  # fmt: skip
        if catalogue == "fashion" and name in BARS:
            right = seeds(sequence, "plain", f"{name}_f1")
            against = np.full(len(plain), np.where(np.isnan(plain), np.nan, BARS[name]))
            claim(f"reach-{name}", f"{name} is right for at least {BARS[name]} of the listings", f"{name} accuracy",
                  right, major, interval(against, plain), np.mean(list(right.values())) >= BARS[name])  # fmt: skip
    print("\n| system | precision | recall | set F1 | ECE | " + " | ".join(map("+".join, combinations)) + " unseen |")
    print("|---|---:|---:|---:|---:|" + "---:|" * len(combinations))
    for title, runs, kind in (("sequence", sequence, "plain"), (f"sequence, {given} given", sequence, "guided"),
                              ("sigmoid", sigmoid, "plain")):  # fmt: skip
        if runs:
            rates = " | ".join(shown(seeds(runs, kind, name)) for name in ("precision", "recall", "set_f1", "ece"))
            unseen = " | ".join(f"{100 * share:.2f} %" for share in np.nanmean(mean_over(runs, kind, "unseen"), 0))
            print(f"| {title} | {rates} | {unseen} |")
    labelled = [column[~np.isnan(column)] for column in sequence[0]["true_unseen"].T]
    truth = " | ".join(f"{100 * column.mean():.2f} %" if len(column) else "-" for column in labelled)
    print(f"| true labels | | | | | {truth} |")
    if sigmoid:
        gain = interval(mean_over(sigmoid, "plain", "set_f1"), mean_over(sequence, "plain", "set_f1"))
        print(f"\nset F1, sequence - sigmoid: {gain[0]:+.4f} ({gain[1]:+.4f} to {gain[2]:+.4f})")
        claim("set-f1", "the sequence's set F1 is at least that of sigmoid heads on an equal encoder", "set F1",
              seeds(sequence, "plain", "set_f1"), seeds(sigmoid, "plain", "set_f1"), gain, gain[0] >= 0)  # fmt: skip
        for number, names_of in enumerate(combinations):
            ours, theirs = (mean_over(runs, "plain", "unseen")[:, number] for runs in (sequence, sigmoid))
            gain, key = interval(theirs / 2, ours), "-".join(names_of)
            print(f"unseen {key}, sequence - half of sigmoid: {gain[0]:+.4f} ({gain[1]:+.4f} to {gain[2]:+.4f})")
            value = {str(i): float(np.nanmean(run["plain"]["unseen"][:, number])) for i, run in enumerate(sequence)}
            base = {str(i): float(np.nanmean(run["plain"]["unseen"][:, number])) for i, run in enumerate(sigmoid)}
            claim(f"unseen-{key}", f"at most half as many combinations of {key} that never occur as sigmoid heads; the "
                  "difference is to half of theirs", "share of listings", value, base, gain, gain[0] <= 0)  # fmt: skip
    return made


def plot(file, runs: dict) -> None:
    """Draws how often predictions of each probability are right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 4))
    axes.plot((0, 1), (0, 1), color="0.7", linewidth=1)
    for title, found in runs.items():
        bins = found["plain"]["calibration"]
        axes.plot(bins["probability"], bins["right"], marker="o", label=f"{title}: ECE {bins['ece']:.3f}")
    axes.set(xlabel="predicted probability", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=150)


def brief(run) -> dict:
    """Returns what was measured of a run, without the scores of single listings."""
    parts = {kind: {name: run[kind][name] for name in ("summary", "calibration")} for kind in ("plain", "guided")}
    return {name: run[name] for name in ("names", "num_listings", "majority")} | parts


def plain(value):
    """Returns nested results as JSON-able ones."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence", nargs="+", required=True, type=pathlib.Path, help="runs, one per seed")
    parser.add_argument("--sigmoid", nargs="*", default=[], type=pathlib.Path, help="runs with heads=sigmoid")
    parser.add_argument("--root", default="", help="where the catalogue is now, if not where the runs say")
    parser.add_argument("--name", default="fashion", help="of the catalogue, for the claims")
    parser.add_argument("--split", default="query")
    parser.add_argument("--side", default="selection", choices=("selection", "report", "all"))
    parser.add_argument("--guide", nargs="+", default=["type"], help="fields that are given")
    parser.add_argument("--combination", action="append", help="fields, such as type,gender,usage; several times")
    parser.add_argument("--plot", type=pathlib.Path, help="reliability plot to write")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--claims", action="store_true", help="write claims.json")
    given = parser.parse_args()
    combinations = [one.split(",") for one in given.combination or ("type,CATEG_LVL2_ID", "type,gender,usage")]
    kinds = {
        kind: [measure(folder, given.root, given.split, given.side, given.guide, combinations) for folder in folders]
        for kind, folders in (("sequence", given.sequence), ("sigmoid", given.sigmoid))
    }
    command = f"python benchmarks/attributes.py {' '.join(sys.argv[1:])}"
    what = f"{given.split}, {given.side}"
    made = report(kinds["sequence"], kinds["sigmoid"], given.guide, combinations, command, what, given.name)
    if given.claims:
        claims.write(plain(made))
    if given.plot:
        plot(given.plot, {kind: runs[0] for kind, runs in kinds.items() if runs})
    if given.out:
        found = {kind: [brief(run) for run in runs] for kind, runs in kinds.items()}
        given.out.write_text(json.dumps(plain({"what": what, "claims": made, "runs": found}), indent=1) + "\n")


if __name__ == "__main__":
    main()
