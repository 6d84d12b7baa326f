"""Listens on a port: connections that are idle, slow or too many are closed or refused."""

from __future__ import annotations

import asyncio
import functools
import json
import resource
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrieval_jax.errors import InputError

MOST_CONNECTIONS = 512  # open at once; more are refused
MOST_REFUSED = 512  # refused connections that stay open for a moment, so that their clients can read why
HEAD_SECONDS = 15.0  # from a connection, or the request before, to the end of a request's head
READ_SECONDS = 30.0  # without reading any of an answer that waits for the client
LINGER_SECONDS = 2.0  # from a refusal to the end of a connection whose client does not close it
CLOSING_SECONDS = 10  # for running requests, when the service is stopped
FILES = 4096  # sockets, pictures and arrays that may be open at once, where the machine lets us
_SENTENCE = f"more than {MOST_CONNECTIONS} connections are open: try again in a few seconds"
_BODY = json.dumps({"error": _SENTENCE}).encode()
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Protocol(H11Protocol):
    """HTTP/1.1 whose connections end where a client neither asks nor reads in time, or where there are too many.

    Args:
      refused: the refused connections that are open.
      given: see `H11Protocol`.
    """

    def __init__(self, *, refused: set[_Refused], **given: Any):
        super().__init__(**given)
        self._refused = refused
        self._deadline = self._unread = None

    def connection_made(self, transport: Any) -> None:  # noqa: D102 (asyncio's)
        if len(self.connections) >= MOST_CONNECTIONS:
            transport.set_protocol(_Refused(transport, self._refused))
            return
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:  # noqa: D102 (uvicorn's)
        self._deadline.cancel()
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:  # noqa: D102 (asyncio's: the client does not read as fast as we write)
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:  # noqa: D102
        if not self.transport.is_closing():  # else a client that stops now would keep the last bytes for ever
            self._stop_waiting_for_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._deadline.cancel()
        self._stop_waiting_for_reading()
        super().connection_lost(exc)

    def _wait_for_reading(self, before: int | None = None) -> None:
        """Ends the connection when the client has read nothing for READ_SECONDS.

        Args:
          before: bytes that it had not read at the last look.
        """
        self._stop_waiting_for_reading()
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.transport.abort()
        else:
            self._unread = asyncio.get_running_loop().call_later(READ_SECONDS, self._wait_for_reading, left)

    def _stop_waiting_for_reading(self) -> None:
        if self._unread is not None:
            self._unread.cancel()

    def _wait(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # it waits for a request, the first or the next
            self.transport.close()  # after the bytes that the client has not read yet
            self._wait_for_reading()


class _Refused(asyncio.Protocol):
    """A connection too many: answers 503 at once, and stays until its client has read that.

    Closed at once, with a request unread, it would be reset, and the answer lost.
    """

    def __init__(self, transport: Any, refused: set[_Refused]):
        self._all = refused
        transport.write(_REFUSAL)
        if len(refused) >= MOST_REFUSED:
            transport.close()
            self._ends = None
            return
        refused.add(self)
        transport.write_eof()
        self._ends = asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        if self._ends is not None:
            self._ends.cancel()


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address.

    Args:
      host: name or address of this machine.
      port: 0 for a free one.

    Raises:
      InputError: the port is taken, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port} ({error}): give another --port or --host") from error


def server(service: Any) -> uvicorn.Server:
    """Returns the server of an ASGI application; `server(...).run(sockets=[listen(...)])` ends at SIGINT or SIGTERM.

    Args:
      service: the application.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard < 0 else min(FILES, hard), hard))
    settings = uvicorn.Config(
        service,
        http=functools.partial(Protocol, refused=set()),
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        h11_max_incomplete_event_size=32 * 1024,
    )
    return uvicorn.Server(settings)
