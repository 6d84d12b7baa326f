"""Requests that are wrong, hostile or odd: each gets a sentence, and none a failure or a file of the machine."""

import base64
import io
import itertools
import json
import os
import random
import threading
import time
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from retrieval_jax.errors import InputError
from retrieval_jax.server import app, bodies, guard, messages, pictures, runs


def png(width: int, height: int) -> bytes:
    """Returns a small file of a black picture of any size."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = width.to_bytes(4) + height.to_bytes(4)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


BAD = {
    "not JSON": b"{",
    "not an object": b"[1, 2]",
    "a number": b"7",
    "empty": b"",
    "not UTF-8": b'{"words": "\xff"}',
    "half of a surrogate pair": b'{"words": "\\ud800"}',
    "deep": b'{"conditions":' * 20_000,
    "deep lists": b"[" * 100_000,
    "long number": b'{"k": ' + b"9" * 10_000 + b"}",
    "infinite": b'{"weight": Infinity}',
    "not a number": b'{"weight": NaN}',
    "unknown field": {"wrods": "red"},
    "text for a number": {"k": "5"},
    "boolean for a number": {"k": True},
    "null": {"words": None},
    "k of 0": {"k": 0},
    "too many results": {"k": 10_000},
    "past the last page": {"offset": 990, "k": 24},
    "negative offset": {"offset": -1},
    "long words": {"words": "a" * 1001},
    "box of three": {"box": [0, 0, 1]},
    "box outside": {"box": [0, 0, 2, 1]},
    "box without a picture": {"box": [0, 0, 1, 1]},
    "weight": {"weight": 11},
    "not base64": {"picture": "@@@"},
    "base64 of no picture": {"picture": coded(b"no picture")},
    "path for a picture": {"picture": "/etc/passwd"},
    "address for a picture": {"picture": "http://169.254.169.254/"},
    "SVG": {"picture": coded(b"<svg xmlns='http://www.w3.org/2000/svg'/>")},
    "bomb": {"picture": coded(png(60_000, 60_000))},
    "truncated": {"picture": coded(png(100, 100))},
    "unknown kind of condition": {"conditions": {"wanted": []}},
    "unknown field of the index": {"conditions": {"required": [{"field": "color", "values": ["red"]}]}},
    "unknown value": {"conditions": {"required": [{"field": "colour", "values": ["rde"]}]}},
    "range of names": {"conditions": {"required": [{"field": "colour", "low": 1}]}},
    "clause of nothing": {"conditions": {"required": [{"field": "colour"}]}},
    "contradiction": {
        "conditions": {kind: [{"field": "colour", "values": ["red"]}] for kind in ("required", "excluded")}
    },
    "many clauses": {"conditions": {"required": [{"field": "colour", "values": ["red"]}] * 101}},
    "open quotation mark": {"words": '-"red'},
    "like a listing that does not exist": {"like": ["../../etc/passwd"]},
    "unlike alone": {"unlike": ["x"]},
    "stage": {"stage": "nothing"},
    "stage as a path": {"stage": "../../secret"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_search_gets_a_sentence(client, name):
    body = BAD[name]
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/v1/search", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 422, (name, answer.status_code, answer.text)
    (sentence,) = answer.json().values()
    assert sentence and len(sentence) < 1500 and "Traceback" not in sentence and "retrieval_jax/" not in sentence
    assert str(runs.__file__)[:8] not in sentence


def test_what_does_not_exist_is_404_and_other_types_are_refused(client):
    assert client.post("/v1/search", json={"run": "other"}).status_code == 404
    assert client.get("/v1/nothing").status_code == 404 and client.get("/static/../runs.py").status_code == 404
    assert client.get("/v1/search").status_code == 405
    assert client.post("/v1/search", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/v1/judgements", data={"listing": "x"}).status_code == 415
    assert client.post("/v1/search", files={"photo": b"x"}).status_code == 422
    assert client.post("/v1/search", files={"picture": b"x"}, data={"request": "{"}).status_code == 422
    assert client.get("/v1/facets?tpo=3").json()["error"].startswith("'tpo' is not in the query")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/search", content=b"--y\r\n", headers=broken).status_code == 422
    for kind in ("multipart/form-data", "multipart/form-data; boundary="):
        assert client.post("/v1/search", content=b"x", headers={"content-type": kind}).status_code in (415, 422)


@pytest.mark.parametrize(
    "listing", ["..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "../../etc/passwd", "%00", "x" * 5000, "%ff%fe"]
)
def test_pictures_and_listings_stay_inside_the_catalogue(client, listing):
    for kind in ("pictures", "listings"):
        answer = client.get(f"/v1/{kind}/{listing}")
        assert answer.status_code in (404, 422) and "root:" not in answer.text


def test_large_requests_are_refused_by_their_length_and_by_their_bytes(client, monkeypatch):
    monkeypatch.setattr(guard, "MOST_BYTES", 10_000)
    answer = client.post("/v1/search", content=b" " * 10_001, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "smaller picture" in answer.json()["error"]
    kind = {"content-type": "application/json"}
    assert client.post("/v1/search", content=(b" " * 1000 for _ in range(20)), headers=kind).status_code == 413
    monkeypatch.setattr(guard, "MOST_HELD", 5000)
    answer = client.post("/v1/search", content=(b" " * 1000 for _ in range(8)), headers=kind)
    assert answer.status_code == 503 and "try again" in answer.json()["error"]
    assert client.post("/v1/search", json={}).status_code == 200 and client.app._held == 0


def test_large_pictures_are_refused_by_their_pixels(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 99)
    file = io.BytesIO()
    Image.new("RGB", (10, 10)).save(file, "PNG")
    with pytest.raises(InputError, match="image too large"):
        pictures.decoded(file.getvalue())
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    monkeypatch.setattr(pictures, "HELD_PIXELS", 25)
    assert pictures.decoded(file.getvalue()).shape == (5, 5, 3)


def test_a_token_is_asked_for_everywhere_but_at_health(finished):
    service = app.make(runs.Runs([finished], watched=0), token="a-token-of-16-letters")
    with TestClient(service, raise_server_exceptions=False) as made:
        assert made.get("/healthz").status_code == 200
        for path in ("/", "/v1/runs", "/metrics", "/v1/openapi.json", "/static/search.js"):
            answer = made.get(path)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic")
        basic = base64.b64encode(b"anyone:a-token-of-16-letters").decode()
        for known in ("Bearer a-token-of-16-letters", f"Basic {basic}"):
            assert made.get("/v1/runs", headers={"authorization": known}).status_code == 200
        for unknown in ("Bearer a-token", "Basic @@", "Bearer", "Digest a-token-of-16-letters", "Basic /w=="):
            assert made.get("/v1/runs", headers={"authorization": unknown}).status_code == 401


def test_pages_of_other_sites_do_not_reach_a_local_service(finished):
    service = app.make(runs.Runs([finished], watched=0), hosts=guard.LOCAL)
    with TestClient(service, raise_server_exceptions=False) as made:
        for host, status in (("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("shop.example", 400)):
            assert made.get("/v1/runs", headers={"host": host}).status_code == status
        asked = {"origin": "https://shop.example", "access-control-request-method": "POST", "host": "localhost"}
        answer = made.options("/v1/search", headers=asked)
        assert answer.status_code == 405 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_random_requests_never_fail(client, count):
    """Requests made of valid and odd values, a fixed seed."""
    rng = random.Random(0)
    odd = [None, True, -1, 0, 1, 1e308, "", "a" * 300, "\u202e\x00", [], [[]], {}, {"a": 1}, "../..", "'; --", 2**70]
    good = {
        "k": [1, 5, 200], "offset": [0, 7], "words": ["red", "-colour:red", "the shoe", "\u4e2d\u6587"],
        "weight": [0, 1.5], "stage": ["", "cosine", "whitening", "reranking"], "predict": [True, False],
        "box": [[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4]], "picture": [coded(png(1, 1)), "AAAA"], "run": ["", "tiny"],
        "conditions": [{}, {"preferred": [{"field": "colour", "values": ["red", "blue"]}]}], "like": [[], ["x"]],
    }  # fmt: skip
    seen = set()
    for _ in range(count):
        body = {}
        for name in rng.sample(sorted(good), rng.randrange(6)):
            body[name] = rng.choice(odd if rng.random() < 0.15 else good[name])
        answer = client.post("/v1/search", json=body)
        assert answer.status_code in (200, 404, 422), (body, answer.text)
        seen.add(answer.status_code)
    assert seen >= {200, 422}


@pytest.mark.parametrize("message", [messages.Search, messages.Judgement, messages.Conditions, messages.Complete])
def test_odd_json_is_read_or_refused(message):
    pieces = ["{", "}", "[", "]", '"k"', ":", ",", "1", "null", '"a"', "\\", "\x00", "\u2028", "1e999", '"\\ud800"']
    for parts in itertools.product(pieces, repeat=3):
        try:
            bodies.parse(message, "".join(parts))
        except InputError as error:
            assert len(str(error)) < 1500


def test_no_more_pictures_are_decoded_at_once_than_there_are_cores(monkeypatch):
    lock, now, most = threading.Lock(), [0], [0]

    def decode(*_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(pictures.decoding, "decode", decode)
    threads = [threading.Thread(target=pictures.decoded, args=(b"",)) for _ in range(3 * (os.cpu_count() or 1))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most[0] == (os.cpu_count() or 1)
