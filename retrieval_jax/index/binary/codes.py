"""Sign codes after a fitted rotation or projection, and Hamming search over them in the cells nearest to a query."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import faiss
import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import load_npz
from retrieval_jax.index.binary import learned

TRAINING_ROWS = 8192  # rows to fit the rotation on
ROWS_PER_CELL = 64  # most rows per cell to fit the cells on
FEW_ROWS = 50_000  # up to this many rows there is one cell, and all codes are scanned
MOST_BITS = 1 << 14  # the rotation is [bits, bits] while it is fitted
METHODS = ("itq", "learned", "signs")
SLACK = 32  # rows requested beyond the wanted count, to resolve ties at the end
# A bit is set if a float64 product exceeds this. Products computed with other block sizes or thread counts differ by
# about 1e-15; with this threshold, products that are truly zero (common in sparse or constant data) keep the same bit.
ZERO = 1e-9


def units(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors [n, D] scaled to length 1, float64; a zero vector stays zero."""
    wide = np.array(vectors, np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Coder:
    """Maps vectors to codes, the signs of (unit vector - mean) @ rotation, and to the cell of the nearest centroid.

    Attributes:
      mean: [D] float64, mean of the unit vectors it was fitted on.
      rotation: [D, bits] float64, a rotation or a learned projection; bits is a multiple of 8.
      centroids: [cells, D] float64, of length 1.

    Raises:
      InputError: other shapes, or numbers that are non-finite.
    """

    mean: np.ndarray
    rotation: np.ndarray
    centroids: np.ndarray

    __repr__ = brief.line

    def __post_init__(self):
        mean = arguments.array(self.mean, "mean", "binary codes", ("D",))
        rotation = arguments.array(self.rotation, "rotation", "binary codes", (len(mean), "bits"))
        centroids = arguments.array(self.centroids, "centroids", "binary codes", ("cells", len(mean)))
        if not all(np.isfinite(part).all() for part in (mean, rotation, centroids)):
            raise InputError("binary codes: a coder with non-finite numbers: fit it again")
        if not rotation.shape[1] or rotation.shape[1] % 8 or not len(centroids):
            raise InputError(
                f"binary codes: a coder of {rotation.shape[1]} bits and {len(centroids)} cells: fit it with a multiple "
                "of 8 bits and 1 cell or more"
            )
        for name, value in (("mean", mean), ("rotation", rotation), ("centroids", centroids)):
            object.__setattr__(self, name, value)

    @property
    def bits(self) -> int:
        """Bits per code."""
        return self.rotation.shape[1]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self.centroids)

    def encode(self, vectors: np.ndarray, probes: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns the codes of vectors and their nearest cells.

        Args:
          vectors: [n, D]; need not be normalised.
          probes: cells per vector.

        Returns:
          Codes [n, bits / 8] uint8 and cells [n, probes] int64, nearest first.
        """
        unit = units(vectors)
        codes = np.packbits((unit - self.mean) @ self.rotation > ZERO, axis=1)
        if self.cells == 1:
            return codes, np.zeros((len(unit), 1), np.int64)
        near = unit @ self.centroids.T
        if probes == 1:
            return codes, near.argmax(1)[:, None]
        return codes, np.argsort(-near, axis=1, kind="stable")[:, :probes]

    def save(self, file: str | os.PathLike) -> None:
        """Writes an .npz file."""
        atomic.write_npz(file, mean=self.mean, rotation=self.rotation, centroids=self.centroids)

    @classmethod
    def load(cls, file: str | os.PathLike) -> Coder:
        """Loads a coder that `save` wrote.

        Raises:
          InputError: the file is missing or is not a saved coder.
        """
        kinds = {"mean": (("float64",), 1), "rotation": (("float64",), 2), "centroids": (("float64",), 2)}
        arrays = load_npz(file, kinds, remedy="create the index again")
        try:
            return cls(**arrays)
        except InputError as error:
            raise InputError(f"{file} is not a coder of a binary index ({error}): create the index again") from None


def fit_rotation(unit: np.ndarray, bits: int, rounds: int, seed: int) -> np.ndarray:
    """Learns the rotation that minimises the quantisation error of signs (iterative quantisation).

    With fewer bits than dimensions, the directions of largest variance are rotated; with more, the rotation has
    orthonormal rows and is fitted the same way.

    Args:
      unit: [n, D] float64, centred.
      bits: columns of the rotation.
      rounds: alternations between signs and rotation; 0 gives a random rotation.
      seed: seed of the initial, random rotation.

    Returns:
      [D, bits] float64.

    Source: Gong and Lazebnik, "Iterative Quantization", CVPR 2011; more bits than dimensions as in Balu, Furon and
      Jegou, "Beyond project and sign for cosine estimation with binary codes", ICASSP 2014.
    """
    width = unit.shape[1]
    turn = np.eye(width)
    if bits < width:
        turn = np.linalg.eigh(unit.T @ unit)[1][:, ::-1][:, :bits]
        unit = unit @ turn
    size = max(bits, unit.shape[1])
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0][: unit.shape[1], :bits]
    for _ in range(rounds):
        signs = np.where(unit @ rotation > ZERO, 1.0, -1.0)
        # The nearest rotation is the polar factor; adding a little of the old one keeps zero-variance directions.
        product = unit.T @ signs
        product += 1e-5 * max(1.0, np.linalg.norm(product)) * rotation
        value, vector = np.linalg.eigh(product @ product.T)
        rotation = (vector / np.sqrt(value)) @ vector.T @ product
    return turn @ rotation


def fit(
    vectors: np.ndarray | Embeddings,
    *,
    bits: int | None = None,
    cells: int | None = None,
    method: str = "itq",
    rounds: int = 10,
    seed: int = 0,
) -> Coder:
    """Fits rotation and cells on the vectors to be searched, or on similar ones.

    Args:
      vectors: [n, D] array, memory-mapped array or Embeddings; a seeded sample of its rows is read.
      bits: bits per code, a multiple of 8; two per dimension by default, 1/16 of float32.
      cells: only codes in the cells nearest to the query are searched; with 1 all are. By default 1 for up to 50,000
        vectors, otherwise sqrt(n).
      method: "itq", iterative quantisation; "learned", which starts there and learns to keep the neighbours
        (learned.py); or "signs", the vectors' own signs, for networks that learned them (`code_weight` of the task
        image_title).
      rounds: rounds of iterative quantisation.
      seed: seed of the sample and the initial rotation.

    Raises:
      InputError: no vectors, non-finite ones, or settings out of range.
    """
    rows = arguments.vectors(vectors.vectors if isinstance(vectors, Embeddings) else vectors, "vectors", "binary codes")
    if not len(rows):
        raise InputError(f"binary codes need vectors [n, D] to fit on, got shape {tuple(rows.shape)}")
    count, width = rows.shape
    arguments.choice(method, "method", "binary codes", METHODS)
    usual = width if method == "signs" else max(8, 2 * width // 8 * 8)
    bits = usual if bits is None else arguments.integer(bits, "bits", "binary codes", high=max(MOST_BITS, usual))
    if bits % 8:
        raise InputError(f"binary codes: bits={bits}, expected a multiple of 8, such as {usual}")
    if method == "signs" and bits != width:
        raise InputError(f"binary codes: bits={bits}, but the vectors' own signs are {width} bits: leave bits out")
    rounds = arguments.integer(rounds, "rounds", "binary codes", low=0, high=1000)
    seed = arguments.integer(seed, "seed", "binary codes", low=0, high=2**31 - 2)  # faiss takes 31 bits
    if cells is None:
        cells = 1 if count <= FEW_ROWS else int(np.sqrt(count))
    cells = arguments.integer(cells, "cells", "binary codes")
    if cells > count:
        raise InputError(f"{cells} cells cannot be fitted on {count} vectors: choose from 1 to {count}")

    def some(number: int) -> np.ndarray:
        chosen = np.sort(np.random.default_rng(seed).permutation(count)[:number])
        with np.errstate(over="ignore"):
            read = np.asarray(rows[chosen] if number < count else rows[:], np.float32)
        arguments.finite(read, "binary codes", None, chosen)
        return units(read)

    unit = some(max(TRAINING_ROWS, 4 * width))
    mean = unit.mean(0)
    if method == "signs":
        mean, rotation = np.zeros(width), np.eye(width)
    else:
        rotation = fit_rotation(unit - mean, bits, rounds, seed)
    if method == "learned":
        rotation = learned.fit_projection(unit, mean, rotation, seed)
    centroids = mean[None]
    if cells > 1:
        kmeans = faiss.Kmeans(
            width,
            cells,
            niter=10,
            spherical=True,
            seed=seed + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=ROWS_PER_CELL,
        )
        kmeans.train(some(cells * ROWS_PER_CELL).astype(np.float32))
        centroids = kmeans.centroids
    return Coder(mean, rotation, units(centroids))


def probed(cells: int, probes: int | None) -> int:
    """Returns the number of cells to search: `probes`, by default the larger of 16 and 1/16 of the cells.

    Raises:
      InputError: probes below 1.
    """
    return min(cells, max(16, cells // 16) if probes is None else arguments.integer(probes, "probes", "index binary"))


class Lists:
    """The codes of one shard in memory, one list per cell; the caller chooses the row numbers.

    Args:
      bits: bits per code.
      cells: number of lists.
    """

    def __init__(self, bits: int, cells: int):
        # Coder assigns the cells (in float64, better than by codes), so the quantizer is only a placeholder.
        self.quantizer = faiss.IndexBinaryFlat(bits)
        self.index = faiss.IndexBinaryIVF(self.quantizer, bits, cells)
        self.index.is_trained = True
        self.index.set_direct_map_type(faiss.DirectMap.Hashtable)

    def __len__(self) -> int:
        return self.index.ntotal

    def reserve(self, counts: np.ndarray) -> None:
        """Preallocates memory for that many more codes per cell; lists that grow take up to twice as much."""
        lists = self.index.invlists
        for cell in np.flatnonzero(counts):
            size = lists.list_size(int(cell))
            lists.resize(int(cell), size + int(counts[cell]))
            lists.resize(int(cell), size)

    def add(self, rows: np.ndarray, cells: np.ndarray, codes: np.ndarray) -> None:
        """Adds codes [n, bits / 8] to cells [n] under the row numbers `rows` [n], which must be new."""
        rows, cells = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(cells, np.int64)
        codes = np.ascontiguousarray(codes, np.uint8)
        self.index.add_core(len(rows), faiss.swig_ptr(codes), faiss.swig_ptr(rows), faiss.swig_ptr(cells))

    def remove(self, rows: np.ndarray) -> None:
        """Removes rows; unknown ones are ignored."""
        rows = np.ascontiguousarray(rows, np.int64)
        self.index.remove_ids(faiss.IDSelectorArray(len(rows), faiss.swig_ptr(rows)))

    def nearest(self, codes: np.ndarray, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns distances [n, count] int32, ascending, and rows [n, count], padded with -1; ties are arbitrary."""
        self.index.nprobe = cells.shape[1]
        none = np.zeros(cells.shape, np.int32)
        return self.index.search_preassigned(codes, count, cells, none)

    def within(self, code: np.ndarray, cells: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns distances and rows of all codes within `radius` of one code [1, bits / 8]."""
        self.index.nprobe = cells.shape[1]
        none = np.zeros(cells.shape, np.int32)
        _, distance, rows = self.index.range_search_preassigned(code, radius + 1, cells, none)
        return distance.astype(np.int32), rows


def candidates(
    shards: list[Lists],
    codes: np.ndarray,
    cells: np.ndarray,
    count: int,
    own: list[np.ndarray],
    by_id: Callable[[np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """Returns the rows of the `count` smallest (Hamming distance, id) over all shards, per query.

    Args:
      shards: shards with distinct rows; the result does not depend on how rows are spread over them.
      codes: [n, bits / 8], the queries' codes.
      cells: [n, probes] cells to search per query.
      count: rows per query.
      own: per query, rows to leave out.
      by_id: maps rows [m] to numbers [m] that sort like the rows' ids.

    Returns:
      n unordered arrays of up to `count` rows.
    """
    asked = count + SLACK + max((len(rows) for rows in own), default=0)
    asked = min(asked, max(len(shard) for shard in shards) + 1)  # one more than a shard has shows that it has no more
    found = [shard.nearest(codes, cells, asked) for shard in shards]
    far = np.iinfo(np.int32).max
    distances = np.concatenate([np.where(rows >= 0, distance, far) for distance, rows in found], 1)
    rows = np.concatenate([rows for _, rows in found], 1)
    # Rows that a shard did not return are at least as far away as the last one it returned.
    edge = np.min([np.where(shard_rows[:, -1] >= 0, distance[:, -1], far) for distance, shard_rows in found], 0)
    chosen = []
    for query in range(len(codes)):
        distance, row = distances[query], rows[query]
        if len(own[query]):
            keep = ~np.isin(row, own[query])
            distance, row = distance[keep], row[keep]
        if np.count_nonzero(distance < far) <= count:
            chosen.append(row[distance < far])
            continue
        limit = int(np.partition(distance, count - 1)[count - 1])
        if edge[query] <= limit:  # there may be more rows at this distance than were requested
            here = slice(query, query + 1)
            parts = [shard.within(codes[here], cells[here], limit) for shard in shards]
            distance, row = (np.concatenate(part) for part in zip(*parts, strict=True))
            keep = ~np.isin(row, own[query])
            distance, row = distance[keep], row[keep]
        chosen.append(smallest(distance, row, count, by_id))
    return chosen


def smallest(
    distance: np.ndarray, row: np.ndarray, count: int, by_id: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns the rows of the `count` smallest (distance, id), unordered.

    Args:
      distance: [n] integers.
      row: [n] rows at these distances.
      count: rows to return, at most n.
      by_id: see `candidates`.
    """
    limit = np.partition(distance, count - 1)[count - 1]
    inside, ties = row[distance < limit], row[distance == limit]
    if len(inside) + len(ties) > count:
        ties = ties[np.argsort(by_id(ties), kind="stable")[: count - len(inside)]]
    return np.concatenate([inside, ties])
