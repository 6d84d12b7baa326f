import json
import os
import typing

import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.files import documents


class Shard(typing.TypedDict):
    file: documents.FileName
    rows: documents.Count


def read(tmp_path, content, kind=typing.Any, **kwargs):
    file = tmp_path / "a.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return documents.read(file, kind, remedy="run embed again", **kwargs)


def test_a_document_of_the_expected_shape_comes_back_whole(tmp_path):
    content = [{"file": "00000.npy", "rows": 3, "added later": {"x": [1.5, None]}}]
    assert read(tmp_path, json.dumps(content), list[Shard]) == content
    assert read(tmp_path, '{"loss": NaN, "least": -Infinity}')["least"] == float("-inf")  # Python writes these


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1, 2", r"a\.json is not readable JSON \(Expecting ',' delimiter.*run embed again"),
        ("", "is not readable JSON"),
        (b'"\xff"', "is not readable JSON"),
        ('{"rows": 1, "rows": 2}', "the key 'rows' occurs twice"),
        ("1" * 5000, "is not readable JSON"),
        (r'["\ud800"]', "is not readable JSON.*surrogates"),
        ("[" * 200_000, "nested too deeply"),
        ("[" * 65 + "]" * 65, "nested too deeply, in more than 64 levels"),
        ('{"file": "a.npy", "rows": 3}', r"Expected `array`, got `object`"),
        ('[{"file": "a.npy"}]', r"missing required field `rows`.*`\$\[0\]`"),
        ('[{"file": "a.npy", "rows": "3"}]', r"Expected `int`, got `str` - at `\$\[0\]\.rows`"),
        ('[{"file": "a.npy", "rows": true}]', "Expected `int`, got `bool`"),
        ('[{"file": "a.npy", "rows": NaN}]', "Expected `int`, got `float`"),
        ('[{"file": "a.npy", "rows": -1}]', "Expected `int` >= 0"),
        ('[{"file": "a.npy", "rows": 1' + "0" * 300 + "}]", "Expected `int`"),
        ('[{"file": "../a.npy", "rows": 1}]', r"regex.*`\$\[0\]\.file`"),
        ('[{"file": "..", "rows": 1}]', "regex"),
        ('[{"file": "/etc/passwd", "rows": 1}]', "regex"),
        (r'[{"file": "a\u0000", "rows": 1}]', "regex"),
        ('[{"file": "", "rows": 1}]', "regex"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_place(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as found:
        read(tmp_path, content, list[Shard])
    assert str(tmp_path / "a.json") in str(found.value)


def test_what_is_not_a_file_is_not_read(tmp_path):
    with pytest.raises(InputError, match="not found: make it first"):
        documents.read(tmp_path / "a.json", remedy="run again", missing="make it first")
    with pytest.raises(InputError, match="not found"):
        documents.read(tmp_path / "a.json" / "b.json", remedy="run again")
    os.mkfifo(tmp_path / "pipe")  # opening one waits for a writer
    (tmp_path / "zero").symlink_to("/dev/zero")  # has no end
    for name, message in (("pipe", "is a pipe"), ("zero", "device"), ("", "is a folder")):
        with pytest.raises(InputError, match=message):
            documents.read(tmp_path / name, remedy="run again")
    with pytest.raises(InputError, match="cannot be read"):
        documents.read(tmp_path / ("x" * 300), remedy="run again")
    with pytest.raises(InputError, match="is not the name of a file"):
        documents.read("a\0b", remedy="run again")
    with pytest.raises(InputError, match="has 9 bytes, and files of its kind have at most 5"):
        read(tmp_path, "[1, 2, 3]", most_bytes=5)


def test_lines_that_are_not_records_are_skipped(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert list(documents.lines(file)) == []
    file.write_text('{"step": 1}\n[]\n{"step": "2"}\n\n{"step": 3}\n{"st', encoding="utf-8")
    assert list(documents.lines(file)) == [{"step": 1}, {"step": "2"}, {"step": 3}]
    assert list(documents.lines(file, dict[str, int])) == [{"step": 1}, {"step": 3}]
