"""Chromium for the tests of pages: opens a page in frames of several widths and runs a script there."""

import html
import json
import re
import shutil
import subprocess

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--allow-file-access-from-files",
    "--window-size=1400,1000",
    "--virtual-time-budget=5000",
)


def evaluate(page, script, widths=(390, 1280)):
    """Returns the value of a JavaScript expression of the variables `window` and `document` in each frame.

    Args:
      page: path of an HTML file; a file frames.html is written beside it.
      script: an expression whose value JSON can hold.
      widths: of the frames, in px.
    """
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or brew install --cask chromium")
    frames = "".join(f'<iframe src="{page.name}" style="width:{w}px;height:900px;border:0"></iframe>' for w in widths)
    outer = page.with_name("frames.html")
    outer.write_text(
        f"<body>{frames}<pre></pre><script>const ask = (window, document) => ({script});"
        "onload = () => { let found; try { found = [...document.querySelectorAll('iframe')].map("
        "f => ask(f.contentWindow, f.contentDocument)); } catch (error) { found = String(error); }"
        "document.querySelector('pre').textContent = 'FOUND ' + JSON.stringify(found); };</script>"
    )
    command = [browser, *FLAGS, f"--user-data-dir={page.parent / 'browser_profile'}", "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<pre>FOUND (.*?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    answer = json.loads(html.unescape(found[1]))
    assert isinstance(answer, list), answer
    return answer
