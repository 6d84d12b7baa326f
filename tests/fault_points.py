"""Disturbs every verb at every change that it makes to the file system, for the second table of docs/faults.md.

    python tests/fault_points.py                            # everything: hours on two cores
    python tests/fault_points.py --verbs=search,embed --most=40

A verb runs in a child process that is killed (kill -9) just before its n-th change, or finds the disk full (ENOSPC)
from its n-th change on: every opening of a file for writing, rename, removal, new folder, link, truncation and change
of mode below the folder of the verb. Then

- a full disk ends the verb with one sentence, without a stack trace;
- embeddings and rankings that were there can still be read, whole and with the right checksums;
- the same command, started again, ends with the result of an undisturbed run, and leaves the same files: none is left
  of the try before.

The verbs of a work directory run twice: over the results of an earlier run, and in an empty folder.
"""

import argparse
import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import numpy as np
from PIL import Image

import picture_server

ROOT = pathlib.Path(__file__).resolve().parents[1]
HEADING = "## Every verb, at every change that it makes to the file system"
STEPS = "steps=12,every=4"
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod")
GROWS = ("open", "os.rename", "os.mkdir", "os.truncate", "os.link", "os.symlink")  # what a full disk refuses
# Of JSON files: what differs between two undisturbed runs.
TIMES = {"created", "seconds", "cpu_seconds", "finished", "made_now", "files", "run", "rows_per_second", "data", "hash"}
TIMES |= {"total_seconds", "total_cpu_seconds", "command", "images_per_second", "seconds_of_steps", "space", "outputs"}
TIMES |= {
    "peak_memory_bytes",
    "summary",
    "build_seconds",
    "queries_per_second",
    "chosen",
    "meta",
    "sha256",
    "gallery_sha256",
    "best",
    "hardware",
}
UNSTABLE = (".png", ".html", ".jax_export", ".safetensors", ".lock")  # only that they are there is compared
INSIDE = ("checkpoints/", "tensorboard/")  # orbax's and TensorBoard's own names; the training's losses are compared


_THINGS = ("shoe", "dress", "lamp", "mug", "chair", "bag")
_COLOURS = ("red", "green", "blue", "black", "white")
_IMPORTED = ("retrieval_jax", "jax.", "orbax", "grain", "polars", "cv2", "ml_collections", "optax", "flax", "scipy")
_IMPORTED += ("sklearn", "faiss", "matplotlib", "tensorflow_datasets", "array_record", "etils", "rich", "safetensors")


class Lost(AssertionError):
    """Something was lost."""


# ------------------------------------------------------------------------------------------------------- disturbing


def disturbed(action, folder, log, at=None, fault="kill"):
    """Runs an action in a child process and disturbs it.

    Args:
      action: function without arguments; it ends with SystemExit where it fails.
      folder: changes below it are counted.
      log: file that receives what it prints.
      at: number of the change that is disturbed, from 1; None for none.
      fault: "kill", or "full" for a disk that is full from there on.

    Returns:
      (exit status, negative for a signal; the number of changes that were counted; what the disturbed one was).
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.close(receiving)
            written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(written, 1)
            os.dup2(written, 2)
            count, root = [0], str(folder)

            def look(event, args):
                if event == "open":
                    path, _, flags = args
                    if not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                        return
                elif event in CHANGES:
                    path = args[0]
                else:
                    return
                if not isinstance(path, (str, bytes, os.PathLike)) or not os.fsdecode(path).startswith(root):
                    return
                if fault == "full" and event not in GROWS:
                    return
                count[0] += 1
                if at is not None and count[0] == at:
                    os.write(sending, f"{event} {os.fsdecode(path)[len(root) :]}\n".encode())
                if at is not None and fault == "kill" and count[0] == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if at is not None and fault == "full" and count[0] >= at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

            sys.addaudithook(look)
            try:
                action()
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else int(error.code is not None)
            except BaseException:
                import traceback

                traceback.print_exc()
            if at is None:
                os.write(sending, " ".join([str(count[0]), *sys.modules]).encode())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving) as stream:
        said = stream.read().split()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if at is not None or not said:
        return status, 0, " ".join(said)
    for name in said[1:]:  # so that the next child does not have to import them
        if name not in sys.modules and name.startswith(_IMPORTED):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return status, int(said[0]), ""


# ----------------------------------------------------------------------------------------------------- what is equal


def content(folder):
    """Returns {name: digest} of a folder's files, of what is the same in two undisturbed runs."""
    found = {}
    for file in sorted(pathlib.Path(folder).rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_dir() or name.endswith(".lock"):
            continue
        if any(f"/{inside}" in f"/{name}" for inside in INSIDE) and file.suffix != ".jsonl":
            continue
        found[name] = _digest(file)
    for place in sorted(pathlib.Path(folder).rglob("checkpoints")):
        for step in sorted(path.name for path in place.iterdir() if path.is_dir()):
            found[f"{place.relative_to(folder).as_posix()}/{step}"] = "a checkpoint"
    return found


def _digest(file):
    if file.name.endswith(UNSTABLE) or file.name == "leaks.html":
        return "there"
    if file.suffix == ".json":
        return json.dumps(_plain(json.loads(file.read_text(encoding="utf-8"))), sort_keys=True)
    if file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return repr([(line["step"], {k: v for k, v in line.items() if k.endswith(("loss", "@10"))}) for line in lines])
    if file.suffix == ".npz":
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return repr(
                {name: (arrays[name].shape, hashlib.sha256(arrays[name].tobytes()).hexdigest()) for name in arrays}
            )
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in TIMES}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def readable(folder, names):
    """Raises `Lost` unless the embeddings and rankings of these names can be read whole."""
    from retrieval_jax.embeddings import Embeddings
    from retrieval_jax.scoring.ranking import Ranking

    for name in names:
        try:
            if name.endswith("embeddings.json"):
                Embeddings.load((folder / name).parent, verify=True)
            else:
                Ranking.load((folder / name).parent)
        except ValueError as error:
            raise Lost(f"{name} cannot be read any more: {error}") from error


