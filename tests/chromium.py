"""Drives Chromium over its pipe, for tests of pages: no driver and no library are needed."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

# Chromium reads commands from file descriptor 3 and writes answers to 4; these may be in use as something else.
_STARTS = """
import fcntl, os, sys
theirs = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for place, number in enumerate(theirs, 3):
    os.dup2(number, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def found() -> str:
    """Returns the path of Chromium; skips the test where this machine has none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or brew install --cask chromium")
    return browser


class Page:
    """One tab.

    Args:
      read, write: file objects of the pipe.
    """

    def __init__(self, read, write):
        self._read, self._write, self._number, self._session, self.problems = read, write, 0, None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params) -> dict:
        """Runs a command of the DevTools protocol and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self) -> dict:
        data = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            data += byte
        answer = json.loads(data)
        if answer.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(answer["params"]["exceptionDetails"])[:500])
        elif answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
            self.problems.append(str(answer["params"]["entry"])[:500])
        return answer

    def run(self, script: str):
        """Returns the value of an expression; waits where it is a promise."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (script, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0):
        """Returns the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, (script, self.run("document.body.innerText")[:1000], self.problems)
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        """Opens an address."""
        self.send("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def choose(self, selector: str, file: pathlib.Path) -> None:
        """Chooses a file in an input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Sets the size of the window, and the colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def shot(self, file: pathlib.Path) -> None:
        """Writes a picture of the window, PNG."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def page(profile: pathlib.Path):
    """Starts Chromium and yields a `Page`.

    Args:
      profile: folder for what it writes.
    """
    command = [
        found(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
        "--disable-component-update",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [sys.executable, "-c", _STARTS, str(theirs_in), str(theirs_out), *command]
    process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL)
    os.close(theirs_in)
    os.close(theirs_out)
    with open(ours_in, "rb") as read, open(ours_out, "wb") as write:
        try:
            yield Page(read, write)
        finally:
            process.terminate()
            process.wait(timeout=30)
