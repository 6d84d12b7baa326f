"""Fuzzes the readers of folders and files that others may have made: a proper error message or a valid result.

    python tests/fuzz_folders.py embeddings --inputs=10000 --seed=0    # TARGETS has the names
    python tests/fuzz_folders.py exported --replay=1234                # one input again

An input is a valid folder with one to three changes: bytes of a file, its length, a value of its JSON, the header of an
array, files exchanged, missing, or replaced by something that is not a file. In two of three inputs the checksums are
then made right again, as somebody would who means harm. The same seed gives the same inputs. Inputs run in processes of
their own, which have limits of memory and time and are replaced when one crashes.
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

from retrieval_jax.errors import InputError  # noqa: E402

SECONDS = 20  # limit of processor time per input
MEBIBYTES = 1024  # limit by which one input may raise the peak memory
RNG = np.random.default_rng(0)

# -------------------------------------------------------------------------------------------------------------- targets
# Of every target: make(folder) writes a valid folder, read(folder) is what is tested, sign(folder) makes checksums right.


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
        assert [ids[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] is not None

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


# -------------------------------------------------------------------------------------------------------------- changes

ODD = [
    *(None, True, False, 0, -1, 1, 2, 1.5, float("nan"), float("inf"), 1e308, 2**31, 2**53, 2**63, 10**30, -(10**30)),
    *("", "x", "float64", "../../../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "a/b", "..", "é" * 300, "%s{0}"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["x"], {"a": {"b": 1}}, [0] * 1000),
]


def _nodes(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nodes(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _nodes(item, (*path, number))


def changed_json(rng, text):
    """Returns JSON with one value, key or length changed, or invalid JSON."""
    value = json.loads(text)
    paths = list(_nodes(value))
    path = rng.choice(paths)
    odd = rng.choice(ODD)
    kind = rng.randrange(9)
    if not path or kind == 8:
        deep = "[" * 10**rng.randrange(1, 6)
        return rng.choice([json.dumps(odd), deep, text + text, text[: rng.randrange(len(text))], deep + "]" * len(deep)])
    *above, last = path
    node = value
    for key in above:
        node = node[key]
    if kind <= 3:
        node[last] = odd
    elif kind == 4:
        del node[last]
    elif kind == 5 and isinstance(node, dict):
        node[rng.choice(["extra", "", "format", "..", "moving"])] = odd
    elif kind == 6:
        source = value
        for key in rng.choice(paths):
            source = source[key]
        node[last] = json.loads(json.dumps(source))
    elif isinstance(node[last], (int, float)) and not isinstance(node[last], bool):
        node[last] = node[last] * rng.choice([-1, 2, 10, 10**6, 10**12]) + rng.choice([0, 1, -1])
    elif isinstance(node[last], list):
        node[last] = node[last] * rng.choice([2, 3]) if rng.random() < 0.5 else node[last][:-1]
    text = json.dumps(value)
    if rng.random() < 0.05 and '"' in text:  # a key that occurs twice
        text = text.replace("{", '{"format": 1, ', 1)
    return text


def changed_bytes(rng, data):
    """Returns bytes with a few changed, removed, inserted or copied."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not data:
            break
        at, kind = rng.randrange(len(data)), rng.randrange(7)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif kind == 4:
            other = rng.randrange(len(data))
            data[at : at + 16] = data[other : other + 16]
        elif kind == 5:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
        else:
            del data[at:]
    return bytes(data)


