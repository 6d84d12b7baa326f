"""Binary codes: their cosine is one minus twice the share of differing signs."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State, binarise

RNG = np.random.default_rng(0)
QUERIES = Embeddings([f"q{row}" for row in range(5)], RNG.normal(size=(5, 24)))
GALLERY = Embeddings([f"g{row}" for row in range(40)], RNG.normal(size=(40, 24)))


def test_exact_search_over_codes_is_a_search_by_hamming_distance():
    ((queries, gallery),) = binarise.step(State([(QUERIES, GALLERY)])).members
    found = exact.Index(gallery).search(queries, 7)
    differing = ((QUERIES.vectors > 0)[:, None] != (GALLERY.vectors > 0)).sum(2)
    np.testing.assert_allclose(found.scores, 1 - 2 * np.sort(differing, axis=1)[:, :7] / 24, atol=1e-6)


def test_some_members_are_left_as_they_are():
    state = State([(QUERIES, GALLERY)] * 2, names=("trained", "appearance"))
    kept, made = binarise.step(state, members=("appearance",)).members
    np.testing.assert_array_equal(kept[0].vectors, QUERIES.vectors)
    assert np.allclose(np.abs(made[0].vectors), 24**-0.5)
    with pytest.raises(InputError, match="no member 'apearance'.*appearance"):
        binarise.step(state, members=("apearance",))
