"""Makes the answers of the API from what was found."""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Sequence

from retrieval_jax.index import attribute
from retrieval_jax.index.attribute import looks
from retrieval_jax.server import networks, searching
from retrieval_jax.server.gallery import Gallery
from retrieval_jax.server.messages import (
    Complete,
    Completed,
    Count,
    Facets,
    Item,
    Listing,
    Look,
    Predicted,
    Range,
    Served,
)
from retrieval_jax.server.runs import Loaded, Run


def _address(run: str, version: Loaded, listing: str) -> str:
    if not version.gallery.has_pictures:
        return ""
    return f"/v1/pictures/{_quoted(listing)}?run={_quoted(run)}"


@functools.lru_cache(1 << 16)
def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def served(run: Run) -> Served:
    """Returns whether a run is loaded and what it can be searched by."""
    found, searches, cannot = run.loaded, [], {}
    if found is not None:
        made = found.networks
        if made.pictures is None:
            cannot["pictures"] = f"This run cannot be searched by a picture: {made.without_pictures}."
        if made.words is None and not found.gallery.has_texts:
            cannot["words"] = (
                "The network of this run reads pictures and its listings have no titles, so it cannot be searched by "
                "words. Attributes can be picked."
            )
        searches += ["pictures"] if made.pictures is not None else []
        searches += ["words"] if made.words is not None or found.gallery.has_texts else []
        searches += ["words beside pictures"] if len(searches) == 2 else []
    return Served(
        name=run.name,
        loaded=found is not None,
        exported=networks.is_exported(run.folder),
        listings=None if found is None else len(found.gallery),
        stages=[] if found is None else [stage.name for stage in found.gallery.stages],
        searches=searches,
        cannot=cannot,
        completes=[] if found is None or found.networks.learned is None else found.looks().kinds,
        predicts=found is not None and found.networks.attributes is not None,
        note="" if found is None else found.gallery.note,
        # the sentence itself may name folders of this machine
        problem="its newest version cannot be loaded: the log of the service says why" if run.problem else "",
    )


def listing(run: str, version: Loaded, row: int) -> Listing:
    """Returns a listing, given its row of the gallery."""
    gallery, name = version.gallery, version.gallery.names[row]
    (attributes,) = gallery.attributes([row])
    address = _address(run, version, name)
    return Listing(id=name, run=run, title=gallery.title(row), attributes=attributes, picture=address)


def results(run: str, version: Loaded, hits: Sequence[searching.Hit]) -> list[dict]:
    """Returns results with their reasons, best first, in the form of `messages.Result`; its checks take longer."""
    out, keys = [], ("similarity", "weight", "share")
    gallery, rows = version.gallery, [hit.row for hit in hits]
    for hit, attributes in zip(hits, gallery.attributes(rows), strict=True):
        reasons = [
            {
                "kind": reason.kind,
                "text": str(reason.clause),
                "state": reason.state,
                "values": list(reason.values),
                "probability": reason.probability,
            }
            for reason in hit.reasons
        ]
        parts = {part: dict(zip(keys, numbers, strict=True)) for part, numbers in hit.parts.items()}
        name = gallery.names[hit.row]
        result = {
            "id": name,
            "place": hit.place,
            "score": hit.score,
            "title": gallery.title(hit.row),
            "attributes": attributes,
            "picture": _address(run, version, name),
            "why": {"reasons": reasons, "parts": parts, "moved": hit.moved},
        }
        out.append(result)
    return out


def completed(run: str, version: Loaded, given: Complete, found: Sequence[looks.Look]) -> Completed:
    """Returns looks as the API shows them."""
    made = []
    for look in found:
        items = [Item(slot=slot, listing=listing(run, version, row)) for slot, row in look.rows.items()]
        made.append(Look(score=look.score, items=items))
    names, notes = looks.slot_names(given.slots), []
    nowhere = [name for name in names if not any(name in look.rows for look in found)]
    some = [name for name in names if name not in nowhere and not all(name in look.rows for look in found)]
    if nowhere:
        notes.append(f"no listing fits {', '.join(nowhere)}")
    if some:
        notes.append(f"too few listings fit {', '.join(some)} for every look")
    if found and len(found) < given.k:
        notes.append(f"there are listings for {len(found)} of {given.k} looks")
    begun = [listing(run, version, version.gallery.row(one)) for one in dict.fromkeys(given.listings)]
    return Completed(run=run, start=begun, looks=made, note="; ".join(notes))


def predicted(gallery: Gallery, found: list[tuple[str, str, float]]) -> list[Predicted]:
    """Returns the attributes that a network sees in a picture, (field, value, probability) each."""
    known = gallery.values
    return [
        Predicted(field=field, value=value, probability=chance, known=value in known.get(field, ()))
        for field, value, chance in found
    ]


def facets(run: str, version: Loaded, given: attribute.Conditions, top: int) -> Facets:
    """Returns the counts of the values among the matches; see `counting.count`."""
    counted = version.gallery.counted(given, top)
    fields = {
        name: [Count(value=value, listings=count) for value, count in found] for name, found in counted.fields.items()
    }
    numbers = {name: Range(low=low, high=high, listings=count) for name, (low, high, count) in counted.numbers.items()}
    return Facets(run=run, matches=counted.matches, fields=fields, numbers=numbers)
