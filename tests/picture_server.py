"""A server on the loopback interface that misbehaves in every way a shop's host can."""

import contextlib
import gzip
import http.server
import io
import socket
import threading
import time

from PIL import Image


def picture(colour: str = "red", side: int = 16, kind: str = "PNG") -> bytes:
    """Returns the bytes of a picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, kind)
    return out.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body: bytes = b"", status: int = 200, kind: str = "image/png", **headers):
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body))} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def do_GET(self):
        server = self.server
        path = self.path.partition("?")[0]
        with server.lock:
            count = server.counts[path] = server.counts.get(path, 0) + 1
            server.times.setdefault(path, []).append(time.monotonic())
            server.headers.append(dict(self.headers))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            self._route(path, count)
        except OSError:
            self.close_connection = True
        finally:
            with server.lock:
                server.now -= 1

    def _route(self, path: str, count: int):
        kind = path.strip("/").partition("/")[0]
        if kind == "ok":
            self.answer(picture())
        elif kind == "slow":
            time.sleep(0.15)
            self.answer(picture())
        elif kind == "404":
            self.answer(b"<html>not here</html>", 404, "text/html")
        elif kind == "403":
            self.answer(b"", 403)
        elif kind == "busy":  # once
            self.answer(picture(), 429 if count == 1 else 200, **({"Retry_After": "1"} if count == 1 else {}))
        elif kind == "always_busy":
            self.answer(b"", 429, Retry_After="3600")
        elif kind == "flaky":
            self.answer(picture(), 500 if count == 1 else 200)
        elif kind == "broken":
            self.answer(b"", 500)
        elif kind == "to":
            self.answer(b"", 302, Location=self.server.target)
        elif kind == "loop":
            self.answer(b"", 301, Location="/loop/again.png")
        elif kind == "drip":
            self.answer(b"", Content_Length="100000")
            for _ in range(200):
                self.wfile.write(b"\x89")
                self.wfile.flush()
                time.sleep(0.05)
        elif kind == "drip_headers":
            for letter in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100:
                self.wfile.write(bytes([letter]))
                self.wfile.flush()
                time.sleep(0.05)
        elif kind == "endless":
            self.answer(b"", Content_Length=None, Connection="close")
            while True:
                self.wfile.write(b"\0" * 65536)
        elif kind == "announced":
            self.answer(b"", Content_Length=str(10**12))
        elif kind == "short":  # promises more than it sends
            self.answer(picture(), Content_Length="100000")
            self.close_connection = True
        elif kind == "long":  # sends more than it promises
            self.answer(picture(), Content_Length=str(len(picture()) // 2))
            self.close_connection = True
        elif kind == "html":
            self.answer(b"<!doctype html><title>Sign in</title>", kind="image/jpeg")
        elif kind == "empty":
            self.answer(b"")
        elif kind == "large":
            self.answer(picture(side=300))
        elif kind == "gzip":
            self.answer(gzip.compress(picture()), Content_Encoding="gzip")
        elif kind == "bomb":
            self.answer(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
        elif kind == "brotli":
            self.answer(picture(), Content_Encoding="br")
        elif kind == "nonsense":
            self.wfile.write(b"\x1b[31mSSH-2.0-OpenSSH\r\n\r\n")
            self.close_connection = True
        elif kind == "hang_up":
            self.close_connection = True


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def served(host: str = "127.0.0.1"):
    """Runs a server; yields it. `url` begins its addresses; `counts` has the requests by path, `most` at a time."""
    server = (_Server6 if ":" in host else _Server)((host, 0), _Handler)
    server.lock, server.counts, server.times, server.headers = threading.Lock(), {}, {}, []
    server.now = server.most = 0
    server.target = ""
    server.url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
