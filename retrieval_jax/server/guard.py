"""What every request passes: host, token, size, deadline; and what every answer gets: headers, a metric, a log line.

A log line has no words, no picture, no address and no id of a listing: method, route, status, time and size. What a
page loads by the dozen, thumbnails and its own files, has lines only where it fails.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import time
from collections.abc import Callable

import prometheus_client
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 20 * 2**20  # of a request: a picture of a phone, also as base64
MOST_HELD = 512 * 2**20  # of all requests that are being answered
SECONDS = 30.0  # to receive a request
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
}
OPEN = ("/healthz",)  # paths that need no token
UNLOGGED = ("/v1/pictures/{listing:path}", "/static/{name}")  # routes whose successes only the metrics count
LOCAL = ("localhost", "127.0.0.1", "[::1]")


class TooLarge(Exception):
    """A request has more bytes than are read."""


class TooSlow(Exception):
    """A request did not arrive in time."""


class TooMany(Exception):
    """All requests together have more bytes than are held."""


class Metrics:
    """Counters of a service, in a registry of their own."""

    def __init__(self):
        self.registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter(
            "retrieval_requests_total", "requests", ("route", "status"), registry=self.registry
        )
        self.seconds = prometheus_client.Histogram(
            "retrieval_request_seconds",
            "seconds from request to answer",
            ("route",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.batches = prometheus_client.Histogram(
            "retrieval_batch_size", "requests computed together", ("what",), buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )  # fmt: skip
        self.running = prometheus_client.Gauge(
            "retrieval_requests_running", "requests being answered", registry=self.registry
        )
        prometheus_client.ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Returns them in Prometheus' format."""
        return prometheus_client.generate_latest(self.registry)


class Guard:
    """Middleware around the whole service.

    Args:
      app: the service.
      metrics: what is counted.
      log: called with a dict per request.
      token: that requests must have; "" for none.
      hosts: names that the header Host may have; () for any. Pages of other sites reach a local service by names of
        their own (DNS rebinding), which this refuses.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Callable[[dict], None], token: str, hosts: tuple[str, ...]):
        self.app, self.metrics, self.log, self.token, self.hosts = app, metrics, log, token, hosts
        self._held = 0  # bytes of all requests that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        start, status, sent, started, held = time.monotonic(), 500, 0, False, 0
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def answer(message: Message) -> None:
            nonlocal status, sent, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                own = {name.decode("latin-1") for name, _ in message["headers"]}
                added = {"cache-control": "no-store", **HEADERS}
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in added.items() if name not in own),
                ]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        def hold(count: int) -> None:
            nonlocal held
            held, self._held = held + count, self._held + count
            if held > MOST_BYTES:
                raise TooLarge(_too_large())
            if self._held > MOST_HELD:
                raise TooMany("the service holds too many large requests: try again in a few seconds")

        self.metrics.running.inc()
        try:
            refused = self._refused(scope, headers)
            if refused:
                await _say(answer, *refused)
            else:
                await self.app(scope, _bounded(receive, hold), answer)
        except Exception as error:  # the service has answered with status 500 where it could, and raised it again
            if not started:
                self.log({"event": "error", "kind": type(error).__name__, "where": where(error)})
        finally:
            self._held -= held
            self.metrics.running.dec()
            seconds = time.monotonic() - start
            route = getattr(scope.get("route"), "path", "unknown")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if status >= 400 or route not in UNLOGGED:
                method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
                line = {"event": "request", "method": method, "route": route, "status": status}
                self.log({**line, "ms": round(1000 * seconds, 1), "bytes": sent})

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple | None:
        """Returns status, sentence and headers where a request is refused before it is read."""
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.hosts and name.lower() not in self.hosts:
            return 400, "the header Host is not one that this service answers to: use the address that serve printed"
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > MOST_BYTES:
            return 413, _too_large()
        if self.token and scope["path"] not in OPEN and not self._known(headers.get("authorization", "")):
            return 401, "a token is needed: send 'Authorization: Bearer <token>', or the token as the password", {
                "www-authenticate": 'Basic realm="retrieval-jax", charset="UTF-8"'
            }  # fmt: skip
        return None

    def _known(self, given: str) -> bool:
        """Returns whether a header has the token, as Bearer or as the password of Basic, which browsers ask for."""
        kind, _, value = given.partition(" ")
        if kind.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(value.strip().encode(), self.token.encode())


def _too_large() -> str:
    return f"the request has more than {MOST_BYTES >> 20} MiB: send a smaller picture"


def _bounded(receive: Receive, hold: Callable[[int], None]) -> Receive:
    """Returns a `receive` that reads within SECONDS, and counts the bytes by `hold`."""
    ends = asyncio.get_running_loop().time() + SECONDS
    complete = False

    async def bounded() -> Message:
        nonlocal complete
        if complete:  # what follows a request is the end of its connection
            return await receive()
        try:
            async with asyncio.timeout_at(ends):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"the request did not arrive within {SECONDS:g} seconds: send it again") from None
        complete = message["type"] != "http.request" or not message.get("more_body", False)
        hold(len(message.get("body", b"")))
        return message

    return bounded


async def _say(send: Send, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": sentence}).encode()
    pairs = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    if status == 413:
        pairs["connection"] = "close"  # the request is not read
    listed = [(name.encode(), value.encode()) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


def where(error: BaseException) -> str:
    """Returns file and line of an error in this package, without its message, which may hold what a person typed."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "retrieval_jax" in file:
            found = f"{file.rpartition('retrieval_jax/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found
