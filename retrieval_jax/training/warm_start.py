"""Weights to start from in place of random ones: public ones, or those of an earlier run with other labels."""

import pathlib

import jax
import numpy as np

from retrieval_jax.data import info as info_lib
from retrieval_jax.errors import InputError
from retrieval_jax.training import checkpoints, optim


def put(params, task, source, data_info):
    """Puts the weights that a config names into fresh parameters: the task's public ones, then an earlier run's.

    Args:
      params: fresh parameters.
      task: `tasks.Task`; its `warm_start`, where it has one, puts public weights in.
      source: work directory of the earlier run, or None.
      data_info: `data.info.DataInfo` of this run.

    Returns:
      (params as numpy arrays, counts of `from_run` or {}).
    """
    params, counts = jax.device_get(params), {}
    if task.warm_start is not None:
        params = jax.device_get(task.warm_start(params))
    if source is not None:
        params, counts = from_run(params, source, data_info)
        if jax.process_index() == 0:
            print(
                "starts from {from}, step {step}: {tensors_taken} tensors taken, {labels_matched} labels matched "
                "by name, {labels_fresh} labels fresh, {tensors_fresh} tensors fresh, {tensors_left_over} of its "
                "tensors not wanted".format(**counts),
                flush=True,
            )
    return params, counts


def from_run(params, source, data_info):
    """Copies the moving average of a run into parameters.

    What has the same path is copied whole; of heads ("heads_titles", "heads_category") each label's part goes to the
    label of the same name, and labels that the run did not know keep their fresh values.

    Args:
      params: tree of numpy arrays.
      source: work directory of the run.
      data_info: `data.info.DataInfo` of these parameters.

    Returns:
      (params, counts: from, step, tensors_taken, tensors_fresh, tensors_left_over, labels_matched, labels_fresh).

    Raises:
      InputError: nothing trained there, another backbone, or tensors of other shapes (all of them named).
    """
    source = pathlib.Path(source)
    old, meta, step = checkpoints.load_params(source / "checkpoints")
    info_lib.check_vocabulary(meta, source)
    there = info_lib.load(source / "checkpoints" / "data_info.json")
    olds = dict(zip(jax.tree.leaves(optim.paths(old)), jax.tree.leaves(old), strict=True))
    names, taken, wrong, matched = optim.paths(params), set(), [], {}

    def value(name, fresh):
        if name not in olds:
            return fresh
        taken.add(name)
        head = name.split("/")[0]
        if head in _LABELS:
            rows = _rows(_LABELS[head](there), _LABELS[head](data_info))
            axis = _label_axis(olds[name], fresh, len(_LABELS[head](there)), len(_LABELS[head](data_info)))
            if axis is not None:
                matched[head] = len(rows[0])
                new = np.array(fresh)
                np.moveaxis(new, axis, 0)[rows[1]] = np.moveaxis(olds[name], axis, 0)[rows[0]]
                return new
        if olds[name].shape != fresh.shape:
            wrong.append(f"  {name}: {olds[name].shape} there, {fresh.shape} here")
            return fresh
        return np.asarray(olds[name], fresh.dtype)

    params = jax.tree.map(value, names, params)
    if wrong:
        raise InputError(
            f"config.train.init_from: tensors of {source} have other shapes than this config's:\n"
            + "\n".join(wrong)
            + "\nset config.train.model and config.data.image_size as that run did"
        )
    known = jax.tree.leaves(names)
    if not any(name.startswith("backbone/") for name in taken):
        raise InputError(
            f"config.train.init_from: {source} holds no tensor of this config's backbone: set "
            "config.train.model as that run did"
        )
    labels = {head: len(of(data_info)) for head, of in _LABELS.items() if any(n.startswith(head + "/") for n in known)}
    counts = {
        "from": str(source),
        "step": step,
        "tensors_taken": len(taken),
        "tensors_fresh": len(known) - len(taken),
        "tensors_left_over": len(olds) - len(taken),
        "labels_matched": sum(matched.values()),
        "labels_fresh": sum(labels.values()) - sum(matched.values()),
    }
    return params, counts


# what has a row or a column for each label -> the names of the labels
_LABELS = {
    "heads_titles": lambda info: list(info.label_names),
    "title_tower": lambda info: list(info.label_names),
    "heads_category": lambda info: list(info.category_names[-1]) if info.category_names else [],
}


def _rows(old: list, new: list):
    """Returns (rows of the old labels, rows of the new ones) of the names that both have."""
    place = {name: row for row, name in reversed(list(enumerate(old)))}
    pairs = [(place[name], row) for row, name in enumerate(new) if name in place]
    return np.array(pairs, np.int64).reshape(-1, 2).T


def _label_axis(old, new, num_old: int, num_new: int):
    """Returns the axis along which a head's tensor holds its labels (the last that fits), or None."""
    for axis in reversed(range(old.ndim if old.ndim == new.ndim else 0)):
        others = old.shape[:axis] + old.shape[axis + 1 :] == new.shape[:axis] + new.shape[axis + 1 :]
        if others and old.shape[axis] == num_old and new.shape[axis] == num_new:
            return axis
    return None
