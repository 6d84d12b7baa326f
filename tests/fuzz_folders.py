"""Fuzzes the readers of folders and files that others may have made: a proper error message or a valid result.

    python tests/fuzz_folders.py embeddings --inputs=10000 --seed=0    # TARGETS has the names
    python tests/fuzz_folders.py exported --replay=1234                # one input again

An input is a valid folder with one to three changes: bytes of a file, its length, a value of its JSON, the header of an
array, files exchanged, missing, or replaced by something that is not a file. In two of three inputs the checksums are
then made right again, as somebody would who means harm. The same seed gives the same inputs. Inputs run in processes of
their own, which have limits of memory and time and are replaced when one crashes.

Longer than 400 lines: how to make, read and sign eight kinds of folders.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
if __name__ == "__main__":  # must be set before the libraries are imported
    os.environ |= {"TQDM_DISABLE": "1", "POLARS_MAX_THREADS": "1", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}

import numpy as np  # noqa: E402

from fuzz_changes import change  # noqa: E402
from retrieval_jax.errors import InputError  # noqa: E402

SECONDS = 20  # limit of processor time per input
MEBIBYTES = 1024  # limit by which one input may raise the peak memory
RNG = np.random.default_rng(0)
_MARK = "input: "  # before the lines that a process reports with

# -------------------------------------------------------------------------------------------------------------- targets
# Of each: make(folder) writes a valid folder, read(folder) is what is tested, sign(folder) makes checksums right again.


def make_embeddings(folder):
    from retrieval_jax.embeddings import Embeddings

    ids = [f"id-{row}-é" for row in range(9)]
    Embeddings(ids, RNG.normal(size=(9, 4)), {"space": "a/1/ema:x", "recipe": "r"}).save(folder, shard_rows=4)


def read_embeddings(folder):
    from retrieval_jax.embeddings import Embeddings

    for verify in (False, True):
        found = Embeddings.load(folder, verify=verify)
        assert found.block(0, len(found)).shape == (len(found), found.dim) and len(list(found.ids)) == len(found)
        assert found.ids[:] == list(found.ids)


def sign_embeddings(folder):
    with _edited(folder / "embeddings.json") as info:
        for shard in info["shards"]:
            shard["sha256"] = _sha256(folder / shard["file"])
        offsets, data = (np.load(folder / f"{name}.npy") for name in ("id_offsets", "ids"))
        info["ids_sha256"] = hashlib.sha256(offsets.astype(np.int64).tobytes() + data.tobytes()).hexdigest()


def make_ranking(folder):
    from retrieval_jax.scoring.ranking import Ranking

    rows, scores = RNG.integers(0, 20, (6, 5)), np.sort(RNG.normal(size=(6, 5)))[:, ::-1].astype(np.float32)
    Ranking([f"q{row}" for row in range(6)], rows, scores, "0" * 64).save(folder / "rankings" / "trained" / "cosine")
    (folder / "rankings" / "rankings.json").write_text(
        json.dumps({"stages": [{"model": "trained", "stage": "cosine", "step": None}]})
    )


def read_ranking(folder):
    from retrieval_jax.scoring.ranking import Ranking, list_stages

    for model, stage in list_stages(folder):
        found = Ranking.load(folder / "rankings" / model / stage)
        assert found.item_rows.shape == (len(found.query_ids), found.k) and len(list(found.query_ids)) == len(found)


def sign_ranking(folder):
    inside = folder / "rankings" / "trained" / "cosine"
    with _edited(inside / "ranking.json") as info:
        info["sha256"] = {name: _sha256(inside / name) for name in info["sha256"]}


def make_workdir(folder):
    import tiny
    from retrieval_jax import workdir

    config = tiny.tiny_config()
    workdir.write_settings(config, folder)
    for verb in ("mine", "train", "embed"):
        workdir.record(config, folder, verb, seconds=1.0, cpu_seconds=1.0, summary={"run": "a"})
    workdir.invalidate(folder, "search")
    row = {"model": "trained", "stage": "cosine", "num_scored": 3, "num_queries": 4, "mar@10": 0.5}
    (folder / "metrics.json").write_text(json.dumps({"stages": [row], "chance": {"mar@10": 0.1}}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n')


def read_workdir(folder):
    import tiny
    from retrieval_jax import workdir
    from retrieval_jax.scoring import tables, written
    from retrieval_jax.training import metric_writer

    config = tiny.tiny_config()
    steps = (
        lambda: workdir.read_config(folder, {"config": {"batch_size": 3}, "image_size": [16, 16]}),
        lambda: workdir.prepare(config, folder),
        lambda: [workdir.reason_to_run(config, folder, verb) for verb in workdir.VERBS],
        lambda: workdir.require_earlier(config, folder, "search"),
        lambda: [workdir.stage_hash(config, verb, folder) for verb in workdir.VERBS],
        lambda: tables.print_scores(written.stages(folder)),
        lambda: written.chance(folder),
        lambda: metric_writer._cut(folder / "metrics.jsonl", 1),
        lambda: workdir.record(config, folder, "search", seconds=1.0, cpu_seconds=1.0),
        lambda: workdir.write_settings(config, folder),
        lambda: workdir.invalidate(folder, "mine"),
    )
    _each(steps)


def make_files(folder):
    from retrieval_jax.attributes import clusters, statistics, vocabulary, words
    from retrieval_jax.data import info
    from retrieval_jax.postprocess import whitening

    titles = ["red shoe", "blue shoe", "red dress", "green shoe size"]
    counted = statistics.count([titles], progress=False)
    statistics.save(folder / "statistics", counted, words.Rules().counted_by)
    made = vocabulary.build(counted.tokens, counted.num_titles, 0, words.Rules(merges={"green": "red"}))
    made.save(folder / "vocabulary.json")
    vocabulary.save_targets(folder / "targets.npz", *made.encode(titles), made.hash)
    clusters.save(folder / "clusters.npz", np.array([0, 0, 1, -1]))
    whitening.fit(RNG.normal(size=(40, 3)).astype(np.float32)).save(folder / "whitening.npz")
    facts = info.DataInfo(["a", "b"], np.array([1, 2]), 4, (["x"],), (np.array([4]),), "0" * 64)
    info.save(folder / "data_info.json", facts)
    info.save_batch(folder / "batch.json", {"image": np.zeros((2, 4, 4, 3), np.uint8), "row": np.zeros(2, np.int64)})


def read_files(folder):
    from retrieval_jax.attributes import clusters, statistics, vocabulary
    from retrieval_jax.data import info
    from retrieval_jax.postprocess import whitening

    def words():
        found = vocabulary.Vocabulary.load(folder / "vocabulary.json")
        found.encode(["red shoe", ""])

    def targets():
        indptr, ids = vocabulary.load_targets(folder / "targets.npz")
        assert sum(len(ids[a:b]) for a, b in zip(indptr, indptr[1:], strict=False)) == len(ids)

    def facts():
        return info.load(folder / "data_info.json")

    _each(
        (
            words,
            targets,
            facts,
            lambda: statistics.load(folder / "statistics"),
            lambda: info.zero_batch(folder / "batch.json"),
            lambda: clusters.as_categories(folder / "clusters.npz", 4, make_facts()),
            lambda: whitening.Whitening.load(folder / "whitening.npz").apply(np.ones((2, 3), np.float32)),
        )
    )


def make_facts():
    """Returns a `DataInfo`."""
    from retrieval_jax.data import info

    return info.DataInfo([], np.zeros(0, np.int64), 4, (), (), "")


def sign_files(folder):
    from retrieval_jax.attributes import vocabulary, words
    from retrieval_jax.postprocess import whitening

    with contextlib.suppress(Exception), _edited(folder / "vocabulary.json") as content:
        rules = words.Rules.from_json(content["rules"])
        made = vocabulary.Vocabulary(content["tokens"], np.zeros(1), 0, 0, rules)
        content["hash"] = made.hash
    with np.load(folder / "whitening.npz") as found:
        arrays = dict(found)
    info = json.loads(str(arrays["info"]))
    info["version"] = whitening.Whitening(arrays["mean"], arrays["matrix"]).version()
    np.savez(folder / "whitening.npz", **(arrays | {"info": np.array(json.dumps(info))}))


def make_binary(folder):
    from retrieval_jax.index import binary

    vectors = RNG.normal(size=(12, 8)).astype(np.float32)
    with binary.create(folder / "index", vectors, shards=2, cells=2) as store:
        store.add([f"id{row}-ü" for row in range(12)], vectors)
        store.update(["id1-ü"], vectors[:1])
        store.delete(["id3-ü"])


def read_binary(folder):
    from retrieval_jax.index import binary

    for write in (False, True):
        with binary.open(folder / "index", write=write) as store:
            with contextlib.suppress(InputError):  # of vectors that are not finite
                store.names(store.search(np.ones((2, store.dim), np.float32), 3).item_rows)
            with contextlib.suppress(InputError):
                store.verify()
            store.refresh()


def sign_binary(folder):
    index = folder / "index"
    with _edited(index / "binary.json") as info:
        info["coder_sha256"] = _sha256(index / "coder.npz")
    for log in index.glob("shard-*/*.log"):
        data, out, at = log.read_bytes(), b"", 0
        while at + 24 <= len(data):
            magic, kind, size, _, _ = struct.unpack("<4sIQII", data[at : at + 24])
            payload = data[at + 24 : at + 24 + size]
            head = struct.pack("<4sIQI", magic, kind, len(payload), zlib.crc32(payload))
            out += head + struct.pack("<I", zlib.crc32(head)) + payload
            at += 24 + size
        log.write_bytes(out)


def make_prepared(folder):
    import fuzz_seeds

    fuzz_seeds.prepared(folder)


def read_prepared(folder):
    from retrieval_jax.data.records import reading, tfds_datasets

    def whole():
        catalog = tfds_datasets.load_tfds(root=str(folder))
        for split in catalog.splits().values():
            for row in range(min(2, len(split))):
                split.images[row]

    def records():
        for split in ("train", "query"):
            opened = reading.open_records(str(folder), split)
            for row in range(min(3, len(opened))):
                try:
                    reading.parse(opened[row])
                except Exception as error:
                    raise InputError(f"{folder}: record {row}: {type(error).__name__}") from error

    _each((whole, records))


def sign_prepared(folder):
    with _edited(folder / "catalogue" / "catalogue.json") as about:
        for shards in about["splits"].values():
            for shard in shards:
                shard["bytes"] = (folder / shard["file"]).stat().st_size


def make_exported(folder):
    import fuzz_seeds

    fuzz_seeds.exported(folder)


def read_exported(folder):
    from retrieval_jax import exported

    model = exported.load(folder)
    if (folder / "embed.jax_export").stat().st_size % 4 == 1:  # now and then: compiling takes long
        model.embed([np.zeros((8, 8, 3), np.uint8)])


def sign_exported(folder):
    with _edited(folder / "config.json") as about:
        about["sha256"] = {name: _sha256(folder / name) for name in about["sha256"]}


def make_trained(folder):
    import fuzz_seeds

    fuzz_seeds.trained(folder)


def read_trained(folder):
    from retrieval_jax import inference

    inference.load(folder)


def sign_trained(folder):
    for file in folder.glob("checkpoints/*/checksums.json"):
        with _edited(file) as sums:
            for name in sums:
                sums[name] = _sha256(file.parent / name)


TARGETS = ("embeddings", "ranking", "workdir", "files", "binary", "prepared", "exported", "trained")

# -------------------------------------------------------------------------------------------------------------- helpers


def _each(steps):
    """Runs all steps, even if one is refused; raises the last refusal."""
    refused = None
    for step in steps:
        try:
            step()
        except InputError as error:
            refused = error
            _is_sentence(str(error))
    if refused:
        raise refused


def _sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextlib.contextmanager
def _edited(file):
    content = json.loads(file.read_text())
    yield content
    file.write_text(json.dumps(content))


def _is_sentence(text):
    assert 20 < len(text) < 3000 and "Traceback" not in text, f"not a sentence: {text[:500]!r}"


# ------------------------------------------------------------------------------------------------------------- running


def original(target):
    """Returns a valid folder of a target, made once in this process."""
    if target not in _made:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
        globals()[f"make_{target}"](folder)
        copy = shutil.copytree(folder, folder.with_name(f"{folder.name}-read"))  # reading a work directory changes it
        globals()[f"read_{target}"](copy)
        shutil.rmtree(copy)
        _made[target] = folder
    return _made[target]


_made: dict = {}


def one(target, seed, number, folder):
    """Runs one input in `folder`; returns "refused" or "read"; raises whatever should not happen."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original(target), folder)
    rng = random.Random(f"{seed} {number}")
    what = change(target, rng, folder)
    plain = all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in folder.rglob("*"))
    if rng.random() < 2 / 3 and plain and f"sign_{target}" in globals():
        with contextlib.suppress(Exception):  # where there is nothing left to sign
            globals()[f"sign_{target}"](folder)
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        globals()[f"read_{target}"](folder)
        result = "read"
    except InputError as error:
        _is_sentence(str(error))
        result = "refused"
    except Exception as error:
        error.add_note(f"changed: {what}")
        raise
    seconds = time.process_time() - started
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert seconds < SECONDS, f"{what}: {seconds:.0f} s of processor time"
    assert more < MEBIBYTES, f"{what}: {more} MiB more memory"
    return result


