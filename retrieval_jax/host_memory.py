"""Keeps freed memory in the process, where XLA computes on the CPU.

XLA allocates what a step needs anew for every step, and glibc gives allocations of that size back to the system at
once: every step pays for the same pages again, as much time as it takes to compute with them.
"""

import ctypes
import glob

import jax

# mallopt's numbers, from glibc's malloc.h: no mappings of their own, nothing trimmed, one heap for all threads.
_KEEP = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2 ** 31 - 1), "M_ARENA_MAX": (-8, 1)}
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def keep_freed() -> bool:
    """Keeps freed memory for the next allocation; call it before jax computes, as threads keep the heaps they have.

    The process then stays as large as it was at its largest.

    Returns:
      Whether it does: where there is no accelerator or jax is told not to use it, and the C library is glibc.
    """
    if jax.config.jax_platforms != "cpu" and any(map(glob.glob, _ACCELERATORS)):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in _KEEP.values())
