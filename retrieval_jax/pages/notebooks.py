"""Shows sections of the pages in a notebook: each in a frame of its own, in light or dark as the browser is set.

show(*retrieval.hub_section(catalog, ranking, "Cosine", pictures(catalog)), height=500)   # the last line of a cell
"""

from __future__ import annotations

import functools
import html
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from retrieval_jax.errors import InputError
from retrieval_jax.pages import parts, rows, templates
from retrieval_jax.scoring.ranking import Ranking


class Frame:
    """A page that a notebook shows below the cell; its bottom edge can be dragged.

    Args:
      page: HTML of a whole page that loads nothing.
      height: pixels.
      scripts: whether the page's own script runs.
    """

    def __init__(self, page: str, height: int, scripts: bool = False):
        self.page, self.height, self.scripts = str(page), height, scripts  # `Markup` would be escaped twice

    def __repr__(self) -> str:
        return f"Frame(a page of {len(self.page):,} characters; notebooks show it)"

    def _repr_html_(self) -> str:
        allowed = "allow-scripts allow-downloads" if self.scripts else ""
        style = f"width:100%;height:{self.height}px;border:0;resize:vertical;overflow:auto"
        return f'<iframe sandbox="{allowed}" style="{style}" srcdoc="{html.escape(self.page)}"></iframe>'


def show(*shown: parts.Section | Markup, height: int = 420) -> Frame:
    """Returns sections, charts, tables or rows of pictures as a notebook shows them, one below the other.

    Args:
      *shown: what the functions of this room return; plain text is escaped.
      height: of the frame, pixels; what is taller scrolls.
    """
    sections = [one if isinstance(one, parts.Section) else parts.Section("", one) for one in shown]
    style = templates.inline("style.css")
    policy = Markup(f"default-src 'none'; img-src data:; style-src {templates.source(style)}")
    page = templates.render("notebook.html", title="Part of a report", sections=sections, style=style, policy=policy)
    return Frame(page, height)


def whole(path: str | pathlib.Path, height: int = 640) -> Frame:
    """Returns a page that a verb wrote, such as report.html or attributes/mined.html, as a notebook shows it.

    Args:
      path: its file.
      height: of the frame, pixels.

    Raises:
      InputError: there is no such file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: report writes report.html, mine attributes/mined.html")
    # Without navigation: in such a frame a link to a place of the page would load the notebook.
    page = re.sub(r'<a class="skip".*?</a>|<nav .*?</nav>', "", path.read_text("utf-8"), flags=re.DOTALL)
    return Frame(page, height, scripts=True)


def pictures(catalog, longest_side: int = 96, quality: int = 80) -> Callable[[str, int], str]:
    """Returns the function (split name, row) -> data URI of a picture, "" without one, that sections are given.

    Args:
      catalog: `Catalog` with the pictures.
      longest_side: pixels; larger pictures are made smaller.
      quality: of the JPEG, 0 to 100.
    """

    @functools.cache
    def picture(split: str, row: int) -> str:
        try:
            image = catalog.split(split).images[row]
        except InputError:  # typed queries and listings of which only the title is known
            return ""
        return rows.data_uri(image, longest_side, quality)

    return picture


def listings(catalog, split: str, where: Sequence[int], picture: Callable, notes: Sequence[str] = ()) -> Markup:
    """Returns pictures of listings side by side, with their titles.

    Args:
      catalog: `Catalog`.
      split: name of their split.
      where: their rows.
      picture: see `pictures`.
      notes: a text below each; () for none.

    Raises:
      InputError: not as many notes as rows.
    """
    where = [int(row) for row in where]
    if len(notes) not in (0, len(where)):
        raise InputError(f"{len(notes)} notes for {len(where)} listings: give one each, or none")
    entries = [
        rows.item(catalog, split, row, picture, note=note, note_shown=bool(note))
        for row, note in zip(where, notes if len(notes) else [""] * len(where), strict=True)
    ]
    return templates.render("strip.html", entries=entries)


def found(
    catalog, ranking: Ranking, names: Sequence[str], picture: Callable, images: Sequence[np.ndarray | None] = ()
) -> Markup:
    """Returns rows of queries that are not the catalogue's, such as typed ones, each with its best gallery listings.

    Args:
      catalog: `Catalog` with the gallery.
      ranking: of these queries over that gallery.
      names: what is shown as each query: words, or the name of a file.
      picture: see `pictures`.
      images: uint8 [h, w, 3] picture of each query, None for words alone; () without pictures.

    Raises:
      InputError: a ranking of another gallery, or not one name (and picture) per query.
    """
    rows.check(catalog, ranking, "to show")
    if len(names) != len(ranking) or len(images) not in (0, len(ranking)):
        raise InputError(f"{len(names)} names and {len(images)} pictures for {len(ranking)} queries: give one each")
    made = []
    for place, name in enumerate(names):
        image = images[place] if len(images) else None
        uri = "" if image is None else rows.data_uri(np.asarray(image), 128, 85)
        query = {"kind": "query", "tooltip": name, "picture": uri, "spoken": name, "badge": "query"}
        query |= {"named": True, "name": name if uri else "", "under": [], "changed": []}
        entries = rows.results(catalog, ranking, place, None, picture)
        made.append({"query": query, "strips": [{"label": "", "few": False, "entries": entries}]})
    return rows.rows(made)
