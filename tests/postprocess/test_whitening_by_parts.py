"""Half-whitening by parts against plain NumPy."""

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, whitening_by_parts
from retrieval_jax.postprocess.whitening import Whitening

PARTS = [["edges", 5, 0.6], ["colours", 3, 0.4]]


def _state(queries, gallery, parts=PARTS, folder=None):
    meta = {"space": "s"} | ({"parts": parts} if parts else {})
    members = [
        tuple(
            Embeddings([f"{side}{row}" for row in range(len(rows))], rows.astype(np.float32), meta)
            for side, rows in (("q", queries), ("g", gallery))
        )
    ]
    return State(members, None, ("colour_and_edges",), folder)


def _vectors(count, seed):
    scales = np.array([9, 4, 1, 0.5, 0.1, 30, 3, 0.3])
    return np.random.default_rng(seed).normal(size=(count, 8)) * scales + 2


def _half(rows, fitted_on):
    mean = fitted_on.mean(0)
    variance, directions = np.linalg.eigh(np.cov(fitted_on.T, bias=True))
    out = (rows - mean) @ directions @ np.diag(variance**-0.25) @ directions.T
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def test_equals_plain_numpy(tmp_path):
    queries, gallery = _vectors(7, 0), _vectors(60, 1)
    state = whitening_by_parts.step(_state(queries, gallery, folder=tmp_path))
    for found, rows in zip(state.members[0], (queries, gallery), strict=True):
        edges, colours = _half(rows[:, :5], gallery[:, :5]), _half(rows[:, 5:], gallery[:, 5:])
        wanted = np.concatenate([0.6**0.5 * edges, 0.4**0.5 * colours], 1)
        assert np.allclose(found.vectors[:], wanted, atol=2e-5)
    assert state.ranking is None and state.names == ("colour_and_edges",)
    saved = Whitening.load(tmp_path / "whitening_colour_and_edges_edges.npz")
    assert saved.info["power"] == 0.25 and saved.info["space"] == "s/edges"


def test_spaces_of_other_galleries_differ():
    one, other = (whitening_by_parts.step(_state(_vectors(3, 0), _vectors(60, seed))) for seed in (1, 2))
    spaces = [side.meta["space"] for state in (one, other) for side in state.members[0]]
    assert spaces[0] == spaces[1] != spaces[2] == spaces[3]


def test_a_vector_without_parts_is_one_part():
    queries, gallery = _vectors(7, 0), _vectors(60, 1)
    [(found, _)] = whitening_by_parts.step(_state(queries, gallery, parts=None)).members
    assert np.allclose(found.vectors[:], _half(queries, gallery), atol=2e-5)


def test_a_part_that_is_the_same_everywhere_stays_as_it_is():
    queries, gallery = _vectors(4, 0), _vectors(60, 1)
    gallery[:, :5] = queries[:, :5] = 0  # pictures without edges
    [(found, _)] = whitening_by_parts.step(_state(queries, gallery)).members
    assert np.allclose(found.vectors[:, 5:], _half(queries[:, 5:], gallery[:, 5:]), atol=2e-5)
    [(one, _)] = whitening_by_parts.step(_state(queries, gallery[:1])).members
    assert np.isfinite(one.vectors[:]).all()


@pytest.mark.parametrize("parts", [[["edges", 5, 1.0]], [["a", 9, 1.0], ["b", -1, 1.0]], "edges", [[1]]])
def test_parts_that_do_not_add_up_are_refused(parts):
    with pytest.raises(InputError, match="vectors of 8 dimensions: expected .name, length, weight. of each part"):
        whitening_by_parts.step(_state(_vectors(3, 0), _vectors(9, 1), parts))


def test_powers_out_of_range_are_refused():
    with pytest.raises(InputError, match="power=2, expected a finite number from 0 to 1"):
        whitening_by_parts.step(_state(_vectors(3, 0), _vectors(9, 1)), power=2)
