"""Fetches the pictures that a table names by address into a folder, where `init` and every run find them.

    retrieval-jax pictures products.csv --out=pictures/

The same command resumes an interrupted one: pictures that the folder holds are not fetched again. A picture is kept
only if it is complete and decodes. Each host gets a few requests at a time and the pauses it asks for. Addresses
that lead into a private network are refused unless --allow_private names it. What could not be fetched is listed in
failed.csv of the folder, and the exit status is then 1.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("pictures")

import collections
import csv
import io
import math
import pathlib
from collections.abc import Iterable, Sequence

from retrieval_jax import output
from retrieval_jax.data.exports import folders, products, references
from retrieval_jax.data.fetching import addresses, folder
from retrieval_jax.data.fetching.folder import Fetched, Limits
from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.files import atomic, lock

FAILED = "failed.csv"


def fetch(
    pairs: Iterable[tuple[str, str]],
    out: pathlib.Path,
    *,
    limits: Limits | None = None,
    allow_private: Sequence[str] = (),
) -> Fetched:
    """Fetches pictures into a folder and prints what became of them.

    Args:
      pairs: (product, address); an address may be named by several products.
      out: the folder; created where missing.
      limits: what fetching may take.
      allow_private: networks that are not private here, such as "10.1.0.0/16".

    Returns:
      What became of each address. The failures are also in `out / FAILED`.

    Raises:
      InputError: no addresses; the folder cannot be used, or another process fetches into it.
      Preempted: SIGTERM arrived; the same call resumes.
    """
    pairs = [(product, address) for product, address in pairs]
    if not pairs:
        raise InputError("the table names no pictures by address, so there is nothing to fetch")
    allowed = addresses.networks(allow_private)
    _create(out)
    with lock.held(out, "pictures"):
        products = collections.defaultdict(list)
        for product, address in pairs:
            products[addresses.normal(address)].append(product)
        print(
            f"pictures: {len(pairs):,} addresses of {len({product for product, _ in pairs}):,} products, "
            f"{len(products):,} of them different, at {_number_of_hosts(products)}",
            flush=True,
        )
        given = [address for _, address in pairs]
        result = folder.fetch(given, out, limits=limits, allowed=allowed, find=_finder(given, out))
        _write_failed(out, result, products)
    print(summary(result))
    return result


def summary(result: Fetched) -> str:
    """Returns what became of the addresses, in one or two lines."""
    text = (
        f"pictures: {len(result.fetched):,} fetched ({result.num_bytes / 1e6:,.1f} MB received), "
        f"{len(result.present):,} already there, {len(result.failed):,} failed"
    )
    reasons = collections.Counter(failure.reason for failure in result.failed)
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        example = next(failure for failure in result.failed if failure.reason == reason)
        detail = f" ({example.detail[:100]})" if example.detail else ""
        text += f"\n  {count:,} {reason}, such as {output.visible(example.address)[:200]}{detail}"
    return text


def _finder(given: Sequence[str], out: pathlib.Path):
    """Returns a function that finds a picture which the user has under the last part of its address.

    Only under a name that one address alone has: of two addresses "front.jpg", the file shows one.
    """
    there = folders.Folder(out)

    def name(address):
        return references.loose(references.path(address)).rpartition("/")[2]

    counts = collections.Counter(map(name, {addresses.normal(address) for address in given}))
    return lambda address: there.find(address)[0] if counts[name(addresses.normal(address))] == 1 else None


def _number_of_hosts(different) -> str:
    hosts = {addresses.host(address) for address in different if not addresses.problem(address)}
    return next(iter(hosts)) if len(hosts) == 1 else f"{len(hosts):,} hosts"


def _create(out: pathlib.Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out={out} cannot be used: {error.strerror}; give another folder") from error


def _write_failed(out: pathlib.Path, result: Fetched, products) -> None:
    """Writes the failures as a CSV; removes that of an earlier try where none are left."""
    if not result.failed:
        (out / FAILED).unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("products", "address", "reason", "detail"))
    for failure in result.failed:
        names = " | ".join(dict.fromkeys(products[addresses.normal(failure.address)]))
        writer.writerow(map(output.cell, (names, failure.address, failure.reason, failure.detail)))
    atomic.write_text(out / FAILED, text.getvalue())


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.

    Raises:
      RunFailed: some pictures could not be fetched.
    """
    for name in ("max_pictures", "max_gb", "max_mb", "seconds", "per_host"):
        if not 0 < (value := getattr(given, name)) < math.inf:
            raise InputError(f"--{name}={value}: give a number above 0")
    limits = Limits(
        pictures=given.max_pictures,
        total_bytes=round(given.max_gb * 1e9),
        picture_bytes=round(given.max_mb * 1e6),
        seconds=given.seconds,
        per_host=given.per_host,
    )
    pairs = products.addresses(given.table)
    result = fetch(pairs, given.out, limits=limits, allow_private=given.allow_private)
    if result.failed:
        raise RunFailed(
            f"{len(result.failed):,} of the pictures could not be fetched; {given.out / FAILED} lists them. The same "
            "command tries these again; `retrieval-jax init` and runs work without them"
        )
