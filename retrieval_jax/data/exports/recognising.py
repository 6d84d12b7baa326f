"""Recognises the columns of a table: by what they hold first, by what they are called second.

Every column gets a sentence that says what it is taken for and what was seen in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_jax.data.exports import categories, facts, folders, grouping, likeness, references, words
from retrieval_jax.data.exports.facts import Facts
from retrieval_jax.data.exports.folders import Folder
from retrieval_jax.data.exports.reading import Sheet
from retrieval_jax.data.exports.roles import PARTS, Roles

_SAMPLE = 20_000  # rows that are looked at for keys
_SEEN = 5_000  # rows that a column's facts are found from
_AGREEMENT = 0.9  # share of the keys whose rows must belong together
_MISTAKES = 0.02  # share of the rows that may have a key by mistake
_OTHER = ("description", "seo", "brand", "price", "stock", "link", "state", "variant", "position", "barcode")


@dataclasses.dataclass(frozen=True)
class Recognised:
    """What the columns of a table were recognised as.

    Attributes:
      roles: which column is what.
      seen: {column: what it is taken for and what was seen in it, a sentence}.
      notes: what else the user should know, sentences.
    """

    roles: Roles
    seen: Mapping[str, str]
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column with what its name hints at and what it holds."""

    name: str
    header: Mapping[str, float]
    facts: Facts

    def hint(self, *roles: str) -> float:
        return max((self.header.get(role, 0.0) for role in roles), default=0.0)

    @property
    def is_text(self) -> bool:
        one = self.facts
        return one.count > 0 and max(one.addresses, one.pictures, one.html, one.hexes) < 0.3 and one.letters > 0.6

    @property
    def may_be_a_key(self) -> bool:
        one = self.facts
        short = one.length <= 80 and (one.words <= 4 or self.hint("product", "sku", "group") >= 0.9)
        values = max(one.addresses, one.pictures, one.html, one.decimals, one.dates) < 0.2 and one.booleans < 0.95
        return one.count > 1 and short and values and one.rounded < 0.5


def recognise(sheet: Sheet, given: Mapping[str, Any] | None = None) -> Recognised:
    """Recognises the columns of a table.

    Args:
      sheet: the table, or its first rows.
      given: parts that the user has settled, arguments of `Roles`; "" or () where no column plays a part.

    Returns:
      `Recognised`.
    """
    given = dict(given or {})
    values = {name: column[:_SAMPLE] for name, column in sheet.columns.items()}
    columns = [_Column(name, words.roles(name), facts.of(column[:_SEEN])) for name, column in values.items()]
    found, notes = dict(given), []
    taken = {name for value in given.values() for name in ((value,) if isinstance(value, str) else value)}

    def take(part: str, choose) -> None:
        if part not in found:
            found[part] = choose([column for column in columns if column.name not in taken])
        chosen = found[part]
        taken.update((chosen,) if isinstance(chosen, str) else chosen)

    take("image", _images)
    take("kind", lambda left: _kind(left, values))
    take("language", lambda left: _language(left, values, found["image"]))
    take("title", lambda left: _title(left, found["image"]))
    titles = main_titles(values, found["title"], found["language"])
    take("categories", lambda left: _categories(left, values))
    take("children", lambda left: next((c.name for c in left if c.hint("children") >= 0.9 and c.facts.count), ""))
    take("parent", lambda left: _parent(left, values))
    if "product" not in found:
        found["product"], found["group"], more = _product(columns, taken, values, titles, found)
        notes += more
    taken.add(found["product"])
    take("group", lambda left: next((c.name for c in left if c.hint("group") >= 0.9 and c.facts.count > 1), ""))
    take("id", lambda left: _id(left, values, found))
    found.setdefault("files_named_by", "")
    roles = Roles(**{part: found[part] for part in PARTS})
    return Recognised(roles, {column.name: _sentence(column, roles) for column in columns}, notes)


