"""Batches of concurrent requests: one thread takes what is waiting and computes it together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from retrieval_jax.errors import RunFailed

WAITING = 256  # requests that may wait; more are refused


class Busy(RunFailed):
    """More requests are waiting than can be answered in time."""


class Batcher:
    """Computes the items of concurrent requests together.

    Items of one key that wait at the same time are one call. No item waits for others to arrive: a batch is what came
    in while the one before it was computed, so a single user has no delay and many users share the work.

    Args:
      compute: (key, items) -> one result per item, in order; an exception among the results is that item's alone.
      most: largest number of items of a call.
      name: of the thread.
      observe: called with (items, seconds) of each call, for metrics.
    """

    def __init__(
        self,
        compute: Callable[[Hashable, list], Sequence],
        most: int,
        name: str,
        observe: Callable[[int, float], None] | None = None,
    ):
        self._compute, self._most, self._observe = compute, most, observe
        self._waiting: queue.Queue = queue.Queue(WAITING)
        self._later: list = []  # taken from the queue, and of another key than the batch being formed
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def submit(self, key: Hashable, item: Any) -> Future:
        """Returns the future result of an item.

        Args:
          key: items of equal keys may be computed together.
          item: of `compute`.

        Raises:
          Busy: too many are waiting.
        """
        future: Future = Future()
        try:
            self._waiting.put_nowait((key, item, future))
        except queue.Full:
            raise Busy(f"more than {WAITING:,} requests are waiting: try again in a few seconds") from None
        return future

    def close(self) -> None:
        """Ends the thread after what is waiting."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            batch = [entry for entry in batch if entry[2].set_running_or_notify_cancel()]
            if not batch:
                continue
            start = time.monotonic()
            try:
                found = list(self._compute(batch[0][0], [item for _, item, _ in batch]))
            except Exception as error:  # the request's, not the thread's
                found = [error] * len(batch)
            for (_, _, future), result in zip(batch, found, strict=True):
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
            if self._observe is not None:
                self._observe(len(batch), time.monotonic() - start)

    def _next(self) -> list | None:
        """Returns the oldest item and those of its key that wait; None at the end."""
        entries, self._later = self._later, []
        if not entries:
            entries = [self._waiting.get()]
        while len(entries) < WAITING:
            try:
                entries.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        closing = None in entries
        entries = [entry for entry in entries if entry is not None]
        if closing:
            self._waiting.put(None)
        if not entries:
            return None if closing else []
        key, batch = entries[0][0], []
        for entry in entries:
            if entry[0] == key and len(batch) < self._most:
                batch.append(entry)
            else:
                self._later.append(entry)
        return batch
