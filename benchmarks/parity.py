"""Compares our backbones with timm's, value by value, on the reference data; prints Markdown tables.

    python benchmarks/parity.py [--reference=FOLDER]

The first table covers networks with random weights, stored with timm's outputs for the same pictures. The second covers
the models of real checkpoints: how many of their tensors have a counterpart in ours, by shape, without allocating any.
The reference data (env RETRIEVAL_JAX_REFERENCE, or the folder "shared" beside the checkout) was made with timm; neither
timm nor torch is needed here.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.models import pretrained  # noqa: E402
from retrieval_jax.models.timm import tensors as timm_tensors  # noqa: E402


def difference(case: pathlib.Path, **kwargs) -> tuple[str, float, float]:
    """Returns timm's name of a case, max |difference| of the embeddings, and max |embedding|."""
    spec = json.loads(case.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        weights = case.with_suffix(".safetensors")
        model, params = pretrained.load(spec["timm_model"], weights, **spec["kwargs"], **kwargs)
    with np.load(case.with_suffix(".npz"), allow_pickle=False) as arrays:
        images, expected = arrays["images"], arrays["embedding"]
    apply = jax.jit(lambda params, images: model.apply({"params": params}, images)["embedding"])
    with jax.default_matmul_precision("highest"):
        given = np.asarray(apply(params, images))
    return spec["timm_model"], float(np.abs(given - expected).max()), float(np.abs(expected).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = os.environ.get("RETRIEVAL_JAX_REFERENCE", ROOT.parent / "shared")
    parser.add_argument("--reference", type=pathlib.Path, default=pathlib.Path(default))
    folder = parser.parse_args().reference / "parity"
    cases = [
        case
        for case in sorted(folder.glob("*.json"))
        if case.with_suffix(".safetensors").exists() and "timm_model" in json.loads(case.read_text())
    ]
    if not cases:
        sys.exit(f"no reference data in {folder}: give its folder with --reference")

    print("| case | model | max \\|difference\\| | scanned, rematerialised | max \\|embedding\\| |")
    print("|---|---|---:|---:|---:|")
    for case in cases:
        name, plain, scale = difference(case)
        fields = pretrained.architectures()[name].Model.__dataclass_fields__
        again = difference(case, **{key: True for key in ("scan", "remat") if key in fields})[1]
        print(f"| {case.stem} | {name} | {plain:.1e} | {again:.1e} | {scale:.1f} |", flush=True)

    print("\n| model | tensors in timm | matched in ours | missing or surplus |\n|---|---:|---:|---:|")
    for name, spec in json.loads((folder / "timm_shapes.json").read_text()).items():
        model = pretrained.model(name)
        entries = timm_tensors.entries(model, pretrained.shapes_of(model, spec["input_size"][1:]))
        ours = {entry.timm: list(timm_tensors.timm_shape(entry, model)) for entry in entries}
        theirs = spec["params"]
        placed = sum(ours.get(key) == shape for key, shape in theirs.items())
        print(f"| {name} | {len(theirs)} | {placed} | {len(ours.keys() ^ theirs.keys())} |", flush=True)


if __name__ == "__main__":
    main()
