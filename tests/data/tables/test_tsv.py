"""Tab-separated files: quotes that enclose a field are CSV's, every other quote is a character."""

import csv
import io
import random

import pytest

from retrieval_jax.data.tables import tsv


def _records(text):
    return list(tsv.records(io.StringIO(text, newline="")))


CASES = {
    "a quoted word": ('id\ttitle\n1\t"Slim Fit" jeans\n2\that\n', ['1\t"Slim Fit" jeans', "2\that"]),
    "inches": ('id\ttitle\n1\t5" heel\n2\t"5" heel\n', ['1\t5" heel', '2\t"5" heel']),
    "a quote alone": ('id\ttitle\n1\t"\n2\tx\n', ['1\t"', "2\tx"]),
    "an unclosed quote": ('id\ttitle\n1\t"abc\n2\tx\n', ['1\t"abc', "2\tx"]),
    "a quote that a later row closes": ('id\ttitle\n1\t"abc\n2\tx"\n', ['1\t"abc', '2\tx"']),
    "a quoted field": ('id\ttitle\n1\t"a ""b"" c"\n', ['1\ta "b" c']),
    "an empty quoted field": ('id\ttitle\n""\t""\n', ["\t"]),
    "a tab in a quoted field": ('id\ttitle\n"a|b"\tc\n'.replace("|", "\t"), ["a\tb\tc"]),
    "line ends of Windows": ('id\ttitle\r\n1\t"a"\r\n2\tb', ["1\ta", "2\tb"]),
}


@pytest.mark.parametrize("case", CASES)
def test_quotes(case):
    text, rows = CASES[case]
    assert ["\t".join(fields) for _, fields in _records(text)[1:]] == rows


def test_quoted_fields_of_several_lines_are_numbered_by_their_last_line():
    text = 'id\ttitle\n"one\n\ntwo"\t1\n3\t"four\nfive"\n6\t7\n'
    expected = [(1, ["id", "title"]), (4, ["one\n\ntwo", "1"]), (6, ["3", "four\nfive"]), (7, ["6", "7"])]
    assert _records(text) == expected


def test_what_a_spreadsheet_writes_is_read_back():
    draw = random.Random(0)
    for _ in range(300):
        rows = [["".join(draw.choices('ab" \t\n', k=draw.randrange(6))) + "x" for _ in range(3)] for _ in range(4)]
        text = io.StringIO(newline="")
        csv.writer(text, "excel-tab").writerows([["one", "two", "three"], *rows])
        # Only a field with a line break may have more lines; one whose lines look like rows is not a field.
        if not any("\n" in cell for row in rows for cell in row):
            assert [fields for _, fields in _records(text.getvalue())[1:]] == rows


def test_any_text_ends_with_every_line_in_one_record():
    draw = random.Random(1)
    for _ in range(500):
        text = "".join(draw.choices('a"\t\n\r', k=draw.randrange(40)))
        found = _records(text)
        lines = len(list(io.StringIO(text, newline="")))
        assert [line for line, _ in found] == sorted({line for line, _ in found})
        assert (found[-1][0] if found else 0) == lines
