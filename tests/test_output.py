"""What is printed, and what a spreadsheet opens: control characters, markup, formulas, odd encodings, closed pipes."""

import csv
import io
import logging
import os
import subprocess
import sys

import hypothesis
import pytest
import rich.table
import tqdm
from hypothesis import strategies

import repository
from retrieval_jax import output
from retrieval_jax.data.tables import left_out, set_aside_file
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import tables

HOSTILE = {
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x1b[2J\x1b[31mred": r"\x1b[2J\x1b[31mred",
    "\x9b31m": r"\x9b31m",
    "\x7f\x00\x08": r"\x7f\x00\x08",
    "abc\u202egpj.exe": r"abc\u202egpj.exe",
    "\u2066\u2069\u061c": r"\u2066\u2069\u061c",
    "\ud800": r"\ud800",
    "a\u2028b": r"a\u2028b",
    "over\rwritten": r"over\rwritten",
    "two\nlines\tand a tab": r"two\nlines\tand a tab",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_become_visible(text):
    assert output.visible(text) == HOSTILE[text]
    assert output.visible(text, lines=True) == HOSTILE[text].replace(r"\n", "\n").replace(r"\t", "\t")


@pytest.mark.parametrize("text", ["Größe 42", "שלום \u200f", "👩\u200d👩\u200d👧", "किताब", "e\u0301", "\\x1b", ""])
def test_ordinary_text_is_left_alone(text):
    assert output.visible(text) == text


def test_everything_that_is_printed_is_visible(capsys):
    with output.shown():
        print("\x1b[2Jcleared", "two\nlines")
        print("\x1b]52;c;ZXZpbA==\x07", file=sys.stderr)
        for _ in tqdm.tqdm(range(2), desc="progress"):
            pass
    printed = capsys.readouterr()
    assert printed.out == "\\x1b[2Jcleared two\nlines\n"
    assert r"\x1b]52" in printed.err and "\x1b" not in printed.err and "\rprogress" in printed.err


def test_log_records_are_visible(caplog):
    caplog.handler.addFilter(output.clean_record)
    logging.getLogger("x").warning("title %s", "\x1b[2J")
    assert caplog.messages == [r"title \x1b[2J"]


@pytest.mark.parametrize(
    "name", ["[/b]", "[red]", "[new]", "[link=file:///etc/passwd]x[/link]", ":smile:", "[bold]b[/]"]
)
def test_names_in_tables_are_not_markup(capsys, name):
    table = rich.table.Table(title=name)
    table.add_column(name)
    table.add_row(name)
    tables.show(table)
    assert capsys.readouterr().out.count(name) == 3


def test_slices_of_categories_that_look_like_markup(capsys):
    score = {"num_scored": 3, "mar@10_capped": 0.5, "recall@1": 0.1, "ndcg@10": 0.2}
    row = {"model": "trained", "stage": "cosine", "slices": {"category top": {"[/b]": score, "[new]": score}}}
    tables.print_slices(row)
    printed = capsys.readouterr().out
    assert "[/b]" in printed and "[new]" in printed


# -------------------------------------------------------------------------------------------------------- spreadsheets

FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1",
    '=HYPERLINK("http://127.0.0.1/"&B1)',
    "a;=1",
    "a\n=1",
    "a; =1",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_is_not_a_formula(text):
    for delimiter in (",", ";", "\t"):
        content = io.StringIO()
        csv.writer(content).writerow([output.cell(text)])
        for record in csv.reader(io.StringIO(content.getvalue(), newline=""), delimiter=delimiter):
            assert not any(field.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "＝")) for field in record), (
                record
            )
    assert output.from_cell(output.cell(text)) == text


@pytest.mark.parametrize("text", ["red", "a-b", "a=b", "1;2", "'quoted'", "'", "", "see -1"])
def test_other_cells_are_left_alone(text):
    assert output.cell(text) == output.from_cell(text) == text
    assert output.cell(-3) == -3


@hypothesis.given(strategies.text(alphabet="=+-@'\t\r\n; ax＝", max_size=12))
@hypothesis.settings(max_examples=500, deadline=None)
def test_every_cell_is_read_as_it_was(text):
    assert output.from_cell(output.cell(text)) == text


def test_rows_set_aside_are_not_formulas(tmp_path):
    entry = {
        "file": "a.csv",
        "row": 2,
        "id": "=cmd|'/C calc'!A0",
        "reason": "empty title",
        "sentence": "a.csv, row 2: x",
    }
    set_aside_file.write(tmp_path / "set_aside.csv", [entry])
    with open(tmp_path / "set_aside.csv", newline="") as file:
        (found,) = csv.DictReader(file)
    assert found["id"] == "'=cmd|'/C calc'!A0" and found["row"] == "2"


def test_the_list_to_leave_out_is_read_as_it_was_written(tmp_path):
    with open(tmp_path / "leave_out.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("split", "id", "reason"), *(("train", output.cell(i), "") for i in ("=a", "'b", "c"))]
        )
    assert [one.id for one in left_out.read(str(tmp_path / "leave_out.csv"))] == ["=a", "'b", "c"]


# ------------------------------------------------------------------------------------------------- encodings and pipes

CODE = """
import sys
from retrieval_jax import output, errors
with output.shown():
    with errors.spoken():
        for _ in range({times}):
            print("gr\\xf6\\xdfe \\u05e9 \\x1b[2J \\ud800", "x" * 100)
        {then}
"""


def _run(times=1, then="", **options):
    code = CODE.format(times=times, then=then)
    env = os.environ | {"PYTHONPATH": str(repository.ROOT)} | options.pop("env", {})
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, env=env, **options)


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "cp1252"}]
)
def test_an_output_that_is_not_utf_8(env):
    done = _run(then="raise errors.InputError('gr\\xf6\\xdfe \\ud800')", env=env, stdout=subprocess.PIPE)
    assert done.returncode == 2 and done.stderr.startswith(b"error: gr") and b"Traceback" not in done.stderr
    assert done.stdout.startswith(b"gr") and b"\x1b" not in done.stdout


def test_a_closed_pipe_ends_a_command_without_a_trace():
    read, write = os.pipe()
    os.close(read)
    done = _run(times=1000, stdout=write)
    os.close(write)
    assert done.returncode == 141 and done.stderr == b""


def test_an_error_after_the_pipe_was_closed():
    read, write = os.pipe()
    os.close(read)
    done = _run(then="raise errors.InputError('wrong')", stdout=write)
    os.close(write)
    assert done.returncode in (2, 141) and b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_on_a_full_disk():
    with open("/dev/full", "w") as full:
        done = _run(stdout=full)
    assert done.returncode == 1 and done.stderr == b"error: the output could not be written (No space left on device)\n"


def test_no_output_at_all():
    code = CODE.format(times=1, then="raise errors.InputError('wrong')")
    env = os.environ | {"PYTHONPATH": str(repository.ROOT)}
    for closed, status in ((">&-", 2), (">&- 2>&-", 2)):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], stderr=subprocess.PIPE, env=env
        )
        assert done.returncode == status and b"Traceback" not in done.stderr


def test_streams_are_given_back():
    before = sys.stdout, sys.stderr
    with pytest.raises(InputError), output.shown():
        raise InputError("wrong")
    assert (sys.stdout, sys.stderr) == before
