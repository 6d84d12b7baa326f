"""One version of a run's gallery in memory: listings, attributes, vectors of each stage, and BM25 over its texts."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_jax import brief
from retrieval_jax import looks as look_lib
from retrieval_jax.attributes.vocabulary import Vocabulary
from retrieval_jax.data import fields as field_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import listing_texts, loading, saved_fields
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.contents import Contents
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.info import DataInfo
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.embeddings import Embeddings, Ids, writer
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import lock
from retrieval_jax.index import attribute, lexical
from retrieval_jax.index.attribute.looks import Looks
from retrieval_jax.postprocess import new_queries
from retrieval_jax.postprocess.new_queries import Stage
from retrieval_jax.server import counting, networks
from retrieval_jax.workdir import sides

SHARD_ROWS = 16384  # listings of an exported model that are embedded and then written
KEPT = 64  # conditions whose matches and counts are remembered


@dataclasses.dataclass(eq=False)
class Gallery:
    """One version of the gallery of a run; never changed once it is made, so requests may go on with an older one.

    Attributes:
      embeddings: of the gallery, as the network gave them.
      split: the catalogue's gallery.
      rows: [G] row of the split of each embedded listing.
      table: attributes, in the order of the embeddings.
      stages: what can be searched, the last one by default.
      note: what of the search is not served, and why; "" for nothing.
      lexical_settings: config.search.lexical.
    """

    embeddings: Embeddings
    split: Split
    rows: np.ndarray
    table: attribute.Table
    stages: list[Stage]
    note: str
    lexical_settings: Mapping

    __repr__ = brief.line

    def __post_init__(self):
        self._lock, self._indexes = threading.RLock(), {}
        table = self.table  # and not self, which would then be freed later than its last request
        self._matching = functools.lru_cache(KEPT)(lambda given: table.matching(given, 0))
        self._counted = functools.lru_cache(KEPT)(functools.partial(counting.count, table))

    def __len__(self) -> int:
        return len(self.embeddings)

    @functools.cached_property
    def names(self) -> list[str]:
        """The ids of the embeddings, each of them a text already."""
        return list(self.embeddings.ids)

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        """{id: row of the embeddings}."""
        return {name: row for row, name in enumerate(self.names)}

    def row(self, listing: str) -> int:
        """Returns the row of the embeddings of a listing.

        Args:
          listing: its id.

        Raises:
          KeyError: it is not in the gallery.
        """
        return self.row_of[listing]

    @functools.cached_property
    def values(self) -> dict[str, list[str]]:
        """{field: names of its values}."""
        return self.table.values()

    def matching(self, given: attribute.Conditions):
        """Returns the bitmap of the rows that meet the required and excluded conditions; not to be changed.

        Args:
          given: conditions, checked; preferred ones are left out.
        """
        return self._matching(dataclasses.replace(given, preferred=()))

    def counted(self, given: attribute.Conditions, top: int) -> counting.Counted:
        """Returns the counts of the values among the matches; see `counting.count`.

        Args:
          given: conditions, checked; preferred ones are left out.
          top: values per field.
        """
        return self._counted(dataclasses.replace(given, preferred=()), top)

    def title(self, row: int) -> str:
        """Returns the title of a listing, "" without one.

        Args:
          row: of the embeddings.
        """
        return "" if self.split.titles is None else str(self.split.titles[int(self.rows[row])])

    def attributes(self, rows: Sequence[int]) -> list[dict[str, list[dict]]]:
        """Returns the attributes of listings.

        Args:
          rows: of the embeddings, n of them.

        Returns:
          n dicts {field: its values, {"value", "probability"}}; a number is a single value.
        """
        table, asked = self.table, np.unique(np.asarray(rows, np.int64))
        has = list(table.values_of(asked))
        every = np.concatenate([values for _, values, _ in has] or [np.zeros(0, np.int64)])
        names, fields = [table.names[value] for value in every.tolist()], table.field_of[every].tolist()
        values, parents = every.tolist(), table.parent[every].tolist()
        found, end = {}, 0
        for row, mine, chances in has:
            start, end = end, end + len(mine)
            known = [1.0] * len(mine) if chances is None else chances.tolist()
            above, out = set(parents[start:end]), {}  # a parent says less than its child
            for at, chance in zip(range(start, end), known, strict=True):
                if values[at] not in above:
                    one = {"value": names[at], "probability": chance}
                    out.setdefault(table.fields[fields[at]], []).append(one)
            found[row] = out
        for field, column in zip(table.numbers, table.columns, strict=True):
            for row, value in zip(asked.tolist(), column.array[asked, 0].tolist(), strict=True):
                if not math.isnan(value):
                    found[row][field] = [{"value": round(value, 6), "probability": 1.0}]
        return [found[int(row)] for row in rows]

    def vectors(self, stage: Stage) -> Embeddings:
        """Returns the unit vectors [G, D] of a stage, made when they are first needed.

        Args:
          stage: one of `stages`.
        """
        return self._of(stage)[0]

    def index(self, stage: Stage) -> attribute.Index:
        """Returns the index of a stage, made when it is first searched.

        Args:
          stage: one of `stages`.
        """
        return self._of(stage)[1]

    def _of(self, stage: Stage) -> tuple[Embeddings, attribute.Index]:
        with self._lock:
            key = id(stage.whitening)
            if key not in self._indexes:
                vectors = Embeddings(self.embeddings.ids, stage.vectors(self.embeddings, "gallery"))
                index = attribute.Index(vectors, fields=self.table)
                if len(self):
                    index.find(vectors.vectors[:1], 1)  # the first search encodes the gallery, which takes a while
                self._indexes[key] = vectors, index
            return self._indexes[key]

    def looks(self, task_kwargs: Mapping, learned: DataInfo, vary: str) -> Looks:
        """Returns the gallery for completing looks, made when it is first asked for.

        Args:
          task_kwargs: of the task "outfit".
          learned: the types that the run has learned.
          vary: a field that should differ between looks, such as "colour"; "" for none.

        Raises:
          InputError: there is no such field.
        """
        if "looks" not in self._indexes:  # else without waiting for an index that another request makes
            with self._lock:
                if "looks" not in self._indexes:
                    self._indexes["looks"] = look_lib.of_gallery(
                        self.embeddings, self.split, self.rows, task_kwargs, learned, table=self.table
                    )
        key = "looks", vary
        if vary and key not in self._indexes:
            self._indexes[key] = self._indexes["looks"].varied(look_lib.values_of(self.split, self.rows, vary))
        return self._indexes[key if vary else "looks"]

    @property
    def has_pictures(self) -> bool:
        """Whether the listings have pictures to show."""
        return not isinstance(self.split.images, NoPictures)

    @functools.cached_property
    def has_texts(self) -> bool:
        """Whether BM25 has anything to search."""
        return self.split.titles is not None or bool(self.lexical_settings.get("columns"))

    def lexical(self) -> lexical.Index:
        """Returns the BM25 index over the texts, made when it is first searched.

        Raises:
          InputError: the listings have no texts.
        """
        with self._lock:
            if "lexical" not in self._indexes:
                settings = dict(self.lexical_settings)
                settings.pop("query", None)
                columns = settings.pop("columns", ("title",))
                if not self.has_texts:
                    raise InputError(
                        "this run cannot be searched by words: its network does not read text, and its listings have "
                        "no titles"
                    )
                texts = listing_texts.of(self.split, columns, "config.search.lexical.columns")
                texts = [texts[row] for row in self.rows.tolist()]
                self._indexes["lexical"] = lexical.Index(texts, self.embeddings.ids, **settings)
            return self._indexes["lexical"]


def signature(folder: pathlib.Path, config: Mapping) -> tuple:
    """Returns what changes when a run gets another gallery or ranking: inodes and times of their descriptions.

    Args:
      folder: work directory or exported folder.
      config: its whole config.
    """
    files = _embedded(folder, config) / "embeddings.json", folder / "rankings" / "rankings.json"
    return tuple(map(networks.status, files))


def check(folder: pathlib.Path, config: Mapping) -> None:
    """Raises InputError where a run has no embedded gallery; that of an exported model is embedded when it is loaded.

    Settings of an exported model may be a stranger's, so they start no downloads, whose addresses could have
    environment variables in them.

    Args:
      folder: work directory or exported folder.
      config: its whole config.
    """
    if networks.is_exported(folder) and (address := _address(config.get("data"))):
        raise InputError(
            f"{folder}: the listings of this exported model are at {short(address)!r}, and nothing is downloaded for "
            "exported models: copy the catalogue, and set data.kwargs in the config of config.json to its folder"
        )
    place = _embedded(folder, config)
    if not (networks.is_exported(folder) or (place / "embeddings.json").exists()):
        raise InputError(f"no embeddings in {place}: run `retrieval-jax embed` and `retrieval-jax search` first")


def load(folder: pathlib.Path, config: Mapping, made: networks.Networks) -> tuple[Gallery, tuple]:
    """Loads the gallery of a run; of an exported model, first embeds the listings that are new or have changed.

    Args:
      folder: work directory or exported folder.
      config: its whole config.
      made: its networks.

    Returns:
      The gallery, and the `signature` of the files that it was read from.

    Raises:
      InputError: missing or damaged files, another catalogue, or embeddings of another checkpoint.
    """
    check(folder, config)
    catalog = loading.load(config["data"])
    split, place = catalog.split("gallery"), _embedded(folder, config)
    if networks.is_exported(folder):
        _embed(split, made, place)
    read = signature(folder, config)
    embeddings = Embeddings.load(place, verify=True)
    made.check(embeddings, folder)
    row_of = {name: row for row, name in enumerate(split.ids)}
    if missing := next((name for name in embeddings.ids if name not in row_of), None):
        raise InputError(f"the catalogue's gallery has no listing {missing!r}, which was embedded: embed again")
    rows = np.array([row_of[name] for name in embeddings.ids], np.int64)
    fields = _fields(folder, config, catalog, split, embeddings)
    served, note = new_queries.of_run(folder, config) if made.stages is None else (made.stages, "")
    table = attribute.build(fields, len(embeddings))
    settings = (config.get("search") or {}).get("lexical") or {}
    loaded = Gallery(embeddings, split, rows, table, served, note, dict(settings))
    loaded.row_of, loaded.values  # noqa: B018 (before the first request)
    return loaded, read


def _address(settings: object) -> str:
    """Returns the first URL among settings, "" without one."""
    if isinstance(settings, Mapping):
        return next(filter(None, map(_address, settings.values())), "")
    if isinstance(settings, list | tuple):
        return next(filter(None, map(_address, settings)), "")
    return settings if isinstance(settings, str) and "://" in settings else ""


def _embedded(folder: pathlib.Path, config: Mapping) -> pathlib.Path:
    name = "served" if networks.is_exported(folder) else sides.of(config)["gallery"].folder
    return folder / "embeddings" / name / "gallery"


def _embed(split: Split, made: networks.Networks, place: pathlib.Path) -> None:
    """Embeds the listings of an exported model's gallery whose vectors are missing, or not of what they are now."""
    if not len(split):
        raise InputError(f"{place}: the catalogue's gallery has no listings to embed: give a catalogue that has some")
    contents, ids = Contents(made.columns(split)), Ids.of(split.ids)
    if _is_embedded(ids, contents, writer.Earlier(place, made.recipe, "float32")):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with lock.held(place.parent, "serve"):
        writer.settle(place)
        job = writer.Job(place, ids, made.recipe, "float32", SHARD_ROWS)
        earlier = writer.Earlier(place, made.recipe, "float32")

        def embed(rows: np.ndarray, shard: int) -> tuple[np.ndarray, str]:
            del shard
            return made.listings(contents.columns, rows), made.space

        def say(text: str) -> None:
            print(f"serve: {text}", flush=True)

        say(f"embeds {len(ids):,} listings into {place}; unchanged ones keep their vectors")
        writer.write(job, earlier, contents, embed, range(job.count), say)
        counts = writer.finish(job, {}, earlier)
        say(f"{counts['now']:,} listings = {counts['kept']:,} kept + {counts['now'] - counts['kept']:,} embedded")


