"""Speed and memory of a run: FLOPs and utilisation, throughput, a profiler window, and the compilation cache."""

import hashlib
import os
import pathlib
import re
import time

import jax

from retrieval_jax.errors import InputError
from retrieval_jax.workdir import provenance

PROFILE = "RETRIEVAL_JAX_PROFILE"  # "first:last", the steps to profile

# Peak dense bfloat16 FLOP/s of one device, by JAX's device_kind; from the vendors' data sheets.
PEAKS = (
    (r"H100.*PCIe", 756e12),
    (r"H100|H200|GH200", 989e12),
    (r"B200|GB200", 2250e12),
    (r"A100", 312e12),
    (r"L40S", 362e12),
    (r"\bL4\b", 121e12),
    (r"A10G", 70e12),
    (r"V100", 125e12),
    (r"\bT4\b", 65e12),
    (r"TPU v4", 275e12),
    (r"TPU v5 ?(lite|e)", 197e12),
    (r"TPU v5", 459e12),
    (r"TPU v6", 918e12),
    (r"TPU ?v?7", 2307e12),
)


def peak_flops() -> float | None:
    """Returns the peak FLOP/s of one device, or None if unknown (a CPU)."""
    kind = jax.devices()[0].device_kind
    return next((peak for pattern, peak in PEAKS if re.search(pattern, kind)), None)


def utilisation(step_flops: float | None, seconds: float) -> float | None:
    """Returns the share of the device's peak FLOP/s that a step reaches (MFU), or None if unknown.

    Args:
      step_flops: FLOPs of a step on one device, or None.
      seconds: duration of a step.
    """
    peak = peak_flops()
    return step_flops / seconds / peak if peak and step_flops and seconds > 0 else None


class Speed:
    """Measures the speed between two lines of the log."""

    def __init__(self, seconds, step: int):
        """Starts measuring.

        Args:
          seconds: counter of `guards.Watch`, by stage.
          step: step that the run starts from.
        """
        self.flops = None  # FLOPs of a step on one device
        self._seconds = seconds
        self._last = step, self._read()

    def _read(self):
        others = sum(self._seconds[stage] for stage in ("evaluation", "compiler"))
        return time.monotonic() - others, self._seconds["input"]

    def since_last(self, step: int, batch_size: int) -> dict:
        """Returns images_per_second, input_wait_share, model_flops_utilisation (None on a CPU) and memory."""
        (old_step, (old_time, old_input)), now = self._last, self._read()
        self._last = step, now
        elapsed, steps = max(now[0] - old_time, 1e-9), step - old_step
        return {
            "images_per_second": steps * batch_size / elapsed,
            "input_wait_share": (now[1] - old_input) / elapsed,
            "model_flops_utilisation": utilisation(self.flops, elapsed / max(steps, 1)),
            **memory_gib(),
        }


def memory_gib() -> dict:
    """Returns {"device_memory_gib": peak of the first device, "memory_gib": memory of this process}, if available."""
    found = {}
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        found["device_memory_gib"] = stats["peak_bytes_in_use"] / 2**30
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # anonymous memory only: mapped file pages count as resident, but cost nothing
        match = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if match:
            found["memory_gib"] = int(match[1]) / 2**20
    return found


def keep_compiled() -> None:
    """Turns on JAX's compilation cache, so that a resumed run does not compile again.

    The cache is in $JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/retrieval_jax, with a folder per kind of
    processor, because programs for a CPU are specific to it. An empty variable turns the cache off.
    """
    if jax.config.jax_compilation_cache_dir or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    machine = hashlib.sha256((provenance.processor() + _processor_flags()).encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(cache / "retrieval_jax" / "compiled" / machine))


def _processor_flags() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    match = re.search(r"^(flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return match[2] if match else ""


class Profile:
    """Profiles a window of steps, set by --profile=first:last or the variable; writes to <workdir>/profile."""

    def __init__(self, workdir):
        """Reads the variable.

        Args:
          workdir: the run's folder; view the profile with TensorBoard's profile plugin or ui.perfetto.dev.

        Raises:
          InputError: the variable is malformed.
        """
        value = os.environ.get(PROFILE, "")
        match = re.fullmatch(r"(\d+):(\d+)", value)
        if value and (not match or int(match[1]) > int(match[2]) or int(match[1]) < 1):
            raise InputError(f"--profile={value} ({PROFILE}): give the first and the last step, for example '20:25'")
        self.first, self.last = (int(match[1]), int(match[2])) if match else (0, 0)
        self._folder, self._on = pathlib.Path(workdir) / "profile", False

    def before(self, step: int) -> None:
        """Starts the profiler before the first step of the window."""
        if step == self.first:
            jax.profiler.start_trace(str(self._folder))
            self._on = True

    def ends(self, step: int) -> bool:
        """Returns whether a step is the last of the window; then wait for it and call `close`."""
        return self._on and step >= self.last

    def close(self) -> None:
        """Stops the profiler and writes the profile."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
            print(f"train: profile of steps {self.first} to {self.last} in {self._folder}", flush=True)