def run(target, *, inputs, seed=0, first=0, say=None):
    """Runs inputs in this process.

    Args:
      target: one of TARGETS.
      inputs: how many.
      seed: of the inputs.
      first: number of the first.
      say: called with (number, result or None, failure or "") before and after each input.

    Returns:
      {"read": n, "refused": n, "failures": {number: text}}.
    """
    found = {"read": 0, "refused": 0, "failures": {}}
    original(target)
    with tempfile.TemporaryDirectory() as place:
        for number in range(first, first + inputs):
            if say:
                say(number, None, "")
            result, failure = "", ""
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    result = one(target, seed, number, pathlib.Path(place) / "folder")
                found[result] += 1
            except Exception:
                failure = found["failures"][number] = traceback.format_exc()
            if say:
                say(number, result, failure)
    return found


def main():
    """Runs inputs in processes of their own, which are replaced when one crashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=int, help="number of an input")
    parser.add_argument("--first", type=int, help="for the processes: number of the first input")
    given = parser.parse_args()
    if given.replay is not None:
        print(run(given.target, inputs=1, seed=given.seed, first=given.replay))
        return 0
    if given.first is not None:
        resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        def say(*what):
            print(f"\n{_MARK}{json.dumps(what)}", file=sys.__stdout__, flush=True)

        run(given.target, inputs=given.inputs, seed=given.seed, first=given.first, say=say)
        return 0
    started, found, failures, at = time.monotonic(), {"read": 0, "refused": 0}, {}, 0
    while at < given.inputs:
        words = [sys.executable, __file__, given.target, f"--first={at}", f"--inputs={min(1000, given.inputs - at)}"]
        with subprocess.Popen([*words, f"--seed={given.seed}"], stdout=subprocess.PIPE, text=True) as process:
            began = False
            for line in process.stdout:
                if not line.startswith(_MARK):  # what a reader printed
                    continue
                number, result, failure = json.loads(line.removeprefix(_MARK))
                began, at = result is None, number + (result is not None)
                if result:
                    found[result] += 1
                if failure:
                    failures[number] = failure
        if began:
            failures[at] = f"the process ended with {process.returncode}"
            at += 1
    for number, failure in failures.items():
        print(f"--- input {number}\n{failure}")
    print(
        f"{given.target}: {at:,} inputs (seed {given.seed}): {found['read']:,} read, {found['refused']:,} refused "
        f"with a sentence, {len(failures)} failures; {time.monotonic() - started:.0f} s"
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
