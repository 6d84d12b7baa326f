"""The picture files of a folder, found by the name that a table has for them, or by what they are named after."""

from __future__ import annotations

import collections
import difflib
import filecmp
import itertools
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence

from retrieval_jax.data.exports import facts, references
from retrieval_jax.data.fetching import addresses
from retrieval_jax.errors import InputError, short

MISSING, AMBIGUOUS = "no file for the picture", "several files for the picture"
_MOST_FILES = 20_000_000
_MOST_SAME = 8  # files of one name whose bytes are compared
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".rar", ".7z", ".bz2", ".xz")


class Folder:
    """The picture files below a folder, by name. Links to other folders are not followed.

    Args:
      root: the folder.

    Attributes:
      root: the folder.
      files: paths below it, sorted, with slashes.
      unreadable: folders below it that the system does not let this program read; their files are not among `files`.

    Raises:
      InputError: it is not a folder, or cannot be read itself.
    """

    def __init__(self, root):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise InputError(_no_folder(self.root))
        self.unreadable: list[str] = []
        self.files = sorted(itertools.islice(_walk(str(self.root), self.unreadable), _MOST_FILES))
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        self._by_stem: dict[str, list[str]] = collections.defaultdict(list)
        for file in self.files:
            name = file.rpartition("/")[2]
            for one in {references.loose(name), references.loose(urllib.parse.unquote(name))}:
                self._by_name[one].append(file)
                self._by_stem[one.rpartition(".")[0]].append(file)

    def __len__(self) -> int:
        return len(self.files)

    def find(self, reference: str, keys: Iterable[str] = ()) -> tuple[str, str, str]:
        """Finds the file of a picture.

        Of several files with the name, the one whose folders agree best with the reference's counts, then one in a
        folder that is called like a key of the product; files with the same bytes are one. Case, Unicode form, percent
        signs and, where it is unique, the extension may differ; the reference may lack it.

        Args:
          reference: an address or a path.
          keys: of the product.

        Returns:
          (path below the root, "", ""), or ("", reason, detail).
        """
        path = references.loose(references.path(reference))
        name = path.rpartition("/")[2]
        fetched = addresses.file_name(reference) if references.is_address(reference) else ""
        found = self._by_name.get(references.loose(fetched), []) if fetched else []
        found = found or self._by_name.get(name, [])
        if not found and references.looks_like_a_picture(name):
            found = self._by_stem.get(name.rpartition(".")[0], [])
        elif not found and name and not references.is_address(reference):  # "/12" of an address is hardly 12.jpg
            found = self._by_stem.get(name, [])
        if not found:
            near = difflib.get_close_matches(name, self._near(name), n=1, cutoff=0.85)
            hint = f"; there is {self._by_name[near[0]][0]!r}" if near else ""
            return "", MISSING, f"{self.root} has no file {short(name)!r}{hint}"
        if len(found) > 1:
            scored = [(_common(path, references.loose(file)), file) for file in found]
            best = max(score for score, _ in scored)
            found = [file for score, file in scored if score == best]
            own = {references.loose(key.replace("/", "_")) for key in keys if key}
            found = [file for file in found if own.intersection(references.loose(file).split("/")[:-1])] or found
        if len(found) > 1 and not self._same_bytes(found):
            return "", AMBIGUOUS, f"{self.root} has {len(found):,} files {short(name)!r}: {', '.join(found[:3])}"
        return found[0], "", ""

    def _near(self, name: str) -> list[str]:
        """Returns names that begin like a name; comparing with all of a large folder takes too long."""
        return [one for one in itertools.islice(self._by_name, 20_000) if one[:1] == name[:1]][:500]

    def _same_bytes(self, files: Sequence[str]) -> bool:
        try:
            return len(files) <= _MOST_SAME and all(
                filecmp.cmp(self.root / files[0], self.root / file, shallow=False) for file in files[1:]
            )
        except OSError:
            return False

    def named_after(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """Returns the files whose name, or whose folder's name, is one of some keys or begins with one.

        "A-12.jpg", "A-12_2.jpg", "A-12 (3).jpg" and "A-12/front.jpg" are pictures of "A-12".

        Args:
          keys: not empty.

        Returns:
          {key: paths, by the numbers in them}; keys without files are left out. A file belongs to the longest key.
        """
        loose = {references.loose(key.replace("/", "_")): key for key in keys}
        out: dict[str, list[str]] = collections.defaultdict(list)
        for file in self.files:
            *folders, name = references.loose(file).split("/")
            parts = re.split(r"([-_ .()+#]+)", name.rpartition(".")[0])
            whole = ("".join(parts[:end]) for end in range(len(parts), 0, -2))
            key = next((loose[one] for one in (*whole, *reversed(folders)) if one in loose), None)
            if key is not None:
                out[key].append(file)
        for files in out.values():
            files.sort(key=_natural)
        return out


def named_by(folder: Folder, columns: Mapping[str, Sequence[str]]) -> str:
    """Returns the column whose values the files are named after, "" if no column qualifies.

    Of the columns that account for most files, the one with the most values that have files: in rings/A-12.jpg, the
    column of "A-12" and not that of "Rings", which tells no product from another.

    Args:
      folder: the files.
      columns: {column: its values}, those that may be keys.
    """
    counted = {}
    for column, values in columns.items():
        keys = {key for value in values if len(key := facts.clean(value)) > 1}
        found = folder.named_after(keys) if keys else {}
        counted[column] = (sum(map(len, found.values())), len(found))
    most = max((files for files, _ in counted.values()), default=0)
    if most <= max(2, len(folder) // 10):
        return ""
    able = {column: (keys, files) for column, (files, keys) in counted.items() if 2 * files >= most}
    return max(able, key=able.get)  # of equals the first


def _walk(root: str, unreadable: list[str]):
    """Yields the picture files below a folder; appends folders below it that cannot be read to a list."""
    stack, real = [""], os.path.realpath(root)
    while stack:
        below = stack.pop()
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.name.startswith((".", "__MACOSX")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(path)
                    elif references.looks_like_a_picture(entry.name) and not _leads_out(entry, real):
                        yield path
        except OSError as error:
            if not below:
                raise InputError(f"{root}: the folder cannot be read ({error.strerror})") from None
            unreadable.append(below)


def _leads_out(entry: os.DirEntry, root: str) -> bool:
    """Returns whether an entry is a link to a file outside the root, which is not followed."""
    return entry.is_symlink() and not os.path.realpath(entry.path).startswith(root.rstrip(os.sep) + os.sep)


def _no_folder(path: pathlib.Path) -> str:
    if path.is_file():
        if path.suffix.lower() in _ARCHIVES:
            return f"{path} is an archive: unpack it, and give the folder of the pictures"
        return f"{path} is a file: give the folder of the pictures"
    beside = [f.name for f in path.parent.iterdir() if f.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=2)
    return f"{path}: there is no such folder of pictures{'; did you mean ' + ' or '.join(near) + '?' if near else ''}"


def _common(one: str, other: str) -> int:
    """Returns how many parts of two paths agree, from the end."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _natural(path: str) -> list:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path)]
