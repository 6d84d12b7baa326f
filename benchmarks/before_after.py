"""Runs one experiment in two checkouts in turn and compares the processor time and the scores of each verb.

    git worktree add ../before <commit>
    python benchmarks/before_after.py --before=../before --config=configs/quickstart.py:runlocal --rounds=3

For a change that must not move a number or slow anything down. Each round runs both checkouts, in alternating order,
into folders of their own; the ratio is that of the medians over rounds. Processor time counts all threads and is less
sensitive to other work on the machine than wall-clock time; compilation is included.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(checkout: pathlib.Path, folder: pathlib.Path, config: str, overrides: list[str]) -> dict:
    """Runs an experiment in a checkout; returns its processor time per verb and the scores of its stages."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1", "JAX_COMPILATION_CACHE_DIR": ""}
    command = [sys.executable, "-m", "retrieval_jax.run", f"--config={config}", f"--workdir={folder}", *overrides]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} in {checkout} failed:\n{done.stderr[-2000:]}")
    stages = json.loads((folder / "run.json").read_text())["stages"]
    scores = json.loads((folder / "metrics.json").read_text())["stages"]
    return {"seconds": {verb: stage["cpu_seconds"] for verb, stage in stages.items()}, "scores": scores}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=pathlib.Path, required=True, help="checkout of the earlier commit")
    parser.add_argument("--after", type=pathlib.Path, default=ROOT, help="checkout to compare; by default this one")
    parser.add_argument("--config", default="configs/quickstart.py:runlocal", help="config file, relative to both")
    parser.add_argument("--rounds", type=int, default=3, help="how often both run (default: %(default)s)")
    given, overrides = parser.parse_known_args()
    sides = {"before": given.before.resolve(), "after": given.after.resolve()}
    found = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                found[name].append(run(sides[name], pathlib.Path(folder, f"{name}{number}"), given.config, overrides))
    print(f"{'verb':<10} {'before / s':>20} {'after / s':>20} {'ratio':>6}")
    for verb in found["before"][0]["seconds"]:
        old, new = ([one["seconds"][verb] for one in found[name]] for name in sides)
        spread = [f"{statistics.median(x):.1f} ({min(x):.1f} to {max(x):.1f})" for x in (old, new)]
        ratio = statistics.median(new) / max(statistics.median(old), 1e-9)
        print(f"{verb:<10} {spread[0]:>20} {spread[1]:>20} {ratio:>6.2f}")
    scores = [json.dumps(one["scores"], sort_keys=True) for name in sides for one in found[name]]
    print(f"scores of all {len(scores)} runs are equal: {len(set(scores)) == 1}")


if __name__ == "__main__":
    main()
