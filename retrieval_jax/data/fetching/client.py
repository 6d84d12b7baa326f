"""Fetches one picture over HTTP: bounded in bytes, time and redirects, and never from a private address.

Every connection goes to an IP address that was checked: the resolver refuses a host with a private address among its
own, and the socket is made for the very address that is connected to, so that a name cannot change its meaning between
check and connection, and numbers, redirects and odd spellings of both take the same way.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import email.utils
import re
import socket
import ssl
import urllib.parse
import zlib
from collections.abc import Callable, Sequence

import aiohttp
import aiohttp.abc
from aiohttp.resolver import ThreadedResolver

from retrieval_jax import __version__
from retrieval_jax.data.fetching import addresses

_PIECE = 65_536
_HEADERS = {
    "User-Agent": f"retrieval_jax/{__version__} (fetches the pictures of a product table)",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}
_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses that a later try may not get
_MOVED = (301, 302, 303, 307, 308)


class NotFetched(Exception):
    """An address that gave no picture.

    Attributes:
      reason: key for counts.
      detail: what was found.
      again: whether a later try may succeed.
      after: seconds that the server asks to wait before it, or None.
      silent: whether the host did not answer at all.
    """

    def __init__(self, reason: str, detail: str = "", *, again=False, after: float | None = None, silent=False):
        super().__init__(reason, detail)
        self.reason, self.again, self.after, self.silent = reason, again, after, silent
        # A server chooses much of it, and it goes to terminals.
        self.detail = "".join(letter if letter.isprintable() else "?" for letter in detail)


class PrivateAddress(OSError):
    """A host with an address that must not be connected to."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What one request may take.

    Attributes:
      picture_bytes: largest picture.
      seconds: from looking up the host to the last byte, redirects included.
      redirects: most of them.
      spend: called with the number of bytes of each piece that arrives; may raise `NotFetched`.
    """

    picture_bytes: int
    seconds: float
    redirects: int = 5
    spend: Callable[[int], None] = lambda count: None


class _Resolver(ThreadedResolver):
    def __init__(self, allowed):
        super().__init__()
        self._allowed = allowed

    async def resolve(self, host, port=0, family=socket.AF_INET):
        found = await super().resolve(host, port, family)
        for each in found:
            _check(each["host"], self._allowed)
        return found


def _check(address: str, allowed) -> None:
    if addresses.is_private(address, allowed):
        raise PrivateAddress(f"{address} is private")


def session(allowed: Sequence[addresses.Network] = ()) -> aiohttp.ClientSession:
    """Returns a session that connects to public addresses only; use it as an asynchronous context.

    It keeps no cookies and reads neither proxies nor passwords from the environment.

    Args:
      allowed: private networks that it may connect to all the same.
    """

    def checked_socket(info) -> socket.socket:
        family, kind, protocol, _, place = info
        _check(place[0], allowed)
        return socket.socket(family, kind, protocol)

    connector = aiohttp.TCPConnector(resolver=_Resolver(allowed), socket_factory=checked_socket, limit=0)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None),  # `fetch` has its own, around all of it
    )


async def fetch(opened: aiohttp.ClientSession, address: str, bounds: Bounds) -> bytes:
    """Returns what an address holds, without looking into it.

    Args:
      opened: from `session`.
      address: http or https.
      bounds: of this request.

    Raises:
      NotFetched: it holds nothing, too much, or takes too long.
    """
    try:
        async with asyncio.timeout(bounds.seconds):
            return await _follow(opened, addresses.normal(address), bounds)
    except TimeoutError:
        raise NotFetched("too slow", f"not complete after {bounds.seconds:g} s", again=True, silent=True) from None
    except aiohttp.ClientConnectorError as error:
        raise _unconnected(error) from None
    except (aiohttp.InvalidURL, UnicodeError) as error:
        raise NotFetched("not a usable address", _first_line(error)) from None
    except (aiohttp.ClientResponseError, ValueError) as error:
        raise NotFetched("not an answer", _first_line(error)) from None
    except (aiohttp.ClientError, OSError) as error:
        raise NotFetched("the answer ended early", _first_line(error), again=True) from None


async def _follow(opened, address: str, bounds: Bounds) -> bytes:
    for _ in range(bounds.redirects + 1):
        if problem := addresses.problem(address):
            raise NotFetched("not a usable address", f"{problem}: {address[:200]}")
        async with opened.get(address, allow_redirects=False) as response:
            if response.status not in _MOVED:
                return await _body(response, bounds)
            if not (location := response.headers.get("Location", "")):
                raise NotFetched("not an answer", f"status {response.status} without a new address")
            address = urllib.parse.urljoin(str(response.url), location)
    raise NotFetched("redirected too often", f"more than {bounds.redirects} times, last to {address[:200]}")


async def _body(response: aiohttp.ClientResponse, bounds: Bounds) -> bytes:
    status = f"{response.status} {response.reason or ''}".strip()
    if response.status in (404, 410):
        raise NotFetched("not found", status)
    if response.status in (401, 402, 403, 407, 451):
        raise NotFetched("refused", status)
    if response.status in _AGAIN:
        after = _seconds(response.headers.get("Retry-After", ""))
        reason = "too many requests" if response.status == 429 else "error of the server"
        raise NotFetched(reason, status, again=True, after=after)
    if response.status not in (200, 203):
        raise NotFetched("error of the server" if response.status >= 500 else "not an answer", status)
    most = bounds.picture_bytes
    if (response.content_length or 0) > most:
        raise NotFetched("too many bytes", f"{response.content_length:,}, at most {most:,} are fetched")
    unpack = _unpacker(response.headers.get("Content-Encoding", ""))
    data = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        bounds.spend(len(piece))
        data += unpack(piece, most + 1 - len(data))
        if len(data) > most:
            raise NotFetched("too many bytes", f"more than {most:,}")
    return bytes(data)


def _unpacker(encoding: str):
    """Returns a function of (bytes, most) that unpacks the next bytes, never to more than `most`."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return lambda piece, most: piece
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise NotFetched("not an answer", f"it is compressed ({encoding[:40]}), which was not asked for")
    inflate = zlib.decompressobj(wbits=47 if "gzip" in encoding else 15)  # 47: gzip or zlib, by its header

    def unpack(piece, most):
        try:
            return inflate.decompress(piece, max(most, 1))
        except zlib.error as error:
            raise NotFetched("not an answer", f"its compression is broken ({error})") from None

    return unpack


def _seconds(text: str, now: datetime.datetime | None = None) -> float | None:
    """Returns the seconds of a Retry-After, which holds seconds or a date; None for anything else."""
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=datetime.UTC)
    return max(0.0, (then - (now or datetime.datetime.now(datetime.UTC))).total_seconds())


def _unconnected(error: aiohttp.ClientConnectorError) -> NotFetched:
    """Returns what to report about a connection that failed."""
    cause = error.__cause__ or error
    if isinstance(cause, PrivateAddress):
        return NotFetched("private address", f"{error.host}: {cause}; --allow_private allows it")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        # Only a resolver that could not be reached may answer a later try.
        again = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
        return NotFetched("unknown host", f"{error.host}: {_first_line(cause)}", again=again, silent=True)
    if isinstance(error, aiohttp.ClientConnectorCertificateError) or isinstance(cause, ssl.SSLError):
        return NotFetched("no secure connection", f"{error.host}: {_first_line(cause)}", silent=True)
    return NotFetched("no connection", f"{error.host}: {_first_line(cause)}", again=True, silent=True)


def _first_line(error: BaseException) -> str:
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
