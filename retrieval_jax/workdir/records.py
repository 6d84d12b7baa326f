"""The work directory: what each verb left there, from which settings and data, and whether it still counts.

    config.json         the settings that the results there were made with
    stages/<verb>.json  one record per finished verb: its hash, the settings and data behind it, outputs, times, summary
    run.json            commit, versions, hardware and times of the whole run

A verb's hash chains the ones before it, so a changed setting makes every later verb stale and leaves the earlier ones
alone. A verb that is refused writes nothing: all checks come before `run_stage`, which takes the lock first. Nothing
here imports JAX: a machine that only searches and evaluates does not need it.
"""

import contextlib
import datetime
import os
import sys
import time

from retrieval_jax import paths
from retrieval_jax.errors import InputError, naming
from retrieval_jax.files import atomic, lock, remote
from retrieval_jax.workdir import checks, provenance, sides
from retrieval_jax.workdir.freshness import Data
from retrieval_jax.workdir.hashes import (
    FIXED_BLOCKS,
    PLACES,
    blocks,
    matches,
    member_hashes,
    read_record,
    recorded_hash,
    stage_hash,
    without_free,
)
from retrieval_jax.workdir.layout import (
    OUTPUTS,
    VERBS,
    as_path,
    elsewhere,
    member_folder,
    members,
    predecessor_folder,
    verbs,
)
from retrieval_jax.workdir.settings import changes, plain, read_settings, read_stage

# ---------------------------------------------------------------------------------- checks, which write nothing


def prepare(config, folder):
    """Checks that a work directory can be used with a config; creates and writes nothing.

    Args:
      config: the whole config.
      folder: the work directory, which may be missing; one at a URL is copied here first. Its path is returned.

    Raises:
      InputError: a setting that cannot be; or the directory holds results of another data, mine or train block, is a
        file, cannot be written, or lies at a URL that cannot be read.
    """
    checks.check(config)
    chosen, folder = sides.of(config), as_path(folder)
    if url := remote.url(folder):
        print(f"work directory: {url}, worked on in {folder}", flush=True)
        for each in (
            folder,
            *(member_folder(folder, member) for member in members(config)),
            *filter(None, [predecessor_folder(config, folder)]),
            *(side.workdir(folder) for side in chosen.values() if side.run),
        ):
            remote.pull(each, settle=each == folder)
    _check_writable(folder)
    file = folder / "config.json"
    if file.exists() and _used(folder):
        old, new = read_settings(folder), plain(config)
        changed = [
            line
            for block in FIXED_BLOCKS
            for line in changes(*(without_free(block, settings.get(block)) for settings in (old, new)), block)
        ]
        if not any((read_record(folder, verb) or {}).get("data") for verb in VERBS):  # nothing to compare data with
            changed += [line for line in changes(old["data"], new["data"], "data") if _is_place(line)]
        if changed:
            raise InputError(
                f"{folder} holds results of other settings:\n"
                + "".join(f"  {line}\n" for line in changed)
                + "The data, mine and train settings of a work directory stay as they are. "
                + elsewhere(folder)
            )
    return folder


def _is_place(change: str) -> bool:
    return matches(change.partition(":")[0], PLACES)


