"""Fuzzes the readers of tables, titles and pictures: every input must give a valid result or a proper error message.

    python tests/fuzz.py csv --minutes=10 --seed=0        # tables of every kind, and the catalogue they make
    python tests/fuzz.py titles --minutes=10 --seed=0     # the fast tokenizer against the reference
    python tests/fuzz.py image --minutes=10 --seed=0      # check and decoding of pictures
    python tests/fuzz.py image --replay=fuzz-image-1b2c3d # one input again

Inputs are mutations of valid ones; the same seed gives the same inputs in the same order. With atheris installed
(requirements-fuzz.txt), --guided chooses them by the coverage of the Python code. A failing input is written to
fuzz-TARGET-DIGEST in the folder --failures; an input that ends the process is left there as fuzz-TARGET-last. The exit
status is 1 if anything failed.

Longer than 400 lines: generators of inputs, one per format.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
if __name__ == "__main__":  # must be set before the libraries are imported
    os.environ |= {"OPENCV_LOG_LEVEL": "SILENT", "TQDM_DISABLE": "1", "POLARS_MAX_THREADS": "1"}

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402

import odd_pictures  # noqa: E402
from retrieval_jax.attributes import statistics  # noqa: E402
from retrieval_jax.attributes import titles as title_rule  # noqa: E402
from retrieval_jax.attributes import vocabulary as vocabulary_lib  # noqa: E402
from retrieval_jax.data.pictures import decoding, headers, sources  # noqa: E402
from retrieval_jax.data.tables import loading as tables  # noqa: E402
from retrieval_jax.data.tables import table_files  # noqa: E402
from retrieval_jax.errors import InputError  # noqa: E402

SECONDS = 20  # limit of processor time per input
MEBIBYTES = 1024  # limit by which one input may raise the peak memory
MOST_PIXELS = 2**20
KINDS = ("csv", "tsv", "jsonl", "parquet")
COLUMNS = {"id": "id", "title": "title", "image": "image", "categories": ("type",)}


class Failed(AssertionError):
    """A property that must hold for every input does not hold."""


def require(condition, message):
    """Raises `Failed` unless the condition holds."""
    if not condition:
        raise Failed(message)


# -------------------------------------------------------------------------------------------------------------- targets


def csv(data: bytes, folder: pathlib.Path) -> str:
    """Loads a catalogue whose train split is the input; the first byte selects the kind of file."""
    name = f"train.{KINDS[data[0] % len(KINDS)] if data else 'csv'}"
    (folder / name).write_bytes(data[1:])
    if not (folder / "a.jpg").exists():
        (folder / "a.jpg").write_bytes(odd_pictures.saved(odd_pictures.PICTURE, "JPEG"))
    wanted = {"id": "id", "title": "title", "image": "image"}
    try:
        rows = table_files.read("train", folder, [name], wanted, {"category_0": "type"})
    except InputError as error:
        rows = None
        _is_sentence(str(error))
    if rows is not None:
        require(len(rows) == len(rows.frame) == len(rows.file_of) > 0, "columns differ in length")
        require((np.diff(rows.line) > 0).all() and rows.line[0] > 0, "row numbers do not grow")
    report = folder / "set_aside.csv"
    try:
        loaded = tables.load_table(str(folder), {"train": name}, COLUMNS, max_bad_share=1.0, set_aside_path=report)
    except InputError as error:
        _is_sentence(str(error))
        return "a sentence"
    require(rows is not None, "a table that the reader refused became a catalogue")
    count, train = loaded.counts["train"], loaded.train
    require(count["read"] == len(rows) == len(train) + len(loaded.set_aside), "rows are lost")
    require(count["kept"] == len(train) and sum(count["set_aside"].values()) == len(loaded.set_aside), "wrong counts")
    require(len(train.ids) == len(set(train.ids)) == len(train.titles) == len(train.images), "columns differ")
    require(all(one and one.split() == [one] for one in train.ids), "an id is empty or contains whitespace")
    require(all(title.strip() for title in train.titles), "a title is empty")
    require(((train.categories >= 0) & (train.categories < len(loaded.category_names[0]))).all(), "unknown category")
    places = sorted([entry["row"] for entry in loaded.set_aside])
    require(len(set(places)) == len(places) and set(places) <= set(rows.line.tolist()), "rows set aside twice")
    for entry in loaded.set_aside:
        _is_sentence(entry["sentence"])
    require(len(pl.read_csv(report, infer_schema=False)) == len(loaded.set_aside), "the report lacks rows")
    require(all(image.shape == (32, 48, 3) for image in (train.images[row] for row in range(len(train)))), "picture")
    json.dumps(loaded.counts)
    return "a catalogue" if not loaded.set_aside else "a catalogue, rows set aside"


def titles(data: bytes, folder: pathlib.Path) -> None:
    """Tokenizes and encodes the lines of the input, which is UTF-8 that may contain lone surrogates."""
    texts = data.decode("utf-8", "surrogateescape" if data[:1] < b"\x80" else "replace").split("\n")
    for rule in title_rule.RULES:
        slow = [title_rule.tokenize(text, rule) for text in texts]
        fast: list[list[str]] = [[] for _ in texts]
        for title, token in title_rule.tokenize_many(texts, rule).iter_rows():
            fast[title].append(token)
        require(fast == slow, "the fast path differs from the reference")
    counts = statistics.count([texts]).tokens
    vocabulary = vocabulary_lib.build(counts, len(texts), 0)
    indptr, ids = vocabulary.encode(texts)
    require(len(indptr) == len(texts) + 1, "a title has no row of labels")
    for row, tokens in enumerate(slow):
        found = [vocabulary.tokens[i] for i in ids[indptr[row] : indptr[row + 1]]]
        require(found == sorted(set(tokens) - title_rule.DROPPED), "labels differ from the tokens")


def image(data: bytes, folder: pathlib.Path) -> str:
    """Checks and decodes a picture: both must agree on an array or a `BadImage`."""
    (folder / "picture").write_bytes(data)
    root = os.path.realpath(folder)
    checked = sources.check(root, "picture", MOST_PIXELS)
    whole = sources.check(root, "picture", MOST_PIXELS, whole=True)
    try:
        decoded, problem = decoding.decode(data, MOST_PIXELS), None
    except decoding.BadImage as error:
        decoded, problem = None, error
    for found in (checked, whole, problem):
        if found is not None:
            _is_sentence(found.sentence("picture"))
    require((whole is None) == (problem is None), f"full check: {whole!r}, decoding: {problem!r}")
    if checked is not None:
        require(problem is not None and problem.reason == checked.reason, f"check: {checked!r}, decoding: {problem!r}")
    elif problem is not None:  # damage that header and end do not reveal
        require(
            problem.reason in ("truncated image file", "image too costly", "image too large")  # a second header
            and data.startswith((headers.JPEG, b"\x89PNG")),
            f"passed the check but failed to decode: {problem!r}",
        )
    if decoded is not None:
        require(decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.size > 0, "shape")
        require(decoded.shape[0] * decoded.shape[1] <= MOST_PIXELS, f"too large: {decoded.shape}")
        small = decoding.decode(data, MOST_PIXELS, at_least=8)
        require(min(small.shape[:2]) >= min(8, *decoded.shape[:2]), f"too small: {small.shape} of {decoded.shape}")
    _cut(data)
    return problem.reason if problem else "a picture"


def _cut(data: bytes) -> None:
    """Crops before decoding: gives a picture or a `BadImage` for any crop."""
    rng = random.Random(data)
    try:
        encoded = decoding.Encoded(data, lambda: decoding.decode(data, MOST_PIXELS), MOST_PIXELS)
        height, width = (rng.randint(1, side) for side in encoded.shape[:2])
        top, left = rng.randint(0, encoded.shape[0] - height), rng.randint(0, encoded.shape[1] - width)
        cut = encoded.cut(top, left, height, width, (rng.randint(1, 16), rng.randint(1, 16)))
    except decoding.BadImage:
        return
    require(cut.dtype == np.uint8 and cut.ndim == 3 and cut.shape[2] == 3 and cut.size > 0, f"cut {cut.shape}")


def _is_sentence(text: str) -> None:
    text.encode("utf-8")
    require(0 < len(text) < 20_000, f"a sentence of {len(text)} characters")


TARGETS = {"csv": csv, "titles": titles, "image": image}

# ------------------------------------------------------------------------------------------------------- whole inputs


def seeds(target: str) -> list[bytes]:
    """Returns the inputs that mutations start from.

    Args:
      target: a key of TARGETS.
    """
    if target == "image":
        found = [
            *odd_pictures.good().values(),
            *(data for data, _ in odd_pictures.bad().values()),
            *odd_pictures.damaged_inside().values(),
        ]
        return [data for data in found if len(data) < 20_000]
    if target == "titles":
        return [
            text.encode("utf-8", "surrogatepass")
            for text in (
                "Numero Uno Men's T-Shirt\nNEW w/tags, size 5.5 | a/b\n\n --- ",
                "İstanbul ΣΑΣ ſt Ⅷ ²½ Ａ０ ǅ ẞ",
                "א\u200fב\u202eג 8 GB\n中文 ｶﾞ किताब\u200d",
                "👩‍👩‍👧 e\u0301 \u0130\u0307 w/\u00a0w/w/w/",
                "\x1c\x1d\x85\u2028\ufeff\t\0",
                "\ud800 lone",
            )
        ]
    records = [
        {"id": f"n{i}", "title": title, "image": "a.jpg", "type": str(i % 3)}
        for i, title in enumerate(["red shoes", 'a "red", hat', "two\nlines", "كتاب 👟", "blue"])
    ]
    frame = pl.DataFrame(records)
    table = frame.write_csv().encode()
    texts = {
        b"\0": [
            table,
            b"\xef\xbb\xbf" + table.replace(b"\n", b"\r\n"),
            table.decode().encode("utf-16"),
            table.replace(b",", b";"),
            b"sep=;\n" + table.replace(b",", b";"),
            table + table,
            table + b",,,\n\n",
            table.decode("utf-8").encode("cp1256", "replace"),
            table.replace(b"a.jpg", b"..\\a.jpg"),
        ],
        b"\1": [frame.write_csv(separator="\t").encode()],
        b"\2": [
            "".join(json.dumps(record) + "\n" for record in records).encode(),
            b"\n[1]\n{}\n",
            frame.with_columns(pl.col("type").cast(pl.Float64)).write_ndjson().encode(),
        ],
    }
    binary = []
    for changed in (frame, frame.with_columns(pl.col("type").cast(pl.Float64)), frame.with_columns(id=pl.int_range(5))):
        content = io.BytesIO()
        changed.write_parquet(content, compression="uncompressed")
        binary.append(content.getvalue())
    return [kind + one for kind, several in (texts | {b"\3": binary}).items() for one in several]


WORDS = {
    "csv": (
        b'"',
        b'""',
        b",",
        b";",
        b"\t",
        b"|",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xe9",
        b"\xed\xa0\x80",
        b"id",
        b"title",
        b"image",
        b"type",
        b"a.jpg",
        b"../a.jpg",
        b"null",
        b"NaN",
        b"1e999",
        b"12.0",
        b"-1",
        b"9" * 30,
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
        b"sep=;\n",
        b" ",
        b"\xe2\x80\x8b",
        b"<",
    ),
    "titles": tuple(
        text.encode("utf-8", "surrogatepass")
        for text in (
            "w/",
            "w",
            "/",
            "'",
            "-",
            ".",
            "|",
            "_",
            "İ",
            "Σ",
            "ς",
            "ß",
            "ẞ",
            "ſ",
            "\u0345",
            "\u0307",
            "\u200d",
            "\u200c",
            "\u202e",
            "\ufeff",
            "\u2028",
            "\x85",
            "\xa0",
            "\x1c",
            "\0",
            "\n",
            " ",
            "中",
            "ｱ",
            "क्",
            "٣",
            "²",
            "Ⅷ",
            "\U0001f469",
            "\U0001d7d8",
            "\U0010ffff",
            "\ud800",
            "\udfff",
            "don't",
            "8GB",
        )
    ),
    "image": (
        b"\xff\xd8\xff",
        b"\xff\xd9",
        b"\xff\xda",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xe1",
        b"\xff\xee",
        b"\xff\xdd",
        b"Exif\0\0",
        b"Adobe\0",
        b"IHDR",
        b"IDAT",
        b"tRNS",
        b"PLTE",
        b"acTL",
        b"fcTL",
        b"eXIf",
        b"iCCP",
        b"VP8X",
        b"VP8L",
        b"ANMF",
        b"GIF89a",
        b"\x21\xf9\x04",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"P6\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
    ),
}


def mutated(target: str, rng: random.Random, corpus: list[bytes]) -> bytes:
    """Returns one of the inputs, changed in one to sixteen places; for titles, a hundred of them.

    Args:
      target: a key of TARGETS.
      rng: source of randomness.
      corpus: valid inputs.
    """
    if target == "titles":  # the fast path is designed for many at once
        return b"\n".join(_changed(target, rng, corpus) for _ in range(100))
    return _changed(target, rng, corpus)


def _changed(target: str, rng: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(rng.choice(corpus))
    for _ in range(2 ** rng.randrange(5)):
        at = rng.randrange(len(data) + 1)
        length = min(len(data) - at, int(2 ** (rng.random() * 8)))
        match rng.randrange(9):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * rng.choice((1, 1, 2, 50))
            case 4:
                del data[at:]
            case 5:
                data[at:at] = rng.choice(WORDS[target])
            case 6:
                word = rng.choice(WORDS[target])
                data[at : at + len(word)] = word
            case 7:
                other = rng.choice(corpus)
                begin = rng.randrange(len(other) + 1)
                data[at : at + length] = other[begin : begin + length]
            case 8:
                number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 20_000, 2**31 - 1, 2**32 - 1))
                order = rng.choice(("<", ">"))
                word = struct.pack(order + "H", number & 0xFFFF) if number < 2**16 else struct.pack(order + "I", number)
                data[at : at + len(word)] = word
    if target == "image" and data.startswith(b"\x89PNG") and rng.random() < 0.7:
        data = _with_checksums(bytes(data))  # otherwise few get past the checksums
    return bytes(data[: 2**20])


def _with_checksums(png: bytes) -> bytes:
    parts, at = [png[:8]], 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4])
        if end + 4 > len(png):
            break
        parts += [png[at:end], struct.pack(">I", zlib.crc32(png[at + 4 : end]))]
        at = end + 4
    return b"".join(parts) + png[at:]


# ------------------------------------------------------------------------------------------------------------- running


def one(target: str, data: bytes, folder: pathlib.Path) -> str:
    """Tries one input.

    Args:
      target: a key of TARGETS.
      data: the input.
      folder: for files.

    Returns:
      What came of it.

    Raises:
      Failed: it takes too much time or memory; any other error that is unexpected is raised as it is.
    """
    begin, before = time.process_time(), _mebibytes()
    outcome = TARGETS[target](data, folder)
    require(time.process_time() - begin < SECONDS, f"took {time.process_time() - begin:.0f} s")
    require(_mebibytes() - before < MEBIBYTES, f"took {_mebibytes() - before} MiB")
    return outcome


def _mebibytes() -> int:
    """Returns the peak memory of the process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run(
    target: str,
    *,
    seed: int = 0,
    inputs: int = sys.maxsize,
    seconds: float = 1e9,
    failures: pathlib.Path,
    make=None,
) -> dict:
    """Tries mutated inputs.

    Args:
      target: a key of TARGETS.
      seed: seed of the mutations.
      inputs: maximum number of inputs.
      seconds: time after which no further input is tried.
      failures: folder for failing inputs.
      make: function that makes an input from a source of randomness; mutations of `seeds` by default.

    Returns:
      {"inputs": number tried, "failures": {location and error: file of the first}, "MiB": peak memory, "seconds": the
      most for one input, "outcomes": what the target returned, for each input}.
    """
    rng, corpus, found, tried = random.Random(seed), [] if make else seeds(target), {}, 0
    outcomes, longest = [], 0.0
    failures.mkdir(parents=True, exist_ok=True)
    last, end = failures / f"fuzz-{target}-last", time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while tried < inputs and time.monotonic() < end:
            data = corpus[tried] if tried < len(corpus) else make(rng) if make else mutated(target, rng, corpus)
            begin = time.monotonic()
            last.write_bytes(data)
            tried += 1
            try:
                outcomes.append(one(target, data, pathlib.Path(folder)))
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{pathlib.Path(place.filename).name}:{place.lineno} {type(error).__name__}: {str(error)[:80]}"
                if what not in found:
                    found[what] = failures / f"fuzz-{target}-{hashlib.sha256(data).hexdigest()[:8]}"
                    found[what].write_bytes(data)
                    print(f"{found[what]}: {what}", flush=True)
            longest = max(longest, time.monotonic() - begin)
    last.unlink(missing_ok=True)
    return {"inputs": tried, "failures": found, "MiB": _mebibytes(), "seconds": longest, "outcomes": outcomes}


