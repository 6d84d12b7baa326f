"""Files as an exported model has them; what is in them does not matter to those who only carry them."""

import json
import os

from retrieval_jax.files.arrays import file_sha256


def describe(folder):
    """Writes config.json over what the folder holds."""
    names = sorted(file.name for file in folder.iterdir() if file.name != "config.json")
    about = {
        "format": 1,
        "programs": {"embed": "embed.jax_export"},
        "platforms": ["cpu"],
        "input": {"image_size": [80, 64], "transform": []},
        "outputs": {"embed": {"embedding": [None, 128]}},
        "data": {"source": "table", "catalogue": "shoes|<b>", "splits": {"train": 1200}},
        "initial_weights": {"name": "convnext_atto.d2_in1k", "licence": "apache-2.0"},
        "config": {"name": "shop", "train": {"task": "multilabel", "model": {"name": "convnext", "variant": "atto"}}},
        "sha256": {name: file_sha256(folder / name) for name in names},
    }
    (folder / "config.json").write_text(json.dumps(about))


def write(folder):
    """Writes them into an empty folder and returns the folder."""
    (folder / "model.safetensors").write_bytes(os.urandom(20_000))
    (folder / "embed.jax_export").write_bytes(os.urandom(3_000))
    (folder / "labels.json").write_text(json.dumps({"label_names": ["black", "wool"]}))
    (folder / "vocabulary.json").write_text(json.dumps({"tokens": ["black", "wool"], "counts": [3, 900]}))
    scores = {"model": "trained", "stage": "chosen", "recall@1": 0.25, "recall@1_low": 0.2, "recall@1_high": 0.3}
    search = {"steps": [["whitening", {}]], "why": "it helped", "whitening": None, "num_queries": 40}
    (folder / "search.json").write_text(json.dumps({**search, "scores": [scores]}))
    describe(folder)
    return folder
