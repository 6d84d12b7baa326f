"""Sign codes after a learned rotation, and their search by Hamming distance in the cells nearest to a query."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Callable

import faiss
import numpy as np

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic

TRAINING_ROWS = 8192  # the rotation is fitted on
ROWS_A_CELL = 64  # the cells are fitted on, at most
FEW_ROWS = 50_000  # up to here all codes are scanned: one cell
SLACK = 32  # rows asked for beyond those wanted, so that ties at the end are in hand
# A bit says whether a float64 product is above this. Products of another block size or number of threads differ by
# 1e-15 or so: products that are zero in truth (many in sparse or constant data) then give the same bit always.
ZERO = 1e-9


def units(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors [n, D] scaled to length 1, float64; a zero vector stays zero."""
    wide = np.array(vectors, np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Coder:
    """What makes codes of vectors: the sign of (unit vector - mean) @ rotation, and the cell of the nearest centroid.

    Attributes:
      mean: [D] float64, of the unit vectors it was fitted on.
      rotation: [D, bits] float64; bits is a multiple of 8.
      centroids: [cells, D] float64, of length 1.
    """

    mean: np.ndarray
    rotation: np.ndarray
    centroids: np.ndarray

    @property
    def bits(self) -> int:
        """Length of a code."""
        return self.rotation.shape[1]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return len(self.centroids)

    def encode(self, vectors: np.ndarray, probes: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Returns the codes of vectors and the cells nearest to them.

        Args:
          vectors: [n, D]; need not be normalised.
          probes: how many cells.

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
        """Returns the coder that `save` wrote.

        Raises:
          InputError: no such file, or another kind of file.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                coder = cls(arrays["mean"], arrays["rotation"], arrays["centroids"])
            width = coder.mean.shape
            if coder.rotation.shape[:1] != width or coder.centroids.shape[1:] != width or coder.bits % 8:
                raise ValueError("shapes do not fit")
            return coder
        except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile) as error:
            raise InputError(f"{file} is not what makes binary codes ({error}): create the index again") from error


def fit_rotation(unit: np.ndarray, bits: int, rounds: int, seed: int) -> np.ndarray:
    """Learns the rotation after which signs lose least (iterative quantisation).

    With fewer bits than numbers, the directions of largest variance are rotated; with more, the rotation's rows are
    orthonormal and the codes as a whole are fitted in the same way.

    Args:
      unit: [n, D] float64, centred.
      bits: columns.
      rounds: of alternating between signs and rotation; 0 gives a random rotation.
      seed: of the first, random rotation.

    Returns:
      [D, bits] float64.

    Source: Gong and Lazebnik, "Iterative Quantization", CVPR 2011; more bits than numbers as in Balu, Furon and Jegou,
      "Beyond project and sign for cosine estimation with binary codes", ICASSP 2014.
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
        # The nearest rotation is the polar factor; a little of the old one keeps directions without variance in it.
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
    rounds: int = 10,
    seed: int = 0,
) -> Coder:
    """Fits rotation and cells on the vectors that will be searched, or others like them.

    Args:
      vectors: [n, D] array, memory-mapped array or Embeddings; a seeded choice of its rows is read.
      bits: of a code, a multiple of 8; by default two a number, 1 / 16 of float32.
      cells: codes are searched in the cells nearest to the query only; 1 searches them all. By default 1 up to 50,000
        vectors, then sqrt(n).
      rounds: of iterative quantisation.
      seed: of the choice and the first rotation.

    Raises:
      InputError: no vectors, not finite ones, or settings out of range.
    """
    rows = vectors.vectors if isinstance(vectors, Embeddings) else vectors
    if len(rows.shape) != 2 or not len(rows) or not rows.shape[1]:
        raise InputError(f"binary codes are fitted on vectors [n, D], got shape {tuple(rows.shape)}")
    count, width = rows.shape
    usual = max(8, 2 * width // 8 * 8)
    bits = usual if bits is None else bits
    if bits < 8 or bits % 8:
        raise InputError(f"binary codes of {bits} bits: give a multiple of 8, for instance {usual}")
    if cells is None:
        cells = 1 if count <= FEW_ROWS else int(np.sqrt(count))
    if not 1 <= cells <= count:
        raise InputError(f"{cells} cells cannot be fitted on {count} vectors: choose from 1 to {count}")

    def some(number: int) -> np.ndarray:
        chosen = np.sort(np.random.default_rng(seed).permutation(count)[:number])
        read = np.asarray(rows[chosen] if number < count else rows[:], np.float32)
        bad = ~np.isfinite(read).all(1)
        if bad.any():
            row = int(chosen[bad.argmax()])
            raise InputError(f"row {row} of the vectors to fit binary codes on is not finite: embed that listing again")
        return units(read)

    unit = some(max(TRAINING_ROWS, 4 * width))
    mean = unit.mean(0)
    rotation = fit_rotation(unit - mean, bits, rounds, seed)
    centroids = mean[None]
    if cells > 1:
        kmeans = faiss.Kmeans(
            width,
            cells,
            niter=10,
            spherical=True,
            seed=seed + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=ROWS_A_CELL,
        )
        kmeans.train(some(cells * ROWS_A_CELL).astype(np.float32))
        centroids = kmeans.centroids
    return Coder(mean, rotation, units(centroids))


def probed(cells: int, probes: int | None) -> int:
    """Returns how many of the cells are searched: `probes`, or by default 16, or 1 / 16 of them where that is more.

    Raises:
      InputError: fewer than one.
    """
    if probes is not None and probes < 1:
        raise InputError(f"probes is {probes}: search at least one cell")
    return min(cells, max(16, cells // 16) if probes is None else probes)


class Lists:
    """The codes of one shard in memory, a list a cell; rows are numbers that the caller chose.

    Args:
      bits: of a code.
      cells: how many lists.
    """

    def __init__(self, bits: int, cells: int):
        # The cells are found by Coder (float64, better than by codes): the quantizer is there for its size alone.
        self.quantizer = faiss.IndexBinaryFlat(bits)
        self.index = faiss.IndexBinaryIVF(self.quantizer, bits, cells)
        self.index.is_trained = True
        self.index.set_direct_map_type(faiss.DirectMap.Hashtable)

    def __len__(self) -> int:
        return self.index.ntotal

    def reserve(self, counts: np.ndarray) -> None:
        """Takes the memory for so many codes a cell at once: lists that grow take up to twice theirs."""
        lists = self.index.invlists
        for cell in np.flatnonzero(counts):
            size = lists.list_size(int(cell))
            lists.resize(int(cell), size + int(counts[cell]))
            lists.resize(int(cell), size)

    def add(self, rows: np.ndarray, cells: np.ndarray, codes: np.ndarray) -> None:
        """Adds codes [n, bits / 8] to the cells [n] under the numbers `rows` [n], none of which may be there yet."""
        rows, cells = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(cells, np.int64)
        codes = np.ascontiguousarray(codes, np.uint8)
        self.index.add_core(len(rows), faiss.swig_ptr(codes), faiss.swig_ptr(rows), faiss.swig_ptr(cells))

    def remove(self, rows: np.ndarray) -> None:
        """Removes rows; those that are not there are ignored."""
        rows = np.ascontiguousarray(rows, np.int64)
        self.index.remove_ids(faiss.IDSelectorArray(len(rows), faiss.swig_ptr(rows)))

    def nearest(self, codes: np.ndarray, cells: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns distances [n, count] int32 and rows [n, count] (-1 behind), ascending; which of equals is open."""
        self.index.nprobe = cells.shape[1]
        none = np.zeros(cells.shape, np.int32)
        return self.index.search_preassigned(codes, count, cells, none)

    def within(self, code: np.ndarray, cells: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns distances and rows of all codes no farther than `radius` from one code [1, bits / 8]."""
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
    """Returns for every query the rows of the `count` smallest (Hamming distance, id) of all shards together.

    Args:
      shards: whose rows are distinct; how rows are spread over them changes nothing.
      codes: [n, bits / 8] of the queries.
      cells: [n, probes] searched for each.
      count: how many rows.
      own: for each query, rows to leave out.
      by_id: of rows [m], returns numbers [m] that ascend as the rows' ids do.

    Returns:
      n arrays of `count` rows or fewer, in no order.
    """
    asked = count + SLACK + max((len(rows) for rows in own), default=0)
    found = [shard.nearest(codes, cells, asked) for shard in shards]
    far = np.iinfo(np.int32).max
    distances = np.concatenate([np.where(rows >= 0, distance, far) for distance, rows in found], 1)
    rows = np.concatenate([rows for _, rows in found], 1)
    # Beyond what a shard returned there is nothing nearer than its last.
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
        if edge[query] <= limit:  # there may be more at this distance than were asked for
            here = slice(query, query + 1)
            parts = [shard.within(codes[here], cells[here], limit) for shard in shards]
            distance, row = (np.concatenate(part) for part in zip(*parts, strict=True))
            keep = ~np.isin(row, own[query])
            distance, row = distance[keep], row[keep]
        inside, ties = row[distance < limit], row[distance == limit]
        if len(inside) + len(ties) > count:
            ties = ties[np.argsort(by_id(ties), kind="stable")[: count - len(inside)]]
        chosen.append(np.concatenate([inside, ties]))
    return chosen
