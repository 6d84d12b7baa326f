"""Settings of every test (the CPU; absl flags marked as parsed, which grain's workers ask for), and shared fixtures."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest  # noqa: E402
from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()


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
    """The ConvNeXt "tiny test" of tiny.tiny_config."""
    import tiny
    from retrieval_jax.models.backbones import convnext

    convnext.VARIANTS["tiny test"] = tiny.TINY
    yield
    del convnext.VARIANTS["tiny test"]
