"""Last section of the report: what every verb took, and the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from retrieval_jax.pages.parts import Section, absent, duration, joined, note, table

NOTE = (
    "Time is what the clock on the wall showed, CPU time that of all cores together, worker processes included. Of a "
    "training that was resumed they are sums: of each earlier session up to its last checkpoint, and of the whole "
    "last one. Of other verbs they are of the session that finished. Memory is the most that the process held at once, "
    "pages of files that it read included; files are what the verb wrote."
)


def section(stages: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Section:
    """Returns the section.

    Args:
      stages: the records of the finished verbs, in their order.
      config: the settings, as JSON holds them.
    """
    head = ["Stage", "Time", "CPU time", "Memory", "Files", "Finished (UTC)"]
    rows = [_row(record) for record in stages]
    costs = table(head, rows, "Cost of the verbs", numbers=range(1, len(head)))
    settings = Markup("<details><summary>Full configuration</summary><pre>{}</pre></details>")
    return Section(
        "How this was made",
        joined(
            joined(costs, note(NOTE)) if rows else absent("no stage has finished here."),
            settings.format(json.dumps(config, indent=2, ensure_ascii=False)),
        ),
    )


def _row(record: Mapping[str, Any]) -> list[str]:
    sessions = record.get("sessions", 1)
    return [
        record["verb"] + (f" ({sessions} sessions)" if sessions > 1 else ""),
        duration(record["seconds"]),
        duration(record["cpu_seconds"]),
        memory(record),
        size(sum(length or 0 for length in record["outputs"].values())),
        record["finished"][:16].replace("T", " "),
    ]


def memory(record: Mapping[str, Any]) -> str:
    """Returns the peak memory of a verb, from its record; "–" where it was not recorded."""
    return size(record["peak_memory_bytes"]) if record.get("peak_memory_bytes") else "–"


def size(count: float) -> str:
    """Returns a number of bytes in the unit a reader would choose."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"