def with_files(recognised: Recognised, sheet: Sheet, folder: Folder) -> Recognised:
    """Returns what was recognised, with the column that the files of a folder are named after, where there is one.

    Args:
      recognised: without a column that names pictures.
      sheet: the table, or its first rows.
      folder: the files.
    """
    columns = [_Column(name, words.roles(name), facts.of(values[:_SEEN])) for name, values in sheet.columns.items()]
    name = folders.named_by(folder, {one.name: sheet.columns[one.name] for one in columns if one.may_be_a_key})
    roles = dataclasses.replace(recognised.roles, files_named_by=name)
    return Recognised(roles, {one.name: _sentence(one, roles) for one in columns}, recognised.notes)


def main_titles(values: Mapping[str, Sequence[str]], title: str, language: str) -> list[str]:
    """Returns the titles of all rows, "" where a row has none or is of another language than the first.

    Args:
      values: {column: n texts}.
      title, language: columns; "" for none.
    """
    size = len(next(iter(values.values())))
    texts = [facts.clean(value) for value in values[title]] if title else [""] * size
    if not language:
        return texts
    main = set(main_rows(values, language))
    return [text if row in main else "" for row, text in enumerate(texts)]


def main_rows(values: Mapping[str, Sequence[str]], language: str) -> list[int]:
    """Returns the rows of the main language or store: those without one, else those of the first row's.

    Args:
      values: {column: n texts}.
      language: the column; "" for none, where all rows count.
    """
    size = len(next(iter(values.values())))
    codes = [value.strip() for value in values[language]] if language else [""] * size
    main = "" if "" in codes else codes[0]
    return [row for row, code in enumerate(codes) if code == main]


def _images(columns: Sequence[_Column]) -> tuple[str, ...]:
    """Returns the columns that name pictures; small versions only where nothing else does."""
    found = []
    for column in columns:
        hint, seen = column.hint("picture", "thumbnail"), column.facts
        named = seen.pictures >= 0.5 or (hint >= 0.6 and (seen.addresses >= 0.5 or seen.pictures > 0.2))
        own = max(column.hint("link", "description", "seo"), 0.0) <= max(hint, 0.4) or seen.pictures >= 0.8
        if seen.count and named and own:
            found.append((column, max(column.hint("thumbnail") - column.hint("picture"), 0.0) > 0.1))
    large = [column.name for column, small in found if not small]
    return tuple(large or [column.name for column, _ in found])


def _kind(columns: Sequence[_Column], values: Mapping[str, Sequence[str]]) -> str:
    for column in columns:
        kinds = [grouping.kind(value) for value in values[column.name] if value.strip()]
        known = sum(map(bool, kinds))
        if kinds and known >= 0.7 * len(kinds) and {"child", "joining"} & set(kinds) and column.facts.distinct < 0.9:
            return column.name
    return ""


def _language(columns: Sequence[_Column], values: Mapping[str, Sequence[str]], images: Sequence[str]) -> str:
    """Returns the column of languages: rows of the others repeat the main one's keys or pictures, or have no key.

    Without that the column says what a product is (the language of a book) or where it is (the store that sells it).
    """
    keys = {
        column.name: 0.3 if column.hint("product", "sku") >= 0.5 else 0.9 for column in columns if column.may_be_a_key
    }
    keys |= dict.fromkeys(images, 0.9)  # share of the main language's rows with a value of their own
    for column in columns:
        if column.hint("language") < 0.9 or not column.facts.count or len({v.strip() for v in values[column.name]}) < 2:
            continue
        main = set(main_rows(values, column.name))
        for name, least in keys.items():
            known = [facts.clean(value, placeholders=True) for value in values[name]]
            own = [known[row] for row in main if known[row]]
            if name == column.name or len(own) < 0.9 * len(main) or len(set(own)) < least * len(own):
                continue
            repeated = {*own, ""}
            others = [value in repeated for row, value in enumerate(known) if row not in main]
            if sum(others) >= 0.5 * len(others):
                return column.name
    return ""


