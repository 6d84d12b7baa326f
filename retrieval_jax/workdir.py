"""The work directory: what each verb left there, from which settings, and whether it still counts.

    config.json         the settings this directory was made with
    stages/<verb>.json  one record per finished verb: its hash, the settings behind it, outputs, times, summary
    run.json            commit, versions, hardware and times of the whole run

A verb's hash chains the ones before it, so a changed setting makes every later verb stale and leaves the earlier ones
alone. Nothing here imports JAX: a machine that only searches and evaluates does not need it.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import re
import sys
import time

from retrieval_jax import lock, provenance, remote
from retrieval_jax.errors import InputError

VERBS = ("mine", "train", "embed", "search", "evaluate", "report")

# Everything later was learnt from these blocks: a directory that holds results of one value never takes another.
FIXED_BLOCKS = ("data", "mine", "train")

# Settings of the machine and not of the result: they may change when a run goes on somewhere else.
OF_THE_MACHINE = {"train": ("mesh", "sharding_rules", "hang_seconds")}

# What each verb leaves behind, relative to the work directory. Files that exist after the verb ran are recorded with
# their size; a checkpoint folder only by the names in it, because its inside belongs to the checkpoint library.
OUTPUTS = {
    "mine": ("attributes", "set_aside.csv"),  # a catalogue that is drawn, not read, sets nothing aside
    "train": ("checkpoints",),
    "embed": ("embeddings",),
    "search": ("rankings",),
    "evaluate": ("metrics.json", "submission.csv"),
    "report": ("report.html",),
}
_MAX_NAME = 100


def as_path(path) -> pathlib.Path:
    """Returns the path of a work directory; for one at a URL that of the local folder kept in step with it.

    Args:
      path: of a local folder, or a URL ("s3://bucket/folder"), as text or path.

    Raises:
      InputError: a URL without a place in it.
    """
    return remote.local_folder(path)


def default_name(stem: str, arg: str | None = None, overrides: dict | None = None) -> str:
    """Returns the folder name of a config with an argument and overrides: "quickstart-runlocal-search.k=50".

    Args:
      stem: name of the config file without ".py".
      arg: what followed the colon of `--config=file.py:arg`, or None.
      overrides: dotted setting -> value, as given on the command line.

    Returns:
      A name safe on every file system; a long one, or one that lost characters, ends in a hash of all of it.
    """
    parts = [stem] + ([arg] if arg else [])
    parts += [f"{key}={_text(value)}" for key, value in sorted((overrides or {}).items())]
    full = "-".join(parts)
    name = re.sub(r"[^\w.=+,-]+", "_", full, flags=re.ASCII).strip("_")
    if name == full and len(name) <= _MAX_NAME:
        return name
    return f"{name[:_MAX_NAME - 9].rstrip('_-.')}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def _text(value) -> str:
    return value if isinstance(value, str) else json.dumps(plain(value), separators=(",", ":"))


def verbs(config) -> tuple[str, ...]:
    """Returns the verbs of a config, in order.

    An ensemble starts at search, its members did the rest; a config without a train block, of public weights, at embed.
    """
    if members(config):
        return VERBS[VERBS.index("search"):]
    return VERBS if config.get("train") is not None else VERBS[VERBS.index("embed"):]


def members(config) -> tuple[str, ...]:
    """Returns the members of an ensemble ("fashion_convnext" or "fashion_convnext:arg"), or () for one model."""
    search = config.get("search")
    return tuple(search.get("members", ()) or ()) if search is not None else ()


def member_folder(folder, member: str):
    """Returns the work directory of an ensemble's member: a folder beside the ensemble's own."""
    stem, _, arg = member.partition(":")
    return as_path(folder).parent / default_name(stem, arg)


def predecessor(config) -> str:
    """Returns the config ("name" or "name:arg") of the run that a training starts from, or "" where it starts from none
    or from a folder (config.train.init_from with a slash in it)."""
    train = config.get("train")
    init_from = (train.get("init_from", "") if train is not None else "") or ""
    return init_from if re.fullmatch(r"\w+(:.*)?", init_from) else ""


def predecessor_folder(config, folder):
    """Returns the work directory that a training starts from: one beside its own for a config's name, or None."""
    name = predecessor(config)
    if name:
        return member_folder(folder, name)
    train = config.get("train")
    return as_path(train.init_from) if train is not None and train.get("init_from") else None


