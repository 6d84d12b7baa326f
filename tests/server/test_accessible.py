"""axe, the checker of accessibility, finds nothing serious on the pages that people look at."""

import pathlib
import shutil

import axe_core_python
import pytest

import chromium
import tiny
from retrieval_jax import evaluate, mine, report
from search_page import SETTLED, service

AXE = (pathlib.Path(axe_core_python.__file__).parent / "axe.min.js").read_text("utf-8")
FOUND = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations
  .filter(one => one.impact === "serious" || one.impact === "critical")
  .map(one => one.id + ": " + one.nodes.map(node => node.html + " " + node.failureSummary).join("\\n")))"""


@pytest.fixture(scope="module")
def reported(finished, tmp_path_factory):
    """A copy of the finished run, with its report and the page of what was mined."""
    folder = tmp_path_factory.mktemp("reported") / "tiny"
    shutil.copytree(finished, folder)
    config = tiny.tiny_config()
    config.train.epochs = 1.0
    config.train.evaluations, config.embed.models = (), ("trained",)
    for verb in (evaluate, report):
        verb.run(config, folder)
    config.mine.normalise = config.mine.variants.on = True  # any of these rules writes mined.html
    mine.run(config, folder)
    return folder


def test_axe_finds_nothing_serious_in_light_and_dark_on_a_desktop_and_a_phone(reported, photo, tmp_path):
    with service(reported) as address, chromium.page(tmp_path / "profile") as page:
        page.size(1280)
        (tmp_path / "photo.png").write_bytes(photo)
        for what in (address, (reported / "report.html").as_uri(), (reported / "attributes" / "mined.html").as_uri()):
            page.open(what)
            if what == address:
                page.wait(f"document.querySelectorAll('.hit').length === 20 && {SETTLED}")
                page.choose("#file", tmp_path / "photo.png")
                page.wait(SETTLED)
            for width in (1280, 390):
                for dark in (False, True):
                    page.size(width, dark=dark)
                    page.run(f"{AXE};0")
                    assert page.run(FOUND) == [], (what, width, dark)


def test_axe_finds_a_picture_without_words(tmp_path):
    (tmp_path / "page.html").write_text(
        "<!doctype html><html lang=en><title>t</title><main><h1>h</h1><img src=x></main>"
    )
    with chromium.page(tmp_path / "profile") as page:
        page.open((tmp_path / "page.html").as_uri())
        page.run(f"{AXE};0")
        assert [one.split(":")[0] for one in page.run(FOUND)] == ["image-alt"]