def _is_embedded(ids: Ids, contents: Contents, stored: writer.Earlier) -> bool:
    """Returns whether stored vectors are of these listings, in this order and with this content."""
    if stored.reason or stored.ids != ids:
        return False
    rows = np.arange(len(ids))
    return bool(stored.intact(rows).all() and contents.unchanged(rows, stored.notes(rows)).all())


def _fields(folder, config: Mapping, catalog: Catalog, split: Split, embeddings: Embeddings) -> dict:
    """Returns all attributes that are known of the gallery, predicted ones where the catalogue has none."""
    numbers = [
        name
        for name, column in split.columns.items()
        if isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.ndim == 1
    ]
    names = [name for name in catalog.column_names if name in split.columns] + numbers
    names += [field_lib.CATEGORY] if catalog.category_levels and split.categories is not None else []
    mined, file = None, folder / ("" if networks.is_exported(folder) else "attributes") / "vocabulary.json"
    if split.titles is not None and file.exists():
        vocabulary = Vocabulary.load(file)
        if len(vocabulary):
            mined = vocabulary.tokens, Ragged(*vocabulary.encode(list(split.titles), progress=False))
            names.append(field_lib.MINED)
    found = field_lib.of_split(split, names, mined, embeddings.ids)
    predicted = folder / "embeddings" / sides.of(config)["gallery"].folder / saved_fields.FOLDER / "gallery.npz"
    if predicted.exists():
        info = info_lib.load(folder / "checkpoints" / "data_info.json")
        labels = saved_fields.load(predicted, info, embeddings.ids.sha256())
        for name, field in field_lib.predicted(*labels, info).items():
            found.setdefault(name, field)
    return found
