"""What tests of the search page share: a service on a free port, and a person's acts."""

import contextlib
import threading

import chromium
from retrieval_jax.server import app, listening, runs

SETTLED = "$('results').ariaBusy === 'false'"  # results, filters and runs are shown
TITLES = "[...document.querySelectorAll('.hit .name')].map(one => one.textContent)"


@contextlib.contextmanager
def service(*folders):
    """Serves runs; yields the address, or skips where there is no Chromium."""
    chromium.found()
    served = runs.Runs(folders, watched=0)
    listener = listening.listen("127.0.0.1", 0)
    server = listening.server(app.make(served))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=20)


def act(page, script):
    """Runs what a person does, and waits until its search is answered and shown."""
    page.run("$('results').ariaBusy = 'true'")
    page.run(script)
    page.wait(SETTLED)
