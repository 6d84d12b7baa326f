"""Checkpoints: asynchronous, atomic, restored on any number of devices. The only file that imports orbax.

The train state is a dict pytree ({"params", "ema", "opt_state", "step"}); each entry is stored separately, so that
inference reads "ema" without knowing the optimiser. Whatever else a run needs to resume (its id, vocabulary hash,
config, best score) is JSON beside it; the position in the data is the step.

A checkpoint is written under another name and renamed once complete, so a process that is killed leaves the one before
intact. Disks lose and flip bits later, so every checkpoint carries the sha256 of its files, which is compared before
anything is read.

Longer than 400 lines: the only file that imports orbax.
"""

import concurrent.futures
import functools
import hashlib
import json
import math
import secrets

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from retrieval_jax.errors import InputError, RunFailed, first_line
from retrieval_jax.files import atomic, documents, remote

CHECKSUMS = "checksums.json"  # in the folder of a step: file -> sha256


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Every process of a run makes one and calls the same methods. An error of a background save is raised by the next
    `save`, `check`, `wait` or `close`.
    """

    def __init__(self, folder, keep=2):
        """Opens the folder; creates it when missing.

        Args:
          folder: local or remote path.
          keep: number of latest checkpoints to keep.
        """
        self.folder = path_of(folder)
        self._orbax = ocp.training.Checkpointer(
            self.folder,
            cleanup_tmp_directories=True,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending = None  # (step, future) of the save in progress

    def steps(self):
        """Returns the steps of the complete checkpoints, ascending."""
        return [c.step for c in self._orbax.checkpoints]

    def latest_step(self):
        """Returns the step of the last complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def save(self, step, state, meta):
        """Copies the state from the devices and writes it in the background.

        Waits first for a save that is still in progress. A step that is already there is left alone.

        Args:
          step: global step of the state.
          state: dict of pytrees of arrays.
          meta: json-able dict.

        Raises:
          RunFailed: this checkpoint, or the one before, could not be written.
        """
        self.wait()
        if step in self.steps():
            return
        json.dumps(meta)  # a mistake here raises now and not in the background
        if not _is_url(self.folder) and not self.folder.exists():  # orbax would recreate it as if nothing had happened
            raise RunFailed(
                f"{self.folder} has vanished: the checkpoint of step {step} is not written; bring the "
                "folder back, or start again in another --workdir"
            )
        try:
            response = self._orbax.save_checkpointables_async(
                int(step), dict(state), force=True, custom_metadata=dict(meta)
            )
        except Exception as error:
            raise self._failed(step, error) from error
        self._pending = step, self._thread.submit(self._finish, response, self.folder / str(int(step)))

    def _finish(self, response, path):
        response.result()
        if jax.process_index() == 0:
            _write_checksums(path)

    def check(self):
        """Raises the error of a background save that has failed; does not wait."""
        if self._pending is not None and self._pending[1].done() and self._pending[1].exception() is not None:
            self.wait()

    def restore(self, abstract_state, step=None, *, sharding=None):
        """Restores a state, onto other devices than it was saved from if need be.

        Args:
          abstract_state: dict of pytrees of arrays or `jax.ShapeDtypeStruct`s (for example from `jax.eval_shape`).
          step: of the checkpoint; None for the latest.
          sharding: of leaves that have none of their own.

        Returns:
          (state, meta).

        Raises:
          InputError: no such checkpoint, or its arrays differ from `abstract_state`.
        """
        self.wait()
        path, step = _find(self.folder, step)
        metadata = _metadata(path)
        _compare(path, metadata.metadata, abstract_state)

        def place(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or sharding)

        target = jax.tree.map(place, abstract_state)
        return self._orbax.load_checkpointables(step, dict(target)), metadata.custom_metadata

    def wait(self):
        """Waits for the save in the background.

        Raises:
          RunFailed: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        step, future = pending
        try:
            future.result()
            self._orbax.wait()
        except Exception as error:
            raise self._failed(step, error) from error

    def _failed(self, step, error):
        there = [s for s in steps(self.folder) if s != step]
        whole = f"a new start resumes from step {there[-1]}" if there else "there is none before it"
        return RunFailed(
            f"{self.folder}: the checkpoint of step {step} could not be written ({_cause(error)}); "
            f"{whole}. Is the disk full, over its quota or read-only?"
        )

    def close(self):
        """Waits, then releases the folder."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()


