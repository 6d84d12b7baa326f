"""Files whose structure is right and whose numbers are wrong: a picture or a catalogue, a row set aside, or a sentence."""

import pytest

import fuzz_structures


@pytest.mark.parametrize("what", fuzz_structures.WHAT)
def test_two_hundred_files(tmp_path, what):
    done = fuzz_structures.run(what, seed=1, inputs=200, failures=tmp_path)
    assert done["failures"] == {} and len(done["outcomes"]) == 200 and len(set(done["outcomes"])) > 2


@pytest.mark.long
@pytest.mark.parametrize("what", fuzz_structures.WHAT)
def test_ten_thousand_files(tmp_path, what):
    assert fuzz_structures.run(what, seed=0, inputs=10_000, failures=tmp_path)["failures"] == {}
