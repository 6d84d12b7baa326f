"""Marks the notebooks that train as `long`; pytest executes the others with all tests."""

import pytest

LONG = ("text_and_edits.ipynb", "your_catalogue.ipynb")


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked
def pytest_collection_modifyitems(items):
    """Marks them, once they are collected."""
    for item in items:
        if item.path.name in LONG:
            item.add_marker(pytest.mark.long)
