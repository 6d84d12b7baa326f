"""Looks at a table of products and a folder of pictures, writes a config for them, and says what to run.

    retrieval-jax init products.csv --images=pictures/

The table is as a shop system or a spreadsheet exports it: any delimiter, encoding and language, one row per product,
variant or picture, pictures by file name, path or address. Every column is printed with what it is taken for and what
was seen in it; rows, products and pictures are counted, and what is set aside has a reason. The config is a Python file
to read and correct; it finds table and pictures from its own place.

Longer than 400 lines: what is printed and what is written are two views of one plan.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("init")

import collections
import dataclasses
import json
import os
import pathlib
import re
import statistics
from collections.abc import Mapping

import PIL.Image

from retrieval_jax import paths
from retrieval_jax.attributes import titles as titles_lib
from retrieval_jax.data.exports import filters as filters_lib
from retrieval_jax.data.exports import folders as folders_lib
from retrieval_jax.data.exports import loading, matching, products, reading, references
from retrieval_jax.data.exports.loading import Shop
from retrieval_jax.data.exports.products import Table
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.settings import sizes
from retrieval_jax.workdir import config_files, provenance

_SIDE_SAMPLE = 64  # pictures whose size is looked at
_SIDE_UNKNOWN = 256  # pixels, of pictures that are still to be fetched
_LEAST_WORDS = 5  # that the titles must share, to be worth learning
_FEW = 5_000  # listings to train on, below which public weights help most; a thousand teach a network nearly nothing
_SHOWN_REASONS = 3  # examples of each reason


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a config is written from.

    Attributes:
      table: products and the pictures that they name.
      folder: of the pictures, as it was given; it may be still to be filled.
      shop: listings and splits; None where no picture is there yet.
      fetch: whether pictures are to be fetched first.
      filters: further columns to filter a search by, {name: (header, kind)}.
      left_out: {header: why a column is neither a part nor a filter}.
    """

    table: Table
    folder: pathlib.Path
    shop: Shop | None
    fetch: bool
    filters: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def look(table: pathlib.Path, images: pathlib.Path | None) -> Plan:
    """Returns what a table and a folder hold, and what a search can be filtered by.

    Args:
      table: the file.
      images: see `_look`.

    Raises:
      InputError: see `_look`.
    """
    plan = _look(table, images)
    playing = plan.table.recognised.roles.columns()
    unused = [name for name in plan.table.recognised.seen if name not in playing]
    if not unused:
        return plan
    sheet = reading.read(table, plan.table.sheet.form, unused)
    found, reasons = filters_lib.find(sheet.columns, plan.table.of_row)
    return dataclasses.replace(plan, filters=found, left_out=reasons)


def _look(table: pathlib.Path, images: pathlib.Path | None) -> Plan:
    """Returns what a table and a folder hold.

    Args:
      table: the file.
      images: the folder of the pictures; None for the folder of the table, or "pictures" beside it where the table
        names addresses.

    Raises:
      InputError: the table cannot be read, or none of its pictures is there and none has an address.
    """
    form = reading.sniff(table)
    try:
        folder = images or table.parent
        there = folders_lib.Folder(folder)
    except InputError:
        found = products.load(table, form=form)  # a folder that pictures are to be fetched into need not exist
        if images is not None and not images.exists() and _addresses(found):
            return Plan(found, images, None, True)
        raise
    found = products.load(table, form=form, folder=there)
    matched = matching.match(found, there)
    if matched.listings:
        return Plan(found, folder, loading.look(table, folder), _addresses(found) and bool(matched.lost))
    if not _addresses(found):
        raise InputError(loading.nothing_found(found, matched))
    return Plan(found, images or table.parent / "pictures", None, True)


def _addresses(table: Table) -> bool:
    return any(references.is_address(one.reference) for one in table.named)


# ------------------------------------------------------------------------------------------------------------- report


def report(plan: Plan) -> str:
    """Returns what was found: every column, the counts of rows, products and pictures, and the splits."""
    table = plan.table
    parts = collections.defaultdict(list)  # a column may play several
    for part, value in table.recognised.roles.given().items():
        for name in _names(value):
            parts[name].append(_PARTS[part])
    for header, kind in plan.filters.values():
        parts[header].append(f"filter ({kind})")
    taken = {name: ", ".join(parts[name]) or "-" for name in table.recognised.seen}
    wide = max([11, *map(len, taken.values())])
    width = max([6, *(len(_printable(name)) for name in table.recognised.seen)])
    lines = [f"{table.path}: {table.sheet.form}" if str(table.sheet.form) else str(table.path), ""]
    lines += [f"  {'column':{width}}  {'taken for':{wide}}  seen"]
    for name, seen in table.recognised.seen.items():
        why = f"; not a filter: {plan.left_out[name]}" if name in plan.left_out else ""
        lines.append(f"  {_printable(name):{width}}  {taken[name]:{wide}}  {seen}{why}")
    lines += ["", *(f"note: {note}" for note in table.recognised.notes), *_counts(plan)]
    return "\n".join(lines)


