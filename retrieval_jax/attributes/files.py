"""Files of this room, written whole or not at all. As workdir.write_bytes; but this room knows no work directories."""

import pathlib


def write(path: str | pathlib.Path, content: bytes) -> None:
    """Writes a file so that a reader never sees half of it.

    Args:
        path: of the file; its folder is made when absent.
        content: all of it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / (path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