def set_aside_damaged(folder):
    """Renames damaged checkpoints, from the newest back to the first that is intact.

    Every process of a run calls it before it opens `Checkpoints`. A checkpoint without checksums (its process was
    killed between writing the last file and the checksums) counts as intact.

    Args:
      folder: of `Checkpoints`.

    Raises:
      InputError: there are checkpoints, and all of them are damaged.
    """
    folder, damaged = path_of(folder), []
    if jax.process_index() == 0:
        for step in reversed(steps(folder)):
            problem = _damage(folder / str(step))
            if not problem:
                break
            aside = folder / f"damaged-{step}"
            while aside.exists():
                aside = aside.with_name(aside.name + "+")
            (folder / str(step)).rename(aside)
            damaged.append(step)
            print(
                f"checkpoints: {folder / str(step)} is damaged ({problem}): renamed to {aside.name}; the one before "
                "it is used",
                flush=True,
            )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
    if damaged and not steps(folder):
        raise InputError(
            f"{folder}: every checkpoint is damaged (steps {', '.join(map(str, damaged))}); all are kept as "
            "damaged-..., and a new start trains from scratch"
        )


def meta(folder, step=None):
    """Returns the meta that was given to `Checkpoints.save`; reads no array.

    Args:
      folder: of `Checkpoints`.
      step: of the checkpoint; None for the latest.

    Raises:
      InputError: no such checkpoint.
    """
    return _metadata(_find(path_of(folder), step)[0]).custom_metadata


def new_run():
    """Returns the id of a training that starts now: 16 random hexadecimal digits, the same on every process.

    It is kept in the meta of every checkpoint ("run"), survives a resume, and enters no number.
    """
    drawn = np.frombuffer(secrets.token_bytes(8), np.uint8)
    if jax.process_count() > 1:
        drawn = multihost_utils.broadcast_one_to_all(drawn)
    return np.asarray(drawn, np.uint8).tobytes().hex()


def space(meta, step, which="ema"):
    """Returns the name of the space that a checkpoint's parameters embed into: "<run id>/<step>/<which>".

    Vectors of two spaces must never be compared. Two trainings of one config are two runs, hence two spaces, even
    where their weights happen to agree; a run that was killed and resumed is one. What else a vector depends on (the
    predict function, views, the size of the images) is for the caller to add: see `embed` and `export`.

    Args:
      meta: of the checkpoint, see `meta` and `load_params`.
      step: of the checkpoint.
      which: "ema" or "params", as asked of `load_params`.
    """
    run = meta.get("run")
    if run is None:  # saved before runs had ids: the settings stand in
        settled = {name: meta.get(name) for name in ("config", "num_steps", "vocabulary_hash", "rng")}
        run = "unnamed-" + hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:16]
    return f"{run}/{step}/{which}"


def load_params(folder, step=None, which="ema"):
    """Reads only the parameters, for inference, without knowing model or optimiser.

    Args:
      folder: of `Checkpoints`.
      step: of the checkpoint; None for the latest.
      which: "ema" (the moving average, or "params" of a run that kept none) or "params".

    Returns:
      (params as nested dicts of numpy arrays, meta, step).

    Raises:
      InputError: no such checkpoint, or it is damaged.
    """
    if which not in ("ema", "params"):
        raise InputError(f"a checkpoint holds the parameters 'ema' and 'params', not {which!r}")
    path, step = _find(folder, step)
    metadata = _metadata(path)
    which = which if which in metadata.metadata else "params"
    problem = _damage(path, which)
    if problem:
        raise InputError(
            f"{path}: the checkpoint is damaged ({problem}); give an earlier one (--step), or train again "
            "in the same --workdir, which resumes from the one before"
        )
    _check_size(path, which, metadata.metadata[which])
    # An abstract tree of NumPy arrays: without one orbax asks for the devices of the run that saved.
    target = jax.tree.map(lambda m: np.broadcast_to(np.zeros((), m.dtype), m.shape), metadata.metadata[which])
    try:
        return ocp.load_checkpointables(path, {which: target})[which], metadata.custom_metadata, step
    except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
        raise InputError(f"{path} is not a readable checkpoint ({first_line(error)}); give an earlier step") from error


def path_of(folder):
    """Returns a local folder's absolute path, which orbax requires; a remote one unchanged."""
    folder = remote.checkpoint_folder(folder)
    return epath.Path(folder) if _is_url(folder) else epath.Path(folder).absolute()


