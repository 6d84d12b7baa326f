"""The code blocks of Markdown pages, for the tests that run or check them."""

import re
import textwrap


def blocks(text: str, language: str = "py(?:thon)?") -> list[str]:
    """Returns the fenced code blocks of a Markdown text, in order.

    Args:
      text: the page.
      language: a regex of what stands behind the opening fence; Python by default.
    """
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]
