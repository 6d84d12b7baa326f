"""Terms of a query that are conditions: which are, which stay words, and what is refused."""

import subprocess
import sys

import pytest

from retrieval_jax import terms
from retrieval_jax.errors import InputError

FIELDS = {"colour": ["red", "Navy Blue"], "pattern": ["striped", "plain"], "size": ["10", "12"], "price": []}


@pytest.mark.parametrize(
    "words, rest, required, excluded",
    [
        ("a  shirt -striped", "a shirt", (), (("pattern", "striped"),)),
        ("SIZE:10 shirt", "shirt", (("size", "10"),), ()),
        ("size 10:30", "size 10:30", (), ()),
        ("like https://shop.example/a?b=c -red", "like https://shop.example/a?b=c", (), (("colour", "red"),)),
        ("fit:slim note:long", "fit:slim note:long", (), ()),  # no fields of this index, nor near misses
        ('brand:"Acme', 'brand:"Acme', (), ()),
        ("red -red-striped", None, (), ()),
    ],
)
def test_only_known_fields_and_minus_make_conditions(words, rest, required, excluded):
    if rest is None:
        with pytest.raises(InputError, match="the value 'red-striped', which does not exist"):
            terms.split(words, FIELDS)
        return
    assert terms.split(words, FIELDS) == terms.Words(rest, required, excluded)


@pytest.mark.parametrize(
    "words, says",
    [
        ("COLOR:red", "names the field 'COLOR', which does not exist; did you mean colour"),
        ("-fit:slim", "names the field 'fit', which does not exist"),
        ("-seen", r"the value 'seen', which does not exist \(available: 10, 12, Navy Blue, plain, red, striped\)"),
        ("price:100", "names a value of 'price', which holds numbers or nothing: give a range"),
        ("colour:red -colour:red", "colour 'red' is required and excluded"),
        ("a red shirt -red", "ask for 'red' and exclude it"),
    ],
)
def test_near_misses_and_contradictions_are_refused(words, says):
    with pytest.raises(InputError, match=says):
        terms.split(words, FIELDS)


def test_many_values_are_not_listed():
    with pytest.raises(InputError) as error:
        terms.split("-v1000", {"code": [f"v{number}" for number in range(100)]})
    assert "did you mean" in str(error.value) and "available" not in str(error.value)


def test_the_module_loads_no_index_and_no_arrays_library():
    code = "import sys, retrieval_jax.terms; print(sorted({'jax', 'faiss', 'pyroaring'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words, spoken",
    [
        ("a shirt -striped", "a shirt"),
        ('-"navy blue", not red', "not red"),
        ("a t-shirt, colour:red", "a t-shirt, colour:red"),
        ("red  dress", "red  dress"),
        ("size -10 to -5, black --- white", "size -10 to -5, black --- white"),
    ],
)
def test_what_a_network_reads_is_without_what_is_excluded(words, spoken):
    assert terms.spoken(words) == spoken
