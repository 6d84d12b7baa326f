"""What notebooks show: frames that load nothing, with pictures, rows of queries, and whole pages."""

import re

import numpy as np
import pytest

from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.pages import notebooks, parts, templates
from retrieval_jax.scoring.ranking import Ranking


@pytest.fixture(scope="module")
def shop():
    kwargs = {"num_train": 4, "num_val": 0, "num_query": 3, "num_gallery": 12, "image_size": 16, "queries": "typed"}
    return loading.load({"source": "synthetic", "kwargs": kwargs})


def test_a_frame_holds_sections_and_escapes_text():
    frame = notebooks.show(parts.Section("Words & more", parts.note("a < b")), "<script>alert(1)</script>", height=300)
    assert "<h2>Words &amp; more</h2>" in frame.page and "a &lt; b" in frame.page and "<script" not in frame.page
    shown = frame._repr_html_()
    assert shown.startswith('<iframe sandbox="" ') and "height:300px" in shown
    assert 'srcdoc="&lt;!DOCTYPE html&gt;' in shown and "<!DOCTYPE" not in shown
    assert len(repr(frame)) < 80


def test_a_frame_loads_nothing_and_is_legible_in_light_and_dark():
    page = notebooks.show(parts.note("text")).page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not re.search(r"https?://", page) and "prefers-color-scheme: dark" in page and "light dark" in page


def test_a_whole_page_is_shown_without_links_that_would_load_the_notebook(tmp_path):
    section = parts.Section("Scores", parts.note("none yet"))
    (tmp_path / "report.html").write_text(templates.page("Report", parts.note("about"), [section], "the end"))
    frame = notebooks.whole(tmp_path / "report.html")
    assert "none yet" in frame.page and "href=" not in frame.page
    assert 'sandbox="allow-scripts allow-downloads"' in frame._repr_html_()
    with pytest.raises(InputError, match="mine attributes/mined.html"):
        notebooks.whole(tmp_path / "attributes" / "mined.html")


def test_listings_have_pictures_titles_and_notes(shop):
    picture = notebooks.pictures(shop)
    page = notebooks.listings(shop, "gallery", np.array([3, 5]), picture, ["first", "second"])
    assert page.count('src="data:image/jpeg') == 2 and "first" in page and shop.gallery.titles[5][:10] in page
    assert "second" in notebooks.listings(shop, "gallery", [3, 5], picture, np.array(["first", "second"]))
    with pytest.raises(InputError, match="1 notes for 2 listings"):
        notebooks.listings(shop, "gallery", [3, 5], picture, ["first"])


def test_typed_queries_have_no_picture(shop):
    assert notebooks.pictures(shop)("query", 0) == ""


def test_queries_of_ones_own_are_shown_with_what_they_find(shop):
    sha = Ids.of(shop.gallery.ids).sha256()
    ranking = Ranking(["a", "b"], np.array([[2, 0], [1, -1]]), np.array([[0.9, 0.1], [0.8, -np.inf]]), sha)
    picture, photo = notebooks.pictures(shop), np.zeros((8, 8, 3), np.uint8)
    page = notebooks.found(shop, ranking, ["red <shoe>", "in blue"], picture, [None, photo])
    assert page.count('class="row"') == 2 and "red &lt;shoe&gt;" in page
    assert page.count("data:image/jpeg") == 4  # three results, and the second query's picture
    page = notebooks.found(shop, ranking, ["red", "blue"], picture, np.zeros((2, 8, 8, 3), np.uint8))
    assert page.count("data:image/jpeg") == 5
    with pytest.raises(InputError, match="1 names and 0 pictures for 2 queries"):
        notebooks.found(shop, ranking, ["red"], picture)
    other = Ranking(["a"], np.array([[0]]), np.array([[1.0]]), Embeddings(["x"], np.ones((1, 2))).ids.sha256())
    with pytest.raises(InputError, match="different gallery"):
        notebooks.found(shop, other, ["red"], picture)
