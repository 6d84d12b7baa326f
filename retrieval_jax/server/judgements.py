"""Thumbs as a click log: User Behavior Insights in NDJSON, which `retrieval-jax import_clicks` reads."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import threading

from retrieval_jax.errors import naming
from retrieval_jax.files import journal
from retrieval_jax.server.messages import Judgement
from retrieval_jax.workdir import layout

FILE = layout.CLICK_LOG
_lock = threading.Lock()


def records(given: Judgement, now: datetime.datetime) -> list[dict]:
    """Returns the records of a judgement.

    "up" is a click on the listing among those that were shown, "down" an impression without a click; the other results
    are impressions of "up" alone, because nobody said anything about them otherwise.

    Args:
      given: the judgement.
      now: with its zone.
    """
    common = {"query_id": given.search, "timestamp": now.isoformat(timespec="milliseconds")}
    if given.session:
        common["session_id"] = given.session
    shown = list(dict.fromkeys(given.shown)) if given.verdict == "up" else []
    places = {listing: place for place, listing in enumerate(shown, 1)} | {given.listing: given.place}
    out = [{**common, "user_query": given.words}] if given.words else []
    for action, listings in (("impression", places), ("click", [given.listing] if given.verdict == "up" else [])):
        for listing in listings:
            event = {"object": {"object_id": listing}, "position": {"ordinal": places[listing]}}
            out.append({**common, "action_name": action, "event_attributes": event})
    return out


def append(folder: pathlib.Path, given: Judgement) -> int:
    """Appends a judgement to the click log of a run and waits until it is on disk; returns the number of records.

    Args:
      folder: of the run.
      given: the judgement.
    """
    found = records(given, datetime.datetime.now(datetime.UTC))
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found).encode()
    file = folder / FILE
    with _lock, naming(file):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            journal.write_all(descriptor, data)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    return len(found)
