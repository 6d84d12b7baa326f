"""Rows of a shared table of texts as a column of a batch."""

import numpy as np
import pytest

from retrieval_jax.data import pipeline
from retrieval_jax.data.examples import Examples, Ragged, RaggedRows
from retrieval_jax.errors import InputError

TABLE = Ragged.of([[1, 2, 3], [], [4]])


def test_a_batch_holds_the_rows_of_the_table_with_their_mask():
    examples = Examples(
        {"one": RaggedRows(TABLE, np.array([2, 0])), "two": RaggedRows(TABLE, np.array([[0, -1], [2, 1]]))}
    )
    batch = next(
        pipeline.train_batches(
            examples, transform=(), image_size=(1, 1), batch_size=2, seed=0, num_steps=1, places=[0, 1, 2]
        )
    )
    assert batch["one"].shape == (3, 3) and batch["two"].shape == (3, 2, 3) and not batch["_mask"][2]
    for place, row in enumerate(batch["row"]):
        if row < 0:
            assert not batch["one_mask"][place].any() and not batch["two_mask"][place].any()
            continue
        want = [[4], [1, 2, 3]][row]
        assert batch["one"][place][batch["one_mask"][place]].tolist() == want
        lists = [batch["two"][place, k][batch["two_mask"][place, k]].tolist() for k in range(2)]
        assert lists == [[[1, 2, 3], []], [[4], []]][row]
    zeros = pipeline.zeros(examples, (1, 1), 2)
    assert zeros["two"].shape == (2, 2, 3) and zeros["two_mask"].all()


def test_rows_outside_the_table_are_refused():
    with pytest.raises(InputError, match="run from 0 to 3; it has 3"):
        RaggedRows(TABLE, np.array([0, 3]))
    with pytest.raises(InputError, match=r"ints \[n\] or \[n, k\]"):
        RaggedRows(TABLE, np.array([0.5]))
