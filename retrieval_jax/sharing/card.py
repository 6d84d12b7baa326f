"""The model card of an exported model: a README.md for the hub, from what the folder itself says."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_jax import output
from retrieval_jax.files import documents
from retrieval_jax.sharing import facts

MARK = "<!-- written by retrieval-jax hub push; without this line, hub push leaves the file alone -->"
_NAMES = ("mar@10_capped", "recall@1", "map@10", "ndcg@10")
_REMEDY = "export again"


def of_folder(folder: pathlib.Path, repository: str, licence: str = "", archive: str = "") -> str:
    """Returns the model card of an exported folder.

    Args:
      folder: of the exported model, verified.
      repository: "owner/name" on the hub, or the name of the model.
      licence: of the model, as the hub names it, such as "apache-2.0"; "" for none stated.
      archive: name of the file that the model is packed in; "" for a repository of the hub.
    """
    about = documents.read(folder / "config.json", dict[str, Any], remedy=_REMEDY)
    labels = documents.read(folder / "labels.json", dict[str, Any], remedy=_REMEDY)
    search, vocabulary = (
        documents.read(folder / name, dict[str, Any], remedy=_REMEDY) if (folder / name).exists() else {}
        for name in (facts.SEARCH, facts.VOCABULARY)
    )
    config = about.get("config") or {}
    parts = [
        _head(licence),
        f"# {_text(repository.rpartition('/')[2])}\n\n{MARK}",
        _what(about, config),
        _load(about, repository, archive or repository),
        _scores(search),
        _data(about.get("data") or {}, labels, vocabulary),
        _search(search),
        _licence(about.get("initial_weights") or {}, licence),
        _files(about),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(licence: str) -> str:
    lines = ["library_name: retrieval_jax", "tags:", "- image-retrieval", "- product-search", "- jax"]
    if licence:
        lines.insert(0, f"license: {json.dumps(licence)}")
    return "\n".join(["---", *lines, "---"])


def _what(about: Mapping, config: Mapping) -> str:
    train, given = config.get("train") or {}, about["input"]
    model = train.get("model") or {}
    public = (model.get("pretrained") or {}).get("name")
    network = public or " ".join(filter(None, (str(model.get("name", "")), str(model.get("variant", "")))))
    height, width = given["image_size"]
    dims = [shape[-1] for shape in ((about.get("outputs") or {}).get("embed") or {}).values()]
    return (
        f"Embeds product pictures for search{f', into {dims[0]} dimensions' if dims else ''}. Task "
        f"{_code(train.get('task'))}, network {_text(network) or 'not stated'}, pictures of {height} x {width} pixels. "
        f"Programs: {', '.join(map(_code, sorted(about['programs'])))}. Trained and exported with retrieval_jax "
        f"(commit {_text(about.get('commit') or 'unknown')}), config {_code(config.get('name') or 'unnamed')}."
    )


def _load(about: Mapping, repository: str, source: str) -> str:
    name = repository.rpartition("/")[2]
    lines = [
        "from retrieval_jax import exported",
        f'model = exported.load("{name}")  # after: retrieval-jax hub pull {source} {name}',
    ]
    specs = (about.get("inputs") or {}).get("embed") or [{"name": "image"}]
    reads, texts = [spec["name"] for spec in specs if spec.get("kind") != "mask"], about.get("texts") or {}
    photos, words = '["photo.jpg"]', '["red shoes"]'
    queries = {
        "embed_edit": f'model.embed({photos}, words=["the same, in red"])',
        "embed_query": f'model.for_search({words}, "query", "embed_query")',
        "embed_text": f'model.for_search({words}, "query", "embed_text")',
    }
    own = next((line for program, line in queries.items() if texts and program in about["programs"]), "")
    if reads == ["image"]:
        own, listings = own or f'model.for_search({photos}, "query")', '["shoe.jpg", "dress.jpg"]'
    elif len(reads) == 1 and reads[0] in texts:
        own, listings = own or f'model.for_search({words}, "query")', '["red leather shoes", "blue dress"]'
    else:
        listings = ""
    if listings:
        lines += [
            f"queries = {own}",
            f'gallery = model.for_search({listings}, "gallery")',
            "best_first = (-queries @ gallery.T).argsort()",
        ]
    else:
        columns = ", ".join(f'"{column}": ...' for column in reads)
        lines.append(f'vectors = model.run("embed", {{{columns}}})["embedding"]')
    return "## Load it\n\n```python\n" + "\n".join(lines) + "\n```"


def _scores(search: Mapping) -> str:
    rows = search.get("scores") or []
    if not rows:
        return "## Scores\n\nNot measured by the run that it was exported from."
    names = [name for name in _NAMES if any(name in row for row in rows)]
    lines = [["stage", *names], ["---", *("---:" for _ in names)]]
    for row in rows:
        lines.append([_text(row["stage"]), *(_score(row, name) for name in names)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"## Scores\n\nPercent with 95 % intervals (bootstrap over queries), {search['num_queries']:,} queries of the "
        f"catalogue's own test split, all of them:\n\n{table}"
    )


def _score(row: Mapping, name: str) -> str:
    if name not in row:
        return "-"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    spread = f" ({100 * low:.1f} to {100 * high:.1f})" if low is not None and high is not None else ""
    return f"{100 * row[name]:.1f}{spread}"


def _data(data: Mapping, labels: Mapping, vocabulary: Mapping) -> str:
    rows = ", ".join(f"{name} {count:,}" for name, count in (data.get("splits") or {}).items())
    of = f" {_text(data['catalogue'])}" if data.get("catalogue") else ""
    text = f"Catalogue{of} (source {_code(data.get('source') or 'not stated')}). Listings: {rows or 'not stated'}."
    if data.get("source") == "synthetic":
        text += " The catalogue is drawn by a program, not photographed."
    names, counts = labels.get("label_names") or [], vocabulary.get("counts") or []
    if names:
        some: Sequence[str] = names[:20]
        if len(counts) == len(names) == len(vocabulary.get("tokens") or []):
            order = sorted(range(len(names)), key=lambda place: -counts[place])[:20]
            some = [f"{vocabulary['tokens'][place]} ({counts[place]:,})" for place in order]
        text += (
            f"\n\nVocabulary: {len(names):,} attributes, mined from titles. The first: {', '.join(map(_text, some))}."
        )
    return f"## Data and vocabulary\n\n{text}"


def _search(search: Mapping) -> str:
    if not search:
        return ""
    steps = [f"{_code(name)} {_text(json.dumps(kwargs)) if kwargs else ''}".strip() for name, kwargs in search["steps"]]
    text = f"Steps: {', then '.join(steps) or 'plain cosine'}."
    if search.get("why"):
        text += f" Why: {_text(search['why'])}."
    if search.get("whitening"):
        text += f" `{facts.WHITENING}` was fitted on the run's own listings; `for_search` applies it."
    return f"## Search\n\n{text}"


def _licence(weights: Mapping, licence: str) -> str:
    start = " ".join(_started(one) for one in (weights, *(weights.get("beside") or ())))
    own = (
        f"Licence of this model: {_text(licence)}." if licence else "Its publisher has stated no licence of this model."
    )
    return f"## Licence\n\n{start} {own}"


def _started(weights: Mapping) -> str:
    if not weights.get("name"):
        return f"Continues the run {_code(weights['run'])}." if weights.get("run") else "Trained from random weights."
    known = weights.get("licence") or "unknown: ask their publisher"
    return f"Initial weights: {_code(weights['name'])}, licence: {_text(known)}."


def _files(about: Mapping) -> str:
    lines = [f"| `{name}` | `{digest}` |" for name, digest in sorted(about["sha256"].items())]
    platforms, difference = ", ".join(about["platforms"]), (about.get("compared") or {}).get("difference")
    compared = f" Largest difference from the trained model: {difference:.1e}." if difference is not None else ""
    return (
        f"## Files\n\nFor {platforms}.{compared} Nothing here is pickled; `hub pull` checks sizes and checksums.\n\n"
        "| file | sha256 |\n|---|---|\n" + "\n".join(lines)
    )


def _code(value: Any) -> str:
    """Returns text in code quotes, where Markdown knows no escapes."""
    return f"`{output.visible(str(value)).replace('`', chr(39)) or ' '}`"


def _text(value: Any) -> str:
    """Returns text of a catalogue or config that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", output.visible(str(value)))
