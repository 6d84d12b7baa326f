"""Small tables that ask their reader for gigabytes, minutes or an abort, as files."""

import pathlib
import struct

HUGE = 2**30  # values in one page


def all_of_them(folder: pathlib.Path) -> dict[str, str]:
    """Writes the files.

    Args:
      folder: where to.

    Returns:
      {name of the file: pattern of the sentence that refuses it}.
    """
    parquets = {
        "rows.parquet": parquet(row_groups=1),
        "groups.parquet": parquet(row_groups=300),
        "wide.parquet": parquet(columns=200),
        "texts.parquet": parquet(values=HUGE // 100, text=b"x" * 10_000),
        "page.parquet": parquet(values=10, uncompressed=2**31 - 1),
        "promised.parquet": parquet(values=10, promised=2**40),
        "columns.parquet": parquet(values=10, columns=12_000),
    }
    for name, content in parquets.items():
        (folder / name).write_bytes(content)
    for name in ("line.csv", "line.jsonl", "line.tsv"):
        with open(folder / name, "wb") as file:  # sparse: takes no disk
            file.write(b'id,title,image\n1,"' if name != "line.jsonl" else b'{"id": "1", "title": "')
            file.write(b"x" * 100)
            file.seek(2**31)
            file.write(b"\n")
    names = ",".join(f"column{number}" for number in range(1_000_000))
    (folder / "columns.csv").write_text(f"id,title,image,{names}\n" + "1," * 1_000_003 + "\n")
    (folder / "fields.csv").write_text("id,title,image\n" + "1," * 40_000_000 + "\n")
    (folder / "quoted.csv").write_text('id,title,image\n1,"' + "x\n" * 20_000_000)
    (folder / "nested.jsonl").write_text('{"id": "1", "title": ' + "[" * 30_000_000 + "\n")
    (folder / "names.jsonl").write_text("".join(f'{{"n{n}": 1}}\n' for n in range(20_000)))
    texts = "line.csv line.jsonl line.tsv columns.csv fields.csv quoted.csv nested.jsonl names.jsonl".split()
    return dict.fromkeys(parquets, "Parquet|columns|rows") | dict.fromkeys(texts, "row 1|row 2|columns|never be closed")


# ------------------------------------------------------------------------------------------- Parquet, written by hand


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _struct(fields: dict[int, tuple]) -> bytes:
    """Returns a struct in Thrift's compact encoding: {field: (kind, value)}, or (list, kind, values)."""
    out, before = b"", 0
    for field, (kind, *value) in sorted(fields.items()):
        code = {"i32": 5, "i64": 6, "text": 8, "list": 9, "struct": 12}[kind]
        out += bytes([(field - before) << 4 | code]) + _value(kind, *value)
        before = field
    return out + b"\0"


def _value(kind: str, *value) -> bytes:
    if kind == "struct":
        return _struct(*value)
    if kind == "text":
        return _varint(len(value[0])) + value[0]
    if kind == "list":
        of, values = value
        code = {"i32": 5, "text": 8, "struct": 12}[of]
        begin = bytes([len(values) << 4 | code]) if len(values) < 15 else bytes([0xF0 | code]) + _varint(len(values))
        return begin + b"".join(_value(of, one) for one in values)
    return _number(*value)


def parquet(
    values: int = HUGE,
    columns: int = 1,
    row_groups: int = 1,
    text: bytes = b"red shoes",
    uncompressed: int | None = None,
    promised: int | None = None,
) -> bytes:
    """Returns a Parquet file whose columns repeat one text: a page of a few bytes holds any number of them.

    Args:
      values: in each page.
      columns: number of columns.
      row_groups: number of row groups, all with the same pages.
      text: the value.
      uncompressed: size of a page that its header gives; by default the true one.
      promised: number of rows that the footer gives; by default the true one.
    """
    plain = struct.pack("<I", len(text)) + text
    head = {1: ("i32", 2), 2: ("i32", len(plain)), 3: ("i32", len(plain))}
    dictionary = _struct(head | {7: ("struct", {1: ("i32", 1), 2: ("i32", 0)})}) + plain
    run = b"\1" + _varint(values << 1) + b"\0"
    head = {1: ("i32", 0), 2: ("i32", len(run) if uncompressed is None else uncompressed), 3: ("i32", len(run))}
    about = {1: ("i32", values), 2: ("i32", 8), 3: ("i32", 3), 4: ("i32", 3)}
    pages = dictionary + _struct(head | {5: ("struct", about)}) + run
    names = [b"id", b"title", b"image", *(b"column%d" % number for number in range(columns))][: max(3, columns)]
    schema = [{4: ("text", b"schema"), 5: ("i32", len(names))}]
    schema += [{1: ("i32", 6), 3: ("i32", 0), 4: ("text", name), 6: ("i32", 0)} for name in names]
    chunks = [
        {
            2: ("i64", 4),
            3: (
                "struct",
                {
                    1: ("i32", 6),
                    2: ("list", "i32", [8]),
                    3: ("list", "text", [name]),
                    4: ("i32", 0),
                    5: ("i64", values),
                    6: ("i64", len(pages)),
                    7: ("i64", len(pages)),
                    9: ("i64", 4 + len(dictionary)),
                    11: ("i64", 4),
                },
            ),
        }
        for name in names
    ]
    group = {1: ("list", "struct", chunks), 2: ("i64", len(pages)), 3: ("i64", values)}
    footer = _struct(
        {
            1: ("i32", 1),
            2: ("list", "struct", schema),
            3: ("i64", values * row_groups if promised is None else promised),
            4: ("list", "struct", [group] * row_groups),
        }
    )
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"
