"""Latency of the search service under concurrent clients, over a generated gallery.

    python benchmarks/serving.py --listings=100000 --clients=20 --seconds=60 --out=benchmarks/serving.json

Service and clients are processes of their own on this machine and share its cores. Each client asks for 24 results
like a random listing (a query by vector; no network runs), and again as soon as it has the answer.
"""

import argparse
import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import aiohttp  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.data.catalog import Split  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import attribute  # noqa: E402
from retrieval_jax.postprocess.new_queries import Stage  # noqa: E402
from retrieval_jax.server import app, listening, runs  # noqa: E402
from retrieval_jax.server.gallery import Gallery  # noqa: E402
from retrieval_jax.server.networks import Networks  # noqa: E402


def generated(count: int, dim: int) -> Gallery:
    """Returns a gallery of random vectors with a colour, a kind and a price each."""
    rng = np.random.default_rng(0)
    ids = [f"listing-{number:07d}" for number in range(count)]
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    fields = {
        name: attribute.Field.of([f"{name} {value}" for value in rng.integers(0, values, count).tolist()])
        for name, values in (("colour", 12), ("kind", 200))
    }
    table = attribute.build({**fields, "price": rng.uniform(1, 500, count)}, count)
    split = Split("gallery", ids, [f"Product {number}" for number in range(count)], None, [])
    return Gallery(Embeddings(ids, vectors), split, np.arange(count), table, [Stage("cosine")], "", {})


def serve(count: int, dim: int, folder: str) -> None:
    """Serves a generated gallery; prints its port."""
    (pathlib.Path(folder) / "config.json").write_text('{"data": {"source": "synthetic"}, "train": {}}')
    runs.gallery_lib.check = lambda *_: None
    served = runs.Runs([pathlib.Path(folder)], watched=0)
    served.get().loaded = runs.Loaded(generated(count, dim), Networks("", None), ())
    listener = listening.listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    listening.server(app.make(served)).run(sockets=[listener])


async def client(session, address: str, count: int, seed: int, ends: float, k: int) -> list[float]:
    """Returns the seconds of each answer, to requests one after the other until a time."""
    rng, found = np.random.default_rng(seed), []
    while time.monotonic() < ends:
        start = time.monotonic()
        body = {"like": [f"listing-{rng.integers(count):07d}"], "k": k}
        async with session.post(address, json=body) as answer:
            data = await answer.json()
            assert answer.status == 200 and len(data["results"]) == k, data
        found.append(time.monotonic() - start)
    return found


def memory(process: int) -> float:
    """Returns the anonymous memory of a process in MB."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


def processor(process: int) -> float:
    """Returns the processor time of a process in seconds."""
    found = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")


async def measured(given, port: int, process: int) -> dict:
    """Returns what the clients saw, and the service's memory before and after."""
    address = f"http://127.0.0.1:{port}/v1/search"
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(session, address, given.listings, 1000 + n, time.monotonic() + 3, given.k)
                               for n in range(given.clients)))  # fmt: skip
        before, start, used = memory(process), time.monotonic(), processor(process)
        ends = start + given.seconds
        lists = await asyncio.gather(
            *(client(session, address, given.listings, n, ends, given.k) for n in range(given.clients))
        )
        seconds = np.sort(np.concatenate(lists))
        took, used = time.monotonic() - start, processor(process) - used
    return {
        "answers": len(seconds),
        "per_second": round(len(seconds) / took, 1),
        **{f"p{p}_ms": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 90, 99)},
        "most_ms": round(1000 * float(seconds[-1]), 1),
        "processor_ms_per_answer": round(1000 * used / len(seconds), 2),
        "memory_mb": [round(before), round(memory(process))],
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--k", type=int, default=24)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.listings, given.dim, given.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"--listings={given.listings}", f"--dim={given.dim}", f"--serve={folder}"]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            port = int(service.stdout.readline())
            found = asyncio.run(measured(given, port, service.pid))
        finally:
            service.terminate()
            service.wait()
    settings = {name: getattr(given, name) for name in ("listings", "dim", "clients", "seconds", "k")}
    result = {**settings, "cores": os.cpu_count(), "load": os.getloadavg()[0], **found}
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
