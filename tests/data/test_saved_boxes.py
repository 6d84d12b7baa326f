"""Boxes on disk: what is written is read, and boxes of other pictures are refused."""

import numpy as np
import pytest

from retrieval_jax.data import saved_boxes
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError


def test_what_is_written_is_read(tmp_path):
    file, boxes = tmp_path / "new" / saved_boxes.FILE, np.random.default_rng(0).random((3, 4)).astype(np.float32)
    ids = Ids.of(["a", "b", "c"]).sha256()
    saved_boxes.save(file, boxes, ids)
    np.testing.assert_array_equal(saved_boxes.load(file, ids), boxes)
    with pytest.raises(InputError, match="of other pictures"):
        saved_boxes.load(file, Ids.of(["a", "c", "b"]).sha256())
    with pytest.raises(InputError, match="run embed again"):
        saved_boxes.load(tmp_path / saved_boxes.FILE, ids)
