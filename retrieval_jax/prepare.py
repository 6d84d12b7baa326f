"""Prepares a catalogue: decodes and resizes every picture once, into ArrayRecord files with fast random access.

    python -m retrieval_jax.prepare --config=configs/eproduct_convnext_xl.py --out=prepared/eproduct --side=256

Takes any catalogue that a config's data block describes. The result is a complete catalogue, including titles,
categories and truth, which --config.data.source=tfds reads (docs/preparing.md); it is also a tfds dataset that needs no
TensorFlow.

Files appear under their final names only once complete. Rerunning the command after a crash resumes: files whose
checksum and records are valid, and whose listings and pictures have not changed since, are kept.

Longer than 400 lines: a run from its settings to the verified folder.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("prepare")

import collections
import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import time

import numpy as np
import tqdm

from retrieval_jax import workdir
from retrieval_jax.data import loading, workers
from retrieval_jax.data.records import prepared
from retrieval_jax.data.records import shards as shards_lib
from retrieval_jax.data.tables import left_out, set_aside_file
from retrieval_jax.errors import InputError, RunFailed, naming
from retrieval_jax.files import atomic, documents, lock
from retrieval_jax.workdir import provenance

SHARD_ROWS = 8192  # listings per file: 100 to 200 MB at 256 pixels, and the most that a killed process loses


def run(config, out, *, side: int = 256, quality: int = 90, processes: int = 0, shard_rows: int = SHARD_ROWS) -> dict:
    """Prepares a catalogue, or resumes an interrupted run.

    Args:
      config: its data block describes the catalogue; data.kwargs.max_bad_share limits the share of bad pictures.
      out: folder of the result.
      side: pixels of the shorter side; smaller pictures are never enlarged, and JPEGs and PNGs among them are copied
        byte for byte.
      quality: quality of the JPEGs written, 1 to 100.
      processes: number of decoding processes; 0 for one per core.
      shard_rows: listings per file.

    Returns:
      The summary: counts per split, of files kept and made and of pictures copied and re-encoded, bytes, seconds.

    Raises:
      InputError: arguments, catalogue or pictures are unusable, or the folder holds something else.
      RunFailed: a process died, or files cannot be read back.
    """
    for name, value, low, high in (
        ("side", side, 8, 8192),
        ("quality", quality, 1, 100),
        ("processes", processes, 0, 1024),
        ("shard_rows", shard_rows, 1, 10**7),
    ):
        if not low <= value <= high:
            raise InputError(f"--{name}={value}: give an integer from {low} to {high}")
    if "://" in str(out):
        raise InputError(f"--out={out}: give a local folder, and copy it once it is complete")
    if config["data"]["source"] == "joined":
        raise InputError("a joined catalogue cannot be prepared: prepare its parts one by one, then join those")
    out = pathlib.Path(out).expanduser()
    settings = {"side": side, "quality": quality, "shard_rows": shard_rows}
    _begin(out)
    with lock.held(out / "catalogue", "prepare"):
        _settle(out, settings)
        return _prepare(config, out, settings, processes or provenance.cores())


def _begin(out: pathlib.Path) -> None:
    """Creates the folder, or checks that it is a prepared catalogue."""
    with naming(out):
        if not prepared.is_prepared(out):
            atomic.sweep(out / "catalogue")
            # Folders without files, and a lock, are what a run leaves that is killed at its very beginning.
            others = (path for path in out.rglob("*") if not path.is_dir() and path.name != lock.NAME)
            if out.exists() and (not out.is_dir() or any(others)):
                raise InputError(f"--out={out} exists and is not a prepared catalogue: give another folder")
            (out / "catalogue" / "shards").mkdir(parents=True, exist_ok=True)


def _settle(out: pathlib.Path, settings: dict) -> None:
    """Writes the settings, or checks that the files there were made with the same."""
    inside = out / "catalogue"
    if not (inside / "catalogue.json").exists() and not any((inside / "shards").glob("*.json")):
        atomic.write_json(inside / "settings.json", settings)  # a run that failed before its first file decides nothing
        return
    before = documents.read(inside / "settings.json", dict, remedy="use a different folder, or delete it")
    if before != settings:
        changed = ", ".join(
            f"{name} {before.get(name)} instead of {value}"
            for name, value in settings.items()
            if before.get(name) != value
        )
        raise InputError(
            f"--out={out} was started with {changed}: use the same settings or a different folder, or delete it"
        )


def _prepare(config, out: pathlib.Path, settings: dict, processes: int) -> dict:
    begun = time.monotonic()
    catalog = loading.load(config["data"], set_aside_path=out / "set_aside.csv")
    name = prepared.dataset_name(out, catalog.name)
    sources = {split: catalog.split(split).images for split in prepared.splits_of(catalog)}
    # Generated pictures have no files: what they are computed from identifies them.
    identity = (
        settings | {"data": workdir.plain(config["data"]["kwargs"])}
        if config["data"]["source"] == "synthetic"
        else settings
    )
    shards = list(_shards(out, name, catalog, sources, settings["shard_rows"], identity))
    jobs = [(shard, _of_earlier(shard)) for shard in shards]
    complete = out / "catalogue" / "catalogue.json"
    if any(about is None for _, about in jobs):
        complete.unlink(missing_ok=True)  # not loadable until it is complete again
    for part in out.glob(".*.part"):
        part.unlink()
    if any(about for _, about in jobs):
        print(
            f"prepare: {sum(about is not None for _, about in jobs)} of {len(jobs)} files exist from an earlier run; "
            "verifying them",
            flush=True,
        )

    allowed = float((config["data"].get("kwargs") or {}).get("max_bad_share", 0.0))
    done, bad = {}, collections.defaultdict(list)
    with (
        tqdm.tqdm(total=sum(map(len, sources.values())), desc="prepare", unit="picture", mininterval=1) as bar,
        # closed as soon as an error is raised: otherwise the processes would finish before the message appears
        contextlib.closing(_made(jobs, sources, catalog.category_names, settings, processes, bar)) as made,
    ):
        for shard, about in made:
            if about.pop("new"):
                complete.unlink(missing_ok=True)
                os.replace(shard.part, shard.path)
                atomic.write_json(shard.about, about)
                about["new"] = True
            done[shard.path.name] = about
            bad[shard.split] += about["set_aside"]
            _refuse(catalog, shard.split, bad[shard.split], allowed, out)
    abouts = {split: [(shard, done[shard.path.name]) for shard in shards if shard.split == split] for split in sources}
    for split in sources:
        _count(catalog, split, bad[split])
    complete.unlink(missing_ok=True)
    _sweep(out, {shard.path for shard in shards} | {shard.about for shard in shards})
    summary = _summary(catalog, sources, abouts, time.monotonic() - begun)
    about = prepared.finish(out, name, catalog, abouts, settings, summary)
    atomic.write_json(complete, about)
    _verify(out, catalog, abouts)
    print(_text(out, summary, about), flush=True)
    return summary


def _shards(out, name, catalog, sources, shard_rows, identity):
    for split, source in sources.items():
        listings = catalog.split(split)
        count = -(-len(listings) // shard_rows)
        for number in range(count):
            rows = slice(number * shard_rows, min((number + 1) * shard_rows, len(listings)))
            shard = shards_lib.Shard(
                path=out / f"{name}-{split}.array_record-{number:05d}-of-{count:05d}",
                split=split,
                start=rows.start,
                ids=listings.ids[rows],
                titles=None if listings.titles is None else listings.titles[rows],
                categories=None if listings.categories is None else listings.categories[rows],
            )
            yield dataclasses.replace(shard, key=shards_lib.key(shard, source, identity))


def _of_earlier(shard):
    """Returns the description of a file that an earlier run made from the same content, or None."""
    if not (shard.about.is_file() and shard.path.is_file()):
        return None
    about = documents.read(shard.about, dict, remedy="delete it, and the file is made again")
    return about if about.get("key") == shard.key and shard.path.stat().st_size == about.get("bytes") else None


# ----------------------------------------------------------------------------------------------------- processes

_state: dict = {}  # of a worker process: sources, features, settings, counter


def _made(jobs, sources, category_names, settings, processes, bar):
    """Yields (shard, result of `shards.make`) as they become ready."""
    processes = min(processes, max(1, len(jobs)))
    if processes == 1:
        made = shards_lib.features(category_names)
        for shard, about in jobs:
            yield shard, shards_lib.make(shard, about, sources[shard.split], made, settings, bar.update)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe with the threads of polars and others
    counter = context.Value("q", 0)
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, context, _start, (sources, category_names, settings, counter)
    )
    try:
        waiting = {pool.submit(_work, shard, about): shard for shard, about in jobs}
        while waiting:
            ready, _ = concurrent.futures.wait(waiting, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED)
            bar.update(counter.value - bar.n)
            for future in ready:
                yield waiting.pop(future), future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise RunFailed(
            "a process that prepared pictures died (out of memory?); complete files are kept: rerun the same command "
            "to resume, perhaps with fewer --processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start(sources, category_names, settings, counter) -> None:
    workers.end_with_parent()
    _state.update(sources=sources, made=shards_lib.features(category_names), settings=settings, counter=counter)


def _work(shard, about):
    def tick():
        with _state["counter"].get_lock():
            _state["counter"].value += 1

    return shards_lib.make(shard, about, _state["sources"][shard.split], _state["made"], _state["settings"], tick)


# ------------------------------------------------------------------------------------------------------ counting


def _refuse(catalog, split, bad, allowed, out) -> None:
    """Raises InputError if more pictures of a split are unusable than may be set aside."""
    count = catalog.counts[split]
    before = count["read"] - count["kept"] - count["set_aside"].get(left_out.REASON, 0)
    if bad and len(bad) + before > allowed * count["read"] + 1e-9:
        set_aside_file.write(out / "set_aside.csv", [*catalog.set_aside, *_entries(catalog, split, bad)])
        sentences = "\n  ".join(sentence for _, _, sentence in bad[:10])
        raise InputError(
            f"{len(bad):,} pictures of the {split} split are unusable, in addition to {before:,} rows set aside "
            f"before (a share of at most {allowed:g} of {count['read']:,} rows may be set aside):\n  "
            f"{sentences}\nFix them, or raise config.data.kwargs.max_bad_share to leave them out; complete files are "
            "kept."
        )


def _entries(catalog, split, bad):
    return [
        {
            "file": f"split {split}",
            "row": row,
            "id": catalog.split(split).ids[row],
            "reason": reason,
            "sentence": sentence,
        }
        for row, reason, sentence in sorted(bad)
    ]


def _count(catalog, split, bad) -> None:
    """Adds the unusable pictures of a split to the counts of the catalogue."""
    if bad:
        counts = catalog.counts[split]
        counts["kept"] -= len(bad)
        counts.pop("files", None)  # the file of a row is no longer known
        by_reason = collections.Counter(counts["set_aside"])
        by_reason.update(reason for _, reason, _ in bad)
        counts["set_aside"] = dict(sorted(by_reason.items()))
        catalog.set_aside.extend(_entries(catalog, split, bad))


def _answers(truth, abouts) -> dict:
    """Counts the relevant pairs that remain, and the queries that lost all of theirs."""
    left = {
        split: np.zeros(len(ids), bool) for split, ids in (("query", truth.query_ids), ("gallery", truth.gallery_ids))
    }
    for split, rows in left.items():
        for _, about in abouts[split]:
            rows[about["rows"]] = True
    per_query = np.diff(truth.indptr)
    pairs = np.repeat(left["query"], per_query) & left["gallery"][truth.rows]
    with_some = np.bincount(np.repeat(np.arange(len(per_query)), per_query)[pairs], minlength=len(per_query)) > 0
    return {
        "read": len(pairs),
        "kept": int(pairs.sum()),
        "queries_without": int((left["query"] & (per_query > 0) & ~with_some).sum()),
    }


def _sweep(out, keep) -> None:
    """Removes outdated files of an earlier state of the catalogue."""
    for file in [
        *out.glob("*.array_record-*-of-*"),
        *(out / "catalogue" / "shards").glob("*.json"),
        *(out / "catalogue").glob("*.parquet"),
        *(out / "catalogue").glob("truth.npz"),
    ]:
        if file not in keep:
            file.unlink()


def _verify(out, catalog, abouts) -> None:
    """Loads the result as a reader would and compares its listings with the catalogue's."""
    found = prepared.load(out, 1, None, None)
    for split, made in abouts.items():
        listings, ids = catalog.split(split), iter(found.split(split).ids)
        for _, about in made:
            for row in about["rows"]:
                if listings.ids[row] != next(ids, None):
                    raise RunFailed(
                        f"{out}: the prepared {split} split lacks listing {listings.ids[row]} (row {row}); delete the "
                        "folder and prepare it again"
                    )
        prepared_rows, kept = len(found.split(split)), catalog.counts[split]["kept"]
        if prepared_rows != kept:
            raise RunFailed(
                f"{out}: the prepared {split} split has {prepared_rows:,} listings, the catalogue "
                f"{kept:,}; delete the folder and prepare it again"
            )


