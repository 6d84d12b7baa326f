"""Small tables that ask for gigabytes or minutes are refused with a sentence, in little memory and time."""

import resource
import time

import polars as pl
import pytest

import table_bombs
from retrieval_jax.data import children, parquet
from retrieval_jax.data.tables import table_files
from retrieval_jax.errors import InputError, Shortage

WANTED = {"id": "id", "title": "title", "image": "image"}


def _refused(folder, name, content=None) -> str:
    if content is not None:
        (folder / name).write_bytes(content)
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=name) as caught:
        table_files.read("train", folder, [name], WANTED)
    assert time.process_time() - begin < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs more than 2,048 MiB of memory"),
        ({"columns": 200}, "needs more than 2,048 MiB of memory"),
        ({"row_groups": 300}, "rows"),
        ({"values": 10, "promised": 2**40}, "rows"),
        ({"values": 10, "columns": 12_000}, "12,000 columns, at most 10,000"),
    ],
)
def test_parquet_that_asks_for_gigabytes(tmp_path, options, says):
    assert says in _refused(tmp_path, "train.parquet", table_bombs.parquet(**options))


def test_nulls_that_take_no_memory_until_they_are_text(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MEMORY", 2**28)
    pl.DataFrame({name: pl.Series([None] * 20_000_000, dtype=pl.Null) for name in WANTED}).write_parquet(
        tmp_path / "n.parquet"
    )
    assert "20,000,000 rows need more than" in _refused(tmp_path, "n.parquet")


def test_parquet_comes_back_as_it_was(tmp_path):
    frame = pl.DataFrame({"id": ["a", None, "c"], "x": [1.5, None, 2.0], "list": [["a"], [], None], "when": [1, 2, 3]})
    frame = frame.with_columns(pl.col("when").cast(pl.Date), category=pl.col("id").cast(pl.Categorical))
    frame.write_parquet(tmp_path / "a.parquet")
    assert parquet.names(tmp_path / "a.parquet") == frame.columns
    assert parquet.read(tmp_path / "a.parquet").equals(frame)
    assert parquet.read(tmp_path / "a.parquet", ["x"]).equals(frame.select("x"))
    long = pl.DataFrame({"id": [str(number) for number in range(2 * parquet._ROWS + 3)]})
    long.write_parquet(tmp_path / "b.parquet")
    assert parquet.read(tmp_path / "b.parquet").equals(long)
    pl.DataFrame({"id": pl.Series([], dtype=pl.String)}).write_parquet(tmp_path / "c.parquet")
    assert parquet.read(tmp_path / "c.parquet").shape == (0, 1)


def test_lack_of_memory_is_not_a_bad_parquet_file(tmp_path, monkeypatch):
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "a.parquet")

    def lacking(*_, **__):
        raise MemoryError("out of memory: the process that read it was killed, as a machine out of memory does")
        yield

    monkeypatch.setattr(children, "call", lacking)
    with pytest.raises(Shortage, match="a.parquet could not be read .out of memory"):
        parquet.names(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["line.csv", "line.tsv", "line.jsonl"])
def test_a_line_of_two_gigabytes(tmp_path, name):
    with open(tmp_path / name, "wb") as file:  # sparse: takes no disk
        file.write(
            {"csv": b'id,title,image\n1,"', "tsv": b"id\ttitle\timage\n1\t", "jsonl": b'{"id": "1", "title": "'}[
                name[5:]
            ]
        )
        file.write(b"x" * 100)
        file.seek(2**31)
        file.write(b"\n")
    assert "a line of more than 32 Mi characters" in _refused(tmp_path, name)


def test_very_many_columns_fields_and_names(tmp_path):
    names = ",".join(f"column{number}" for number in range(20_000))
    assert "20,003 columns, at most 10,000" in _refused(tmp_path, "a.csv", f"id,title,image,{names}\n1,2,3\n".encode())
    many = "".join(f'{{"n{number}": 1}}\n' for number in range(11_000))
    assert "more than 10,000 names" in _refused(tmp_path, "b.jsonl", many.encode())
    assert "recursion" in _refused(tmp_path, "c.jsonl", b'{"id": ' + b"[" * 1_000_000)
    assert "never be closed" in _refused(tmp_path, "d.csv", b'id,title,image\n1,"' + b"x\n" * 9_000_000)


def test_rows_with_very_many_quoted_lines_take_linear_time(tmp_path):
    row = ",".join('"a\nb"' for _ in range(3000))
    names = ",".join(f"c{number}" for number in range(2997))
    (tmp_path / "a.csv").write_text(f"id,title,image,{names}\n" + f"{row}\n" * 20)
    begin = time.process_time()
    assert len(table_files.read("train", tmp_path, ["a.csv"], WANTED)) == 20
    assert time.process_time() - begin < 10