def _check_writable(folder) -> None:
    """Raises InputError unless the folder, or the nearest one above it that exists, is a folder to write in."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # too long a name, or a folder above it that this user may not enter
        raise InputError(f"--workdir={folder} cannot be used: {error.strerror}; give another --workdir") from error
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise InputError(f"--workdir={folder}: {there} is a file, not a folder; give another --workdir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"--workdir={folder}: {there} is not writable (its permissions, or a read-only file system); "
            "give another --workdir"
        )


def _used(folder) -> bool:
    # A first verb that failed (on a mistyped path, say) leaves nothing to protect; one that finished wrote run.json.
    finished = (folder / "run.json").exists() or any(read_record(folder, verb) is not None for verb in VERBS)
    return finished or (folder / "checkpoints").exists()


def reason_to_run(config, folder, verb: str, data: Data | None = None) -> str | None:
    """Returns why a verb has to run, in words for the user, or None when its result is complete and unchanged.

    Args:
      config: the whole config.
      folder: the work directory.
      verb: one of `VERBS`.
      data: the config's data, to compare with the record's; None leaves edits of the data unnoticed.

    Raises:
      InputError: what the training there has learned from has changed since.
    """
    folder = as_path(folder)
    stage = read_stage(folder, verb)
    if stage is None or "hash" not in stage:
        if verb == "train" and (folder / "checkpoints").exists():
            return "unfinished: resumes"
        return "it has not run yet" if stage is None else stage["stale"]
    if recorded_hash(stage) != stage_hash(config, verb, folder):
        changed = changes(
            {name: without_free(name, block) for name, block in stage["blocks"].items()}, blocks(config, verb)
        )
        changed += changes(stage.get("members", {}), plain(member_hashes(config, folder)), "members")
        return "changed: " + "; ".join(changed)
    if data is not None and (edited := data.changes(verb, stage.get("data"))):
        if verb in ("mine", "train") and (folder / "checkpoints").exists():
            raise InputError(
                f"{folder}: {edited} since {verb} ran there, and the network in it has learned from what was there "
                f"before. Bring the old data back, or train on the new. {elsewhere(folder)}"
            )
        return edited
    for name, size in stage["outputs"].items():
        file = folder / name
        if not file.exists():
            return f"its output {name} is missing"
        if size is not None and file.stat().st_size != size:
            return f"its output {name} was altered"
    return None


def require_earlier(config, folder, verb: str, data: Data | None = None) -> None:
    """Checks that the verbs before this one are complete and unchanged.

    Args:
      config: the whole config.
      folder: the work directory.
      verb: one of `VERBS`.
      data: see `reason_to_run`.

    Raises:
      InputError: a verb has to run first; the message names it, why, and the command.
    """
    for member in members(config):
        if read_record(member_folder(folder, member), "embed") is None:
            raise InputError(
                f"{verb} needs the embeddings of the member {member}: run "
                f"`{paths.command('run', f'--config={member}', f'--workdir={member_folder(folder, member)}')}` first"
            )
    for split, side in sides.of(config).items() if verb == "embed" else ():
        if side.run and read_record(side.workdir(folder), "train") is None:
            raise InputError(
                f"{verb} needs the network of {side.run} (config.search.{split}_from), and nothing is trained in "
                f"{side.workdir(folder)}: run it first, or `retrieval-jax run`, which does so"
            )
    for earlier in verbs(config):
        if earlier == verb:
            return
        reason = reason_to_run(config, folder, earlier, data)
        if reason:
            raise InputError(
                f"{verb} needs the result of {earlier} in {folder} ({reason}): "
                f"run `retrieval-jax {earlier} ...` with the same --config and --workdir first"
            )


# ------------------------------------------------------------------------------------------------ running a verb


def run_stage(config, folder, verb: str, function, data: Data | None = None) -> dict:
    """Runs one verb in a work directory and records it. This is where the directory is first written.

    The order matters to a process that is killed in between: first the lock; then the verb and the later ones no
    longer count; then config.json says what the verb runs with.

    Args:
      config: the whole config.
      folder: the work directory, checked by `prepare`.
      verb: one of `VERBS`.
      function: the verb's `run(config, folder)`; returns a json-able summary or None.
      data: the config's data, of which the record keeps digests; None keeps none.

    Returns:
      The record, as written to stages/<verb>.json.

    Raises:
      InputError: another run uses the directory.
    """
    folder = as_path(folder)
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    first = provenance.is_first_process()
    with lock.held(remote.url(folder) or folder, verb) if first else contextlib.nullcontext():
        if first:
            _sweep(folder)
        invalidate(folder, verb)
        write_settings(config, folder)
        if first and remote.url(folder):
            remote.push(folder)  # so that the stale records there do not count while their files are overwritten
            remote.keep_pushing(folder)
        start, cpu_start = time.monotonic(), provenance.cpu_seconds()
        provenance.forget_peak_memory()
        try:
            summary = function(config, folder)
        except BaseException:  # push now: an exiting Python starts no threads, and looking up addresses needs them
            if first:
                remote.try_to_push(folder)
            raise
        seconds, cpu_seconds = time.monotonic() - start, provenance.cpu_seconds() - cpu_start
        earlier = (summary or {}).pop("earlier_sessions", {"number": 0, "seconds": 0.0, "cpu_seconds": 0.0})
        entry = record(
            config,
            folder,
            verb,
            seconds=seconds + earlier["seconds"],
            cpu_seconds=cpu_seconds + earlier["cpu_seconds"],
            sessions=1 + earlier["number"],
            summary=summary,
            data=data,
        )
        if first:
            remote.push(folder)
        return entry


def _sweep(folder) -> None:
    """Removes what processes that were killed left half-written in a work directory."""
    for place, _, _ in os.walk(folder):
        atomic.sweep(place, again=True)


def done(entry: dict) -> str:
    """Returns the line about a verb that has just finished.

    Args:
      entry: its record.
    """
    text = f"{entry['verb']}: done in {entry['seconds']:.1f} s"
    return text + (f", the sum of {entry['sessions']} sessions" if entry["sessions"] > 1 else "")


def refresh(folder, verb: str, data: Data) -> None:
    """Updates what a complete record says of where its data is, after `reason_to_run` found the data unchanged.

    Without it, a catalogue that was touched or moved would be read again by every later run.

    Args:
      folder: the work directory.
      verb: one of `VERBS`.
      data: the config's data.
    """
    entry = read_record(folder, verb)
    if not provenance.is_first_process() or entry is None or data.is_noted(entry.get("data")):
        return
    with lock.held(remote.url(folder) or folder, verb):
        atomic.write_json(as_path(folder) / "stages" / f"{verb}.json", {**entry, "data": data.of(verb)})


def invalidate(folder, verb: str) -> None:
    """Marks a verb as started and every later verb of the directory as stale.

    Args:
      folder: the work directory.
      verb: one of `VERBS`.
    """
    folder = as_path(folder)
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "stages" / f"{verb}.json", {"verb": verb, "stale": "an earlier try did not finish"})
    for later in VERBS[VERBS.index(verb) + 1 :]:
        if read_record(folder, later) is not None:
            atomic.write_json(folder / "stages" / f"{later}.json", {"verb": later, "stale": f"{verb} ran again"})


def write_settings(config, folder) -> None:
    """Writes config.json, unless it holds the same settings already.

    Args:
      config: the whole config, with which everything that still counts in the directory was made.
      folder: the work directory; created when missing.
    """
    file, new = as_path(folder) / "config.json", plain(config)
    if not file.exists() or read_settings(file.parent) != new:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(file, new)


def record(
    config,
    folder,
    verb: str,
    *,
    seconds: float,
    cpu_seconds: float,
    sessions: int = 1,
    summary: dict | None = None,
    data: Data | None = None,
) -> dict:
    """Writes the record of a finished verb and updates run.json.

    Args:
      config: the whole config.
      folder: the work directory.
      verb: one of `VERBS`.
      seconds: wall-clock time, of all sessions.
      cpu_seconds: CPU time of this process and the children it waited for, and of earlier sessions.
      sessions: how many processes worked on it, one after another; only a training counts those before the last.
      summary: what the verb returned, json-able.
      data: see `run_stage`.

    Returns:
      The record, with the outputs found in the directory and their sizes in bytes.
    """
    folder = as_path(folder)
    entry = {
        "verb": verb,
        "hash": stage_hash(config, verb, folder),
        "blocks": blocks(config, verb),
        "outputs": _outputs(folder, verb),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "sessions": sessions,
        "peak_memory_bytes": provenance.peak_memory_bytes(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "summary": plain(summary or {}),
    }
    if members(config):
        entry["members"] = plain(member_hashes(config, folder))
    if provenance.is_first_process():
        if data is not None and (read := data.of(verb)):
            entry["data"] = read
        (folder / "stages").mkdir(parents=True, exist_ok=True)
        _write_run(folder, entry)
        atomic.write_json(folder / "stages" / f"{verb}.json", entry)  # last: with it the verb is complete
    return entry


def _outputs(folder, verb: str) -> dict:
    found = {}
    for name in OUTPUTS[verb]:
        path = folder / name
        if verb == "train" and path.is_dir():
            found.update({f"{name}/{child.name}": None for child in sorted(path.iterdir())})
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            found.update({file.relative_to(folder).as_posix(): file.stat().st_size for file in files})
        elif path.exists():
            found[name] = path.stat().st_size
    return found


def _write_run(folder, newest: dict) -> None:
    records = {verb: newest if verb == newest["verb"] else read_record(folder, verb) for verb in VERBS}
    stages = {verb: entry for verb, entry in records.items() if entry is not None}
    atomic.write_json(
        folder / "run.json",
        {
            "config": read_settings(folder).get("name"),
            "command": sys.argv,
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "stages": {
                verb: {key: entry[key] for key in ("seconds", "cpu_seconds", "finished", "commit", "hardware")}
                for verb, entry in stages.items()
            },
            "total_seconds": round(sum(entry["seconds"] for entry in stages.values()), 3),
            "total_cpu_seconds": round(sum(entry["cpu_seconds"] for entry in stages.values()), 3),
        },
    )
