"""Work directories with rankings of a known quality, and their truth, for tests of what compares runs."""

import json

import numpy as np
from ml_collections import ConfigDict

from retrieval_jax.embeddings import Ids
from retrieval_jax.scoring.ranking import Ranking, Truth

QUERIES, GALLERY = [f"q{row}" for row in range(300)], [f"g{row}" for row in range(100)]
TRUTH = Truth.from_lists(QUERIES, GALLERY, [[] if row < 5 else GALLERY[row % 80 : row % 80 + 3] for row in range(300)])


def make_run(folder, quality, seed, stages=("cosine", "whitening")):
    """Makes a work directory whose rankings find each relevant listing with the given probability."""
    rng, entries = np.random.default_rng(seed), []
    for number, stage in enumerate(stages):
        rows = np.stack([rng.permutation(100)[:12] for _ in QUERIES])
        for query in range(300):
            right = TRUTH.relevant(query).tolist()
            wrong = [row for row in rows[query].tolist() if row not in right]
            found = [row for row in right if rng.random() < quality + 0.2 * number]
            rows[query] = (found + wrong + [-1] * 12)[:12]
        scores = np.where(rows >= 0, -np.arange(12.0), -np.inf)
        Ranking(QUERIES, rows, scores, Ids.of(GALLERY).sha256()).save(folder / "rankings" / "trained" / stage)
        entries.append({"model": "trained", "stage": stage})
    (folder / "rankings" / "rankings.json").write_text(json.dumps({"stages": entries}))
    settings = {"data": {}, "evaluate": {"selection_share": 0.5}}
    (folder / "config.json").write_text(ConfigDict(settings).to_json())
    return folder