def changed_npy(rng, data):
    """Returns a .npy file with another header, or other values."""
    try:
        with np.errstate(all="ignore"):
            array = np.load(io.BytesIO(data))
    except Exception:  # changed before
        return changed_bytes(rng, data)
    kind = rng.randrange(5)
    if kind == 0:
        descr = rng.choice(["<f4", "<f8", ">f4", "<f2", "|u1", "<i8", "|O", "<U9", "|V4", "<U999999999", "x", "<c16"])
        sides = [rng.choice([0, 1, 3, -1, 2**31, 10**12, 2**63]) for _ in range(rng.randrange(4))]
        shape = rng.choice([array.shape, tuple(sides), "(", [3], (1.5,), ((3,),), "9" * 5000])
        text = f"{{'descr': {descr!r}, 'fortran_order': {rng.choice([True, False])}, 'shape': {shape}, }}\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text) & 0xFFFF) + text.encode() + array.tobytes()
    if kind == 1:
        return changed_bytes(rng, data[:128]) + data[128:]
    if kind == 2:
        array = array.astype(rng.choice(["<f4", "<f2", "<i4", "<i8", "|u1", ">f8"]))
    elif kind == 3:
        array = rng.choice([array[:-1], array[..., None], array.reshape(-1), np.concatenate([array, array])])
    elif array.size:
        flat = array.reshape(-1)
        flat[rng.randrange(len(flat))] = rng.choice([0, 1, 255]) if array.dtype == np.uint8 else rng.choice([0, -1, 10**6])
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def changed_npz(rng, data):
    """Returns an .npz file with one array changed, or other bytes."""
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    try:
        with np.load(io.BytesIO(data)) as found:
            arrays = dict(found)
    except Exception:  # changed before
        return changed_bytes(rng, data)
    name = rng.choice(sorted(arrays))
    kind, array, out = rng.randrange(5), arrays[name], io.BytesIO()
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = rng.choice([array.reshape(-1)[:-1], array[..., None], array.reshape(-1)])
    elif array.dtype.kind == "U":
        arrays[name] = np.array(changed_json(rng, str(array)) if str(array).startswith("{") else "x")
    elif kind == 2:
        arrays[name] = array.astype(rng.choice(["<f4", "<i4", "<i8", "|u1", "<f8"]))
    elif array.size:
        arrays[name] = array.copy()
        arrays[name].reshape(-1)[rng.randrange(array.size)] = rng.choice([0, 1, -1, 10**6])
    (np.savez_compressed if kind == 4 else np.savez)(out, **arrays)
    return out.getvalue()


def change(target, rng, folder):
    """Changes one to three files of a folder; returns what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        if target == "exported" and rng.random() < 0.8:  # programs take a second each
            files = [file for file in files if file.suffix != ".jax_export"]
        if not files:
            break
        file, kind = rng.choice(files), rng.random()
        if kind < 0.8 and file.suffix == ".json":  # mostly the descriptions
            try:
                file.write_text(changed_json(rng, file.read_text()), "utf-8", "surrogatepass")
            except (ValueError, RecursionError):  # changed before
                file.write_bytes(changed_bytes(rng, file.read_bytes()))
        elif kind < 0.9:
            by_kind = {".npy": changed_npy, ".npz": changed_npz}.get(file.suffix, changed_bytes)
            file.write_bytes(by_kind(rng, file.read_bytes()))
        elif kind < 0.93:
            file.unlink()
        elif kind < 0.96:
            other = rng.choice(files)
            content = file.read_bytes()
            file.write_bytes(other.read_bytes())
            other.write_bytes(content)
        elif kind < 0.98:
            file.write_bytes(b"")
        else:
            file.unlink()
            rng.choice([lambda: os.mkfifo(file), file.mkdir, lambda: file.symlink_to("/dev/zero")])()
        done.append(f"{file.relative_to(folder)} ({kind:.2f})")
    return ", ".join(done)


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
            print(json.dumps(what), file=sys.__stdout__, flush=True)

        run(given.target, inputs=given.inputs, seed=given.seed, first=given.first, say=say)
        return 0
    started, found, failures, at = time.monotonic(), {"read": 0, "refused": 0}, {}, 0
    while at < given.inputs:
        words = [sys.executable, __file__, given.target, f"--first={at}", f"--inputs={min(1000, given.inputs - at)}"]
        with subprocess.Popen([*words, f"--seed={given.seed}"], stdout=subprocess.PIPE, text=True) as process:
            began = False
            for line in process.stdout:
                number, result, failure = json.loads(line)
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
        f"{given.target}: {at:,} inputs (seed {given.seed}): {found['read']:,} read, {found['refused']:,} refused with a "
        f"sentence, {len(failures)} failures; {time.monotonic() - started:.0f} s"
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
