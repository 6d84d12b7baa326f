"""Serves finished runs and exported models: a search page for people and a JSON API for programs.

    retrieval-jax serve --workdir=runs/quickstart

Several --workdir are served side by side. A run is loaded when it is first asked for, and again when its gallery is
embedded anew; requests that are being answered end with the version that they began with. By default only this machine
can reach the service: another --host needs --token_file. docs/serving.md describes page and API.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("serve")

import datetime
import pathlib

from retrieval_jax.errors import InputError
from retrieval_jax.files import opening
from retrieval_jax.server import app, guard, listening, runs

SHORTEST_TOKEN = 16


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.

    Raises:
      InputError: a folder that cannot be served, or an address that would be open to everyone.
    """
    token = _token(given.token_file) if given.token_file else ""
    local = given.host in ("localhost", "127.0.0.1", "::1")
    if not local and not token:
        raise InputError(
            f"--host={given.host} can be reached from other machines: give --token_file=FILE with a token of at least "
            f"{SHORTEST_TOKEN} characters, or leave --host out"
        )
    served = runs.Runs(given.workdir, _log)
    listener = listening.listen(given.host, given.port)
    if not given.lazy:
        served.load()
    name = f"[{given.host}]" if ":" in given.host else given.host
    print(f"serve: http://{name}:{listener.getsockname()[1]}/", flush=True)
    for run in served:
        if note := run.note():
            print(f"serve: {run.name}: {note}", flush=True)
    service = app.make(served, token=token, hosts=guard.LOCAL if local else (), log=_log)
    listening.server(service).run(sockets=[listener])  # raises the signal again after running requests have ended


def _log(event: dict) -> None:
    app.log_line({"time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"), **event})


def _token(file: pathlib.Path) -> str:
    try:
        with opening.opened(file) as stream:
            found = stream.read(4096).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token_file={file} cannot be read ({error}): write the token into it, one line") from error
    if len(found) < SHORTEST_TOKEN or not found.isprintable() or " " in found:
        raise InputError(
            f"--token_file={file}: a token is one line of at least {SHORTEST_TOKEN} characters without blanks, such as "
            "`openssl rand -hex 16` prints"
        )
    return found
