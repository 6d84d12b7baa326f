"""Orders of the rows: shares, groups, exactness, and that each is a function of the position."""

import numpy as np
import pytest

from retrieval_jax.data import pipeline, sampling
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.errors import InputError

SIZES = (400, 100, 25, 4)
N = sum(SIZES)
CATEGORY = np.random.default_rng(1).permutation(np.repeat(np.arange(4), SIZES)).astype(np.int32)
COLUMNS = {
    "image": Pictures(range(N)),
    "category": CATEGORY,
    "source": (np.arange(N) >= 300).astype(np.int32),
    "share": np.zeros(N),
    "label_ids": Ragged(np.arange(N + 1), CATEGORY),
}


def take(name, count, start=0, seed=0, batch_size=32, columns=COLUMNS, **kwargs):
    stream = sampling.rows(name, kwargs, columns, N, seed, batch_size)
    return np.array([stream[position] for position in range(start, start + count)])


EVERY = [("shuffle", {}), ("balanced", {}), ("p_by_k", {"rows_each": 4}), ("mixed", {"weights": (1, 3)})]


@pytest.mark.parametrize("name, kwargs", EVERY)
def test_the_position_alone_tells_the_row(name, kwargs):
    whole = take(name, 2 * N + 30, **kwargs)
    np.testing.assert_array_equal(take(name, 50, start=2 * N - 20, **kwargs), whole[2 * N - 20 : 2 * N + 30])
    stream = sampling.rows(name, kwargs, COLUMNS, N, 0, 32)
    for position in np.random.default_rng(0).integers(0, 2 * N, 30):
        assert stream[int(position)] == whole[position]
    assert not np.array_equal(take(name, N, seed=1, **kwargs), whole[:N])
    assert not np.array_equal(whole[:N], whole[N : 2 * N]) and whole.min() >= 0 and whole.max() < N
    stream[10**12]  # no end


@pytest.mark.parametrize("by", ["category", "label_ids"])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_balanced_groups_come_as_often_as_they_should(by, power):
    rows = take("balanced", 4 * N, by=by, power=power)
    wanted = np.array(SIZES) ** power
    wanted = wanted / wanted.sum() * N
    for epoch in rows.reshape(4, N):
        counts = np.bincount(epoch, minlength=N)
        share = (wanted / SIZES)[CATEGORY]
        assert (counts >= np.floor(share - 1e-9)).all() and (counts <= np.ceil(share + 1e-9)).all()
    if power == 1:
        assert all(sorted(epoch) == list(range(N)) for epoch in rows.reshape(4, N))
    groups = np.bincount(CATEGORY[rows], minlength=4) / 4
    np.testing.assert_allclose(groups, wanted, rtol=0.1)


def test_a_row_weighs_as_its_rarest_label_and_one_without_as_the_commonest():
    indptr, ids = np.array([0, 2, 3, 3, 4, 5]), np.array([0, 1, 0, 0, 0])
    stream = sampling.rows("balanced", {"by": "label_ids", "power": 0.0}, {"label_ids": Ragged(indptr, ids)}, 5, 0, 1)
    counts = np.bincount([stream[position] for position in range(5 * 800)], minlength=5) / 800
    np.testing.assert_allclose(counts, np.array((1, 0.25, 0.25, 0.25, 0.25)) / 2 * 5, atol=0.06)


def test_unknown_categories_are_a_group_when_balancing_and_none_for_p_by_k():
    column = np.where(CATEGORY == 3, -1, CATEGORY)
    columns = {**COLUMNS, "category": column}
    rows = take("balanced", 4 * N, columns=columns, power=0.0)
    np.testing.assert_allclose((column[rows] == -1).mean(), 1 / 4, atol=0.01)
    assert (column[take("p_by_k", 960, columns=columns)] >= 0).all()


def test_p_by_k_fills_batches_with_groups():
    rows = take("p_by_k", 40 * 12, batch_size=12, rows_each=3).reshape(40, 4, 3)
    for batch in rows:
        groups = CATEGORY[batch]
        assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 4  # P is the number of groups
        assert all(len(set(group)) == 3 for group in batch)
    assert len(np.unique(rows)) > 190  # of 4 groups with 120 places each, one of 25 rows, one of 4
    assert len({tuple(CATEGORY[batch[:, 0]]) for batch in rows}) > 5  # not always in the same order
    few = take("p_by_k", 24, batch_size=24, rows_each=6)
    counts = np.bincount(few[CATEGORY[few] == 3])
    assert sorted(counts[counts > 0]) == [1, 1, 2, 2]  # four rows for six places
    often = CATEGORY[take("p_by_k", 12 * 200, batch_size=12, rows_each=3, power=1.0)]
    np.testing.assert_allclose(np.bincount(often) / len(often), np.array(SIZES) / N, atol=0.03)


