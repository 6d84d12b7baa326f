"""From a click log to queries with weighted clicks: what is set aside, by which rules, and how clicks are counted.

Rules, in this order; the first that applies counts, and records read = records used + records set aside:

    not by words alone        its query_id is that of a search by a picture or by listings
    unknown query             its query_id has no text anywhere in the log
    empty query               nothing is left of its text (`normalising.normalised`)
    unknown photo             of a log of searches by photo: the catalogue has no photo of this id
    query too long            more than `normalising.LONGEST` characters: pasted, not typed
    duplicate event           the same event with the same time was logged before
    robot                     its session has too many searches or clicks, in all or within a minute (`Rules`)
    click before its query    by more than the tolerance for clocks that differ
    not in the catalogue      no listing has the product's id
    judged otherwise later    a click and a judgement "wrong" of one listing in one search: the last of them counts
    shown twice in a search, repeated click in a search, judged wrong twice in a search
                              a listing counts once per search
    one session's repeats     beyond the first few clicks of a session on the same listing for the same query

A session whose clock goes backwards keeps its events, since no rule needs their order; how many is noted. Where all
events are of one session, a session says nothing about shoppers: only the rule per minute applies.

In a log of searches by photo, the query is the id of a photo of the catalogue, as it is, and nothing is counted: every
search with a click is a page.

A search is a query_id; without one, a session and a text; without a session, a row. Places count from 1; an application
that logs a place 0 counts from 0, and all its places are raised by one. A judgement "wrong" changes no propensity.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.data.clicks import counting, normalising, propensity, reading
from retrieval_jax.data.clicks.reading import Event, Log
from retrieval_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is set aside, and how queries are divided.

    Attributes:
      searches: of a session with more, all events are a robot's.
      clicks: likewise.
      per_minute: searches and clicks of a session within 60 seconds; with more it is a robot's.
      repeats: clicks of one session on the same listing for the same query that count.
      tolerance: seconds by which clocks may differ.
      val_share, query_share: of the queries, by a hash of their words: no query is in two parts.
    """

    searches: int = 200
    clicks: int = 500
    per_minute: int = 60
    repeats: int = 3
    tolerance: float = 60.0
    val_share: float = 0.1
    query_share: float = 0.1

    def __post_init__(self):
        for name in ("searches", "clicks", "per_minute", "repeats"):
            arguments.integer(getattr(self, name), name, "import_clicks")
        for name in ("tolerance", "val_share", "query_share"):
            arguments.number(getattr(self, name), name, "import_clicks", low=0)
        if self.val_share + self.query_share >= 1:
            raise InputError("import_clicks: val_share and query_share leave no queries to train on; lower them")


@dataclasses.dataclass
class Clicks:
    """What a log says.

    Attributes:
      queries: {normalised text: {id of a listing: `counting.Clicked`}}; {} for searches by photo.
      parts: {normalised text: "train", "val" or "query"}.
      pages: of searches by photo, those with a click; None for typed queries.
      propensities: of places; None where no click has a place.
      counts: {"read": n, "used": {"queries", "impressions", "clicks", "wrong"}, "set_aside": {reason: n},
        "notes": {what: n}, "sessions", "searches"}; read = the sums of used and of set_aside.
      set_aside: dicts with file, row, id, reason and sentence, at most `reading.LISTED` of a reason.
    """

    queries: dict[str, dict[str, counting.Clicked]]
    parts: dict[str, str]
    pages: list[counting.Page] | None
    propensities: propensity.Propensities | None
    counts: dict[str, Any]
    set_aside: list[dict]

    __repr__ = brief.line


def load(
    files: Sequence[Any],
    ids: Mapping[str, str] | None = None,
    rules: Rules | None = None,
    *,
    photos: Collection[str] | None = None,
    columns: Mapping[str, str] | None = None,
    clicks: Sequence[str] = reading.CLICKS,
    encoding: str = "utf-8",
) -> Clicks:
    """Reads a click log.

    Args:
      files: see `reading.read`.
      ids: {id of a listing: its split}; None takes every product as it is.
      rules: what is set aside; the defaults of `Rules` without.
      photos: ids of the photos that were searched with, which the log has in the place of queries; None for typed ones.
      columns, clicks, encoding: see `reading.read`.

    Returns:
      The `Clicks`.

    Raises:
      InputError: see `reading.read`.
    """
    rules = rules or Rules()
    if photos is not None:  # pages are kept as they are, and a click that is left out would become an unclicked listing
        rules = dataclasses.replace(rules, repeats=sys.maxsize)
    log = reading.read(files, columns, clicks, encoding)
    searches = _Searches(log, normalising.normalised if photos is None else str.strip)
    kept = _checked(log, searches, ids, photos, rules)
    shown = _shown(log, searches, kept, rules)
    queries, propensities, pages = {}, None, None
    if photos is None:
        queries, propensities = counting.counted(shown.of.values(), shown.wrong, shown.pages)
    else:
        pages = [page for page in shown.of.values() if any(clicked for _, clicked in page[1].values())]
    used = collections.Counter(event.kind for event in kept)
    used.subtract(shown.dropped)
    return Clicks(
        queries,
        {text: normalising.part_of(text, rules.val_share, rules.query_share) for text in queries},
        pages,
        propensities,
        {
            "read": log.read,
            "used": {
                "queries": used["query"],
                "impressions": used["impression"],
                "clicks": used["click"],
                "wrong": used["wrong"],
            },
            "set_aside": dict(log.reasons),
            "notes": dict(log.notes),
            "sessions": len(searches.sessions),
            "searches": len(shown.of),
        },
        log.set_aside,
    )


