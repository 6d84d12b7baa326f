"""Fetches the pictures of many addresses into a folder: bounded, polite to their hosts, resumable, checked, counted.

A picture gets its name only once it is complete and decodes, so whatever is in the folder under such a name is whole,
and the same call resumes after any interruption.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
import random
import signal
import threading
from collections.abc import Callable, Sequence

import tqdm

from retrieval_jax.data.fetching import addresses, client
from retrieval_jax.data.fetching.client import NotFetched
from retrieval_jax.data.pictures import decoding, sources
from retrieval_jax.data.pictures.decoding import MAX_PIXELS, BadImage
from retrieval_jax.errors import Preempted
from retrieval_jax.files import atomic

_IN_A_ROW = 5  # pictures of one host that fail with all their attempts before its others are left out
_DECODERS = 2  # pictures decoded at a time: a large one takes 200 MB
_FIRST_PAUSE = 0.5  # seconds before the second attempt; doubled before each further one


@dataclasses.dataclass(frozen=True)
class Limits:
    """What fetching may take.

    Attributes:
      pictures: most pictures to fetch; further ones count as failed.
      total_bytes: most bytes to receive; what remains counts as failed.
      picture_bytes: largest picture file.
      max_pixels: largest picture.
      seconds: longest time for one attempt at a picture.
      at_once: pictures fetched at a time.
      per_host: of these, from one host.
      attempts: at a picture whose host is busy, or does not answer.
      longest_wait: seconds that a host may ask to wait (Retry-After) before it is left alone.
    """

    pictures: int = 1_000_000
    total_bytes: int = 100 * 10**9
    picture_bytes: int = 20 * 10**6
    max_pixels: int = MAX_PIXELS
    seconds: float = 30.0
    at_once: int = 16
    per_host: int = 4
    attempts: int = 3
    longest_wait: float = 120.0


@dataclasses.dataclass(frozen=True)
class Failure:
    """An address without a picture.

    Attributes:
      address: as given.
      reason: key for counts.
      detail: what was found.
    """

    address: str
    reason: str
    detail: str


@dataclasses.dataclass
class Fetched:
    """What became of the addresses: len(fetched) + len(present) + len(failed) is the number of different ones.

    Attributes:
      fetched: addresses whose pictures are new in the folder.
      present: addresses whose pictures were there before.
      failed: the others.
      num_bytes: received in all, those of failures included.
    """

    fetched: list[str]
    present: list[str]
    failed: list[Failure]
    num_bytes: int = 0


class _Host:
    """The queue of a host, and how it is to be treated."""

    def __init__(self):
        self.queue: collections.deque[str] = collections.deque()
        self.not_before = 0.0  # time of the loop until which it asks to be left alone
        self.in_a_row = 0  # pictures that failed, since the last answer
        self.closed: NotFetched | None = None  # why its remaining pictures are left out

    async def wait(self) -> None:
        while (left := self.not_before - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)


def fetch(
    given: Sequence[str],
    folder: pathlib.Path,
    *,
    limits: Limits | None = None,
    allowed: Sequence[addresses.Network] = (),
    find: Callable[[str], str | None] | None = None,
) -> Fetched:
    """Fetches pictures to `folder / addresses.file_name(address)`.

    Args:
      given: addresses; repeated ones are fetched once.
      folder: exists.
      limits: see `Limits`.
      allowed: private networks to connect to all the same, see `addresses.networks`.
      find: returns the path below the folder of a picture that the user has under another name, or None.

    Returns:
      What became of each address, in the order given.

    Raises:
      Preempted: SIGTERM arrived. All complete pictures are in the folder.
      OSError: the folder cannot be written.
    """
    limits = limits or Limits()
    first: dict[str, str] = {}
    for address in given:
        first.setdefault(addresses.normal(address), address)
    different = list(first.values())
    atomic.sweep(folder, again=True)  # what a killed process left
    state = _State(folder, limits, allowed, different)
    todo = [address for address in different if not state.is_present(address, find)]
    asyncio.run(state.run(todo))
    return state.result()


class _State:
    def __init__(self, folder, limits: Limits, allowed, different: list[str]):
        self.folder, self.limits, self.allowed, self.different = folder, limits, allowed, different
        self.outcomes: dict[str, Failure | str] = {}  # by address: a failure, "fetched" or "present"
        self.num_bytes = self.num_failed = 0
        self.bounds = client.Bounds(limits.picture_bytes, limits.seconds, spend=self._spend)

    def is_present(self, address: str, find) -> bool:
        """Returns whether the folder has an address's picture, whole, and notes it."""
        names = [addresses.file_name(address)]
        if find is not None and (found := find(address)):
            names.append(found)
        for name in names:
            if (self.folder / name).is_file() and not sources.check(
                str(self.folder.resolve()), name, self.limits.max_pixels
            ):
                self.outcomes[address] = "present"
                return True
        return False

    def result(self) -> Fetched:
        """Returns the outcomes in the order of the addresses."""
        by = [(address, self.outcomes[address]) for address in self.different]
        return Fetched(
            [address for address, outcome in by if outcome == "fetched"],
            [address for address, outcome in by if outcome == "present"],
            [outcome for _, outcome in by if isinstance(outcome, Failure)],
            self.num_bytes,
        )

    async def run(self, todo: list[str]) -> None:
        """Fetches addresses, each host's in the order given."""
        hosts: dict[str, _Host] = collections.defaultdict(_Host)
        self.progress = tqdm.tqdm(total=len(todo), desc="pictures", unit="picture", mininterval=1.0)
        for number, address in enumerate(todo):
            if problem := addresses.problem(address):
                self._failed(address, NotFetched("not a usable address", problem))
            elif number >= self.limits.pictures:
                self._failed(address, NotFetched("limit reached", f"{self.limits.pictures:,} pictures"))
            else:
                hosts[addresses.host(address)].queue.append(address)
        self.slots, self.decoders = asyncio.Semaphore(self.limits.at_once), asyncio.Semaphore(_DECODERS)
        async with client.session(self.allowed) as self.session:
            workers = [
                asyncio.create_task(self._work(host))
                for host in hosts.values()
                for _ in range(min(self.limits.per_host, len(host.queue)))
            ]
            try:
                with _terminable() as stopped:
                    await _all_or(stopped, workers)
            finally:
                self.progress.close()
        if stopped.is_set():
            done = sum(outcome in ("fetched", "present") for outcome in self.outcomes.values())
            raise Preempted(
                f"SIGTERM: {done:,} of {len(self.different):,} pictures are in {self.folder}; the same command "
                "fetches the others"
            )

    async def _work(self, host: _Host) -> None:
        while host.queue:
            address = host.queue.popleft()
            try:
                await self._one(host, address)
            except NotFetched as error:
                self._failed(address, error)
            else:
                self.outcomes[address] = "fetched"
                self.progress.update()

    async def _one(self, host: _Host, address: str) -> None:
        """Fetches a picture in as many attempts as it may take; raises NotFetched after the last."""
        for attempt in range(1, self.limits.attempts + 1):
            await host.wait()
            if host.closed:
                raise host.closed
            try:
                async with self.slots:
                    data = await client.fetch(self.session, address, self.bounds)
                await self._keep(address, data)
            except NotFetched as error:
                if error.after is not None and error.after > self.limits.longest_wait:
                    detail = f"the host asks to wait {error.after:,.0f} s ({error.detail})"
                    host.closed = NotFetched(error.reason, detail)
                    raise host.closed from None
                if not error.again or attempt == self.limits.attempts:
                    self._note(host, error)
                    raise
                pause = _FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(1.0, 1.5)
                if error.after is not None:  # for all that is fetched from this host
                    host.not_before = max(host.not_before, asyncio.get_running_loop().time() + error.after)
                else:
                    await asyncio.sleep(pause)
            else:
                host.in_a_row = 0
                return

    def _note(self, host: _Host, error: NotFetched) -> None:
        host.in_a_row = host.in_a_row + 1 if error.again or error.silent else 0
        if host.in_a_row >= _IN_A_ROW:
            host.closed = NotFetched("host left out", f"{_IN_A_ROW} pictures in a row failed: {error.reason}")

    async def _keep(self, address: str, data: bytes) -> None:
        """Writes a picture once it has been decoded; raises NotFetched if it does not decode."""
        async with self.decoders:
            try:
                await asyncio.to_thread(decoding.decode, data, self.limits.max_pixels)
            except BadImage as error:
                raise NotFetched(error.reason, error.detail, again=error.reason.startswith("truncated")) from None
        await asyncio.to_thread(atomic.write_bytes, self.folder / addresses.file_name(address), data)

    def _failed(self, address: str, error: NotFetched) -> None:
        self.outcomes[address] = Failure(address, error.reason, error.detail)
        self.num_failed += 1
        self.progress.set_postfix(failed=self.num_failed, refresh=False)
        self.progress.update()

    def _spend(self, count: int) -> None:
        self.num_bytes += count
        if self.num_bytes > self.limits.total_bytes:
            raise NotFetched("limit reached", f"{self.limits.total_bytes:,} bytes in all")


async def _all_or(stopped: asyncio.Event, workers: list[asyncio.Task]) -> None:
    """Waits for all workers, or for the event, and ends those that remain; raises a worker's error."""
    waiting, everything = asyncio.create_task(stopped.wait()), asyncio.gather(*workers)
    try:
        await asyncio.wait([waiting, everything], return_when=asyncio.FIRST_COMPLETED)
        if everything.done():
            everything.result()
    finally:
        for task in (waiting, *workers):
            task.cancel()
        await asyncio.gather(waiting, everything, *workers, return_exceptions=True)


@contextlib.contextmanager
def _terminable():
    """Yields an event that SIGTERM sets, in the main thread of a process; elsewhere it stays unset."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():  # Python allows signal handlers in no other thread
        yield stopped
        return
    # Not the loop's own handlers: those take away what wakes up whoever else listens to signals.
    before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stopped.set))
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
