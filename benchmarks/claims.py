"""Writes claims into benchmarks/claims.json: what this project says of itself, with numbers, interval and command."""

import datetime
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from retrieval_jax.workdir import provenance  # noqa: E402

FILE = pathlib.Path(__file__).with_name("claims.json")
KEYS = ("id", "system", "statement", "metric", "value", "baseline", "difference", "holds", "command")


def write(claims: list[dict], file: pathlib.Path = FILE) -> None:
    """Adds claims to the file; one with the id of an earlier claim takes its place.

    Args:
      claims: dicts with id, system, statement, metric, value ({seed: number}), baseline ({seed: number}), difference
        ([mean, low, high], a 95 % interval), holds (bool) and command; date and commit are added. One that does not
        hold has why, by default its values against the baseline.
      file: the JSON file, a list sorted by id.
    """
    entries = {entry["id"]: entry for entry in (json.loads(file.read_text()) if file.exists() else [])}
    stamp = {"commit": provenance.commit(), "date": datetime.date.today().isoformat()}
    for claim in claims:
        claim = dict(claim)
        if not claim.get("holds") and "why" not in claim:
            sides = {name: ", ".join(f"{seed}: {one:g}" for seed, one in claim[name].items()) for name in KEYS[4:6]}
            if claim["value"].keys() == claim["baseline"].keys():
                pairs = [f"{seed}: {one:g} against {claim['baseline'][seed]:g}" for seed, one in claim["value"].items()]
                claim["why"] = ", ".join(pairs)
            else:
                claim["why"] = f"{sides['value']} against {sides['baseline']}"
        missing = [key for key in KEYS if key not in claim]
        if missing:
            raise ValueError(f"the claim {claim.get('id')!r} has no {', '.join(missing)}")
        entries[claim["id"]] = {**claim, **stamp}
    file.write_text(json.dumps([entries[key] for key in sorted(entries)], indent=1) + "\n")