def test_p_by_k_repeats_no_row_of_a_large_group():
    columns = {
        "image": Pictures(range(N)),
        "category": (np.arange(N) < 100).astype(np.int32),
    }  # two groups for sixteen places
    for batch in take("p_by_k", 32 * 20, columns=columns, rows_each=2).reshape(20, 32):
        assert len(set(batch)) == 32


def test_batches_that_are_read_side_by_side_are_made_once():
    made = []
    table = sampling._Table(lambda number: made.append(number) or number * 32 + np.arange(32), 32)
    for place in range(32):
        for number in range(16):  # as many threads, each in a batch of its own
            assert table(number * 32 + place) == number * 32 + place
    assert made == list(range(16))
    large = sampling._Table(lambda number: np.arange(2**22), 2**22)
    assert [large(number * 2**22) for number in range(5)] == [0] * 5 and len(large.kept) == 2


def test_mixed_catalogues_have_their_shares_and_epochs_of_their_own():
    rows = take("mixed", 3 * N, weights=(1, 3))
    second = rows >= 300
    for length in (4, 100, 3 * N):
        assert abs(second[:length].mean() - 0.75) <= 1 / length
    for part, members in ((rows[~second], range(300)), (rows[second], range(300, N))):
        for epoch in range(len(part) // len(members)):
            assert sorted(part[epoch * len(members) : (epoch + 1) * len(members)]) == list(members)
    assert (take("mixed", N, weights=(1, 0)) < 300).all()


@pytest.mark.parametrize(
    "name, kwargs, words",
    [
        (
            "shuffled",
            {},
            "no sampling named 'shuffled'; did you mean shuffle.* \\(available: shuffle, balanced, p_by_k, mixed",
        ),
        ("shuffle", {"by": "category"}, "'shuffle' has no argument 'by' \\(available: nothing"),
        ("balanced", {"by": "colour"}, "no column 'colour' of ints \\(available: category, source, share"),
        ("balanced", {"by": "none"}, "no column 'none'"),
        ("balanced", {"by": "share"}, "'share' is float64"),
        ("balanced", {"power": 2}, "power is a number from 0 to 1, not 2"),
        ("p_by_k", {"rows_each": 5}, "the batch size 32 is not a multiple of rows_each=5"),
        ("p_by_k", {"by": "label_ids"}, "no column 'label_ids' of ints"),
        ("mixed", {"weights": (1,)}, "there are 1 weights, and 'source' goes from 0 to 1"),
        ("mixed", {"weights": (1, 1, 1)}, "no row has the 'source' 2"),
        ("mixed", {"weights": (1, -1)}, "weights are 0 or more"),
    ],
)
def test_what_does_not_fit_is_refused(name, kwargs, words):
    with pytest.raises(InputError, match=words):
        take(name, 1, **kwargs)


class Source:
    def __len__(self):
        return N

    def __getitem__(self, row):
        return np.full((2, 2, 3), row % 256, np.uint8)


@pytest.mark.parametrize("name, kwargs", EVERY[1:])
def test_batches_are_the_same_for_any_threads_and_processes(name, kwargs):
    def read(**kw):
        kw = {
            "transform": (("resize", {}), ("erasing", {"p": 0.5})),
            "image_size": (2, 2),
            "batch_size": 8,
            "seed": 3,
            "num_steps": 9,
            "num_threads": 0,
            "sampling": name,
            "sampling_kwargs": kwargs,
            **kw,
        }
        return list(pipeline.train_batches(Examples({**COLUMNS, "image": Pictures(Source())}), **kw))

    def joined(batches):
        return {column: np.concatenate([batch[column] for batch in batches]) for column in batches[0]}

    whole = joined(read())
    others = [joined(read(num_threads=3)), joined(read(start_step=0, num_steps=4) + read(start_step=4))]
    for other in others:
        for column in whole:
            np.testing.assert_array_equal(other[column], whole[column], err_msg=column)
    half = joined(read(places=[4, 5, 6, 7]))
    np.testing.assert_array_equal(half["row"].reshape(-1, 4), whole["row"].reshape(-1, 8)[:, 4:])
    assert np.array_equal(whole["category"], CATEGORY[whole["row"]])
