"""Sends a training's metrics to Weights & Biases or MLflow as well, where config.train.trackers asks for it.

    config.train.trackers = (("wandb", {"project": "shop"}), ("mlflow", {}))

The libraries are those of the extra "tracking". A tracker that fails stops no training: it is reported once and left
out from then on; metrics.jsonl and TensorBoard have everything. A training that resumes goes on in the same run there,
whose id is in tracking.json of the work directory.
"""

from __future__ import annotations

import importlib
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retrieval_jax import pairs
from retrieval_jax.errors import InputError, first_line
from retrieval_jax.files import atomic, documents

FILE = "tracking.json"
_SETTING = "config.train.trackers"


class Tracker:
    """A run of a tracking library: `write(step, values)` sends metrics, `close()` ends it; neither raises."""

    def __init__(self, name: str, write: Callable[[int, dict[str, float]], None], close: Callable[[], None]):
        """Takes what the library does.

        Args:
          name: of the library.
          write: sends finite values by name.
          close: waits until everything is sent.
        """
        self.name, self._write, self._close = name, write, close

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the metrics of a step; those that are non-finite are left out.

        Args:
          step: global step.
          values: {name: number}.
        """
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._try(lambda: self._write(step, finite))

    def close(self) -> None:
        """Waits until everything is sent."""
        self._try(self._close)
        self._write = self._close = None

    def _try(self, action: Callable[[], None]) -> None:
        if self._write is None:
            return
        try:
            action()
        except Exception as error:  # whatever the library, or the network below it, raises
            self._write = self._close = None
            print(f"{self.name}: {first_line(error)}; nothing more is sent there, the training goes on", flush=True)


# ---------------------------------------------------------------------------------------------------------- libraries


def _wandb(
    workdir: pathlib.Path,
    known: str,
    about: Mapping[str, Any],
    *,
    project: str = "retrieval_jax",
    entity: str = "",
    group: str = "",
    mode: str = "",
) -> tuple[str, Tracker]:
    """Opens a run of Weights & Biases; `mode` is "online", "offline" or "disabled", by default WANDB_MODE's."""
    wandb = importlib.import_module("wandb")
    run = wandb.init(
        project=project,
        entity=entity or None,
        group=group or None,
        name=about.get("name"),
        dir=str(workdir),
        id=known or None,
        resume="allow",
        mode=mode or None,
        config=dict(about["config"]),
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
    )
    run.define_metric(
        "*", step_metric="step"
    )  # a resumed training sends some steps again, which its own counter refuses
    return run.id, Tracker("wandb", lambda step, values: run.log({**values, "step": step}), run.finish)


def _mlflow(
    workdir: pathlib.Path,
    known: str,
    about: Mapping[str, Any],
    *,
    experiment: str = "retrieval_jax",
    tracking_uri: str = "",
) -> tuple[str, Tracker]:
    """Opens a run of MLflow; `tracking_uri` is by default MLFLOW_TRACKING_URI's, without it <workdir>/mlruns."""
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or (workdir / "mlruns").resolve().as_uri()
    if uri.startswith("file:"):  # folders are read, and no longer recommended, which MLflow wants to be confirmed
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking = importlib.import_module("mlflow.tracking")
    entities = importlib.import_module("mlflow.entities")
    client = tracking.MlflowClient(uri)
    if not known:
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        known = client.create_run(number, run_name=about.get("name")).info.run_id
        params = [entities.Param(name, str(value)[:500]) for name, value in flat(about["config"]).items()]
        for start in range(0, len(params), 100):  # of a request
            client.log_batch(known, params=params[start : start + 100])
    else:
        client.update_run(known, status="RUNNING")

    def write(step: int, values: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [entities.Metric(_name(name), value, now, step) for name, value in values.items()]
        client.log_batch(known, metrics=metrics)

    return known, Tracker("mlflow", write, lambda: client.set_terminated(known))


_OPENED = {"wandb": _wandb, "mlflow": _mlflow}
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny"}


def _name(name: str) -> str:
    """Returns a metric's name as MLflow takes it, without "@"."""
    return name.replace("@", "_at_")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted name."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return out


# ------------------------------------------------------------------------------------------------------------- opening


def check(entries: Sequence) -> None:
    """Raises InputError for a tracker that does not exist, an argument that it does not have, or a missing library.

    Args:
      entries: config.train.trackers, (name, arguments) pairs.
    """
    for entry in entries:
        name, kwargs = pairs.split(entry, _SETTING, "('wandb', {'project': 'shop'})")
        pairs.check(name, kwargs, {key: pairs.arguments(one, 3) for key, one in _OPENED.items()}, _SETTING, "tracker")
        for key, value in kwargs.items():
            if not isinstance(value, str):
                raise InputError(f"{_SETTING}: {key} of {name!r} is text, not {value!r}")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"{_SETTING}: {name!r} needs a library that is not installed ({error}): pip install {_PACKAGES[name]}, "
                "or the extra retrieval_jax[tracking]"
            ) from error


def opened(entries: Sequence, workdir, config: Mapping[str, Any], *, resumes: bool = False) -> list[Tracker]:
    """Opens the trackers of a training; one that cannot be opened is reported and left out.

    Args:
      entries: config.train.trackers, as `check` accepts them.
      workdir: the work directory; the ids of the runs go to tracking.json there.
      config: the whole config, as nested dicts.
      resumes: whether the training goes on with the runs of tracking.json.

    Returns:
      The trackers.
    """
    workdir, found = pathlib.Path(workdir), []
    ids: dict[str, str] = {}
    if resumes and (workdir / FILE).exists():
        ids = documents.read(workdir / FILE, dict[str, str], remedy="delete it: new runs are then started there")
    about = {"name": config.get("name") or workdir.name, "config": config}
    for name, kwargs in entries:
        try:
            ids[name], tracker = _OPENED[name](workdir, ids.get(name, ""), about, **dict(kwargs))
        except Exception as error:  # whatever the library, or the network below it, raises
            print(f"{name}: {first_line(error)}; nothing is sent there, the training goes on", flush=True)
            continue
        found.append(tracker)
        atomic.write_json(workdir / FILE, ids)
    return found