_PARTS = {
    "title": "title",
    "image": "picture",
    "files_named_by": "file name",
    "product": "product",
    "id": "own key",
    "parent": "parent",
    "children": "variants",
    "kind": "kind of row",
    "group": "group",
    "language": "language",
    "categories": "category",
}


def _names(value) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _counts(plan: Plan) -> list[str]:
    table, sheet = plan.table, plan.table.sheet
    aside = collections.Counter(reason for _, reason, _ in sheet.set_aside)
    total = len(table.products) + table.further_rows + sum(aside.values())
    parts = {"products": len(table.products), "further rows of them": table.further_rows, **aside}
    lines = [f"rows      {total:,} = {_sum(parts)}"]
    if table.orphans:
        orphans = _number(len(table.orphans), "variant names", "variants name")
        lines.append(f"          {orphans} no product of the table, such as line {table.orphans[0]:,}")
    if table.apart:
        lines.append(
            f"          {_number(len(table.apart), 'key is', 'keys are')} on rows whose titles have nothing in common, "
            f"such as {_printable(table.apart[0])!r}: these rows are taken for different products"
        )
    if table.refused:
        lines.append(
            f"          shared by rows whose titles differ: {len(table.refused):,} groups or parents, such as "
            f"{_printable(table.refused[0])!r}: they do not make these rows one product"
        )
    mentions = len(table.named) + table.repeated
    if plan.shop is None:
        lines.append(f"pictures  {mentions:,} = {_sum({'named': len(table.named), 'named again': table.repeated})}")
        lines.append(f"          none of them is in {plan.folder} yet")
        return lines
    matched = plan.shop.matched
    lost = collections.Counter(reason for _, reason, _ in matched.lost)
    parts = {"found": len(matched.listings), **lost, "named again": table.repeated + matched.repeated}
    lines.append(f"pictures  {mentions:,} = {_sum(parts)}; looked in {matched.folder.root}")
    for reason in lost:
        details = dict.fromkeys(detail for _, why, detail in matched.lost if why == reason)
        lines += [f"          {reason}: {_printable(detail)}" for detail in list(details)[:_SHOWN_REASONS]]
    if matched.extra:
        further = _number(matched.extra, "further picture of the folder is", "further pictures of the folder are")
        lines.append(f"          {further} not in the table")
    if unreadable := matched.folder.unreadable:
        left_out = _number(
            len(unreadable), "folder below it cannot be read and is", "folders below it cannot be read and are"
        )
        lines.append(f"          {left_out} left out, such as {_printable(unreadable[0])!r}")
    having = collections.Counter(one.product for one in matched.listings)
    several = sum(count > 1 for count in having.values())
    without = len(table.products) - len(having)
    parts = {"with several pictures": several, "with one": len(having) - several, "without": without}
    lines.append(f"products  {len(table.products):,} = {_sum(parts)}")
    splits = plan.shop.splits
    lines.append(
        f"listings  {len(matched.listings):,}, one per picture: train {len(splits.train):,}, val {len(splits.val):,}, "
        f"query {len(splits.query):,}, gallery {len(splits.gallery):,}"
    )
    lines.append(f"          {_about_truth(plan.shop)}")
    return lines


def _sum(parts: dict[str, int]) -> str:
    shown = {name: count for name, count in parts.items() if count} or {next(iter(parts)): 0}
    return " + ".join(f"{count:,} {name}" for name, count in shown.items())


