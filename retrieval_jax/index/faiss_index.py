"""Approximate search with a faiss factory string; faiss's results are re-scored exactly from the gallery's vectors.

    config.search.index = "faiss_index"
    config.search.index_kwargs = {"factory": "IVF1024,SQ8", "parameters": "nprobe=16", "candidates": 40}

`python -m retrieval_jax.propose_index` measures which factory, parameters and candidates reach a given recall.

Longer than 400 lines: a third of them checks what faiss itself does not.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TypedDict

import faiss
import numpy as np
import tqdm

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import spread
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import file_sha256, load_npy
from retrieval_jax.index import exact
from retrieval_jax.scoring.ranking import Ranking

FORMAT = 2
ADD_ROWS = 32768  # rows added to the index at once
QUERY_ROWS = 4096  # queries searched at once
FEWEST = 39  # vectors per cluster that faiss wants for training; with fewer it prints a warning of its own
EXAMPLES = "'HNSW32', 'IVF1024,Flat', or 'IVF1024,PQ32' where the number after PQ divides the dimensions"
# What faiss raises for a factory or parameters that it cannot do, also from C++ and from memory it does not get.
ERRORS = (RuntimeError, MemoryError, TypeError, ValueError, OverflowError, AssertionError)
WITNESSES = 256  # rows saved beside an index, to recognise its gallery if that has no checksums


class _Info(TypedDict):
    """index.json."""

    format: int
    factory: str
    rows: documents.Count
    dim: documents.Count
    gallery_sha256: str
    sources: list[str]
    index_sha256: documents.Sha256


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class Index:
    """Approximate cosine search: normalised vectors in a faiss index, results re-scored exactly.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised. Read once to build, in blocks,
        and a few rows per query to re-score.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      factory: faiss's description of the index: "HNSW32", "IVF1024,Flat", "IVF1024,SQ8", "OPQ64,IVF1024,PQ64",
        "RR512,IVF1024,RaBitQ" ... An HNSW graph depends on thread timing; threads=1 makes it reproducible.
      parameters: search parameters as faiss writes them: "nprobe=16", "efSearch=64",
        "nprobe=8,quantizer_efSearch=64".
      candidates: rows taken from faiss and re-scored; at least k. Compressed codes (PQ, SQ, RaBitQ) need several
        times k.
      folder: where the index is saved: loaded if it exists, otherwise built and written; "" builds it each time. A
        folder holds the index of one gallery; `search` gives each stage its own subfolder.
      train_rows: evenly spaced rows to train clusters and codes on; 0 for the larger of 65,536 and 64 per cluster.
      threads: threads that faiss uses; 0 for all.

    Raises:
      InputError: a factory or parameters that faiss rejects, a wrong number of ids, a gallery too small to train on,
        a non-finite vector, or a folder whose index belongs to a different gallery or factory.

    Source: Douze et al., "The Faiss library", arXiv 2401.08281.
    """

    def __repr__(self) -> str:
        return f"faiss_index.Index({brief.size(self.exact.gallery)})"

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        factory: str = "HNSW32",
        parameters: str = "",
        candidates: int = 0,
        folder: str | os.PathLike = "",
        train_rows: int = 0,
        threads: int = 0,
    ):
        candidates = arguments.integer(candidates, "candidates", "index faiss_index", low=0)
        train_rows = arguments.integer(train_rows, "train_rows", "index faiss_index", low=0)
        threads = arguments.integer(threads, "threads", "index faiss_index", low=0, high=4096)
        arguments.path(folder, "folder", "index faiss_index")
        self.exact = exact.Index(gallery, ids)
        check_factory(factory, self.exact.gallery.shape)
        check_parameters(parameters, factory)
        self.sources = _sources(gallery.meta) if isinstance(gallery, Embeddings) else []
        self.factory, self.candidates, self.threads = factory, candidates, threads
        if folder and (pathlib.Path(folder) / "index.json").exists():
            versions.read(folder, "index.json", self._load)
        else:
            self.faiss = self._build(train_rows)
            if folder:
                self.save(folder)
        self.set_parameters(parameters)

    def set_parameters(self, parameters: str) -> None:
        """Sets the search parameters.

        Args:
          parameters: as faiss writes them, "nprobe=16" or "efSearch=64"; "" changes nothing.

        Raises:
          InputError: the index has no such parameter, or a value that finds nothing.
        """
        check_parameters(parameters, self.factory)
        if parameters:
            what = f"the faiss index {self.factory!r} does not accept the parameters {parameters!r}"
            with _errors(what, "use for example 'nprobe=16' with IVF, 'efSearch=64' with HNSW"):
                faiss.ParameterSpace().set_index_parameters(self.faiss, parameters)

    def search(self, queries: np.ndarray | Embeddings, k: int = 10, *, only: np.ndarray | None = None) -> Ranking:
        """Returns the best k gallery rows among those that faiss finds, best first.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if faiss finds fewer.
          only: [G] bool, the gallery rows that may be found; None for all.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (exact cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the gallery's, k below 1, a non-finite vector, or a search that
            faiss cannot do with these parameters.
        """
        ids, vectors, k = self.exact.check(queries, k)
        own = self.exact.own_rows(ids)
        remedy = f"change the parameters or candidates={self.candidates}, or use another factory, such as {EXAMPLES}"
        extra = int(np.bincount(own[:, 0]).max(initial=0)) if len(own) else 0  # room for own rows, which are dropped
        fetch = min(max(k, self.candidates) + extra, len(self.exact.gallery))
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        starts = range(0, len(vectors) if fetch else 0, QUERY_ROWS)
        bits = None if only is None else self._bits(only)
        params = (
            None if bits is None else selecting(self.faiss, faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)))
        )
        for start in tqdm.tqdm(starts, desc="search", unit="block", mininterval=1, disable=len(starts) < 2):
            stop = min(start + QUERY_ROWS, len(vectors))
            block, lengths, mine = exact.query_block(vectors, ids, own, start, stop)
            with _threads(self.threads), _errors(f"faiss cannot search {self.factory!r} for {fetch} results", remedy):
                found = self.faiss.search(exact.unit(block, lengths), fetch, params=params)[1]
            for query, row in mine:
                found[query][found[query] == row] = -1
            query, slot = np.nonzero(found >= 0)
            row = found[query, slot]
            score = self.exact.rescore(block, lengths, query, row)
            rows[start:stop], scores[start:stop] = exact.best_first(query, row, score, self.exact.place, len(block), k)
        return self.exact.ranking(ids, rows, scores, vectors)

    def _bits(self, only: np.ndarray) -> np.ndarray:
        """Returns which rows may be found, as faiss wants it: 8 rows per byte."""
        only = arguments.array(only, "only", "index faiss_index", (len(self.exact.gallery),), kind="flags")
        return np.packbits(only, bitorder="little")

    def bytes_per_vector(self) -> float:
        """Returns the bytes per gallery row of the index as faiss writes it, including clusters and graph."""
        counted = [0]

        def count(data: bytes) -> int:
            counted[0] += len(data)
            return len(data)

        with _errors(f"faiss cannot write the index {self.factory!r}", f"use for example {EXAMPLES}"):
            faiss.write_index(self.faiss, faiss.PyCallbackIOWriter(count))
        return counted[0] / max(1, len(self.exact.gallery))

    # ------------------------------------------------------------------------------------------------ build and save

    def _units(self, key) -> np.ndarray:
        """Returns gallery rows (a slice or row numbers) scaled to length 1."""
        block = np.asarray(self.exact.gallery[key], np.float32)
        lengths = exact.lengths_of(block, self.exact.ids, "gallery", key.start if isinstance(key, slice) else key)
        self.exact.lengths[key] = lengths
        return exact.unit(block, lengths)

    def _build(self, train_rows: int) -> faiss.Index:
        count, dim = self.exact.gallery.shape
        what = f"faiss cannot build an index {self.factory!r} for {dim} dimensions"
        with _errors(what, f"use for example {EXAMPLES}"):
            made = faiss.index_factory(dim, self.factory, faiss.METRIC_INNER_PRODUCT)
        with _threads(self.threads):
            if count and not made.is_trained:
                wanted = train_rows or max(65536, 64 * _clusters(made))
                rows = spread(count, wanted)
                units, fewest = self._units(rows), max(quiet(made), default=0)
                if len(rows) < FEWEST * fewest:
                    warnings.warn(
                        f"the index {self.factory!r} has {fewest:,} clusters or codes per piece and {len(rows):,} "
                        f"vectors to train them on; {FEWEST * fewest:,} or more give good ones: use fewer clusters, or "
                        "the index 'exact' for a gallery this small",
                        stacklevel=3,
                    )
                remedy = "use fewer clusters (IVF256), or the index 'exact' for a gallery this small"
                with _errors(f"faiss cannot train {self.factory!r} on {len(rows)} vectors", remedy):
                    made.train(units)
            starts = range(0, count, ADD_ROWS)
            for start in tqdm.tqdm(starts, desc="index", unit="block", mininterval=1, disable=len(starts) < 4):
                units = self._units(slice(start, start + ADD_ROWS))
                with _errors(f"faiss cannot add vectors to {self.factory!r}", f"use for example {EXAMPLES}"):
                    made.add(units)
        return made

    def _witnesses(self) -> np.ndarray:
        return self._units(spread(len(self.exact.gallery), WITNESSES))

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the index atomically, with what it needs to recognise its gallery.

        Args:
          folder: where to write it; an existing index is replaced.
        """

        def fill(new: pathlib.Path) -> None:
            with _errors(f"faiss cannot write the index {self.factory!r}", f"use for example {EXAMPLES}"):
                faiss.write_index(self.faiss, str(new / "index.faiss"))
            atomic.write_npy(new / "witnesses.npy", self._witnesses())
            info = {
                "format": FORMAT,
                "factory": self.factory,
                "rows": self.exact.gallery.shape[0],
                "dim": self.exact.gallery.shape[1],
                "gallery_sha256": self._gallery_sha256(),
                "sources": self.sources,
                "index_sha256": file_sha256(new / "index.faiss"),
                "faiss": faiss.__version__,
            }
            atomic.write_text(new / "index.json", json.dumps(info, indent=1))

        return versions.replace(folder, "index.json", fill)

    def _gallery_sha256(self) -> str:
        return self.exact.ids.sha256() if self.exact.ids is not None else ""

    def _load(self, folder: pathlib.Path) -> None:
        again = f"remove {folder} to rebuild it, or use a different folder"
        info = documents.read(folder / "index.json", _Info, remedy=again)
        if info["format"] != FORMAT:
            raise InputError(f"{folder} has format {info['format']}, this version reads {FORMAT}: {again}")
        factory, sha256, index_sha256 = info["factory"], info["gallery_sha256"], info["index_sha256"]
        shape, sources = (info["rows"], info["dim"]), info["sources"]
        if factory != self.factory:
            raise InputError(f"{folder} holds an index {factory!r}, not {self.factory!r}: {again}")
        if shape != tuple(self.exact.gallery.shape) or sha256 != self._gallery_sha256():
            raise InputError(f"{folder} is the index of a different gallery ({shape[0]} x {shape[1]}): {again}")
        kept, now = load_npy(folder / "witnesses.npy", mmap=False, dtypes=("float32",), remedy=again), self._witnesses()
        if sources != self.sources or kept.shape != now.shape or np.abs(kept - now).max(initial=0) > 1e-3:
            raise InputError(f"{folder} is the index of outdated vectors of the same listings: {again}")
        file = folder / "index.faiss"
        if not file.exists() or file_sha256(file) != index_sha256:
            raise InputError(f"{file} is missing or has changed since it was written: {again}")
        with _errors(f"faiss {faiss.__version__} cannot read {file}", again):
            self.faiss = faiss.read_index(str(file))
        if (self.faiss.ntotal, self.faiss.d) != shape:
            raise InputError(f"{file} holds {self.faiss.ntotal} x {self.faiss.d} vectors: {again}")


def _sources(meta: dict) -> list[str]:
    """Returns the checksums of the files that embeddings come from; one or more per member of an ensemble."""
    parts = meta.get("members") or [meta]
    return [part["vectors_sha256"] for part in parts if "vectors_sha256" in part]


def _clusters(index: faiss.Index) -> int:
    """Returns the number of an index's inverted lists, 0 if it has none."""
    try:
        return faiss.extract_index_ivf(index).nlist
    except RuntimeError:
        return 0


def check_factory(factory: str, shape: tuple[int, int]) -> None:
    """Checks a factory string for what faiss does not: some strings end the process or never return.

    Args:
      factory: faiss's description of an index.
      shape: rows and dimensions of the gallery.

    Raises:
      InputError: numbers that are 0, graphs with too few edges or more than memory, or ids of its own.
    """
    where = f"the faiss index {short(repr(factory))}"
    if not isinstance(factory, str) or not factory.strip() or "\0" in factory:
        raise InputError(f"index faiss_index: factory={short(repr(factory))}, expected a text such as {EXAMPLES}")
    if re.search(r"IDMap", factory):
        raise InputError(f"{where}: leave IDMap out: rows are numbered here, and ids are added to the results")
    numbers = [int(digits) for digits in re.findall(r"[0-9]+", factory) if len(digits) < 12]
    if re.search(r"[0-9]{12}", factory) or 0 in numbers:
        raise InputError(f"{where} has a number that is 0 or beyond reason: use for example {EXAMPLES}")
    for kind, least in (("HNSW", 2), ("NSG", 16)):  # with fewer edges faiss crashes or hangs
        for edges in re.findall(kind + r"([0-9]+)", factory):
            if int(edges) < least:
                raise InputError(f"{where}: {kind}{edges} has too few edges per vector: use {kind}32")
            if "IVF" not in factory:
                arguments.memory(8 * int(edges) * shape[0], "its graph", where, f"use {kind}32")
    for lists in re.findall(r"IVF([0-9]+)", factory):
        arguments.memory(4 * int(lists) * shape[1], "its clusters", where, "use fewer, such as IVF1024")


def check_parameters(parameters: str, factory: str) -> None:
    """Checks the values of search parameters, which faiss casts without a check: 1e12 becomes 0.

    Args:
      parameters: as faiss writes them; "" for none.
      factory: of the index, for the message.

    Raises:
      InputError: not "name=value", or a value that would find nothing.
    """
    where = f"the faiss index {short(repr(factory))}: parameters={short(repr(parameters))}"
    if not isinstance(parameters, str):
        raise InputError(f"{where}, expected a text such as 'nprobe=16' or 'efSearch=64'")
    for part in filter(None, re.split("[, ]", parameters)):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        whole = number.is_integer() or name.startswith("k_factor")
        if not name or not (0 if name in ("ht", "verbose") else 1) <= number < 2**31 or not whole:
            raise InputError(f"{where}: {part!r} is not name=value with an integer of at least 1, such as 'nprobe=16'")


def quiet(index: faiss.Index) -> list[int]:
    """Stops faiss from printing that clusters have few vectors, and returns the numbers of clusters that it trains.

    Args:
      index: an index that is not trained yet; the parts that it consists of are visited too.
    """
    found, waiting = [], [index]
    while waiting:
        part = faiss.downcast_index(waiting.pop())
        waiting += [getattr(part, name) for name in ("index", "quantizer", "base_index", "storage", "refine_index")
                    if isinstance(getattr(part, name, None), faiss.Index)]  # fmt: skip
        pieces = [part, *(getattr(part, name, None) for name in ("pq", "rq"))]
        for piece in pieces:
            if isinstance(getattr(piece, "cp", None), faiss.ClusteringParameters):
                piece.cp.min_points_per_centroid = 1
        for number in range(part.chain.size() if isinstance(part, faiss.IndexPreTransform) else 0):
            turn = faiss.downcast_VectorTransform(part.chain.at(number))
            if isinstance(turn, faiss.OPQMatrix):
                turn.pq = faiss.ProductQuantizer(turn.d_out, turn.M, 8)  # as it makes one itself
                turn.pq.cp.min_points_per_centroid = 1
                turn.pq.this.disown()  # belongs to the index now
        if isinstance(part, faiss.IndexIVF):
            found.append(part.nlist)
        if isinstance(getattr(part, "pq", None), faiss.ProductQuantizer):
            found.append(part.pq.ksub)
    return found


def selecting(index: faiss.Index, selector: faiss.IDSelector) -> faiss.SearchParameters:
    """Returns the parameters of a search that finds selected rows only, and otherwise searches as the index is set to.

    Args:
      index: the index; what it consists of gets parameters too.
      selector: the rows; must live as long as the parameters.
    """
    part = faiss.downcast_index(index)
    if isinstance(part, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=selecting(part.index, selector))
    if isinstance(part, faiss.IndexRefine):
        inside = selecting(part.base_index, selector)
        return faiss.IndexRefineSearchParameters(k_factor=part.k_factor, base_index_params=inside)
    if isinstance(part, faiss.IndexIVFPQ):
        return faiss.IVFPQSearchParameters(sel=selector, nprobe=part.nprobe, polysemous_ht=part.polysemous_ht)
    if isinstance(part, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=part.nprobe, max_codes=part.max_codes)
    if isinstance(part, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=part.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)


@contextlib.contextmanager
def _errors(what: str, remedy: str) -> Iterator[None]:
    """Turns faiss's errors into InputErrors, without the C++ function and file of its messages."""
    try:
        yield
    except InputError:
        raise
    except ERRORS as error:
        reason = str(error).rpartition(": ")[2].strip() or str(error) or type(error).__name__
        raise InputError(f"{what} ({reason}): {remedy}") from error