def guided(target: str, seed: int, seconds: float, failures: pathlib.Path) -> None:
    """Lets atheris choose inputs by the coverage of the Python code; ends the process, also at the first failure."""
    import atheris

    for module in (table_files, tables, decoding, sources, title_rule):
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__code__"):
                setattr(module, name, atheris.instrument_func(value))
    corpus, folder, started = seeds(target), failures / f"fuzz-{target}-work", failures / f"fuzz-{target}-corpus"
    for place in (folder, started):  # kept: atheris ends the process, and a later run continues from the corpus
        place.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus):
        (started / f"seed{number}").write_bytes(data)

    def change(data: bytes, most: int, number: int) -> bytes:
        return mutated(target, random.Random(number), [data, *(corpus if number % 4 == 0 else [])])[:most]

    atheris.Setup(
        [
            sys.argv[0],
            f"-seed={seed + 1}",
            f"-max_total_time={int(seconds)}",
            "-max_len=65536",
            "-rss_limit_mb=4096",
            f"-timeout={SECONDS}",
            f"-artifact_prefix={failures}/fuzz-{target}-",
            "-print_final_stats=1",
            str(started),
        ],
        lambda data: one(target, data, folder),
        custom_mutator=change,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="choose inputs by coverage, with atheris")
    parser.add_argument("--failures", type=pathlib.Path, default=pathlib.Path("fuzz_failures"))
    parser.add_argument("--replay", type=pathlib.Path, help="run a single input again")
    given = parser.parse_args()
    if given.replay:
        with tempfile.TemporaryDirectory() as place:
            one(given.target, given.replay.read_bytes(), pathlib.Path(place))
        print("it passes")
    elif given.guided:
        guided(given.target, given.seed, 60 * given.minutes, given.failures)
    else:
        done = run(given.target, seed=given.seed, seconds=60 * given.minutes, failures=given.failures)
        print(
            f"{given.target}: {done['inputs']:,} inputs, {len(done['failures'])} kinds of failure, "
            f"at most {done['MiB']:,} MiB"
        )
        sys.exit(1 if done["failures"] else 0)