class _Searches:
    """Which search and query each event belongs to."""

    def __init__(self, log: Log, read: Callable[[str], str]):
        self._read = read
        first: dict[str, str] = {}
        self._session: dict[str, str] = {}
        for wanted in (True, False):  # records of queries count before what events repeat of them
            for event in log.events:
                if event.query_id and event.text and (event.kind == "query") == wanted:
                    first.setdefault(event.query_id, event.text)
                if event.query_id and event.session and (event.kind != "query") == wanted:
                    self._session.setdefault(event.query_id, event.session)
        self.texts = {name: read(text) for name, text in first.items()}
        asked = {event.query_id for event in log.events if event.kind == "query"}
        self.wordless = asked - self.texts.keys()
        self._known: dict[str, str] = {}
        self.sessions = {self.session(event) for event in log.events} - {""}
        self.alone = len(self.sessions) <= 1
        zero = {event.log for event in log.events if event.position == 0}
        self._raised = {number: 1 for number in zero}

    def session(self, event: Event) -> str:
        """Returns the session of an event; that of a query's own events counts before that of its record."""
        if event.kind == "query" and event.query_id:
            return self._session.get(event.query_id, event.session)
        return event.session or self._session.get(event.query_id, "")

    def text(self, event: Event) -> str | None:
        """Returns the normalised query of an event; None where its query_id is unknown."""
        if event.query_id:
            return self.texts.get(event.query_id)
        if event.text not in self._known:
            self._known[event.text] = self._read(event.text)
        return self._known[event.text]

    def key(self, event: Event) -> Hashable:
        """Returns what tells the event's search from others; see the module."""
        if event.query_id:
            return event.query_id
        return (event.session, self.text(event)) if event.session else (event.file, event.line)

    def position(self, event: Event) -> int:
        """Returns the place on the page, from 1; -1 where it is unknown."""
        return event.position + self._raised.get(event.log, 0) if event.position >= 0 else -1


def _checked(
    log: Log, searches: _Searches, ids: Mapping[str, str] | None, photos: Collection[str] | None, rules: Rules
) -> list[Event]:
    """Sets aside what the rules up to "not in the catalogue" say; returns the other events."""

    def leave(event: Event, reason: str, sentence: str) -> None:
        log.leave(event.file, event.line, reason, sentence, event.product or event.query_id)

    events, seen = [], set()
    for event in log.events:
        text = searches.text(event)
        time = None if math.isnan(event.time) else event.time
        same = (event.kind, searches.key(event), event.session, event.product, event.position, time, text)
        if text is None and event.query_id in searches.wordless:
            leave(
                event,
                "not by words alone",
                "its search was by a picture or by listings, and the log has no text for it",
            )
        elif text is None:
            leave(event, "unknown query", "its query_id has no text in this log; give the file with the queries too")
        elif not text:
            leave(event, "empty query", "nothing is left of its query without blanks and control characters")
        elif photos is not None and text not in photos:
            leave(event, "unknown photo", "no photo of the catalogue has the id that the log has as its query")
        elif photos is None and len(text) > normalising.LONGEST:
            leave(event, "query too long", f"its query has {len(text):,} characters, at most {normalising.LONGEST}")
        elif (time is not None or event.query_id) and same in seen:
            leave(event, "duplicate event", "the same event was logged before, with the same time")
        else:
            seen.add(same)
            events.append(event)
    robots, asked, out = _robots(log, events, searches, rules), {}, []
    for event in events:
        if event.kind == "query" and event.query_id and not math.isnan(event.time):
            asked[event.query_id] = min(event.time, asked.get(event.query_id, math.inf))
    for event in events:
        before = asked.get(event.query_id, -math.inf) - event.time
        if why := robots.get(searches.session(event)):
            leave(event, "robot", f"its session has {why}")
        elif event.kind == "click" and before > rules.tolerance:
            leave(event, "click before its query", f"it happened {before:,.0f} s before its query; check the clocks")
        elif event.kind != "query" and ids is not None and event.product not in ids:
            leave(event, "not in the catalogue", "no listing of the catalogue has this id")
        else:
            out.append(event)
    return out


