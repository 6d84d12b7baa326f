"""The connection to Milvus: its address and secret, the sizes of requests, and its errors in the project's words."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import urllib.parse
from collections.abc import Iterator

from retrieval_jax.errors import InputError

MESSAGE_BYTES = 8 << 20  # per request; servers accept 64 MiB (clusters) or more
QUERIES = 256  # per request: milvus-lite holds queries x segment rows (up to 100,000) floats
HITS = 1 << 17  # per response, about a kilobyte each in Python
MOST_HITS = 16384  # per query, Milvus's own limit


def checked(uri: str) -> str:
    """Returns the URI; raises InputError if it is not valid or contains a secret, without repeating the secret."""
    if "://" in uri and "@" in uri:
        raise InputError(
            "the Milvus URI contains a user or a password: put them in the environment, MILVUS_TOKEN=user:password, "
            "and only https://host:port in the URI"
        )
    if uri.endswith(".db"):
        if not pathlib.Path(uri).resolve().parent.is_dir():
            raise InputError(f"{uri}: its folder does not exist: create it")
        return uri
    if urllib.parse.urlsplit(uri).scheme not in ("http", "https", "tcp", "unix"):
        raise InputError(
            f"{uri!r} is not a Milvus address: a local file ends in .db, a cluster is http://host:19530 or "
            "https://host:port"
        )
    return uri


def connect(uri: str):
    """Returns a client of the Milvus at an address; raises InputError if there is no pymilvus or no answer."""
    try:
        import pymilvus
    except ImportError as error:
        raise InputError(
            "pymilvus is not installed: launch/setup.sh requirements.txt requirements-milvus.txt, or "
            "pip install -r requirements-milvus.txt"
        ) from error
    token = os.environ.get("MILVUS_TOKEN", "")
    if not token and os.environ.get("MILVUS_USER"):
        token = f"{os.environ['MILVUS_USER']}:{os.environ.get('MILVUS_PASSWORD', '')}"
    remedy = (
        "is it open in another process? then stop that one"
        if uri.endswith(".db")
        else "is the server up, the address right, and MILVUS_TOKEN set if the server needs one?"
    )
    # The client pings the server every 10 s; milvus-lite closes connections that ping so often while it is busy.
    quiet = {"grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}} if uri.endswith(".db") else {}
    with asking(uri, "connection", remedy):
        return pymilvus.MilvusClient(uri, token=token, **quiet)


@contextlib.contextmanager
def asking(uri: str, what: str, remedy: str = "") -> Iterator[None]:
    """Turns Milvus's errors into InputErrors, without the stack traces that both sides log."""
    import pymilvus

    loggers = [logging.getLogger(name) for name in ("pymilvus", "milvus_lite")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    except pymilvus.MilvusException as error:
        raise InputError(f"Milvus at {uri}, {what}: {error.message}{f' ({remedy})' if remedy else ''}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
