"""Every fault that real catalogues have, as docs/real_catalogues.md lists them: repaired, set aside or refused.

Longer than 400 lines: the cases of docs/real_catalogues.md in one table, which a test compares with the page.
"""

import csv
import os
import re
import unicodedata

import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict

import fuzz
import odd_pictures
from retrieval_jax import embed, mine
from retrieval_jax.attributes import vocabulary as vocabulary_lib
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.settings import base

PAGE = fuzz.ROOT / "docs" / "real_catalogues.md"
JPEG = odd_pictures.good()["jpeg.jpg"]
HEADER = ["id", "title", "image", "type"]


def _csv(rows, delimiter=",", header=HEADER, end="\n") -> str:
    lines = [header, *rows]
    quoted = [
        ['"' + cell.replace('"', '""') + '"' if re.search(f'["\r\n{delimiter}]', cell) else cell for cell in row]
        for row in lines
    ]
    return "".join(delimiter.join(row) + end for row in quoted)


def _shop(root, content: bytes | str, name="train.csv"):
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    (root / "pictures" / "a.jpg").write_bytes(JPEG)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {
        "root": str(root),
        "files": {"train": name},
        "image_root": "pictures",
        "columns": {"title": "title", "categories": ("type",)},
    }


def _load(kwargs, **more):
    loaded = loading.load({"source": "table", "kwargs": kwargs | {"max_bad_share": 1.0} | more})
    _reconcile(loaded)
    return loaded


def _reconcile(loaded):
    """Checks that every row that was read is kept or listed, per file and in total."""
    for name, count in loaded.counts.items():
        for part in [count, *count["files"].values()]:
            assert part["read"] == part["kept"] + sum(part["set_aside"].values())
        assert count["read"] == sum(part["read"] for part in count["files"].values())
        if name in ("train", "val", "query", "gallery"):
            split = loaded.split(name)
            assert count["kept"] == len(split) == len(split.ids) == len(split.images)
    listed = {}
    for entry in loaded.set_aside:
        assert entry["sentence"].startswith(f"{entry['file']}, row {entry['row']}") and len(entry["sentence"]) < 1000
        listed[entry["file"], entry["reason"]] = listed.get((entry["file"], entry["reason"]), 0) + 1
    assert listed == {
        (file, reason): number
        for count in loaded.counts.values()
        for file, part in count["files"].items()
        for reason, number in part["set_aside"].items()
    }


# ------------------------------------------------------------------------------------------- one catalogue, all faults

NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
# What a row is -> (the row, the reason it is set aside for, or None, what its sentence says or the title that is kept).
ROWS = {
    "plain": (["p1", "red shoes", "a.jpg", "3"], None, "red shoes"),
    "comma and quotes in a title": (["p2", 'a "red", hat', "a.jpg", "3"], None, 'a "red", hat'),
    "line breaks in a title": (["p3", "two\r\nlines\nthree", "a.jpg", "7"], None, "two\r\nlines\nthree"),
    "right-to-left text": (["p4", "חולצה \u200fאדומה كتاب", "a.jpg", "7"], None, "חולצה \u200fאדומה كتاب"),
    "emoji": (["p5", "👟 shoes 👩‍👩‍👧", "a.jpg", "7"], None, "👟 shoes 👩‍👩‍👧"),
    "zero-width characters in a title": (["p6", "red\u200b shoes\u2060", "a.jpg", "7"], None, "red\u200b shoes\u2060"),
    "control characters in a title": (["p7", "red\x07\x00shoes", "a.jpg", "7"], None, "red\x07\x00shoes"),
    "id with leading zeros": (["007", "shoes", "a.jpg", "7"], None, "shoes"),
    "id with a float's zero": (["7.0", "shoes", "a.jpg", "7"], None, "shoes"),
    "id with a spreadsheet's apostrophe": (["'0012", "shoes", "a.jpg", "7"], None, "shoes"),
    "id as a spreadsheet's formula": (['="0013"', "shoes", "a.jpg", "7"], None, "shoes"),
    "id with blanks around": ([" 14\xa0", "shoes", "a.jpg", "7"], None, "shoes"),
    "ids equal but for case": (["P1", "shoes", "a.jpg", "7"], None, "shoes"),
    "ids equal but for Unicode form, composed": ([NFC, "shoes", "a.jpg", "7"], None, "shoes"),
    "ids equal but for Unicode form, decomposed": ([NFD, "shoes", "a.jpg", "7"], None, "shoes"),
    "category stored as a float": (["c1", "shoes", "a.jpg", "12.0"], None, "shoes"),
    "category below zero": (["c2", "shoes", "a.jpg", "-1"], None, "shoes"),
    "category with blanks around": (["c3", "shoes", "a.jpg", " 12 "], None, "shoes"),
    "path with backslashes": (["i1", "shoes", "sub\\b.jpg", "7"], None, "shoes"),
    "path with a dot": (["i2", "shoes", "./a.jpg", "7"], None, "shoes"),
    "link inside the folder": (["i3", "shoes", "inner.jpg", "7"], None, "shoes"),
    "title of 10,000 characters": (["t1", "x" * 10_000, "a.jpg", "7"], None, "x" * 10_000),
    "empty id": (["", "shoes", "a.jpg", "7"], "empty id", "give every listing an id"),
    "blank in id": (["a b", "shoes", "a.jpg", "7"], "blank in id", "'a b' contains a blank"),
    "invisible character in id": (["p\u200b1", "shoes", "a.jpg", "7"], "invisible character in id", r"'p\u200b1'"),
    "NUL in id": (["p\0", "shoes", "a.jpg", "7"], "invisible character in id", r"'p\x00'"),
    "endless id": (["x" * 2000, "shoes", "a.jpg", "7"], "id too long", "2,000 characters, at most 1,000"),
    "id rounded by a spreadsheet": (["1.23E+12", "shoes", "a.jpg", "7"], "rounded id", "export the column as text"),
    "id as a date": (["5-Mar", "shoes", "a.jpg", "7"], "date in place of the id", "is a date that a spreadsheet made"),
    "id NULL": (["NULL", "shoes", "a.jpg", "7"], "empty id", "the id is 'NULL', which means empty"),
    "duplicate id": (["p1", "shoes", "a.jpg", "7"], "duplicate id", "the same as in row 2 of train.csv"),
    "id of the gallery": (["g1", "shoes", "a.jpg", "7"], None, "shoes"),
    "null title": (["n1", "", "a.jpg", "7"], "empty title", "the title is empty"),
    "blank title": (["n2", " \u200b\xa0\t", "a.jpg", "7"], "empty title", "the title is empty"),
    "title NULL": (["n3", "NULL", "a.jpg", "7"], "empty title", "the title is 'NULL', which means empty"),
    "title nan": (["n4", " NaN", "a.jpg", "7"], "empty title", "which means empty"),
    "title #N/A": (["n5", "#N/A", "a.jpg", "7"], "empty title", "which means empty"),
    "title of a megabyte": (["t2", "word " * 200_000, "a.jpg", "7"], "title too long", "1,000,000 characters, at most"),
    "no category": (["c4", "shoes", "a.jpg", ""], "empty category", "type is empty"),
    "category NULL": (["c5", "shoes", "a.jpg", "NULL"], "empty category", "type is 'NULL', which means empty"),
    "repeated header": (HEADER, "repeated header", "it repeats the header"),
    "too many fields": (["f1", "red", "shoes", "a.jpg", "7"], "wrong number of fields", "has 5 fields, the header 4"),
    "too few fields": (["f2", "shoes"], "wrong number of fields", "has 2 fields, the header 4"),
    "no path": (["i4", "shoes", " ", "7"], "empty image path", "the path of the picture is empty"),
    "missing file": (["i5", "shoes", "none.jpg", "7"], "missing image file", "none.jpg (looked in /"),
    "name in other case": (["i6", "shoes", "A.JPG", "7"], "missing image file", "(there is 'a.jpg' in /"),
    "folder in other case": (["i7", "shoes", "Sub/B.jpg", "7"], "missing image file", "(there is 'sub/b.jpg' in /"),
    "name with percent signs": (["i8", "shoes", "my%20shoe.jpg", "7"], "missing image file", "there is 'my shoe.jpg'"),
    "name with blanks around": (["i9", "shoes", " a.jpg", "7"], "missing image file", "(there is 'a.jpg' in /"),
    "name in other Unicode form": (["i10", "shoes", f"{NFD}.jpg", "7"], "missing image file", f"there is '{NFC}.jpg'"),
    "address": (["i11", "shoes", "https://shop/a.jpg", "7"], "missing image file", "it is an address; fetch"),
    "endless path": (["i12", "shoes", "x" * 5000, "7"], "missing image file", "File name too long"),
    "path of a folder": (["i13", "shoes", "sub", "7"], "not an image file", "a folder or device"),
    "path of a pipe": (["i14", "shoes", "pipe.jpg", "7"], "not an image file", "a folder or device"),
    "path upwards": (["i15", "shoes", "../secret.jpg", "7"], "path leaves the root", "it has '..'"),
    "path upwards with backslashes": (["i16", "shoes", "..\\secret.jpg", "7"], "path leaves the root", "it has '..'"),
    "absolute path": (["i17", "shoes", "/etc/passwd", "7"], "path leaves the root", "it is absolute"),
    "path with a drive": (["i18", "shoes", "C:\\a.jpg", "7"], "path leaves the root", "it is absolute"),
    "NUL in a path": (["i19", "shoes", "a\0.jpg", "7"], "path leaves the root", "it has a NUL character"),
    "link elsewhere": (["i20", "shoes", "outer.jpg", "7"], "path leaves the root", "a link leads elsewhere"),
    "file of a gigabyte": (["i21", "shoes", "huge.jpg", "7"], "image too large", "bytes, at most 1,073,741,824"),
}


