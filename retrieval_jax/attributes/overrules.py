"""Overrides mining's rules by hand: a small file with lines such as `keep word` or `merge word target`."""

from __future__ import annotations

import csv
import dataclasses
import pathlib

from retrieval_jax import output, paths
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError

ACTIONS = {"keep": 2, "drop": 2, "split": 2, "merge": 3}  # {action: cells in its line}
_LONGEST = 100_000  # characters of a line
MAX_BYTES = 10_000_000


@dataclasses.dataclass(frozen=True)
class Overrules:
    """Decisions made by hand.

    Attributes:
      keep: words that stay attributes of their own, however rare; a phrase is two words with a blank between.
      drop: words that are not attributes.
      split: words that are not merged, and pairs that are not phrases.
      merge: {word: the word it counts as}.
      rows: {word: "file, row n"}, for messages.
    """

    keep: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    split: frozenset[str] = frozenset()
    merge: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: dict[str, str] = dataclasses.field(default_factory=dict)


def load(path: str | pathlib.Path, rule: int = title_rule.DEFAULT) -> Overrules:
    """Reads a file of overrules: one decision per line, cells separated by tabs, or by commas in a .csv file.

    Empty lines and lines that start with # are ignored; cells are stripped, and folded as the title rule folds titles.

    Args:
      path: a UTF-8 file.
      rule: 1 or 2, the title rule.

    Returns:
      The `Overrules`.

    Raises:
      InputError: no such file, a malformed line, two decisions about one word, or a cycle of merges.
    """
    path = paths.expanded(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: larger than {MAX_BYTES:,} bytes; overrules are a small file, correct config.mine.overrules"
            )
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct config.mine.overrules") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error}); correct config.mine.overrules") from None
    sets: dict[str, set[str]] = {"keep": set(), "drop": set(), "split": set()}
    merge: dict[str, str] = {}
    rows: dict[str, str] = {}
    decided: dict[str, set[tuple[str, ...]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}, row {number}"
        if len(line) > _LONGEST:  # csv's own limit is the process's, which readers of tables raise
            raise InputError(
                f"{where}: {line.strip()[:80]!r}... is not a decision (larger than {_LONGEST:,} characters); correct "
                "the line"
            )
        try:
            cells = next(csv.reader([line], delimiter="," if path.suffix == ".csv" else "\t"))
        except csv.Error as error:
            raise InputError(f"{where}: {line.strip()[:80]!r} is not a decision ({error}); correct the line") from None
        cells = [output.from_cell(cell) for cell in cells]
        cells = [" ".join((cell.lower() if rule == 1 else title_rule.folded(cell)).split()) for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if not cells or cells[0] not in ACTIONS or len(cells) != ACTIONS[cells[0]] or not all(cells):
            mark = "comma" if path.suffix == ".csv" else "tab"
            raise InputError(
                f"{where}: {line.strip()[:80]!r} is not a decision; write keep, drop or split and a word, or "
                f"merge, a word and its target, separated by {mark}s"
            )
        action, word = cells[:2]
        others = decided.setdefault(word, set()) - {tuple(cells)}
        # "split" undoes a merge and takes no side between keeping and dropping.
        if any("split" not in (action, other[0]) for other in others):
            raise InputError(f"{where}: {word!r} has a different decision in {rows[word]}; keep one of the two lines")
        if any({action, other[0]} == {"split", "merge"} for other in others):
            raise InputError(f"{where}: {word!r} is both split and merged ({rows[word]}); keep one of the two lines")
        decided[word].add(tuple(cells))
        rows.setdefault(word, where)
        if action == "merge":
            merge[word] = cells[2]
        else:
            sets[action].add(word)
    for word in merge:
        seen = [word]
        while (target := merge.get(seen[-1])) is not None:
            if target in seen:
                raise InputError(f"{rows[word]}: {' -> '.join([*seen, target])} is a cycle; remove one of the lines")
            seen.append(target)
        if seen[-1] in sets["drop"]:
            raise InputError(
                f"{rows[word]}: {word!r} is merged into {seen[-1]!r}, which {rows[seen[-1]]} drops; "
                "drop both or neither"
            )
    return Overrules(*(frozenset(sets[name]) for name in ("keep", "drop", "split")), merge, rows)
