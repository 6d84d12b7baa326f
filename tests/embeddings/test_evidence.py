"""Evidence on disk: what was saved, what is missing, what does not fit."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings, evidence
from retrieval_jax.errors import InputError


def test_round_trip_and_missing_parts(tmp_path):
    nothing = evidence.load(tmp_path)
    assert (nothing.train, nothing.altered, nothing.agreeing) == (None, None, [])
    Embeddings(["a", "b", "c"], np.eye(3)).save(tmp_path / "train")
    evidence.save_agreement(tmp_path, np.array([0, 1, 1, 3]), np.array([2, 0, 1]))
    found = evidence.load(tmp_path)
    assert [rows.tolist() for rows in found.agreeing] == [[2], [], [0, 1]] and found.altered is None


@pytest.mark.parametrize(
    "indptr, rows", [([0, 1], [0]), ([0, 1, 1, 9], [0]), ([0, 1, 1, 1], [3]), ([0, 2, 1, 2], [0, 1])]
)
def test_agreement_of_other_listings_is_refused(tmp_path, indptr, rows):
    Embeddings(["a", "b", "c"], np.eye(3)).save(tmp_path / "train")
    evidence.save_agreement(tmp_path, np.array(indptr), np.array(rows))
    with pytest.raises(InputError, match="run embed again"):
        evidence.load(tmp_path)