MENDED_IDS = {"7.0": "7", "'0012": "0012", '="0013"': "0013", " 14\xa0": "14"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A catalogue of all faults at once: (kwargs, what is expected of every row of train, rows of the gallery)."""
    root = tmp_path_factory.mktemp("shops") / "shop"
    pictures = root / "pictures"
    (pictures / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg", "my shoe.jpg", f"{NFC}.jpg", "../secret.jpg"):
        (pictures / name).write_bytes(JPEG)
    (pictures / "inner.jpg").symlink_to("a.jpg")
    (pictures / "outer.jpg").symlink_to(root / "secret.jpg")
    os.mkfifo(pictures / "pipe.jpg")
    with open(pictures / "huge.jpg", "wb") as file:
        file.truncate(2**30 + 1)
    expected = dict(ROWS)
    for name, data in odd_pictures.good().items():
        (pictures / name).write_bytes(data)
        expected[name] = ([f"good/{name}", "a picture", name, "7"], None, "a picture")
    for name, (data, reason) in odd_pictures.bad().items():
        (pictures / name).write_bytes(data)
        expected[name] = ([f"bad/{name}", "a picture", name, "7"], reason, name)
    for name, data in odd_pictures.damaged_inside().items():
        (pictures / name).write_bytes(data)
    text = "\ufeff" + _csv([row for row, _, _ in expected.values()], end="\r\n")
    text += "\r\n,,,\r\nu1,caf\udce9,a.jpg,7\r\nu2,trailing,a.jpg,7,,\r\n\r\n"
    (root / "train.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    names = [*odd_pictures.good(), *odd_pictures.bad()]
    listed = [[f"g{row}", name] for row, name in enumerate(names)]
    (root / "gallery.csv").write_text(_csv(listed, header=["id", "image"]))
    (root / "query.csv").write_text(_csv([["q1", "a.jpg"], ["q2", "cut.png"]], header=["id", "image"]))
    (root / "truth.csv").write_text("query,gallery\nq1,g1 g0\nq2,g0\nq1.0,g1\nq1,G1\n")
    kwargs = {
        "root": str(root),
        "files": {"train": "train.csv", "query": "query.csv", "gallery": "gallery.csv"},
        "columns": {"title": "title", "categories": ("type",)},
        "image_root": "pictures",
        "ground_truth": "truth.csv",
    }
    return kwargs, expected, names


@pytest.fixture(scope="module")
def loaded(shop):
    """The catalogue of all faults, with the odd row refused by nobody."""
    return _load(shop[0])


def test_every_row_of_the_catalogue_of_all_faults_is_kept_or_named(shop, loaded):
    _, expected, names = shop
    kept = dict(zip(loaded.train.ids, loaded.train.titles, strict=True))
    wanted = {MENDED_IDS.get(row[0], row[0]): title for row, reason, title in expected.values() if reason is None}
    assert kept == wanted | {"u2": "trailing"}  # that row has two commas too many at its end
    line, found = 2, {entry["row"]: entry for entry in loaded.set_aside if entry["file"] == "train.csv"}
    for case, (row, reason, says) in expected.items():
        if reason is not None:
            entry = found.pop(line)
            assert (entry["reason"], entry["id"]) == (reason, row[0]), case
            assert says in entry["sentence"], case
        line += 1 + sum(cell.count("\n") for cell in row)
    line += 2  # a blank line and one of commas alone do not count as rows
    assert found.pop(line)["reason"] == "not UTF-8 text" and not found
    assert loaded.counts["train"]["read"] == len(expected) + 2
    fallen = [entry for entry in loaded.set_aside if entry["file"] == "gallery.csv"]
    assert [entry["row"] - 2 for entry in fallen] == [names.index(name) for name in odd_pictures.bad()]


def test_categories_with_holes_are_numbered_by_their_value(loaded):
    assert loaded.category_names == (["-1", "3", "7", "12"],)
    codes = dict(zip(loaded.train.ids, loaded.train.categories[:, 0].tolist(), strict=True))
    assert (codes["p1"], codes["p3"], codes["c1"], codes["c2"], codes["c3"]) == (1, 2, 3, 0, 3)


def test_categories_of_one_value_are_numbered_alike_in_every_run(tmp_path):
    names = ["0", "00", "000", "01", "1", "001", "07", "7", "007"]
    kwargs = _shop(tmp_path, _csv([[f"p{row}", "shoes", "a.jpg", name] for row, name in enumerate(names)]))
    for _ in range(5):
        assert _load(kwargs).category_names == (["0", "00", "000", "001", "01", "1", "007", "07", "7"],)


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.parquet"])
def test_a_column_may_be_mapped_twice(tmp_path, name):
    frame = pl.DataFrame({"image": ["a.jpg"], "title": ["shoes"]})
    kwargs = _shop(tmp_path, {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": str}[name[6:]](), name)
    if name.endswith("parquet"):
        frame.write_parquet(tmp_path / name)
    found = _load(kwargs, columns={"id": "image", "title": "title", "categories": ("title", "title")})
    assert found.train.ids == ["a.jpg"] and found.category_names == (["shoes"], ["shoes"])


def test_unknown_ids_of_the_truth_suggest_near_ones(loaded):
    sentences = [entry["sentence"] for entry in loaded.set_aside if entry["file"] == "truth.csv"]
    assert [sentence.split(": ")[0] for sentence in sentences] == [
        f"truth.csv, row {n} (id {one})" for n, one in ((3, "q2"), (4, "q1.0"), (5, "q1"))
    ]
    assert "'q1.0' is not in the query split (there is 'q1')" in sentences[1]
    assert "'G1' is not in the gallery split (there is 'g1')" in sentences[2]
    assert loaded.truth.indptr.tolist() == [0, 2]


def test_mining_and_embedding_have_a_row_for_every_row_that_was_kept(shop, loaded, tmp_path):
    config = base.defaults()
    config.data = ConfigDict(
        {"source": "table", "kwargs": shop[0] | {"max_bad_share": 1.0}, "image_size": (16, 16), "cache_bytes": 0}
    )
    config.mine.threshold = 1
    config.embed.models = ("histogram",)
    config.embed.shard_rows = 16
    summary = mine.run(config, tmp_path)
    assert summary["titles"] == {"train": len(loaded.train)}
    assert summary["rows"]["train"] == {key: loaded.counts["train"][key] for key in ("read", "kept", "set_aside")}
    indptr, _ = vocabulary_lib.load_targets(tmp_path / "attributes" / "train.npz", summary["vocabulary_hash"])
    assert len(indptr) == len(loaded.train) + 1
    embed.run(config, tmp_path)
    for name in ("query", "gallery"):
        made = Embeddings.load(tmp_path / "embeddings" / "histogram" / name)
        assert len(made) == loaded.counts[name]["kept"] and list(made.ids) == list(loaded.split(name).ids)
        assert np.isfinite(made.block(0, len(made))).all()
    with open(tmp_path / "set_aside.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(loaded.set_aside)


def test_a_catalogue_with_a_fault_is_refused_by_default(shop):
    with pytest.raises(InputError, match="too many bad rows") as caught:
        loading.load({"source": "table", "kwargs": shop[0]})
    assert len(str(caught.value)) < 10_000


# ----------------------------------------------------------------------------------------------- the same, other files

TABLE = [["p1", "red shoes", "a.jpg", "3"], ["p2", "", "a.jpg", "3"], ["p3", "blue hat", "a.jpg", "12"]]


def _assert_table(loaded, row=3):
    assert loaded.train.ids == ["p1", "p3"] and loaded.train.titles == ["red shoes", "blue hat"]
    assert loaded.category_names == (["3", "12"],)
    assert [(entry["row"], entry["reason"]) for entry in loaded.set_aside] == [(row, "empty title")]


REPAIRED = {
    "byte-order mark": ("\ufeff" + _csv(TABLE), 3),
    "UTF-16 with its mark": (_csv(TABLE).encode("utf-16"), 3),
    "UTF-16 of the other order": (b"\xfe\xff" + _csv(TABLE).encode("utf-16-be"), 3),
    "UTF-32 with its mark": (_csv(TABLE).encode("utf-32"), 3),
    "line ends of Windows": (_csv(TABLE, end="\r\n"), 3),
    "line ends of old Macs": (_csv(TABLE, end="\r"), 3),
    "semicolons": (_csv(TABLE, ";"), 3),
    "tabs in a .csv": (_csv(TABLE, "\t"), 3),
    "bars": (_csv(TABLE, "|"), 3),
    "Excel's sep= line": ("sep=;\n" + _csv(TABLE, ";"), 4),
    "blank lines before the header": ("\n\n" + _csv(TABLE), 5),
    "blank lines and commas at the end": (_csv(TABLE) + "\n,,,\n  \n\n", 3),
    "blanks around the names": (_csv(TABLE, header=["id ", " title", "\ufeffimage", "type\xa0"]), 3),
    "commas at every line's end": (_csv([[*row, "", ""] for row in TABLE], header=[*HEADER, "", ""]), 3),
    "shuffled columns": (_csv([row[::-1] for row in TABLE], header=HEADER[::-1]), 3),
    "more columns, one of them twice": (_csv([[*row, "1", "2"] for row in TABLE], header=[*HEADER, "x", "x"]), 3),
    "no line break at the end": (_csv(TABLE)[:-1], 3),
}


@pytest.mark.parametrize("case", REPAIRED)
def test_files_that_are_repaired(tmp_path, case):
    content, row = REPAIRED[case]
    _assert_table(_load(_shop(tmp_path, content)), row)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "shift_jis"])
def test_a_named_encoding(tmp_path, encoding):
    title = {"cp1252": "café €", "utf-16-le": "café 中", "shift_jis": "赤い靴"}[encoding]
    content = _csv([["p1", title, "a.jpg", "3"], ["p2", "", "a.jpg", "3"]]).encode(encoding)
    assert _load(_shop(tmp_path, content), encoding=encoding).train.titles == [title]
    records = "".join(f'{{"id": "{n}", "title": "{title}", "image": "a.jpg", "type": 3}}\n' for n in "ab")
    assert _load(_shop(tmp_path, records.encode(encoding), "t.jsonl"), encoding=encoding).train.titles == [title] * 2


def test_latin_1_rows_are_set_aside_with_the_remedy(tmp_path):
    content = _csv([*TABLE, ["p4", "café", "a.jpg", "3"]]).encode("cp1252")
    found = _load(_shop(tmp_path, content)).set_aside[-1]
    assert (found["row"], found["reason"]) == (5, "not UTF-8 text")
    assert (
        "save the file as UTF-8, or name its encoding, such as config.data.kwargs.encoding = 'cp1252'"
        in found["sentence"]
    )


def _gzip(text: str) -> bytes:
    import gzip

    return gzip.compress(text.encode())


SWALLOWED = 'id,title,image,type\np1,"5 inch,a.jpg,3\np2,hat,a.jpg,3\np3,"7,a.jpg,3\np4,x,a.jpg,3\n'
REFUSED = {
    "empty file": ("train.csv", b"", "the file is empty; its first line must name"),
    "header alone": ("train.csv", "id,title,image,type\n", "there are no rows"),
    "blank lines alone": ("train.csv", "\n\n ,,\n", "the file is empty"),
    "missing column": ("train.csv", _csv(TABLE).replace("title", "name"), "missing column 'title' .*has id, name, im"),
    "column in other case": ("train.csv", _csv(TABLE).replace("title", "TITLE"), "did you mean 'TITLE'"),
    "column that is needed twice": ("train.csv", "id,title,title,image,type\n1,a,b,a.jpg,3\n", "names title twice"),
    "quote never closed": ("train.csv", _csv(TABLE) + 'p4,"x,a.jpg,3\np5,y,a.jpg,3\n', "row 5: .*may never be closed"),
    "quote closed by another row's": ("train.csv", SWALLOWED, "row 2: not CSV"),
    "quote inside a field": ("train.csv", _csv(TABLE) + 'p4,"a" b,a.jpg,3\n', "row 5: not CSV"),
    "field without end": (
        "train.csv",
        _csv(TABLE) + 'p4,"' + "x" * (2**24 + 1) + '",a.jpg,3\n',
        "row 5: .*may never be closed",
    ),
    "UTF-16 without its mark": (
        "train.csv",
        _csv(TABLE).encode("utf-16-le"),
        "begins with NUL bytes.*encoding = 'utf-16-le'",
    ),
    "compressed": ("train.csv", _gzip(_csv(TABLE)), "train.csv: it is compressed .gzip.; unpack it"),
    "compressed, by its name": ("train.csv.gz", _gzip(_csv(TABLE)), "files end in .csv.*unpack it"),
    "Excel workbook": ("train.csv", b"PK\3\4" + b"\0" * 40, "an Excel workbook; .*save it as CSV"),
    "Excel workbook, by its name": ("train.xlsx", b"PK\3\4" + b"\0" * 40, "files end in .csv"),
    "error page": ("train.csv", "<!DOCTYPE html><html>502</html>", "an HTML or XML page, perhaps an error page"),
    "JSON array": ("train.jsonl", '[{"id": "p1"},\n{"id": "p2"}]\n', "single JSON array; write one object"),
    "broken Parquet": ("train.parquet", b"PAR1" + b"\7" * 100, "not a readable Parquet file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_refused(tmp_path, case):
    name, content, says = REFUSED[case]
    with pytest.raises(InputError, match=says) as caught:
        _load(_shop(tmp_path, content, name))
    assert len(str(caught.value)) < 1000


def test_an_unknown_or_wrong_encoding(tmp_path):
    for encoding, says in (
        ("latin-99", "which Python does not know"),
        ("hex", "which Python does not know"),
        ("utf-16", "does not have that encoding"),
    ):
        with pytest.raises(InputError, match=says):
            _load(_shop(tmp_path, _csv(TABLE)), encoding=encoding)


def test_rows_inside_a_field_are_seen(tmp_path):
    lines = [
        "id,title,image,type",
        'p1,"5 inch,a.jpg,3',
        "p2,hat,a.jpg,3",
        'p3,",a.jpg,3',
        'p4,"many',
        "lines, two, 3, four",
        'x",a.jpg,3',
    ]
    loaded = _load(_shop(tmp_path, "\n".join(lines)))
    assert loaded.train.ids == ["p4"]  # commas and line breaks alone make no row
    assert [(entry["row"], entry["reason"]) for entry in loaded.set_aside] == [(2, "rows inside a field")]


@pytest.mark.parametrize(
    "lines",
    [
        ["id,title,image", 'p1,"5 inch,a.jpg', 'p2,hat 7",a.jpg', 'p3,"big, red', 'old, v1.0",a.jpg'],
        ["id,image,title", 'p1,a.jpg,"5 inch', 'p2,a.jpg,hat 7"', 'p3,a.jpg,"big, red', 'old, v1.0"'],
    ],
)
def test_a_field_that_swallows_the_next_row_is_detected(tmp_path, lines):
    loaded = _load(_shop(tmp_path, "\n".join(lines)) | {"columns": {"title": "title"}})
    assert loaded.train.ids == ["p3"]
    assert [(entry["row"], entry["reason"]) for entry in loaded.set_aside] == [(2, "rows inside a field")]


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet"])
def test_the_same_rows_in_other_kinds_of_files(shop, loaded, tmp_path, kind):
    kwargs, expected, _ = shop
    cells = [row for row, _, _ in expected.values() if len(row) == 4]
    frame = pl.DataFrame(cells, schema=HEADER, orient="row")
    path = f"{tmp_path}/train.{kind}"
    {
        "tsv": lambda: frame.write_csv(path, separator="\t"),
        "jsonl": lambda: frame.write_ndjson(path),
        "parquet": lambda: frame.write_parquet(path),
    }[kind]()
    other = _load(kwargs | {"files": {"train": path}, "ground_truth": None})
    bad = {row[0] for row, reason, _ in expected.values() if len(row) == 4 and reason}
    assert {entry["id"] for entry in other.set_aside} == bad
    assert set(loaded.train.ids) - {"u2"} == set(other.train.ids)


def test_numbers_and_nulls_of_parquet_and_json(tmp_path):
    frame = pl.DataFrame(
        {"id": [1.0, 2.0, 3.0], "title": ["a", None, "c"], "image": ["a.jpg"] * 3, "type": [12.0, 3.0, float("nan")]}
    )
    kwargs = _shop(tmp_path, b"", "train.parquet")
    frame.write_parquet(tmp_path / "train.parquet")
    found = _load(kwargs)
    assert found.train.ids == ["1"] and found.category_names == (["12"],)
    assert [entry["reason"] for entry in found.set_aside] == ["empty title", "empty category"]
    frame.with_columns(id=pl.Series([2.0**60, 2.0**61, 2.0**62])).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="'id' holds floats of 2..53 or more, which have lost"):
        _load(kwargs)
    single = pl.Series([2.0**24, 2.0, 3.0], dtype=pl.Float32)
    frame.with_columns(id=single).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="'id' holds floats of 2..24 or more, which have lost"):
        _load(kwargs)
    frame.with_columns(type=pl.Series([float("inf"), 1.0, 1.0])).write_parquet(tmp_path / "train.parquet")
    assert "inf" in _load(kwargs).category_names[0]
    lines = [
        '\ufeff{"id": 1.0, "title": "a", "image": "a.jpg", "type": 12.0}',
        '{"id": 2, "title": NaN, "image": "a.jpg"}',
        '{"id": 3, "title": ["a"], "image": "a.jpg"}',
        "[" * 100_000,
        "[1]",
        '{"id": 4, "title": "\\ud800"}',
        '{"id": 9007199254740993.0, "title": "a", "image": "a.jpg"}',
    ]
    found = _load(_shop(tmp_path, "\n".join(lines), "t.jsonl"))
    assert found.train.ids == ["1"] and found.category_names == (["12"],)
    assert [entry["reason"] for entry in found.set_aside] == [
        "empty title",
        "value is not text",
        "not a JSON object",
        "not a JSON object",
        "not UTF-8 text",
        "value is not text",
    ]
    with pytest.raises(InputError, match="t.jsonl, row 1: no line is a JSON object"):
        _load(_shop(tmp_path, '{\n"id": 1,\n"title": "a"\n}\n', "t.jsonl"))


def test_eproduct_layout_with_repairs(tmp_path):
    labelled = ["UUID", "AUCT_TITL", "META_CATEG_ID", "CATEG_LVL2_ID", "LEAF_CATEG_ID", "IMAGE_PATH"]
    rows = [
        ["t1", "caf\xe9", "1.0", "2", "30", "sub\\a.jpg"],
        ["t2", "NULL", "1", "2", "30", "sub/a.jpg"],
        ["t3", "hat", "1", "2", "70.0", "sub/a.jpg"],
        ["t4", "hat", "1", "2.5", "70", "sub/a.jpg"],
    ]
    (tmp_path / "metadata").mkdir()
    (tmp_path / "Images" / "sub").mkdir(parents=True)
    (tmp_path / "Images" / "sub" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "metadata" / "train.csv").write_bytes(_csv(rows, ";", header=labelled).encode("cp1252"))
    found = loading.load(
        {"source": "eproduct", "kwargs": {"root": str(tmp_path), "encoding": "cp1252", "max_bad_share": 0.5}}
    )
    _reconcile(found)
    assert found.train.ids == ["t1", "t3"] and found.train.titles == ["café", "hat"]
    assert found.category_names == (["1"], ["2"], ["30", "70"])
    assert [(entry["row"], entry["reason"]) for entry in found.set_aside] == [
        (3, "empty title"),
        (5, "category is not a whole number"),
    ]


# ------------------------------------------------------------------------------------------------------------- pictures


# --------------------------------------------------------------------------------------------------- page and fuzzing


def test_the_page_names_tests_that_exist_and_all_cases():
    """A row of docs/real_catalogues.md ends with the test, `test_name` or `test_name[case]`."""
    page = PAGE.read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| case")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) > 60
    known = {}
    for path in sorted((fuzz.ROOT / "tests").rglob("test_*.py")):
        known |= dict.fromkeys(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE), path)
    for cells in rows:
        assert len(cells) == 5 and all(cells), cells
        assert cells[2].startswith(("repaired", "kept", "set aside", "refused", "as ")), cells
        named = re.findall(r"`(test_\w+)`", cells[4])
        assert named and all(name in known for name in named), cells
    listed = set(re.findall(r"`([^`]+)`", " ".join(cells[1] for cells in rows)))
    cases = {*ROWS, *REPAIRED, *REFUSED, *odd_pictures.good(), *odd_pictures.bad(), *odd_pictures.damaged_inside()}
    assert listed - {"new.avif", "old.jp2"} == cases - {"new.avif", "old.jp2"}  # not every Pillow writes these two


@pytest.mark.parametrize(("target", "inputs"), [("csv", 60), ("titles", 10), ("image", 150)])
def test_a_little_fuzzing(tmp_path, target, inputs):
    assert fuzz.run(target, inputs=inputs, failures=tmp_path)["failures"] == {}


def test_damage_between_header_and_end_is_found_by_decoding_alone(tmp_path):
    rows = [[name, "title", name, "7"] for name in odd_pictures.damaged_inside()]
    kwargs = _shop(tmp_path, _csv(rows))
    for name, data in odd_pictures.damaged_inside().items():
        (tmp_path / "pictures" / name).write_bytes(data)
    trusted = _load(kwargs)
    assert len(trusted.train) == len(rows)
    with pytest.raises(InputError, match=r"truncated image file: .*flipped.png \(a checksum is wrong\)"):
        trusted.train.images[trusted.train.ids.index("flipped.png")]
    whole = _load(kwargs, check_images="decode")
    # The sums of these are right: what is missing comes out black.
    assert whole.train.ids == ["endless.png", "declared_taller.png"]
    assert whole.train.images[1].shape == (300, 48, 3)
    with pytest.raises(InputError, match="check_images is 'all'; it takes True, False or 'decode'"):
        _load(kwargs, check_images="all")
