"""The files of the repository, for the tests that read them."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]


def committed_files(*suffixes: str) -> list[pathlib.Path]:
    """Returns the files under version control, or all but the ignored ones where there is no git.

    Args:
      *suffixes: keep files whose names end in one of these, such as ".py"; all files by default.
    """
    files = None
    if shutil.which("git"):
        done = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            files = [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    if files is None:
        ignored = {".git", ".venv", "runs", "__pycache__", ".pytest_cache", ".ruff_cache", "build", "dist"}
        files = [file for file in ROOT.rglob("*") if file.is_file() and not set(file.parts) & ignored]
    return sorted(file for file in files if not suffixes or file.suffix in suffixes)


def text_of(file: pathlib.Path) -> str:
    """Returns the text of a file, "" for a binary one."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