# ----------------------------------------------------------------------------------------------------- settings


def plain(value):
    """Returns settings as JSON has them: ConfigDict -> dict, tuple -> list, numpy scalar -> number.

    Args:
      value: a config, a block of one, or one setting.

    Raises:
      InputError: something in it has no place in JSON.
    """
    if hasattr(value, "items"):
        # A ConfigDict may hold references; its items() resolves them.
        return {str(key): plain(item) for key, item in sorted(value.items())}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    raise InputError(f"a setting holds {value!r}, a {type(value).__name__}; settings are numbers, text, true/false, "
                     "None, and tuples and dicts of these")


def read_config(folder) -> dict:
    """Returns the settings a work directory was made with: nested dicts, sequences as tuples.

    Raises:
      InputError: when the folder has no config.json.
    """
    file = as_path(folder) / "config.json"
    if not file.exists():
        raise InputError(f"{file} not found: {folder} is no work directory; "
                         "make one with `python -m retrieval_jax.run --config=... --workdir=...`")
    return _tuples(read_json(file))


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def changes(old, new, prefix: str = "") -> list[str]:
    """Returns the settings that differ between two configs, in words.

    Args:
      old: settings as of `plain`.
      new: settings as of `plain`.
      prefix: dotted name of what is compared, "" for whole configs.

    Returns:
      One line a setting: "search.k: 50 -> 100".
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            name = f"{prefix}.{key}" if prefix else key
            if key not in old:
                lines.append(f"{name}: (absent) -> {_short(new[key])}")
            elif key not in new:
                lines.append(f"{name}: {_short(old[key])} -> (absent)")
            else:
                lines += changes(old[key], new[key], name)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [line for i, (a, b) in enumerate(zip(old, new, strict=True)) for line in changes(a, b, f"{prefix}[{i}]")]
    if json.dumps(old) == json.dumps(new):
        return []
    return [f"{prefix}: {_short(old)} -> {_short(new)}"]


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _blocks(config, verb: str) -> dict:
    """Returns the blocks a verb's result depends on, as plain settings: data, every earlier block, its own."""
    names = ["data"] + [name for name in verbs(config) if VERBS.index(name) <= VERBS.index(verb)]
    return {name: _of_result(name, plain(config.get(name))) for name in names}


def _of_result(name: str, block):
    """Returns a block (of `plain`) without the settings of the machine."""
    if not isinstance(block, dict):
        return block
    return {key: value for key, value in block.items() if key not in OF_THE_MACHINE.get(name, ())}


def stage_hash(config, verb: str, folder=None) -> str:
    """Returns the hash of everything a verb's result depends on: its own block and, chained, all the earlier ones.

    Args:
      config: the whole config; its name and the later verbs' blocks do not count.
      verb: one of `VERBS`.
      folder: the work directory; an ensemble needs it, because its members' embeddings count too.

    Returns:
      A short hexadecimal hash.
    """
    return _chain(_blocks(config, verb), _member_hashes(config, folder))


def _chain(blocks: dict, member_hashes: dict) -> str:
    digest = ""
    for name, block in blocks.items():
        content = [digest, name, block] + ([member_hashes] if name == "search" and member_hashes else [])
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return digest


def _member_hashes(config, folder) -> dict:
    """Returns, per member, the hash of its embeddings as they were last made, with the time they were made."""
    if not members(config):
        return {}
    if folder is None:
        raise ValueError("the hash of an ensemble needs its work directory: its members lie beside it")
    found = {}
    for member in members(config):
        record = read_record(member_folder(folder, member), "embed")
        found[member] = None if record is None else [record["hash"], record["finished"]]
    return found


# ----------------------------------------------------------------------------------------------------- the stages


