"""Judgements as a click log: User Behavior Insights in NDJSON, which `retrieval-jax import_clicks` reads."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import threading
from typing import Any

from retrieval_jax.errors import naming
from retrieval_jax.files import journal
from retrieval_jax.server.messages import Judgement

FILE = "judgements.ndjson"
_lock = threading.Lock()


def records(given: Judgement, now: datetime.datetime) -> list[dict]:
    """Returns the records of a judgement.

    "up" is a click on the listing among those that were shown, which are impressions; "wrong" is an action of its own,
    and says nothing about the other results. A query that is not of words alone is known by its listings, the hash of
    its picture, and its words, which are not a typed query then: "in red" means little without the picture.

    Args:
      given: the judgement.
      now: with its zone.
    """
    common = {"query_id": given.search, "timestamp": now.isoformat(timespec="milliseconds")}
    if given.session:
        common["session_id"] = given.session
    places = {listing: place for place, listing in enumerate(dict.fromkeys(given.shown), 1)}
    places[given.listing] = given.place
    query: dict[str, Any] = {"user_query": given.words} if given.words else {}
    if not by_words(given):
        found = {"picture_sha256": given.picture, "listings": given.like, "words": given.words}
        query = {"query_attributes": {name: value for name, value in found.items() if value}}
    out = [{**common, **query}]
    if given.verdict == "up":
        actions = [("impression", listing) for listing in places] + [("click", given.listing)]
    else:
        actions = [("wrong", given.listing)]
    for action, listing in actions:
        event = {"object": {"object_id": listing}, "position": {"ordinal": places[listing]}}
        out.append({**common, "action_name": action, "event_attributes": event})
    return out


def by_words(given: Judgement) -> bool:
    """Returns whether a judgement is of a search by words alone, which training can learn from."""
    return bool(given.words.strip()) and not given.picture and not given.like


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
