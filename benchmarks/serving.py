"""Latency, throughput, processor time and memory of the search service under concurrent clients.

    python benchmarks/serving.py --seconds=60 --out=benchmarks/serving.json

Over a generated gallery. Service and clients are processes of their own on this machine and share its cores. Each
client asks for 24 results, and again as soon as it has the answer: for listings like a random one (a query by vector;
no network runs), the same among those of a random colour, by typed words, or by a listing and words.
`--before=<checkout>` serves another version too, and `--gradio-python=<python with gradio and faiss-cpu>` a Gradio app
over faiss; what is compared is measured in turn, `--rounds` times each.
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

ROOT = pathlib.Path(__file__).resolve().parents[1]
if not os.environ.get("PYTHONPATH"):  # of another checkout, for --before
    sys.path.insert(0, str(ROOT))

import aiohttp  # noqa: E402
import numpy as np  # noqa: E402

from retrieval_jax.data.catalog import Split  # noqa: E402
from retrieval_jax.embeddings import Embeddings  # noqa: E402
from retrieval_jax.index import attribute  # noqa: E402
from retrieval_jax.server import app, listening, runs  # noqa: E402
from retrieval_jax.server.gallery import Gallery, Stage  # noqa: E402  (where earlier versions have it too)
from retrieval_jax.server.networks import Networks  # noqa: E402

COLOURS = 12
WORDS = 2000  # of titles; each has four


def generated(count: int, dim: int) -> Gallery:
    """Returns a gallery of random vectors with a title, a colour, a kind and a price each."""
    rng = np.random.default_rng(0)
    ids = [f"listing-{number:07d}" for number in range(count)]
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    fields = {
        name: attribute.Field.of([f"{name} {value}" for value in rng.integers(0, values, count).tolist()])
        for name, values in (("colour", COLOURS), ("kind", 200))
    }
    table = attribute.build({**fields, "price": rng.uniform(1, 500, count)}, count)
    words = rng.zipf(1.3, (count, 4)) % WORDS  # a few words are in most titles, as in real ones
    titles = [" ".join(f"word{word}" for word in one) + f" {row}" for row, one in enumerate(words.tolist())]
    split = Split("gallery", ids, titles, None, [])
    return Gallery(Embeddings(ids, vectors), split, np.arange(count), table, [Stage("cosine")], "", {})


def made(count: int, dim: int, folder: pathlib.Path) -> runs.Runs:
    """Returns a run of a generated gallery, loaded, in an empty folder."""
    (folder / "config.json").write_text('{"data": {"source": "synthetic"}, "train": {}}')
    check, runs.gallery_lib.check = runs.gallery_lib.check, lambda *_: None
    try:
        served = runs.Runs([folder], watched=0)
    finally:
        runs.gallery_lib.check = check
    gallery = generated(count, dim)
    gallery.index(gallery.stages[0]), gallery.lexical()  # as a run that is loaded
    served.get().loaded = runs.Loaded(gallery, Networks("", None), {}, ())
    return served


def serve(count: int, dim: int, folder: pathlib.Path) -> None:
    """Serves a generated gallery; prints its port."""
    listener = listening.listen("127.0.0.1", 0)
    service = app.make(made(count, dim, folder))
    print(f"port {listener.getsockname()[1]}", flush=True)
    listening.server(service).run(sockets=[listener])


def body(kind: str, rng: np.random.Generator, count: int, k: int) -> dict:
    """Returns a random request of a kind."""
    out = {"k": k}
    if kind != "words":
        out["like"] = [f"listing-{rng.integers(count):07d}"]
    if kind == "conditions":
        out["conditions"] = {"required": [{"field": "colour", "values": [f"colour {rng.integers(COLOURS)}"]}]}
    if kind in ("words", "both"):
        out["words"] = " ".join(f"word{word}" for word in rng.zipf(1.3, 2) % WORDS)
    return out


async def ask(session, port: int, kind: str, rng: np.random.Generator, given) -> None:
    """Sends one request, and checks the answer."""
    wanted = body(kind, rng, given.listings, given.k)
    async with session.post(f"http://127.0.0.1:{port}/v1/search", json=wanted) as answer:
        data = await answer.json()
    assert answer.status == 200 and (len(data["results"]) == given.k or "words" in wanted), data


async def ask_gradio(session, port: int, kind: str, rng: np.random.Generator, given) -> None:
    """Sends one request to a Gradio app, and checks the answer."""
    data = {"data": [f"listing-{rng.integers(given.listings):07d}", given.k]}
    address = f"http://127.0.0.1:{port}/gradio_api"
    if kind == "direct":
        async with session.post(f"{address}/run/direct", json=data) as answer:
            found = (await answer.json())["data"]
    else:
        async with session.post(f"{address}/call/queued", json=data) as answer:
            event = (await answer.json())["event_id"]
        async with session.get(f"{address}/call/queued/{event}") as answer:
            lines = (await answer.text()).splitlines()
        assert "event: complete" in lines, lines
        found = json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))
    assert len(found[0]["data"]) == given.k, found


async def client(asks, ends: float) -> list[float]:
    """Returns the seconds of each answer, to requests one after the other until a time."""
    found = []
    while time.monotonic() < ends:
        start = time.monotonic()
        await asks()
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


async def measured(given, asks, kind: str, port: int, process: int, number: int) -> dict:
    """Returns what the clients saw in one round, and the processor time and memory of the service."""
    async with aiohttp.ClientSession() as session:

        def clients(seconds: float, seed: int):
            ends = time.monotonic() + seconds
            streams = np.random.default_rng([number, seed]).spawn(given.clients)
            return [client(lambda rng=rng: asks(session, port, kind, rng, given), ends) for rng in streams]

        await asyncio.gather(*clients(min(2.0, given.seconds), 1))
        before, start, used = memory(process), time.monotonic(), processor(process)
        lists = await asyncio.gather(*clients(given.seconds / given.rounds, 0))
        took, used = time.monotonic() - start, processor(process) - used
    seconds = [one for some in lists for one in some]
    return {"seconds": seconds, "took": took, "used": used, "memory": [before, memory(process)]}


def summary(rounds: list[dict]) -> dict:
    """Returns the numbers of all rounds together."""
    seconds = np.sort(np.concatenate([one["seconds"] for one in rounds]))
    took, used = (sum(one[name] for one in rounds) for name in ("took", "used"))
    return {
        "answers": len(seconds),
        "per_second": round(len(seconds) / took, 1),
        **{f"p{p}_ms": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 90, 99)},
        "most_ms": round(1000 * float(seconds[-1]), 1),
        "processor_ms_per_answer": round(1000 * used / len(seconds), 2),
        "memory_mb": [round(rounds[0]["memory"][0]), round(rounds[-1]["memory"][1])],
    }


class Side:
    """A service of the comparison, as a process.

    Args:
      name: in the results.
      command: that starts it; it prints "port <number>".
      environment: beside that of this process.
      asks: function that asks it.
      kinds: of requests.
    """

    def __init__(self, name: str, command: list[str], environment: dict, asks, kinds: list[str]):
        self.name, self.asks, self.kinds = name, asks, kinds
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}, cwd=tempfile.gettempdir()
        )
        line = next((line for line in self.process.stdout if line.startswith("port ")), None)
        if line is None:
            sys.exit(f"{name} did not start: {' '.join(command)}")
        self.port = int(line.split()[1])

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait()


def sides(given, folder: pathlib.Path) -> list[Side]:
    """Starts what is compared."""
    sizes, kinds = [f"--listings={given.listings}", f"--dim={given.dim}"], given.kinds.split(",")
    out = []
    checkouts = {"service": ROOT} | ({"before": given.before.resolve()} if given.before else {})
    for name, checkout in checkouts.items():
        (folder / name).mkdir()
        command = [sys.executable, __file__, *sizes, f"--serve={folder / name}"]
        out.append(Side(name, command, {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}, ask, kinds))
    if given.gradio_python and "vectors" in kinds:
        command = [given.gradio_python, str(ROOT / "benchmarks" / "gradio_faiss.py"), *sizes]
        environment = {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        out.append(Side("gradio", command, environment, ask_gradio, ["queued", "direct"]))
    else:
        print("no Gradio app beside it: give --gradio-python=<python with gradio and faiss-cpu>", file=sys.stderr)
    return out


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60, help="of each kind, all rounds together")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kinds", default="vectors,conditions,words,both")
    parser.add_argument("--k", type=int, default=24)
    parser.add_argument("--before", type=pathlib.Path, help="another checkout")
    parser.add_argument("--gradio-python", help="python with gradio and faiss-cpu")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--serve", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.listings, given.dim, given.serve)
        return
    rounds: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        compared = sides(given, pathlib.Path(folder))
        try:
            for number in range(given.rounds):
                for side, kind in [(one, kind) for one in compared for kind in one.kinds]:
                    found = asyncio.run(measured(given, side.asks, kind, side.port, side.process.pid, number))
                    rounds.setdefault((side.name, kind), []).append(found)
        finally:
            for side in compared:
                side.close()
    settings = {name: getattr(given, name) for name in ("listings", "dim", "clients", "seconds", "rounds", "k")}
    found = {f"{side}, {kind}": summary(some) for (side, kind), some in rounds.items()}
    result = {**settings, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "found": found}
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
