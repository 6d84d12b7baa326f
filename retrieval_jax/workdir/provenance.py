"""Where a result came from: commit, versions and machine. Imports none of the libraries whose versions it reports."""

import contextlib
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import time

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "scipy",
    "polars",
    "opencv-python-headless",
    "pillow",
    "ml_collections",
    "faiss-cpu",
    "faiss-gpu-cu12",
)


@functools.cache
def commit() -> str | None:
    """Returns the commit of the checkout this package runs from (with "+changes" if edited), or None outside git."""
    package = pathlib.Path(__file__).resolve().parents[1]
    try:
        head = _git(package, "rev-parse", "HEAD")
        edited = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ".", "../configs")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+changes" if edited else "")


def _git(folder, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package and the libraries whose results depend on their version."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory_bytes() -> int:
    """Returns how much memory this process may use: the machine's, or less where its control group has a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _memory_limits(pathlib.Path("/proc/self/cgroup"), pathlib.Path("/sys/fs/cgroup")):
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is no limit
            limits.append(int(text))
    return min(limits)


def _memory_limits(own: pathlib.Path, root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that limit the memory of this process's control group and those above it, both versions."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    files = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        parts = pathlib.PurePosixPath(path).parts[1:]
        if not controllers:
            files += [root.joinpath(*parts[: n + 1], "memory.max") for n in range(len(parts))]
        elif "memory" in controllers.split(","):
            name = "memory.limit_in_bytes"
            files += [root.joinpath("memory", *parts[: n + 1], name) for n in range(len(parts))]
    return files


def hardware() -> dict:
    """Describes the machine: platform, processor, usable cores, memory, and accelerators if JAX is already loaded.

    Returns:
      Text and numbers by name; "malloc" only if GLIBC_TUNABLES is set.
    """
    found = {"platform": platform.platform(), "processor": processor(), "cores": cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(memory_bytes() / 2**30, 1)
    if os.environ.get("GLIBC_TUNABLES"):
        found["malloc"] = os.environ["GLIBC_TUNABLES"]
    jax = sys.modules.get("jax")  # not imported for this: search and evaluate run without it
    if jax is not None:
        kinds = [device.device_kind for device in jax.devices()]
        found["devices"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return found


def cpu_seconds() -> float:
    """Returns the CPU time used so far by this process and the children it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def forget_peak_memory() -> None:
    """Starts `peak_memory_bytes` anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process held since `forget_peak_memory`, mapped files included; None where
    the system does not say."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def is_first_process() -> bool:
    """Returns whether this process writes the records: with several hosts, all run the verb on one shared directory."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


@functools.cache
def processor() -> str:
    """Returns the name of the processor."""
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
