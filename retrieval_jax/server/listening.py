"""Listens on a port: connections that are idle, slow or too many are closed or refused."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrieval_jax.errors import InputError

MOST_CONNECTIONS = 512  # open at once; more get status 503
HEAD_SECONDS = 15.0  # from a connection, or the request before, to the end of a request's head
CLOSING_SECONDS = 10  # for running requests, when the service is stopped


class Protocol(H11Protocol):
    """HTTP/1.1 whose connections are closed where no request begins in time."""

    def connection_made(self, transport: Any) -> None:  # noqa: D102 (asyncio's)
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:  # noqa: D102 (uvicorn's)
        self._deadline.cancel()
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._deadline.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete  # for a request, the first or the next
        if waits and not self.transport.is_closing():
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address; 0 is a free port.

    Raises:
      InputError: the port is taken, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port} ({error}): give another --port or --host") from error


def server(service: Any) -> uvicorn.Server:
    """Returns the server of an ASGI application; `server(...).run(sockets=[listen(...)])` ends at SIGINT or SIGTERM."""
    settings = uvicorn.Config(
        service,
        http=Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=CLOSING_SECONDS,
        h11_max_incomplete_event_size=32 * 1024,
    )
    return uvicorn.Server(settings)
