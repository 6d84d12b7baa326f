"""Initialises parameters from public weights, or from an earlier run that may have other labels."""

import pathlib

import jax
import numpy as np

from retrieval_jax.data import info as info_lib
from retrieval_jax.errors import InputError
from retrieval_jax.training import checkpoints, optim


def put(params, task, source, data_info):
    """Replaces initial parameters by the weights of a config: the task's public ones, then those of an earlier run.

    Args:
      params: initial parameters.
      task: `tasks.Task`; its `warm_start`, if it has one, inserts public weights.
      source: work directory of the earlier run, or None.
      data_info: `data.info.DataInfo` of this run.

    Returns:
      (params as NumPy arrays, counts from `from_run` or {}).
    """
    params, counts = jax.device_get(params), {}
    if task.warm_start is not None:
        params = jax.device_get(task.warm_start(params))
    if source is not None:
        params, counts = from_run(params, source, data_info)
        if jax.process_index() == 0:
            print(
                "starts from {from}, step {step}: {tensors_taken} tensors copied, {labels_matched} labels matched "
                "by name, {labels_fresh} labels initialised, {tensors_fresh} tensors initialised, {tensors_left_over} "
                "of its tensors unused".format(**counts),
                flush=True,
            )
    return params, counts


def from_run(params, source, data_info):
    """Copies the moving average of a run into parameters.

    Tensors are matched by path. In heads ("heads_titles", "heads_category") each label's weights are copied to the
    label of the same name; labels that the run did not have keep their initial values.

    Args:
      params: tree of NumPy arrays.
      source: work directory of the run.
      data_info: `data.info.DataInfo` of these parameters.

    Returns:
      (params, counts: from, step, tensors_taken, tensors_fresh, tensors_left_over, labels_matched, labels_fresh).

    Raises:
      InputError: there is no trained run, it has another backbone, or shapes differ (the message lists all).
    """
    source = pathlib.Path(source)
    old, meta, step = checkpoints.load_params(source / "checkpoints")
    info_lib.check_vocabulary(meta, source)
    there = info_lib.load(source / "checkpoints" / "data_info.json")
    if there.tokens and data_info.tokens and there.tokens.hash != data_info.tokens.hash:
        raise InputError(
            f"config.train.init_from: the tokens of {source} are others than those of this run, and a token's vector "
            f"means nothing for another one: set config.train.task_kwargs.tokenizer = {str(source / 'text')!r}"
        )
    olds = dict(zip(jax.tree.leaves(optim.paths(old)), jax.tree.leaves(old), strict=True))
    names, taken, copied, wrong, matched = optim.paths(params), set(), [], [], {}

    def value(name, fresh):
        # A tower of queries that the earlier run did not have starts as its only one.
        name = name if name in olds else name.replace("query_backbone/", "backbone/", 1)
        if name not in olds:
            return fresh
        taken.add(name)
        copied.append(name)
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
            f"config.train.init_from: tensors of {source} have other shapes than those of this config:\n"
            + "\n".join(wrong)
            + "\nset config.train.model and config.data.image_size as in that run"
        )
    known = jax.tree.leaves(names)
    if not any(name.startswith("backbone/") for name in taken):
        raise InputError(
            f"config.train.init_from: {source} has no tensor of this config's backbone; set "
            "config.train.model as in that run"
        )
    labels = {head: len(of(data_info)) for head, of in _LABELS.items() if any(n.startswith(head + "/") for n in known)}
    counts = {
        "from": str(source),
        "step": step,
        "tensors_taken": len(copied),
        "tensors_fresh": len(known) - len(copied),
        "tensors_left_over": len(olds) - len(taken),
        "labels_matched": sum(matched.values()),
        "labels_fresh": sum(labels.values()) - sum(matched.values()),
    }
    return params, counts


# {modules with a row or column per label: function that returns the names of the labels}
_LABELS = {
    "heads_titles": lambda info: list(info.label_names),
    "title_tower": lambda info: list(info.label_names),
    "heads_category": lambda info: list(info.category_names[-1]) if info.category_names else [],
}


def _rows(old: list, new: list):
    """Returns (rows of the old labels, rows of the new ones) for the names in both."""
    place = {name: row for row, name in reversed(list(enumerate(old)))}
    pairs = [(place[name], row) for row, name in enumerate(new) if name in place]
    return np.array(pairs, np.int64).reshape(-1, 2).T


def _label_axis(old, new, num_old: int, num_new: int):
    """Returns the label axis of a head's tensor (the last that fits), or None."""
    for axis in reversed(range(old.ndim if old.ndim == new.ndim else 0)):
        others = old.shape[:axis] + old.shape[axis + 1 :] == new.shape[:axis] + new.shape[axis + 1 :]
        if others and old.shape[axis] == num_old and new.shape[axis] == num_new:
            return axis
    return None
