"""How the tests execute the notebooks: those that train twice, or serve, are `long`; BLAS has one thread."""

import os

import pytest

LONG = ("text_and_edits.ipynb", "your_catalogue.ipynb")
# Threads of BLAS wait busily for each other: where other tests have the cores, seven times the processor time. Level 0
# is half the work of the compiler, as in tests/conftest.py, which is not read where only notebooks are executed.
SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked
def pytest_collection_modifyitems(items):
    """Marks the long ones, once they are collected."""
    for item in items:
        if item.path.name in LONG:
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Sets the environment that a notebook's kernel inherits."""
    before = dict(os.environ)
    os.environ.update(SETTINGS)
    try:
        return (yield)
    finally:
        os.environ.clear()
        os.environ.update(before)
