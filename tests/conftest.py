"""Settings of every test (the CPU; absl flags marked as parsed, which grain's workers ask for), and shared fixtures."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests, child processes and workers compile the same small programs: each is compiled once.
_OURS = "" if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="compiled-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _OURS)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Compiling takes longer than what tests run, by far: half of the compiler's work is left out, here and in every child.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# The processes that share the tests keep the cores busy; threads of products of matrices would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest  # noqa: E402
from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()


def pytest_unconfigure():
    """Removes the compiled programs, in the process that made their folder."""
    if _OURS:
        shutil.rmtree(_OURS, ignore_errors=True)


@pytest.fixture(autouse=True)
def the_same_environment():
    """Undoes what a test, or a verb that it calls, writes to the environment, which later child processes inherit."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def little_compilation():
    """Spends little time in the compiler, for a module whose programs run briefly."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def tiny_variant():
    """The ConvNeXt "tiny test" of tiny.tiny_config; it stays, for fixtures of other files may need it still."""
    import tiny
    from retrieval_jax.models.backbones import convnext

    convnext.VARIANTS["tiny test"] = tiny.TINY