def _number(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _about_truth(shop: Shop) -> str:
    if not shop.splits.scored:
        return (
            "no product has two pictures, so nothing can be scored: listings are searched with themselves, and the "
            "report shows what is found"
        )
    if shop.guessed:
        return f"{_printable(shop.guessed)}, so scores are a guess too"
    return (
        "a query is one picture of a product; right answers are the product's others, and its product is not trained on"
    )


# ------------------------------------------------------------------------------------------------------------- config


def config_text(plan: Plan, file: pathlib.Path) -> str:
    """Returns the text of the config.

    Args:
      plan: what was found.
      file: the config's path: table and pictures are given relative to its folder.
    """
    table = plan.table
    name = file.stem
    proposal, side = _proposal(plan)
    task = _task(plan, proposal.settings["mine.threshold"][0])
    lines = [
        f'"""{_in_docstring(name)}: a config for {_in_docstring(table.path.name)}, written by `retrieval-jax init`.',
        "",
        f"Correct what is wrong, and run it: {_in_docstring(paths.command('run'))} --config=<this file>",
        "",
        *(_in_docstring(re.sub(r"; looked in .*", "", line)) for line in _counts(plan)),
        '"""',
        "",
        "import pathlib",
        "",
        "from retrieval_jax.settings import base" + (", tasks" if task != "multilabel" else ""),
        "",
        "HERE = pathlib.Path(__file__).resolve().parent  # table and pictures are found from here: move all together",
        "",
        "",
        "def get_config():",
        '    """Returns the settings."""',
        "    config = base.defaults()",
        f"    config.name = {_quoted(name)}",
        "",
        '    config.data.source = "table"',
        "    config.data.kwargs = dict(",
        "        root=str(HERE),",
        f"        files={_quoted(_relative(table.path, file))},",
        f"        image_root={_quoted(_relative(plan.folder, file))},",
    ]
    if (encoding := table.sheet.form.encoding) and not encoding.startswith("utf-8"):
        lines.append(f"        encoding={_quoted(encoding)},")
    lines += [
        "        # Which column is what; a line that is wrong may be corrected or removed.",
        "        columns=dict(",
    ]
    for part, value in table.recognised.roles.given().items():
        for column in _names(value):
            lines.append(f"            # {_comment(column)}: {_comment(table.recognised.seen[column])}")
        lines.append(f"            {part}={_quoted(value)},")
    if plan.filters:
        lines.append("            # To filter a search by; nothing is learned from these.")
    for one, (column, kind) in plan.filters.items():
        lines.append(f"            # {_comment(column)}: {_comment(table.recognised.seen[column])}")
        lines.append(f"            {one}=({_quoted(column)}, {_quoted(kind)}),")
    lines.append("        ),")
    used = {*table.recognised.roles.columns(), *(column for column, _ in plan.filters.values())}
    unused = [column for column in table.recognised.seen if column not in used]
    if unused:
        lines.append(f"        # Not used: {_comment(', '.join(unused))[:400]}.")
    lines += [
        "        # Shares of the products: those whose pictures are queries, and those that are validated with.",
        f"        test_share={loading.splitting.TEST_SHARE},",
        f"        val_share={loading.splitting.VAL_SHARE},",
        "        # Largest share of bad rows or missing pictures; with more, nothing runs.",
        f"        max_bad_share={_bad_share(plan)},",
        "    )",
        "",
    ]
    for setting, (value, reason) in proposal.settings.items():
        if setting == "train.warmup_epochs":
            continue  # follows the epochs, also where somebody changes them
        shown = _quoted(value) if isinstance(value, str) else repr(value)
        lines.append(f"    config.{setting} = {shown}  # {reason}")
    lines += _task_lines(task)
    return "\n".join([*lines, "    return config", ""])


def _proposal(plan: Plan) -> tuple[sizes.Proposal, int]:
    side, table, shop = _SIDE_UNKNOWN, plan.table, plan.shop
    if shop is None:
        num_train = num_titles = max(1, round(0.7 * len(table.named)))
        listings = len(table.named)
    else:
        side = _side(shop)
        num_train, listings = len(shop.splits.train), len(shop.matched.listings)
        num_titles = num_train + len(shop.splits.val)
    found = sizes.propose(
        max(1, num_train), max(1, num_titles), side, _memory(), provenance.cores(), num_listings=listings
    )
    return found, side


def _side(shop: Shop) -> int:
    """Returns the usual shorter side of the pictures, in pixels."""
    listings, found = shop.matched.listings, []
    for one in listings[:: max(1, len(listings) // _SIDE_SAMPLE)]:
        try:
            with PIL.Image.open(shop.matched.folder.root / one.path) as picture:
                found.append(min(picture.size))
        except Exception:  # whatever Pillow raises: the checks of the catalogue report it
            continue
    return round(statistics.median(found)) if found else _SIDE_UNKNOWN


def _memory() -> int:
    """Returns the bytes of memory of this machine or container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = pathlib.Path("/sys/fs/cgroup/memory.max")
    if allowed.exists() and allowed.read_text().strip().isdigit():
        total = min(total, int(allowed.read_text()))
    return total


def _task(plan: Plan, threshold: int) -> str:
    """Returns what can be learned: words of titles, else categories, else to recognise pictures."""
    table, shop = plan.table, plan.shop
    owners = table.products if shop is None else [
        table.products[shop.matched.listings[number].product] for number in (*shop.splits.train, *shop.splits.val)
    ]  # fmt: skip
    words = collections.Counter(word for owner in owners for word in set(titles_lib.tokenize(owner.title)))
    if sum(threshold < count < len(owners) for count in words.values()) >= _LEAST_WORDS:
        return "multilabel"
    return "category" if len({owner.category for owner in owners if owner.category}) > 1 else "self_supervised"


def _task_lines(task: str) -> list[str]:
    if task == "multilabel":
        return []
    why = "too few words are common to several titles" if task == "category" else "neither titles nor categories teach"
    what = "categories are" if task == "category" else "views of the same picture are recognised, which is what is"
    lines = [
        f"    # {why[0].upper()}{why[1:]}, so {what} learned.",
        f'    config.train.task = "{task}"',
        f"    config.train.task_kwargs = tasks.{task}()",
    ]
    if task == "self_supervised":
        lines += [
            '    config.train.views = ({"transforms": config.train.transforms},)',
            '    config.train.ema_paths = ""',
        ]
    return lines


def _bad_share(plan: Plan) -> float:
    """Returns a share that what is set aside now stays below, with some room."""
    if plan.shop is None:
        return loading.MAX_BAD_SHARE
    held = sum(reason not in loading.NOT_HELD for _, reason, _ in plan.shop.matched.lost)
    now = held / max(1, len(plan.table.named))
    return min(1.0, round(now + 0.05, 2))


def _relative(path: pathlib.Path, file: pathlib.Path) -> str:
    return pathlib.Path(os.path.relpath(path.resolve(), file.resolve().parent)).as_posix()


def _quoted(value: str | tuple[str, ...]) -> str:
    """Returns a value as a config writes it, in double quotes."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_quoted, value))}{',' * (len(value) == 1)})"
    return json.dumps(value, ensure_ascii=False)


def _in_docstring(text: str) -> str:
    return _comment(text).translate({ord('"'): "'", ord("\\"): "/"})


def _comment(text: str) -> str:
    return " ".join(_printable(text).split())


# ------------------------------------------------------------------------------------------------------------ the verb


def run(table: pathlib.Path, images: pathlib.Path | None, out: pathlib.Path | None, force: bool = False) -> Plan:
    """Looks at a table and a folder, prints what they hold, and writes a config.

    Args:
      table: the file.
      images: the folder of the pictures; None for that of the table.
      out: the config to write; None for one beside the table, of the same name.
      force: whether an existing config may be overwritten.

    Returns:
      The `Plan`.

    Raises:
      InputError: see `look`; or the config exists, or cannot be written.
    """
    out = out or table.parent / f"{re.sub(r'[^0-9A-Za-z_-]+', '_', table.stem).strip('_') or 'shop'}.py"
    if out.suffix != ".py":
        raise InputError(f"--out={out}: a config is a Python file; give a name that ends in .py")
    if out.exists() and not force:
        raise InputError(f"{out} exists, and may have been edited: give another --out, or --force to overwrite it")
    if not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise InputError(
            f"{out} cannot be written: {out.parent} is not a folder, or not a writable one; give another --out"
        )
    plan = look(table, images)
    print(report(plan))
    atomic.write_text(out, config_text(plan, out))
    config_files.load(out)  # whatever the table's columns are called, the file is a config
    print(f"\nwrote {out}: read it, and correct what is wrong. Then:\n")
    if plan.fetch:
        print(f"  {paths.command('pictures', table, f'--out={plan.folder}')}")
    config = out if os.sep in str(out) else f".{os.sep}{out}"
    print(f"  {paths.command('run', f'--config={config}')}")
    print(f"\n{_expectation(plan)}")
    return plan


def _expectation(plan: Plan) -> str:
    """Returns what to expect of the training, honestly."""
    proposal, _ = _proposal(plan)
    text = f"Training takes about {max(1, round(proposal.seconds / 60))} min here. "
    count = len(plan.shop.splits.train) if plan.shop else len(plan.table.named)
    if count < _FEW:
        text += (
            f"From {count:,} pictures a network that starts from scratch learns little about new products: compare its "
            "scores with those of colours and edges, which need no network, and mind the intervals. "
            "Public weights help most where a shop is small: "
            "--config.train.model.pretrained.name=tf_efficientnet_lite0.in1k on a CPU, convnext_tiny.fb_in22k on an "
            "accelerator; docs/fine_tuning.md has the settings that belong to them."
        )
    return text.strip()


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    run(given.table, given.images, given.out, given.force)
