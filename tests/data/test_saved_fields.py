"""Predicted labels on disk: read as they were written, and refused for other labels or listings."""

import numpy as np
import pytest

from retrieval_jax.data import fields, saved_fields
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError

IDS = Ids.of(["a", "b", "c"]).sha256()


def learned(*values):
    field = fields.Field(list(values), np.arange(len(values) + 1), np.arange(len(values)))
    return fields.learned({"colour": field}, 1, (), 0)


def test_predicted_labels_are_saved_and_read(tmp_path):
    info, file = learned(*"vwxyz"), tmp_path / "made" / "val.npz"
    chosen = np.array([[1, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0] * 5], bool)
    probabilities = np.linspace(0.1, 0.9, 15, dtype=np.float32).reshape(3, 5)
    blocks = [(chosen, probabilities)], [(chosen[:2], probabilities[:2]), (chosen[2:], probabilities[2:])]
    for given in blocks:
        saved_fields.save(file, iter(given), IDS)
        found, chances = saved_fields.load(file, info, IDS)
        np.testing.assert_array_equal(found, chosen)
        np.testing.assert_array_equal(chances, probabilities * chosen)
    with pytest.raises(InputError, match="not of the 3 labels"):
        saved_fields.load(file, learned(*"xyz"), IDS)
    for ids in ("cba", "abd"):
        with pytest.raises(InputError, match="of other listings than the catalogue's.*run embed again"):
            saved_fields.load(file, info, Ids.of(list(ids)).sha256())
    with pytest.raises(InputError, match="run embed again"):
        saved_fields.load(tmp_path / "gallery.npz", info, IDS)
