"""Fills the templates of this folder: text is escaped, and a misspelt variable raises."""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

FOLDER = pathlib.Path(__file__).parent


def render(name: str, /, **values) -> Markup:
    """Returns a filled template.

    Args:
      name: its file in this folder, such as "report.html".
      values: its variables. Text is escaped; `Markup` is taken as HTML.

    Raises:
      jinja2.UndefinedError: a variable of the template is missing.
    """
    return Markup(environment().get_template(name).render(**values))


@functools.cache
def environment() -> jinja2.Environment:
    """Returns the environment of the templates; autoescape is on."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def inline(name: str) -> Markup:
    """Returns a style sheet or script of this folder, to stand in a page as it is."""
    return Markup((FOLDER / name).read_text("utf-8").strip())


def page(title: str, header: Markup, sections: Sequence, footer: str, script: str = "") -> str:
    """Returns a whole page that loads nothing: its style sheet and script are inline, and allowed by their hashes.

    Args:
      title: of the page.
      header: HTML above the sections.
      sections: `parts.Section`s; the navigation lists them.
      footer: a sentence below them.
      script: name of a file in this folder, "" for a page without JavaScript.
    """
    style, code = inline("style.css"), inline(script) if script else ""
    policy = f"default-src 'none'; img-src data:; style-src {source(style)}; base-uri 'none'; form-action 'none'"
    return render(
        "layout.html",
        title=title,
        header=header,
        sections=sections,
        footer=footer,
        style=style,
        script=code,
        policy=Markup(policy + f"; script-src {source(code)}" * bool(code)),
    )


def source(text: str) -> str:
    """Returns the Content-Security-Policy source that allows one inline style sheet or script, by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
