"""Lists the experiments that come with the package: what each is, on which hardware, and the score to expect.

All of it stands in the docstring of the experiment's file: its first line, "Hardware: ..." and "Expected: ...".
"""

if __name__ == "__main__":  # before the imports, as in every verb
    from retrieval_jax.__main__ import start

    start("configs")

import ast
import pathlib
import re

from retrieval_jax.workdir import config_files


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    if given.name:
        file = config_files.find(given.name)
        print(f"{file}\n\n{_docstring(file)}")
        return
    lines = []
    for name, file in config_files.experiments().items():
        found = about(file)
        lines += [name, f"    {found['about']}", f"    {found['hardware']}", f"    expected: {found['expected']}", ""]
    lines += ["retrieval-jax run --config=<name> runs one of them, --config=<name>:runlocal the smallest version;"]
    print("\n".join([*lines, "retrieval-jax configs <name> shows all about it."]))


def about(file: pathlib.Path) -> dict[str, str]:
    """Returns what a config's docstring tells: "about", its first line; "hardware" and "expected".

    Args:
      file: the config file, which is read and not run.
    """
    text = _docstring(file)
    found = {"about": text.partition("\n")[0], "hardware": "not measured", "expected": "not measured"}
    for name, value in re.findall(r"^(Hardware|Expected): (.+?)\.?$", text, re.MULTILINE):
        found[name.lower()] = value
    return found


def _docstring(file: pathlib.Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "(no docstring)"