# ---------------------------------------------------------------------------------------------------------- the verbs


class Points:
    """A finished run and the verbs that are tried on copies of it."""

    def __init__(self, folder, address):
        """Makes the run in an empty folder; the address is of a server of pictures."""
        self.folder = pathlib.Path(folder)
        self.config, self.log = f"--config={ROOT}/tests/fault_config.py:{STEPS}", self.folder / "log"
        self.base, self.there, self.shop = self.folder / "base", self.folder / "there", self.folder / "shop"
        self._make_shop(address)
        status, _, _ = disturbed(self._command("run", self.base), self.base, self.log)
        if status:
            raise Lost(self.log.read_text())

    def _make_shop(self, address):
        self.shop.mkdir()
        rows = ["id,title,image,link"]
        draw = np.random.default_rng(0)
        for number in range(24):
            noise = draw.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(noise).save(self.shop / f"{number}.png")
            title = f"{_THINGS[number % 6]} {_COLOURS[number % 5]} {number}"
            rows.append(f"p{number},{title},{number}.png,{address}/ok/{number}.png")
        (self.shop / "products.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        clicks = ["query,product", *(f"{_THINGS[number % 6]},gallery{number}" for number in range(24))]
        (self.shop / "clicks.csv").write_text("\n".join(clicks) + "\n", encoding="utf-8")

    def _command(self, verb, folder):
        words = {
            "prepare": [self.config, f"--out={folder}/prepared", "--processes=1", "--side=24"],
            "leaks": [self.config, f"--workdir={folder}"],
            "compare": [str(self.base), "--against", str(self.base), f"--out={folder}/compared.json"],
            "propose_index": [str(folder), "--queries=8", "--k=3", "--factories", "HNSW8"],
            "evaluate_checkpoints": [f"--workdir={folder}", "--once", "--soup=2"],
            "export": [f"--workdir={self.base}", f"--out={folder}/served", "--platforms", "cpu"],
            "configs": [],
            "init": [f"{self.shop}/products.csv", f"--out={folder}/shop.py", "--force"],
            "import_clicks": [f"{self.shop}/clicks.csv", self.config, f"--out={folder}/clicks"],
            "pictures": [f"{self.shop}/products.csv", f"--out={folder}/fetched", "--allow_private=127.0.0.1"],
        }.get(verb, [self.config, f"--workdir={folder}"])

        def action():
            from retrieval_jax import __main__ as door

            door.main([verb, *words])

        return action

    def state(self, verb, earlier):
        """Puts what a verb finds into `there`: with results of an earlier run of it, or without."""
        from retrieval_jax import workdir

        shutil.rmtree(self.there, ignore_errors=True)
        if verb in ("run", "leaks", "prepare", "compare", "export", "configs", "init", "pictures", "import_clicks"):
            self.there.mkdir()
            if earlier:
                disturbed(self._command(verb, self.there), self.there, self.log)
            return
        shutil.copytree(self.base, self.there)
        if verb not in workdir.VERBS:
            if earlier:
                disturbed(self._command(verb, self.there), self.there, self.log)
            return
        for later in workdir.VERBS[workdir.VERBS.index(verb) :]:
            (self.there / "stages" / f"{later}.json").write_text(json.dumps({"verb": later, "stale": "a test"}))
            for name in workdir.OUTPUTS[later] if not earlier else ():
                path = self.there / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if verb == "train" and not earlier:
            (self.there / "metrics.jsonl").unlink(missing_ok=True)

    def tried(self, verb, fault, earlier, most, chosen, say=print):
        """Disturbs a verb; returns (changes that it makes, tries, sentences about what was lost)."""
        self.state(verb, earlier)
        saved, work = self.folder / "state", self.folder / "work"
        shutil.rmtree(saved, ignore_errors=True)
        self.there.rename(saved)

        def reset():
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(saved, work)

        action = self._command(verb, work)
        reset()
        status, _, _ = disturbed(action, work, self.log)
        if status:
            raise Lost(f"{verb} undisturbed: status {status}\n{self.log.read_text()[-2000:]}")
        wanted = content(work)
        reset()
        count = disturbed(action, work, self.log, None, fault)[1]
        names = [
            path.relative_to(saved).as_posix()
            for kind in ("embeddings", "ranking")
            for path in saved.rglob(f"{kind}.json")
        ]
        numbers = list(range(1, count + 1))
        numbers = sorted(chosen.sample(numbers, most)) if len(numbers) > most else numbers
        lost = []
        for number in numbers:
            reset()
            status, _, what = disturbed(action, work, self.log, number, fault)
            text = self.log.read_text(errors="replace")
            try:
                if fault == "kill" and status not in (-signal.SIGKILL, 0):
                    raise Lost(f"status {status}")
                if fault == "full" and (status not in (0, 1, 2) or "Traceback" in text):
                    raise Lost(f"status {status}: {text.strip().splitlines()[-1:]}")
                readable(work, names)
                status, _, _ = disturbed(action, work, self.log)
                if status:
                    raise Lost(f"again: status {status}: {self.log.read_text(errors='replace')[-300:]}")
                now = content(work)
                wrong = sorted(name for name in wanted.keys() | now.keys() if wanted.get(name) != now.get(name))
                if wrong:
                    kinds = {
                        name: "left behind" if name not in wanted else "gone" if name not in now else "differs"
                        for name in wrong
                    }
                    raise Lost(f"after the same command again: {dict(list(kinds.items())[:4])}")
            except Lost as error:
                lost.append(f"{verb}, {fault} at change {number} ({what}): {error}")
                say(f"LOST {lost[-1]}", flush=True)
        return count, len(numbers), lost


VERBS = ("mine", "search", "evaluate", "report", "embed", "train", "prepare", "leaks", "compare", "propose_index")
VERBS += ("export", "evaluate_checkpoints", "run", "configs", "init", "pictures", "import_clicks")
# A sweep runs other verbs in processes of its own (tests/test_sweep.py stops one); a pull that fails leaves the model
# before it (tests/test_hub.py); serve and query read a run, and write a log of judgements and a table;
# upgrade needs two trained runs (tests/test_upgrade.py leaves one half written), nas a super-net (tests/test_nas.py
# stops a search).
UNTRIED = ("sweep", "hub", "serve", "query", "upgrade", "nas")


def write(rows, file, seconds):
    """Replaces the section of a page that begins with `HEADING` by the table.

    Args:
      rows: (verb, changes, kills, full disks, lost).
      file: the page.
      seconds: that the tries took.
    """
    tries = sum(row[2] + row[3] for row in rows)
    lines = [
        HEADING,
        "",
        f"Written by `python tests/fault_points.py` ({time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes on two "
        f"cores): {tries:,} tries, {sum(row[4] for row in rows)} with something lost. Each verb is killed (kill -9) "
        "just before a change, or finds the disk full from a change on; then the same command runs again. Nothing lost "
        "means: no stack trace, embeddings and rankings that were there stay readable with the right checksums, and "
        "the second run ends with the files of an undisturbed one and no others.",
        "",
        "| verb | changes to the file system | killed | disk full | something lost |",
        "|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
    file = pathlib.Path(file)
    before = file.read_text(encoding="utf-8").partition(HEADING)[0].rstrip() if file.exists() else ""
    file.write_text(before + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--most", type=int, default=10**6, help="tries for each verb, fault and state")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(ROOT / "docs" / "faults.md"))
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    begin, rows, chosen = time.monotonic(), [], random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, picture_server.served() as server:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        points = Points(folder, server.url)
        for verb in args.verbs.split(","):
            counts, tries, lost = [], {"kill": 0, "full": 0}, []
            for earlier in (True, False):
                for fault in tries:
                    count, tried, found = points.tried(verb, fault, earlier, args.most, chosen)
                    counts.append(count if fault == "kill" else 0)
                    tries[fault] += tried
                    lost += found
            rows.append(
                (verb, " and ".join(str(count) for count in counts if count) or "0", *tries.values(), len(lost))
            )
            print(f"| {' | '.join(map(str, rows[-1]))} | {time.monotonic() - begin:.0f} s", flush=True)
            write(rows, args.out, time.monotonic() - begin)
    return int(any(row[4] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
