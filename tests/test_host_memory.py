"""A jitted step touches no fresh pages once freed memory is kept."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from retrieval_jax import host_memory

keeps = host_memory.keep_freed() if sys.argv[1] == "keep" else False
step = jax.jit(lambda x: x + 1)  # 64 MB, given up after every call
x = jnp.ones((4096, 4096))
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(keeps, min(faults))
"""


def run(argument):
    done = subprocess.run([sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True)
    keeps, faults = done.stdout.split()
    return keeps == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is set are options of glibc")
def test_memory_that_was_freed_is_used_again():
    keeps, faults = run("keep")
    assert keeps and faults < 200
    assert run("as it is")[1] > 1000