def _title(columns: Sequence[_Column], images: Sequence[str]) -> str:
    best, name = 0.9, ""
    for column in columns:
        one = column.facts
        if not column.is_text or one.length > 300 or one.booleans > 0.5 or column.name in images:
            continue
        other = column.hint("category", "product", "sku", "kind", "group", "parent", "language", *_OTHER)
        score = 1.5 * column.hint("title") - 1.2 * max(0.0, other - 0.5 * column.hint("title"))
        score += 0.6 * (8 <= one.length <= 150) + 0.5 * min(1.0, one.words / 3) + 0.6 * one.distinct
        score += 0.3 * min(1.0, 4 * one.filled) - 0.6 * (one.length > 150) - 0.5 * one.hierarchies
        if score > best:
            best, name = score, column.name
    return name


def _categories(columns: Sequence[_Column], values: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    scored = []
    for column in columns:
        one, hint = column.facts, column.hint("category")
        if not one.count or max(one.addresses, one.pictures, one.html, one.hexes, one.numbers) > 0.3 or one.words > 15:
            continue
        other = column.hint("title", "sku", "parent", "group", "variant", "seo", "brand", "description", "stock")
        if hint < 0.5 and one.hierarchies < 0.6 or other > hint + 0.2 or one.distinct > 0.95:
            continue
        if len(categories.names([values[column.name]])[0]) < 2:
            continue  # one category, or none, says nothing
        score = 1.5 * hint + 0.8 * one.hierarchies + 0.5 * (1 - one.distinct) + 0.5 * min(1.0, 3 * one.filled)
        scored.append((score, column))
    if not scored:
        return ()
    best = max(scored, key=lambda pair: pair[0])[1]
    if best.facts.hierarchies >= 0.5:
        return (best.name,)
    # "group 0", "group 1", "group 2" are the levels of one category; so is a subcategory beside it.
    alike = [c for _, c in scored if words.normal(c.name) == words.normal(best.name)]
    if len(alike) > 1:
        return tuple(column.name for column in alike)
    below = [
        column
        for _, column in scored
        if column is not best and _is_below(values[best.name], values[column.name]) and column.hint("category") >= 0.5
    ]
    above = [
        column
        for _, column in scored
        if column is not best and _is_below(values[column.name], values[best.name]) and column.hint("category") >= 0.5
    ]
    return tuple(column.name for column in (*above[:1], best, *below[:1]))


def _is_below(upper: Sequence[str], lower: Sequence[str]) -> bool:
    """Returns whether each value of one column goes with one value of the other, and the other way round not."""
    pairs = {(one, other) for one, other in zip(upper, lower, strict=True) if one and other}
    uppers, lowers = {one for one, _ in pairs}, {other for _, other in pairs}
    return len(pairs) == len(lowers) > len(uppers) > 1


def _parent(columns: Sequence[_Column], values: Mapping[str, Sequence[str]]) -> str:
    """Returns the column of parents: its values are keys of other rows."""
    for column in columns:
        if column.hint("parent") < 0.6 or not column.facts.count:
            continue
        named = {
            value.partition(":")[2].strip() if value.startswith("id:") else value
            for value in map(facts.clean, values[column.name])
            if value
        }
        for other in columns:
            if other is not column and other.may_be_a_key:
                known = set(map(facts.clean, values[other.name]))
                if named and len(named & known) >= 0.5 * len(named):
                    return column.name
        if column.hint("parent") >= 0.9 and column.facts.distinct < 0.9:
            return column.name
    return ""


def _product(columns, taken, values, titles, found) -> tuple[str, str, list[str]]:
    """Returns the column whose equal values are one product, one that is a group only, and notes on those refused."""
    candidates, notes, group = [], [], ""
    main = main_rows(values, found["language"])
    bare = likeness.without_common(titles)
    for place, column in enumerate(columns):
        if (
            column.name in taken
            or not column.may_be_a_key
            or column.hint(*_OTHER) >= 0.9 > column.hint("product", "sku")
        ):
            continue
        keys = [facts.clean(value, placeholders=True) for value in values[column.name]]
        for row in range(1, len(keys)):  # a row without key and title continues the row above it
            keys[row] = keys[row] or ("" if titles[row] else keys[row - 1])
        hint = max(1.0 * column.hint("product"), 0.7 * column.hint("sku"), 0.5 * column.hint("group"))
        known = hint >= 0.35
        tried = grouping.joins([keys[row] for row in main], [(titles if known else bare)[row] for row in main])
        rows, shared, apart = tried.rows, tried.keys, tried.apart
        filled = sum(map(bool, keys)) / max(1, len(keys))
        if hint < 0.65:  # the name must speak for rows that are far from each other
            apart += tried.scattered_untitled if known else tried.scattered
        # Keys given twice by mistake are taken apart; a value that many rows share is not a mistake.
        few = hint >= 0.65 and tried.rows_apart <= max(2, _MISTAKES * len(keys))
        if shared and apart > (1 - _AGREEMENT) * shared and not few:
            if column.hint("group", "product") >= 0.9:
                notes.append(
                    f"{column.name!r} joins rows with different titles in {apart:,} of {shared:,} cases, so its equal "
                    "values are not taken for one product"
                )
                group = group or column.name
            continue
        joined = rows / max(1, len(keys))
        candidates.append((2.0 * joined + hint + 0.8 * filled - 0.01 * place, joined, filled, hint, column.name))
    joining = [one for one in candidates if one[1] > 0 and (one[3] >= 0.35 or one[1] >= 0.1)]
    best = max(joining or [one for one in candidates if one[2] >= 0.9 and one[3] >= 0.35], default=None)
    if best is None and (unique := [one for one in candidates if one[2] >= 0.5 and one[3] >= 0.35]):
        best = max(unique)
    return (best[-1] if best else ""), group if group != (best[-1] if best else "") else "", notes


def _id(columns: Sequence[_Column], values: Mapping[str, Sequence[str]], found: Mapping[str, Any]) -> str:
    """Returns the column of the rows' own keys: what `parent` refers to, else one that is different in each row."""
    keys = {column.name: list(map(facts.clean, values[column.name])) for column in columns if column.may_be_a_key}
    if parent := found.get("parent"):
        named = {value.removeprefix("id:").strip() for value in map(facts.clean, values[parent]) if value}
        counted = {name: len(named & set(known)) for name, known in keys.items()}
        if counted and max(counted.values()):
            return max(counted, key=counted.get)
    for column in sorted(columns, key=lambda one: -one.hint("sku")):
        known = [key for key in keys.get(column.name, ()) if key]
        if (
            known
            and column.hint("sku") >= 0.5
            and len(known) >= 0.9 * len(keys.get(column.name, ()))
            and len(set(known)) == len(known)
        ):
            return column.name
    return ""


# ------------------------------------------------------------------------------------------------------ what was seen


def _sentence(column: _Column, roles: Roles) -> str:
    one = column.facts
    part = roles.part(column.name)
    if not one.count:
        return "empty"
    if part == "image":
        kind = (
            "addresses"
            if one.addresses >= 0.5
            else "paths"
            if any("/" in v or "\\" in v for v in one.values)
            else "file names"
        )
        several = any(len(references.split(value)) > 1 for value in one.values)
        return f"{kind} of pictures{', several in one field' if several else ''}, such as {_example(one)}"
    seen = f"{_filled(one)}, {max(1, round(one.distinct * one.count)):,} different, such as {_example(one)}"
    if part:
        return seen
    for share, kind in (
        (one.pictures, "names small versions of pictures"),
        (one.addresses, "addresses"),
        (one.html, "HTML"),
        (one.rounded and one.rounded * 10, "numbers that a spreadsheet has rounded"),
        (one.numbers, "numbers"),
    ):
        if share >= 0.5:
            return f"{kind}, such as {_example(one)}"
    return seen


def _filled(one: Facts) -> str:
    return "in every row" if one.filled > 0.999 else f"in {max(1, round(100 * one.filled))} % of the rows"


def _example(one: Facts) -> str:
    text = " ".join(one.values[0].split()) if one.values else ""
    return repr(text if len(text) <= 50 else text[:47] + "...")