def prepare(config, folder):
    """Creates a work directory for a config, or checks that an existing one was made with the same settings.

    Args:
      config: the whole config.
      folder: the work directory.

    Returns:
      The folder's path.

    Raises:
      InputError: when the directory already holds results of another data, mine or train block, is a file,
        or lies at a URL that cannot be read.
    """
    folder = as_path(folder)
    if url := remote.url(folder):
        print(f"work directory: {url}, worked on in {folder}", flush=True)
        for each in (folder, *(member_folder(folder, member) for member in members(config)),
                     *filter(None, [predecessor_folder(config, folder)])):
            remote.pull(each, settle=each == folder)
    new = plain(config)
    file = folder / "config.json"
    if file.exists() and _used(folder):
        old = read_json(file)
        changed = [line for block in FIXED_BLOCKS
                   for line in changes(*(_of_result(block, settings.get(block)) for settings in (old, new)), block)]
        if changed:
            raise InputError(
                f"{folder} holds results of other settings:\n" + "".join(f"  {line}\n" for line in changed) +
                "The data, mine and train settings of a work directory stay as they are. "
                f"Give another --workdir, or delete this one: {remote.url(folder) or f'rm -r {folder}'}")
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir={folder} is a file, not a folder; give another --workdir")
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    write_json(file, new)
    return folder


def _used(folder) -> bool:
    # A first verb that failed (a mistyped path, say) leaves nothing worth protecting; one that finished wrote run.json.
    finished = (folder / "run.json").exists() or any(read_record(folder, verb) is not None for verb in VERBS)
    return finished or (folder / "checkpoints").exists()


def _read_stage(folder, verb: str) -> dict | None:
    file = as_path(folder) / "stages" / f"{verb}.json"
    return read_json(file) if file.exists() else None


def read_record(folder, verb: str) -> dict | None:
    """Returns the record of a finished verb, or None when it never finished or was made stale since."""
    stage = _read_stage(folder, verb)
    return stage if stage is not None and "hash" in stage else None


def reason_to_run(config, folder, verb: str) -> str | None:
    """Says whether a verb has to run.

    Args:
      config: the whole config.
      folder: the work directory.
      verb: one of `VERBS`.

    Returns:
      Why it has to, in words for the user, or None when its result is complete and unchanged.
    """
    folder = as_path(folder)
    stage = _read_stage(folder, verb)
    if stage is None or "hash" not in stage:
        if verb == "train" and (folder / "checkpoints").exists():
            return "unfinished: resumes"
        return "it has not run yet" if stage is None else stage["stale"]
    if stage["hash"] != stage_hash(config, verb, folder):
        changed = changes(stage["blocks"], _blocks(config, verb))
        changed += changes(stage.get("members", {}), plain(_member_hashes(config, folder)), "members")
        return "changed: " + ("; ".join(changed) or "the way settings are hashed")
    for name, size in stage["outputs"].items():
        file = folder / name
        if not file.exists():
            return f"its output {name} is missing"
        if size is not None and file.stat().st_size != size:
            return f"its output {name} was altered"
    return None


def require_earlier(config, folder, verb: str) -> None:
    """Checks that the verbs before this one are complete and unchanged.

    Raises:
      InputError: naming the first verb that has to run, why, and the command that does it.
    """
    for member in members(config):
        if read_record(member_folder(folder, member), "embed") is None:
            stem, colon, arg = member.partition(":")
            raise InputError(f"{verb} needs the embeddings of the member {member}: run `python -m retrieval_jax.run "
                             f"--config=configs/{stem}.py{colon}{arg} --workdir={member_folder(folder, member)}` first")
    for earlier in verbs(config):
        if earlier == verb:
            return
        reason = reason_to_run(config, folder, earlier)
        if reason:
            raise InputError(f"{verb} needs the result of {earlier} in {folder} ({reason}): "
                             f"run `python -m retrieval_jax.{earlier} ...` with the same --config and --workdir first")