def _robots(log: Log, events: Sequence[Event], searches: _Searches, rules: Rules) -> dict[str, str]:
    """Returns {session of a robot: why}; notes clocks that go backwards."""
    asked, clicks, times = collections.defaultdict(dict), collections.Counter(), collections.defaultdict(list)
    latest: dict[tuple, float] = {}
    for event in events:
        session = searches.session(event)
        if not session:
            continue
        key, first = searches.key(event), asked[session]
        first[key] = min(first.get(key, math.inf), math.inf if math.isnan(event.time) else event.time)
        clicks[session] += event.kind == "click"
        if not math.isnan(event.time):
            if event.kind == "click":
                times[session].append(event.time)
            place = event.file, session, event.kind == "query"
            log.notes["clocks that went backwards"] += event.time < latest.get(place, -math.inf) - rules.tolerance
            latest[place] = max(event.time, latest.get(place, -math.inf))
    if not log.notes["clocks that went backwards"]:
        del log.notes["clocks that went backwards"]
    found = {}
    for session, first in asked.items():
        moments = np.sort([*times[session], *(time for time in first.values() if time < math.inf)])
        most = rules.per_minute
        if len(moments) > most and (moments[most:] - moments[:-most] < 60).any():
            found[session] = f"more than {most} searches and clicks within a minute"
        elif not searches.alone and len(first) > rules.searches:
            found[session] = f"{len(first):,} searches, more than {rules.searches:,}"
        elif not searches.alone and clicks[session] > rules.clicks:
            found[session] = f"{clicks[session]:,} clicks, more than {rules.clicks:,}"
    return found


@dataclasses.dataclass
class _Shown:
    """{search: (text, {listing: [place, was clicked]})}; events dropped here, by kind; whether pages were logged;
    {(text, listing): searches in which it was judged wrong}."""

    of: dict[Hashable, counting.Page]
    dropped: collections.Counter
    pages: bool
    wrong: collections.Counter


def _shown(log: Log, searches: _Searches, kept: Sequence[Event], rules: Rules) -> _Shown:
    """Puts impressions and clicks together by search; a listing counts once in each."""
    of: dict[Hashable, counting.Page] = {}
    dropped, repeats, wrong = (collections.Counter() for _ in range(3))
    judged: set[tuple] = set()

    def drop(event: Event, reason: str, sentence: str) -> None:
        log.leave(event.file, event.line, reason, sentence, event.product)
        dropped[event.kind] += 1

    overruled = _overruled(kept, searches)
    for place in sorted(overruled):
        drop(kept[place], "judged otherwise later", "the same result was judged otherwise later in this search")
    kept = [event for place, event in enumerate(kept) if place not in overruled]
    for event in kept:
        _, listings = of.setdefault(searches.key(event), (searches.text(event), {}))
        if event.kind == "impression":
            if event.product in listings:
                drop(event, "shown twice in a search", "the listing was shown before in this search")
            else:
                listings[event.product] = [searches.position(event), False]
    for event in kept:
        if event.kind != "click":
            continue
        text, listings = of[searches.key(event)]
        place, clicked = listings.get(event.product, [-1, False])
        session = searches.session(event)
        if clicked:
            drop(event, "repeated click in a search", "the listing was clicked before in this search")
            continue
        repeats[session, text, event.product] += 1
        if session and not searches.alone and repeats[session, text, event.product] > rules.repeats:
            drop(
                event, "one session's repeats", f"its session clicked the listing {rules.repeats} times for this query"
            )
            continue
        own = searches.position(event)
        listings[event.product] = [own if own > 0 else place, True]
    for event in kept:
        if event.kind == "wrong" and (pair := (searches.key(event), event.product)) in judged:
            drop(event, "judged wrong twice in a search", "the listing was judged wrong before in this search")
        elif event.kind == "wrong":
            judged.add(pair)
            wrong[searches.text(event), event.product] += 1
    return _Shown(of, dropped, any(event.kind == "impression" for event in kept), wrong)


def _overruled(events: Sequence[Event], searches: _Searches) -> set[int]:
    """Returns the places of clicks on results that were judged wrong later in the same search, and the other way."""
    last: dict[tuple, tuple[float, int, str]] = {}  # time, where it is known, else the order of the log
    judged = [(place, event) for place, event in enumerate(events) if event.kind in ("click", "wrong")]
    for place, event in judged:
        key = searches.key(event), event.product
        found = -math.inf if math.isnan(event.time) else event.time, place, event.kind
        last[key] = max(found, last.get(key, found))
    return {place for place, event in judged if last[searches.key(event), event.product][2] != event.kind}