def _summary(catalog, sources, abouts, seconds) -> dict:
    everything = [about for made in abouts.values() for _, about in made]
    new = [about for about in everything if about.get("new")]
    found = {} if catalog.truth is None else {"answers": _answers(catalog.truth, abouts)}
    found |= {"references": catalog.references} if catalog.references else {}
    return found | {
        "splits": {
            split: {
                "read": catalog.counts[split]["read"],
                "kept": catalog.counts[split]["kept"],
                "set_aside": catalog.counts[split]["set_aside"],
            }
            for split in sources
        },
        "files": {"kept": len(everything) - len(new), "made": len(new)},
        "pictures": {
            "as_is": sum(about["as_is"] for about in everything),
            "written": sum(len(about["rows"]) - about["as_is"] for about in everything),
            "made_now": sum(len(about["rows"]) for about in new),
        },
        "bytes": {
            "before": sum(about["bytes_before"] for about in everything),
            "after": sum(about["bytes"] for about in everything),
        },
        "seconds": round(seconds, 1),
    }


def _text(out, summary, about) -> str:
    lines = [f"prepare: {out} is complete and verified"]
    for split, count in summary["splits"].items():
        reasons = "".join(f"; {reason} {n:,}" for reason, n in count["set_aside"].items())
        lines.append(
            f"  {split}: {count['read']:,} rows = {count['kept']:,} prepared + "
            f"{count['read'] - count['kept']:,} set aside{reasons}"
        )
    if (answers := summary.get("answers")) and answers["kept"] < answers["read"]:
        lines.append(
            f"  truth: {answers['kept']:,} of {answers['read']:,} relevant pairs remain; "
            f"{answers['queries_without']:,} prepared queries have lost all of theirs"
        )
    if asked := summary.get("references"):
        lines.append(
            f"  queries: {asked['in_gallery']:,} of {asked['queries']:,} are about a gallery listing, "
            f"{asked['elsewhere']:,} about one that the gallery lacks; {asked['without_answer']:,} have no right "
            "answer but the listing that they are about"
        )
    for key, table in about["tables"].items():
        gone = table["read"] - table["kept"]
        lines.append(f"  table {key}: {table['kept']:,} rows" + f"; {gone:,} refer to pictures left out" * bool(gone))
    if about["left_behind"]:
        lines.append(f"  computed on demand, so left behind: {', '.join(about['left_behind'])}")
    files, pictures, size = summary["files"], summary["pictures"], summary["bytes"]
    speed = f", {pictures['made_now'] / max(summary['seconds'], 1e-9):,.0f} pictures/s" if files["made"] else ""
    lines += [
        f"  files: {files['made']} made, {files['kept']} kept from earlier",
        f"  pictures: {pictures['written']:,} re-encoded, {pictures['as_is']:,} copied byte for byte; "
        f"{size['before'] / 1e6:,.1f} MB before, {size['after'] / 1e6:,.1f} MB now",
        f"  {summary['seconds']:.1f} s{speed}",
        f'  to read it: config.data.source = "tfds"; config.data.kwargs = dict(root="{out}")',
    ]
    return "\n".join(lines)


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if not given.out:
        raise InputError("--out is missing: give the folder to write, --out=FOLDER")
    run(
        given.config,
        given.out,
        side=given.side,
        quality=given.quality,
        processes=given.processes,
        shard_rows=given.shard_rows,
    )