def steps(folder):
    """Returns the steps of the complete checkpoints of a folder, ascending.

    Args:
      folder: of `Checkpoints`; need not exist.
    """
    folder = path_of(folder)
    if not folder.exists():
        return []
    # Where nothing can be renamed, orbax marks a complete checkpoint with a file.
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if p.name.isdigit() and (not _is_url(folder) or (p / "commit_success.txt").exists())
    )


def _is_url(folder):
    return "://" in str(folder)


def _find(folder, step):
    """Returns (path, step) of a complete checkpoint."""
    folder = path_of(folder)
    there = steps(folder)
    if not there:
        raise InputError(f"{folder}: no checkpoint there; train first, or give the work directory of a training")
    if step is None:
        step = there[-1]
    if step not in there:
        raise InputError(f"{folder} holds no checkpoint of step {step}; there are steps {', '.join(map(str, there))}")
    return folder / str(step), step


def _metadata(path):
    try:
        found = ocp.checkpointables_metadata(path)
        if not isinstance(found.metadata, dict) or not isinstance(found.custom_metadata, dict):
            raise ValueError("it does not say what it holds")
        return found
    except MemoryError:
        raise
    except Exception as error:  # orbax does not check what it reads: any kind can come out of a damaged file
        raise InputError(
            f"{path} is not a readable checkpoint ({first_line(error)}); delete it to use an earlier step"
        ) from error


def _check_size(path, which, tree):
    """Raises InputError unless arrays are of numbers, and not far larger than their files, which are compressed."""
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
        raise InputError(f"{path} holds no arrays as {which!r}; delete it to use an earlier step")
    needed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    there = sum((path / name).stat().length for name in _files(path))
    if needed > (1 << 26) + 100 * there:
        raise InputError(
            f"{path} announces {needed / 2**30:,.1f} GiB of parameters in files of {there / 2**20:,.1f} MiB; delete it "
            "to use an earlier step"
        )


def _cause(error):
    """Returns the most informative line of an error: of its root cause, without what libraries wrap around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "No space" in line or "errno" in line.lower()), lines[0])[:300]


def _files(path, prefix=""):
    for child in sorted(path.iterdir()):
        if child.is_dir():
            yield from _files(child, f"{prefix}{child.name}/")
        elif prefix or not child.name.lstrip(".").startswith(CHECKSUMS):
            yield prefix + child.name


def _sha256(path, name):
    with (path / name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hashes(path, names):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        return dict(zip(names, threads.map(functools.partial(_sha256, path), names), strict=True))


def _write_checksums(path):
    text = json.dumps(_hashes(path, list(_files(path))), indent=1)
    if _is_url(path):
        (path / CHECKSUMS).write_text(text)  # an object store shows whole files only
    else:
        atomic.write_text(path / CHECKSUMS, text)


def _damage(path, part=""):
    """Returns what is wrong with the files of a checkpoint, or of one part of it ("ema"); "" if nothing is."""
    file = path / CHECKSUMS
    if not file.exists():
        return ""
    try:
        wanted = documents.parse(file.read_bytes(), dict[str, documents.Sha256], name=CHECKSUMS, remedy="")
    except InputError:
        return f"{CHECKSUMS} is not readable"
    wanted = {name: digest for name, digest in wanted.items() if name.startswith(f"{part}/" if part else "")}
    if outside := [name for name in wanted if ".." in name.split("/") or name.startswith("/")]:
        return f"{CHECKSUMS} names {outside[0]}, which is not in it"
    try:
        found = _hashes(path, list(wanted))
    except OSError as error:  # missing, or a sector that cannot be read
        return f"{error.filename}: {error.strerror}"
    wrong = [name for name in wanted if found[name] != wanted[name]]
    return f"{wrong[0]} is not what was written" if wrong else ""


def _compare(path, stored, abstract):
    """Raises one sentence about what differs, where orbax would print its registries."""
    missing = [key for key in abstract if key not in stored]
    if missing:
        raise InputError(
            f"{path} holds {', '.join(sorted(stored))}, but not {', '.join(missing)}; resume with the "
            "config that started the run"
        )
    for key in abstract.keys() & {"params", "ema"}:

        def shapes(tree):
            return {jax.tree_util.keystr(p): tuple(x.shape) for p, x in jax.tree_util.tree_leaves_with_path(tree)}

        theirs, ours = shapes(stored[key]), shapes(abstract[key])
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                there, here = (shape.get(name, "(missing)") for shape in (theirs, ours))
                raise InputError(
                    f"{path}: {key}{name} has shape {there} in the checkpoint and {here} in this config; "
                    "resume with the config that started the run"
                )
