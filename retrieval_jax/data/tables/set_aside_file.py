"""Writes set_aside.csv, the list of rows that a catalogue was loaded without."""

import csv
import io
import pathlib
from typing import Any

from retrieval_jax import output
from retrieval_jax.files import atomic


def write(path: Any, set_aside: list[dict]) -> None:
    """Writes rows that were set aside as CSV: file, row, id, reason, sentence.

    Args:
      path: of the CSV; its folder is created.
      set_aside: dicts with these keys; without any, only the header is written.
    """
    content = io.StringIO()
    writer = csv.DictWriter(content, ["file", "row", "id", "reason", "sentence"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: output.cell(value) for name, value in row.items()} for row in set_aside)
    path = pathlib.Path(path) if isinstance(path, str) else path
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, content.getvalue().encode("utf-8", "backslashreplace"))
