"""Architectures as genes and as text, there and back; their operations on paper."""

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.models import architectures
from retrieval_jax.models.architectures import Architecture, Block, Space, Stage, parse

SPACE = Space((16, 24), ((4, 8), (6, 10)), (1, 2), (3, 5), (2, 3))


def test_genes_and_text_go_there_and_back():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(50):
        genes = rng.integers(0, SPACE.sizes)
        found = SPACE.decode(genes)
        assert parse(str(found)) == found and SPACE.decode(SPACE.encode(found)) == found
        seen.add(str(found))
    assert len(seen) > 40
    smallest = SPACE.decode(np.zeros(len(SPACE.sizes), int))
    assert str(smallest) == "16_4-m3x2_6-m3x2" and len(SPACE.encode(smallest)) == len(SPACE.sizes) == 17
    assert str(parse(architectures.EXAMPLE)) == architectures.EXAMPLE
    np.testing.assert_array_equal(smallest.rows((8, 10)), [0, 1, 2, 3, 8, 9, 10, 11, 12, 13])


def test_operations_on_paper():
    found = Architecture(24, (Stage(8, (Block("convnext", 3, 2),)), Stage(10, (Block("mbconv", 5, 3),))))
    stem, down = 36 * 48 * 8, 9 * (4 * 8) * 10
    first, second = 36 * (9 * 8 + 2 * 8 * 16), 9 * (25 * 30 + 2 * 10 * 30)
    assert found.operations() == 2 * (stem + first + down + second)


@pytest.mark.parametrize("text", ["", "24", "24_8-c3", "24_8-x3x2", "a_8-c3x2", "24_-c3x2", "24_8-c3x2_"])
def test_text_that_is_not_an_architecture(text):
    with pytest.raises(InputError, match="is not an architecture: write it as in '32_16-c5x2"):
        parse(text)


def test_another_space_is_refused():
    for text, words in (
        ("32_4-m3x2_6-m3x2", "has the resolution 32: this super-net has 16, 24"),
        ("16_4-m3x2", "has 1 stages: this super-net has 2"),
        ("16_4-m3x2-m3x2-m3x2_6-m3x2", "has the depth 3"),
        ("16_4-m7x2_6-m3x2", "has the kernel 7"),
        ("16_4-m3x4_6-m3x2", "has the expansion 4"),
    ):
        with pytest.raises(InputError, match=words):
            SPACE.encode(parse(text))
