"""Checkpoints: asynchronous, atomic, restored on any number of devices. The only file that imports orbax.

The train state is a dict pytree ({"params", "ema", "opt_state", "step"}); each entry is stored by itself, so that
inference reads "ema" without knowing the optimiser. What else a run needs to go on (vocabulary hash, config, position
in the data) is json beside it.
"""

import json

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from retrieval_jax.errors import InputError


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Every process of a run makes one and calls the same methods. An error of a save in the background is raised by the
    next `save`, `wait` or `close`.
    """

    def __init__(self, folder, keep=2):
        """Opens the folder, which is created when it is missing.

        Args:
            folder: local or remote path.
            keep: number of latest checkpoints that stay.
        """
        self.folder = _path(folder)
        self._orbax = ocp.training.Checkpointer(
            self.folder, cleanup_tmp_directories=True,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep))
        self._pending = None

    def steps(self):
        """Returns the steps that are completely written, ascending."""
        return [c.step for c in self._orbax.checkpoints]

    def latest_step(self):
        """Returns the last step that is completely written, or None."""
        return max(self.steps(), default=None)

    def save(self, step, state, meta):
        """Copies the state from the devices and writes it in the background; waits first for a save that is still
        under way.

        A step that is already there is left as it is.

        Args:
            step: global step the state belongs to.
            state: dict of pytrees of arrays.
            meta: json-able dict.
        """
        self.wait()
        if step in self.steps():
            return
        json.dumps(meta)  # a mistake here fails now and not in the background
        self._pending = self._orbax.save_checkpointables_async(
            int(step), dict(state), force=True, custom_metadata=dict(meta))

    def restore(self, abstract_state, step=None, *, sharding=None):
        """Reads a state back, onto other devices than it was saved from if need be.

        Args:
            abstract_state: dict of pytrees of arrays or `jax.ShapeDtypeStruct`s (for example of `jax.eval_shape`).
            step: which; None for the latest.
            sharding: where leaves go that carry none of their own.

        Returns:
            (state, meta).

        Raises:
            InputError: no such checkpoint, or it holds other arrays than `abstract_state`.
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
        """Waits for the save in the background and raises its error if it had one."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
        self._orbax.wait()

    def close(self):
        """Waits, then lets the folder go."""
        try:
            self.wait()
        finally:
            self._orbax.close()


def load_params(folder, step=None, which="ema"):
    """Reads parameters alone, for inference, without knowing model or optimiser.

    Args:
        folder: of `Checkpoints`.
        step: which; None for the latest.
        which: "ema" (the moving average; a run that kept none gives its "params") or "params".

    Returns:
        (params as nested dicts of numpy arrays, meta, step).

    Raises:
        InputError: no such checkpoint.
    """
    if which not in ("ema", "params"):
        raise InputError(f"there are parameters 'ema' and 'params' in a checkpoint, not {which!r}")
    path, step = _find(folder, step)
    metadata = _metadata(path)
    which = which if which in metadata.metadata else "params"
    # an abstract tree of numpy arrays: without one orbax asks for the devices of the run that saved
    target = jax.tree.map(lambda m: np.broadcast_to(np.zeros((), m.dtype), m.shape), metadata.metadata[which])
    return ocp.load_checkpointables(path, {which: target})[which], metadata.custom_metadata, step


def _path(folder):
    """Returns a local folder's absolute path, which orbax asks for, or a remote one's as it is."""
    return epath.Path(folder) if "://" in str(folder) else epath.Path(folder).absolute()


def _find(folder, step):
    """Returns (path, step) of a checkpoint that is completely written."""
    folder = _path(folder)
    there = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []
    if not there:
        raise InputError(f"{folder}: no checkpoint there; train first, or give the work directory of a training")
    if step is None:
        step = there[-1]
    if step not in there:
        raise InputError(f"{folder}: no checkpoint of step {step}; there are steps {', '.join(map(str, there))}")
    return folder / str(step), step


def _metadata(path):
    try:
        return ocp.checkpointables_metadata(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({error}); delete it to use an earlier step") from error


def _compare(path, stored, abstract):
    """Says in one sentence what differs, where orbax would print its registries."""
    missing = [key for key in abstract if key not in stored]
    if missing:
        raise InputError(f"{path}: holds {', '.join(sorted(stored))}, but not {', '.join(missing)}; resume with the "
                         "config that started the run")
    for key in abstract.keys() & {"params", "ema"}:
        def shapes(tree):
            return {jax.tree_util.keystr(p): tuple(x.shape) for p, x in jax.tree_util.tree_leaves_with_path(tree)}

        theirs, ours = shapes(stored[key]), shapes(abstract[key])
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                there, here = (shape.get(name, "none (it is missing)") for shape in (theirs, ours))
                raise InputError(f"{path}: {key}{name} has shape {there} in the checkpoint and {here} in this config; "
                                 "resume with the config that started the run")
