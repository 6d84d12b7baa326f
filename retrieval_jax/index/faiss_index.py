"""Approximate search with a faiss factory string; faiss's results are re-scored exactly from the gallery's vectors.

    config.search.index = "faiss_index"
    config.search.index_kwargs = {"factory": "IVF1024,SQ8", "parameters": "nprobe=16", "candidates": 40}

`python -m retrieval_jax.propose_index` measures which factory, parameters and candidates reach a given recall.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import faiss
import numpy as np
import tqdm

from retrieval_jax import brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files.arrays import file_sha256, load_npy
from retrieval_jax.files.atomic import replace_folder
from retrieval_jax.index import exact
from retrieval_jax.scoring.ranking import Ranking

FORMAT = 2
ADD_ROWS = 32768  # rows added to the index at once
QUERY_ROWS = 4096  # queries searched at once
WITNESSES = 256  # rows saved beside an index, to recognise its gallery if that has no checksums


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
        self.exact = exact.Index(gallery, ids)
        self.sources = _sources(gallery.meta) if isinstance(gallery, Embeddings) else []
        self.factory, self.candidates, self.threads = factory, candidates, threads
        if folder and (pathlib.Path(folder) / "index.json").exists():
            self._load(pathlib.Path(folder))
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
          InputError: the index has no such parameter.
        """
        if parameters:
            try:
                faiss.ParameterSpace().set_index_parameters(self.faiss, parameters)
            except RuntimeError as error:
                raise InputError(
                    f"the faiss index {self.factory!r} does not accept the parameters {parameters!r} "
                    f"({_reason(error)}): use for example 'nprobe=16' with IVF, 'efSearch=64' with HNSW"
                ) from error

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the best k gallery rows among those that faiss finds, best first.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if faiss finds fewer.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (exact cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the gallery's, k below 1, or a non-finite vector.
        """
        ids, vectors = self.exact.check(queries, k)
        own = self.exact.own_rows(ids)
        extra = int(np.bincount(own[:, 0]).max(initial=0)) if len(own) else 0  # room for own rows, which are dropped
        fetch = min(max(k, self.candidates) + extra, len(self.exact.gallery))
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        starts = range(0, len(vectors) if fetch else 0, QUERY_ROWS)
        for start in tqdm.tqdm(starts, desc="search", unit="block", mininterval=1, disable=len(starts) < 2):
            stop = min(start + QUERY_ROWS, len(vectors))
            block, lengths, mine = exact.query_block(vectors, ids, own, start, stop)
            with _threads(self.threads):
                found = self.faiss.search(exact.unit(block, lengths), fetch)[1]
            for query, row in mine:
                found[query][found[query] == row] = -1
            query, slot = np.nonzero(found >= 0)
            row = found[query, slot]
            score = self.exact.rescore(block, lengths, query, row)
            rows[start:stop], scores[start:stop] = exact.best_first(query, row, score, self.exact.place, len(block), k)
        return self.exact.ranking(ids, rows, scores)

    def bytes_per_vector(self) -> float:
        """Returns the bytes per gallery row of the index as faiss writes it, including clusters and graph."""
        counted = [0]

        def count(data: bytes) -> int:
            counted[0] += len(data)
            return len(data)

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
        try:
            made = faiss.index_factory(dim, self.factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise InputError(
                f"faiss cannot build an index {self.factory!r} for {dim} dimensions ({_reason(error)}): use for "
                "example 'HNSW32', 'IVF1024,Flat', or 'IVF1024,PQ32' where the number after PQ divides the dimensions"
            ) from error
        with _threads(self.threads):
            if not made.is_trained:
                wanted = train_rows or max(65536, 64 * _clusters(made))
                rows = np.unique(np.linspace(0, max(0, count - 1), min(count, wanted)).astype(np.int64))
                try:
                    made.train(self._units(rows[:count]))
                except RuntimeError as error:
                    raise InputError(
                        f"faiss cannot train {self.factory!r} on {min(count, wanted)} vectors ({_reason(error)}): "
                        "use fewer clusters (IVF256), or the index 'exact' for a gallery this small"
                    ) from error
            starts = range(0, count, ADD_ROWS)
            for start in tqdm.tqdm(starts, desc="index", unit="block", mininterval=1, disable=len(starts) < 4):
                made.add(self._units(slice(start, start + ADD_ROWS)))
        return made

    def _witnesses(self) -> np.ndarray:
        count = len(self.exact.gallery)
        return self._units(np.unique(np.linspace(0, max(0, count - 1), min(count, WITNESSES)).astype(np.int64)))

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the index atomically, with what it needs to recognise its gallery.

        Args:
          folder: where to write it; an existing index is replaced.
        """

        def fill(new: pathlib.Path) -> None:
            faiss.write_index(self.faiss, str(new / "index.faiss"))
            np.save(new / "witnesses.npy", self._witnesses(), allow_pickle=False)
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
            (new / "index.json").write_text(json.dumps(info, indent=1))

        return replace_folder(folder, fill)

    def _gallery_sha256(self) -> str:
        return self.exact.ids.sha256() if self.exact.ids is not None else ""

    def _load(self, folder: pathlib.Path) -> None:
        again = f"remove {folder} to rebuild it, or use a different folder"
        try:
            info = json.loads((folder / "index.json").read_text())
            if info["format"] != FORMAT:
                raise InputError(f"{folder} has format {info['format']}, this version reads {FORMAT}: {again}")
            factory, sha256, index_sha256 = info["factory"], info["gallery_sha256"], info["index_sha256"]
            shape, sources = (info["rows"], info["dim"]), info["sources"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{folder / 'index.json'} does not describe an index ({error!r}): {again}") from error
        if factory != self.factory:
            raise InputError(f"{folder} holds an index {factory!r}, not {self.factory!r}: {again}")
        if shape != tuple(self.exact.gallery.shape) or sha256 != self._gallery_sha256():
            raise InputError(f"{folder} is the index of a different gallery ({shape[0]} x {shape[1]}): {again}")
        kept, now = load_npy(folder / "witnesses.npy", mmap=False), self._witnesses()
        if sources != self.sources or kept.shape != now.shape or np.abs(kept - now).max(initial=0) > 1e-3:
            raise InputError(f"{folder} is the index of outdated vectors of the same listings: {again}")
        file = folder / "index.faiss"
        if not file.exists() or file_sha256(file) != index_sha256:
            raise InputError(f"{file} is missing or has changed since it was written: {again}")
        try:
            self.faiss = faiss.read_index(str(file))
        except RuntimeError as error:
            raise InputError(f"faiss {faiss.__version__} cannot read {file} ({_reason(error)}): {again}") from error
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


def _reason(error: RuntimeError) -> str:
    """Returns faiss's message without its C++ function and file."""
    return str(error).rpartition(": ")[2].strip() or str(error)