def run_stage(config, folder, verb: str, function) -> dict:
    """Runs one verb in a prepared work directory and records it.

    Args:
      config: the whole config.
      folder: the work directory, prepared.
      verb: one of `VERBS`.
      function: the verb's `run(config, folder)`; returns a json-able summary or None.

    Returns:
      The record, as written to stages/<verb>.json.

    Raises:
      InputError: another run uses the directory.
    """
    folder = as_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = provenance.is_first_process()
    with lock.held(remote.url(folder) or folder, verb) if first else contextlib.nullcontext():
        invalidate(folder, verb)
        if first and remote.url(folder):
            remote.push(folder)  # before anything is overwritten there: the verb and the later ones do not count now
            remote.keep_pushing(folder)
        start, cpu_start = time.monotonic(), provenance.cpu_seconds()
        try:
            summary = function(config, folder)
        except BaseException:  # now: once Python ends it starts no threads, which look up addresses
            if first:
                remote.try_to_push(folder)
            raise
        seconds, cpu_seconds = time.monotonic() - start, provenance.cpu_seconds() - cpu_start
        entry = record(config, folder, verb, seconds=seconds, cpu_seconds=cpu_seconds, summary=summary)
        if first:
            remote.push(folder)
        return entry


def invalidate(folder, verb: str) -> None:
    """Marks a verb as started and every later verb of the directory as stale.

    Args:
      folder: the work directory.
      verb: one of `VERBS`.
    """
    folder = as_path(folder)
    (folder / "stages").mkdir(parents=True, exist_ok=True)
    write_json(folder / "stages" / f"{verb}.json", {"verb": verb, "stale": "an earlier try did not finish"})
    for later in VERBS[VERBS.index(verb) + 1:]:
        if read_record(folder, later) is not None:
            write_json(folder / "stages" / f"{later}.json", {"verb": later, "stale": f"{verb} ran again"})


def record(config, folder, verb: str, *, seconds: float, cpu_seconds: float, summary: dict | None = None) -> dict:
    """Writes the record of a finished verb and brings run.json up to date.

    Args:
      config: the whole config.
      folder: the work directory.
      verb: one of `VERBS`.
      seconds: wall-clock time.
      cpu_seconds: processor time, of this process and the ones it waited for.
      summary: what the verb returned, json-able.

    Returns:
      The record. It holds the outputs found in the directory, each with its size in bytes.
    """
    folder = as_path(folder)
    entry = {
        "verb": verb,
        "hash": stage_hash(config, verb, folder),
        "blocks": _blocks(config, verb),
        "outputs": _outputs(folder, verb),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "commit": provenance.commit(),
        "hardware": provenance.hardware(),
        "summary": plain(summary or {}),
    }
    if members(config):
        entry["members"] = plain(_member_hashes(config, folder))
    if provenance.is_first_process():
        write_json(folder / "stages" / f"{verb}.json", entry)
        _write_run(folder)
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


def _write_run(folder) -> None:
    stages = {verb: entry for verb in VERBS if (entry := read_record(folder, verb)) is not None}
    write_json(folder / "run.json", {
        "config": read_json(folder / "config.json").get("name"),
        "command": sys.argv,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "stages": {verb: {key: entry[key] for key in ("seconds", "cpu_seconds", "finished", "commit", "hardware")}
                   for verb, entry in stages.items()},
        "total_seconds": round(sum(entry["seconds"] for entry in stages.values()), 3),
        "total_cpu_seconds": round(sum(entry["cpu_seconds"] for entry in stages.values()), 3),
    })


# ----------------------------------------------------------------------------------------------------- files


def write_json(file, value) -> None:
    """Writes JSON so that a reader, or a crash, never sees half a file.

    Args:
      file: path, in a folder that exists.
      value: what is written, json-able.
    """
    write_bytes(file, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def write_bytes(file, content: bytes) -> None:
    """Writes a file so that a reader, or a crash, never sees half of it.

    Args:
      file: path, in a folder that exists.
      content: all of it.
    """
    file = pathlib.Path(file)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # else a crash of the machine may leave the new name with nothing in it
    os.replace(temporary, file)


def read_json(file) -> dict:
    """Returns what `write_json` wrote.

    Args:
      file: path of a file that exists.

    Raises:
      InputError: it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not readable JSON ({error}); delete it and run again") from error


