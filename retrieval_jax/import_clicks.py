"""Reads a click log of typed queries and writes it as tables: weighted clicks, held-out queries and their truth.

    python -m retrieval_jax.import_clicks log.ndjson.gz --config=configs/shop.py --out=data/shop/clicks
    python -m retrieval_jax.import_clicks photos.csv --config=configs/shop.py --out=data/shop/clicks --photos

The log is User Behavior Insights in NDJSON, or JSON Lines, CSV or Parquet with a row per click. Queries are put into
one form, robots, duplicates and events that cannot be used are set aside and counted, clicks are corrected by how
likely their place on the page is looked at, and queries are divided into train, val and query by a hash of their words.
docs/clicks.md says what to log, what the rules are, and how a config uses the files. No session, user or time is in
them. With --photos the queries are ids of photos of the catalogue, and the table has a row per page with a click.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("import_clicks")

from collections.abc import Mapping

from retrieval_jax.data import loading
from retrieval_jax.data.catalog import Catalog
from retrieval_jax.data.clicks import importing, writing
from retrieval_jax.errors import InputError

ORDER = ("train", "val", "gallery", "query")  # the split of a listing that several have: the first


def splits_of(catalog: Catalog) -> dict[str, str]:
    """Returns {id: split} of the listings of a catalogue."""
    found: dict[str, str] = {}
    for name in ORDER:
        if (split := catalog.splits().get(name)) is not None:
            for listing in split.ids:
                found.setdefault(listing, name)
    return found


def sentences(about: Mapping, photos: bool = False) -> list[str]:
    """Returns what happened to the records of a log, for the terminal.

    Args:
      about: as of `writing.write`.
      photos: whether the searches were by photo.
    """
    used, left = about["used"], about["set_aside"]
    out = [
        f"{about['read']:,} records = {sum(used.values()):,} used ({used['queries']:,} queries, "
        f"{used['impressions']:,} impressions, {used['clicks']:,} clicks, {used['wrong']:,} judged wrong) + "
        f"{sum(left.values()):,} set aside",
        *(
            f"set aside, {reason}: {count:,}"
            for reason, count in sorted(left.items(), key=lambda one: (-one[1], one[0]))
        ),
        *(f"noticed: {count:,} {what}" for what, count in sorted(about["notes"].items())),
        f"{about['searches']:,} searches in {about['sessions']:,} sessions; "
        + ("pages with a click" if photos else "different queries with a click")
        + ": "
        + (", ".join(f"{count:,} {part}" for part, count in about["written"].items()) or "none"),
    ]
    if photos:  # what places are worth is estimated where the table is read
        return out
    looks = about["propensities"]
    if looks is None:
        out.append("no click has a place on the page: clicks are not corrected for it")
    elif looks["method"] == "em":
        out.append(f"propensities of places estimated from {looks['informative']:,} clicks (position-based model, EM)")
    else:
        out.append(
            f"propensities of places taken as 1 / place: {looks['informative']:,} clicks on listings that were shown "
            "at several places for the same query are too few for an estimate"
        )
    return out


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    columns = {}
    for word in given.columns:
        ours, equals, theirs = word.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"--columns {word!r}: give OURS=THEIRS, such as product=sku")
        columns[ours] = theirs
    catalog = loading.load(given.config.data)
    ids, photos = splits_of(catalog), None
    if given.photos:
        there = [found for name in ("photo", "query") if (found := catalog.splits().get(name)) is not None]
        photos = {name for split in there for name in split.ids}
        if not photos:
            raise InputError(
                "--photos: the catalogue has no photos; give them as the split 'photo' (config.data.kwargs.files), or "
                "as the query split"
            )
    rules = importing.Rules(
        searches=given.searches,
        clicks=given.clicks,
        per_minute=given.per_minute,
        val_share=given.val_share,
        query_share=given.query_share,
    )
    found = importing.load(given.log, ids, rules, photos=photos, columns=columns)
    for sentence in sentences(writing.write(found, given.out, ids), given.photos):
        print(f"import_clicks: {sentence}")
    print(f"import_clicks: wrote {given.out}")
