"""Clients that are slow, silent, half gone or too many: each is answered or closed in time, others are served."""

import asyncio
import collections
import contextlib
import http.client
import json
import resource
import socket
import threading
import time

import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.server import guard, listening

LARGE = 64 * 2**20  # bytes of an answer that no buffer between two processes holds


async def answering(scope, receive, send):
    """Reads a request, and answers 200; with many bytes at /large."""
    while (await receive()).get("more_body"):
        pass
    body = bytes(LARGE) if scope["path"] == "/large" else b"{}"
    with contextlib.suppress(OSError):  # the client is gone
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def served():
    """Serves `answering`; yields the port."""

    async def guarded(scope, receive, send):
        try:
            await answering(scope, receive, send)
        except guard.TooSlow as error:
            await guard._say(send, 408, str(error), {"connection": "close"})

    listener = listening.listen("127.0.0.1", 0)
    server = listening.server(guard.Guard(guarded, guard.Metrics(), lambda _: None, "", ()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope="module")
def port():
    with served() as made:
        yield made


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def ask(port: int) -> tuple[int, dict]:
    made = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    made.request("GET", "/")
    answer = made.getresponse()
    found = answer.status, json.loads(answer.read())
    made.close()
    return found


def rest(one: socket.socket) -> bytes:
    """Returns what comes until the service ends the connection."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := one.recv(1 << 20):
            found += data
    return found


def until_served(port: int) -> None:
    for _ in range(200):
        if ask(port)[0] == 200:
            return
        time.sleep(0.05)
    raise AssertionError("the service stays busy")


def test_slow_and_half_closed_connections_end_and_others_are_served(port, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(guard, "SECONDS", 0.5)
    silent, slow, dripping, half, gone = (connected(port) for _ in range(5))
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    slow.sendall(head)
    dripping.sendall(b"GET / HTTP/1.1\r\nHo")
    half.sendall(head)
    half.shutdown(socket.SHUT_WR)
    gone.sendall(head)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    gone.close()  # a reset
    assert ask(port) == (200, {})
    start = time.monotonic()
    assert rest(silent) == b"" and rest(dripping) == b"" and b"200" not in rest(half)
    assert rest(slow).startswith(b"HTTP/1.1 408") and time.monotonic() - start < 8
    assert ask(port) == (200, {})
    for one in (silent, slow, dripping, half):
        one.close()


def test_a_client_that_reads_nothing_is_closed(port, monkeypatch):
    monkeypatch.setattr(listening, "READ_SECONDS", 0.3)
    with connected(port) as one:
        one.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.0)
        assert ask(port) == (200, {})
        assert len(rest(one)) < LARGE


def test_a_client_that_reads_slowly_gets_the_whole_answer(port, monkeypatch):
    """It takes much longer than a client that reads nothing has, and than an idle connection stays open."""
    monkeypatch.setattr(listening, "READ_SECONDS", 0.7)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    with connected(port) as one:
        one.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        found, start = 0, time.monotonic()
        while data := one.recv(2**20, socket.MSG_WAITALL):
            found += len(data)
            time.sleep(0.04)
        assert found > LARGE and time.monotonic() - start > 2.5


def test_the_last_bytes_of_an_answer_that_nobody_reads_are_given_up(port, monkeypatch):
    monkeypatch.setattr(listening, "READ_SECONDS", 0.3)
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.1)
    with connected(port) as one:
        one.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        one.recv(2**20, socket.MSG_WAITALL)
        time.sleep(1.5)  # more than both, after something was read
        assert len(rest(one)) < LARGE - 2**20


def test_a_byte_after_an_answer_keeps_no_connection_open(port, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    with connected(port) as one:
        for _ in range(2):  # an idle connection is used again
            one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
        one.sendall(b"G")  # which ends the keep-alive timer
        start = time.monotonic()
        assert rest(one) == b"" and time.monotonic() - start < 4


def test_too_many_connections_get_a_sentence_and_are_then_served_again(port, monkeypatch):
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(listening, "MOST_REFUSED", 2)
    monkeypatch.setattr(listening, "LINGER_SECONDS", 0.3)
    until_served(port)
    some = [connected(port) for _ in range(3)]
    status, answer = ask(port)
    assert status == 503 and "try again" in answer["error"]
    refused = [connected(port) for _ in range(4)]  # the last ones are closed at once
    assert all(rest(one).startswith(b"HTTP/1.1 503") for one in refused)
    some[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # those that are open are served
    assert some[0].recv(1000).startswith(b"HTTP/1.1 200")
    for one in (*some, *refused):
        one.close()
    until_served(port)


@pytest.mark.long
def test_10_000_connections_are_refused_politely():
    """As many as the limit of open files allows: both ends are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 20_000 if hard < 0 else min(hard, 20_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    count = min(10_000, limit - 2 * (listening.MOST_CONNECTIONS + listening.MOST_REFUSED) - 500)

    still_open = []

    async def one(port: int, few: asyncio.Semaphore, closing: asyncio.Event) -> str:
        async with few:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                found = (await asyncio.wait_for(reader.read(40), 30))[9:12].decode()
            except ConnectionError:  # closed before its request had arrived
                return "reset"
        still_open.append(writer)
        await closing.wait()  # all of them stay open on this side
        writer.close()
        return found

    async def all_of(port: int) -> list[str]:
        few, closing = asyncio.Semaphore(200), asyncio.Event()
        tasks = [asyncio.create_task(one(port, few, closing)) for _ in range(count)]
        while sum(task.done() for task in tasks) + len(still_open) < count:
            await asyncio.sleep(0.1)
        closing.set()
        return await asyncio.gather(*tasks)

    try:
        with served() as port:
            counts = collections.Counter(asyncio.run(all_of(port)))
            print(f"{count:,} connections: {dict(counts)}")
            assert set(counts) <= {"200", "503", "reset"} and counts["200"] >= listening.MOST_CONNECTIONS
            assert counts["reset"] <= count / 100
            until_served(port)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_port_that_is_taken_gets_a_sentence(port):
    with pytest.raises(InputError, match="give another --port"):
        listening.listen("127.0.0.1", port)
    with pytest.raises(InputError, match="cannot listen"):
        listening.listen("127.0.0.1", 70_000)
