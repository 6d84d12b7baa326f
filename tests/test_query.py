"""The table of what picture files find: one row per result, and one for each file that cannot be read."""

import pytest

from retrieval_jax import query
from retrieval_jax.errors import InputError


def test_files_and_folders_are_listed_in_order(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "deep/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = query.files([tmp_path, tmp_path / "notes.txt"])
    assert [file.name for file in found] == ["a.png", "b.JPG", "c.webp", "notes.txt"]
    with pytest.raises(InputError, match="does not exist"):
        query.files([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures in"):
        query.files([tmp_path / "empty"])
