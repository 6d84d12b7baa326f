"""Peak anonymous memory of this process, excluding pages of mapped files, which the system may evict."""

import pathlib
import threading
import time


def anonymous() -> int:
    """Returns the bytes of anonymous memory in use (RssAnon; Linux only)."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon: this can only be measured on Linux")


class Peak:
    """Samples anonymous memory while a block runs: `with Peak() as peak: ...`, then peak.bytes and peak.seconds.

    Args:
      every: seconds between samples.

    Attributes:
      before: bytes at the start of the block.
      bytes: largest sample.
      seconds: wall time of the block.
    """

    def __init__(self, every: float = 0.02):
        self.every = every

    def __enter__(self):
        self.before = self.bytes = anonymous()
        self.start, self.stop = time.perf_counter(), threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def _sample(self):
        while not self.stop.wait(self.every):
            self.bytes = max(self.bytes, anonymous())

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.seconds, self.bytes = time.perf_counter() - self.start, max(self.bytes, anonymous())
