"""Exact search on GPUs and TPUs: the gallery is sharded over all devices, and scores never leave them.

Every device multiplies a block of queries with blocks of its shard of the gallery and keeps only the maximum of each
group of rows. The k best rows lie in the k groups of highest maxima, so a few more groups than k are selected and only
their rows are re-scored in float32. The first pass may run in bfloat16: quantisation changes a cosine by at most
|<q, g> - <q16, g16>| <= |q16| |g - g16| + |q - q16| |g|, computed from the lengths of the residuals. A query whose
k-th best cosine exceeds the maxima of all other groups plus that bound is certified: nothing is missing. Any other
query gets a second pass in float32, and if that does not certify it either (runs of ties), an exact one on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import exact
from retrieval_jax.scoring.ranking import Ranking

GATHERED = 1 << 28  # floats of candidate vectors that one device gathers at once


class Index:
    """Exact cosine search on all devices; the gallery must fit in their combined memory.

    Args:
      gallery: [G, D] array, memory-mapped array or Embeddings; need not be normalised. Read once, at the first search.
      ids: G ids, for arrays; ties go by id, and a query's own id is left out. Without ids, ties go by row.
      dtype: of the first pass: "bfloat16" (2 more bytes per element on the devices) or "float32".
      rescore: "float64" re-scores the k + margin best on the host and gives exactly the scores of the index "exact";
        "float32" takes the device's scores, which may order near-ties (within some 1e-6) differently.
      approximate: uses `jax.lax.approx_max_k` instead and certifies nothing. Meant for TPUs, where the expected recall
        of the k + margin best is recall_target, for rows in random order. On CPUs XLA runs an exact and slower
        reduction instead; what a test measures there (20,000 random rows of 64 dimensions, k = 10, no margin: 0.998)
        is the loss to bfloat16 alone.
      recall_target: for approximate.
      query_block: queries on the devices at once.
      gallery_block: gallery rows that one device multiplies at once.
      group: rows of which only the maximum is kept; must divide gallery_block.
      margin: groups, and rows from them, taken beyond k; a larger margin certifies more queries.
      devices: devices to use; all of this process by default.

    Raises:
      InputError: the number of ids differs from the number of rows, or a setting is out of range.

    Source: grouped maxima follow Chern et al., "TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", arXiv 2206.14286;
      the certificate is the triangle inequality.
    """

    def __repr__(self) -> str:
        return f"accelerator.Index({brief.size(self.exact.gallery)})"

    def __init__(
        self,
        gallery: np.ndarray | Embeddings,
        ids: Sequence[str] | None = None,
        *,
        dtype: str = "bfloat16",
        rescore: str = "float64",
        approximate: bool = False,
        recall_target: float = 0.95,
        query_block: int = 2048,
        gallery_block: int = 8192,
        group: int = 8,
        margin: int = 64,
        devices: Sequence[jax.Device] | None = None,
    ):
        where = "index accelerator"
        arguments.choice(dtype, "dtype", where, ("bfloat16", "float32"))
        arguments.choice(rescore, "rescore", where, ("float32", "float64"))
        arguments.flag(approximate, "approximate", where)
        recall_target = arguments.number(recall_target, "recall_target", where, low=0, high=1, below=True)
        if recall_target == 0:
            raise InputError(f"{where}: recall_target=0, expected a share above 0 and below 1")
        for name, value in (("query_block", query_block), ("gallery_block", gallery_block), ("group", group)):
            arguments.integer(value, name, where)
        margin = arguments.integer(margin, "margin", where, low=0)
        if gallery_block % group:
            raise InputError(f"{where}: group={group} must divide gallery_block={gallery_block}")
        self.exact = exact.Index(gallery, ids)
        self.dtype, self.final, self.margin, self.query_block = dtype, rescore, margin, query_block
        self.group, self.approximate, self.recall_target = group, approximate, recall_target
        devices = np.array(jax.local_devices() if devices is None else devices)
        self.mesh = jax.sharding.Mesh(devices, ("gallery",), axis_types=(AxisType.Auto,))
        # All devices hold the same number of rows, in whole blocks; a small gallery uses smaller blocks.
        rows = -(-len(self.exact.gallery) // len(devices))
        self.block = min(gallery_block, max(1, -(-rows // group)) * group)
        self.rows = max(1, -(-rows // self.block)) * self.block
        self.wide = self.narrow = None
        self.looks = {"queries": 0, "second": 0, "host": 0}  # queries so far, and how many needed further passes

    def search(self, queries: np.ndarray | Embeddings, k: int = 10) -> Ranking:
        """Returns the k gallery rows of highest cosine for every query, best first.

        Args:
          queries: [Q, D] array or Embeddings; with Embeddings, the gallery row with the query's own id is left out.
          k: results per query; the ranking is padded if the gallery has fewer.

        Returns:
          Ranking with item_rows [Q, k] and scores [Q, k] (cosines); ties go by id.

        Raises:
          InputError: a dimension that differs from the gallery's, k below 1, or a non-finite vector.
        """
        ids, vectors, k = self.exact.check(queries, k)
        own = self.exact.own_rows(ids)
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        if not len(self.exact.gallery) or not len(vectors):
            return self.exact.ranking(ids, rows, scores, vectors)
        self._put_gallery()
        starts = range(0, len(vectors), self.query_block)
        for start in tqdm.tqdm(starts, desc="search", unit="block", mininterval=1, disable=len(starts) < 4):
            stop = min(start + self.query_block, len(vectors))
            block, lengths, mine = exact.query_block(vectors, ids, own, start, stop)
            rows[start:stop], scores[start:stop] = self._search_block(block, lengths, mine, k)
        return self.exact.ranking(ids, rows, scores, vectors)

    def _search_block(self, block, lengths, own, k: int) -> tuple[np.ndarray, np.ndarray]:
        everyone = np.arange(len(block))
        rows, scores, certain = self._look(block, lengths, own, everyone, k, self.dtype)
        self.looks["queries"] += len(block)
        if self.approximate:
            return rows, scores
        if self.dtype != "float32" and not certain.all():
            some = np.flatnonzero(~certain)
            self.looks["second"] += len(some)
            rows[some], scores[some], certain[some] = self._look(block, lengths, own, some, k, "float32")
        if not certain.all():
            some = np.flatnonzero(~certain)
            self.looks["host"] += len(some)
            width = min(k, len(self.exact.gallery))
            # k rows reach the k-th score that was found, unless float32 overestimated it.
            last = scores[some, width - 1].astype(np.float64) - (self.exact.error if self.final == "float32" else 0)
            with ThreadPoolExecutor(self.exact.threads) as pool:
                found = self.exact.search_again(block, lengths, own, some, last, width, pool)
            rows[some, :width], scores[some, :width] = found
        return rows, scores

    def _look(self, block, lengths, own, some, k: int, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Runs one pass for the queries `some`; returns rows [s, k], scores [s, k], and which are certified [s]."""
        # Few distinct sizes, so that few programs are compiled.
        size = min(size for size in (-(-self.query_block // part) for part in (1, 8, 64)) if size >= len(some))
        padded = np.zeros((size, block.shape[1]), np.float32)
        padded[: len(some)] = exact.unit(block[some], lengths[some])
        renumber = np.full(len(block), -1)
        renumber[some] = np.arange(len(some))
        mine = own[renumber[own[:, 0]] >= 0]
        many = np.bincount(renumber[mine[:, 0]], minlength=size)
        own_row = np.full((size, 1 << int(max(0, many.max(initial=0) - 1)).bit_length()), -1, np.int32)
        slot = np.arange(len(mine)) - np.repeat(np.cumsum(many) - many, many)
        own_row[renumber[mine[:, 0]], slot] = mine[:, 1]
        keep = k + self.margin
        look = _program(self.mesh, keep, self.group, self.recall_target if self.approximate else None)
        total = np.int32(len(self.exact.gallery))
        found = look(padded, own_row, total, self.narrow if dtype == "bfloat16" else None, self.wide)
        found, value, outside = (np.asarray(array)[: len(some)] for array in found)
        query, place = np.nonzero(value > -np.inf)
        row = found[query, place].astype(np.int64)
        if self.final == "float64":
            score, error = self.exact.rescore(block[some], lengths[some], query, row), 0.0
        else:
            score, error = value[query, place], self.exact.error
        rows, scores = exact.best_first(query, row, score, self.exact.place, len(some), k)
        # Strictly less: a row outside with an equal score may have a smaller id.
        certain = (outside + self._slack(padded[: len(some)], dtype) < scores[:, -1] - error) | np.isneginf(outside)
        return rows, scores, certain

    def _slack(self, units: np.ndarray, dtype: str) -> np.ndarray:
        """Returns the bound of a pass's error in the cosine, [n]: rounding, plus quantisation for bfloat16."""
        if dtype == "float32":
            return np.full(len(units), self.exact.error)
        narrow = np.asarray(units.astype(jnp.bfloat16), np.float32)
        # Matrix units may truncate sums instead of rounding them: allow twice float32's error.
        length = np.linalg.norm(narrow, axis=1).astype(np.float64)
        return length * self.residual + np.linalg.norm(units - narrow, axis=1) * (1 + 1e-6) + 2 * self.exact.error

    def _put_gallery(self) -> None:
        """Reads the gallery block by block onto the devices: [devices, blocks, rows per block, D]."""
        if self.wide is not None:
            return
        gallery, dim, count = self.exact.gallery, self.exact.gallery.shape[1], len(self.mesh.devices)
        residual, wide, narrow = [0.0], [], []
        shape = (self.rows // self.block, self.block, dim)
        for number, device in enumerate(self.mesh.devices):
            wide.append(jnp.zeros((1, *shape), jnp.float32, device=device))
            if self.dtype == "bfloat16":
                narrow.append(jnp.zeros((1, *shape), jnp.bfloat16, device=device))
            for block in range(shape[0]):
                first = number * self.rows + block * self.block
                read = np.asarray(gallery[first : min(first + self.block, len(gallery))], np.float32)
                lengths = exact.lengths_of(read, self.exact.ids, "gallery", first)
                self.exact.lengths[first : first + len(read)] = lengths
                units = np.zeros((self.block, dim), np.float32)
                units[: len(read)] = exact.unit(read, lengths)
                part = jax.device_put(units, device)
                wide[-1] = _fill(wide[-1], part, block)
                if self.dtype == "bfloat16":
                    rest = units - np.asarray(units.astype(jnp.bfloat16), np.float32)
                    residual.append(float(np.sqrt(np.einsum("nd,nd->n", rest, rest).max())))
                    narrow[-1] = _fill(narrow[-1], part, block)
        sharding = NamedSharding(self.mesh, PartitionSpec("gallery"))
        join = functools.partial(jax.make_array_from_single_device_arrays, (count, *shape), sharding)
        self.wide, self.narrow = join(wide), join(narrow) if narrow else None
        self.residual = max(residual) * (1 + 1e-6)


@functools.partial(jax.jit, donate_argnums=0)
def _fill(array, part, block):
    """Writes one block, [rows, D], into a device's shard of the gallery, [1, blocks, rows, D]."""
    return array.at[0, block].set(part.astype(array.dtype))


@functools.lru_cache(maxsize=32)
def _program(mesh, keep: int, group: int, target: float | None):
    """Returns one pass, compiled: (queries, own rows, total, narrow or None, wide) -> rows, scores, ceiling."""

    def on_device(queries, own, total, narrow, wide):
        blocks, wide = (wide if narrow is None else narrow)[0], wide[0].reshape(-1, wide.shape[-1])
        first = jax.lax.axis_index("gallery") * len(wide)
        if target is not None:
            found = _approximate(queries, own, total, first, blocks, keep, target)
        else:
            found = _search(queries, own, total, first, blocks, wide, keep, group)
        return tuple(array[None] for array in found)

    every, split = PartitionSpec(), PartitionSpec("gallery")
    on_devices = jax.shard_map(
        on_device, mesh=mesh, in_specs=(every, every, every, split, split), out_specs=split, check_vma=False
    )

    @jax.jit
    def program(queries, own, total, narrow, wide):
        row, value, outside = on_devices(queries, own, total, narrow, wide)  # [devices, q, ...]
        row, value = (jnp.moveaxis(array, 0, 1).reshape(len(queries), -1) for array in (row, value))
        if value.shape[1] <= keep:
            return row, value, outside.max(0)
        value, chosen = jax.lax.top_k(value, keep + 1)
        row = jnp.take_along_axis(row, chosen, 1)
        return row[:, :keep], value[:, :keep], jnp.maximum(outside.max(0), value[:, keep])

    return program


def _scores(queries, block):
    """Returns float32 dot products [q, rows]; float32 inputs are multiplied in full precision."""
    return jax.lax.dot_general(
        queries.astype(block.dtype), block, (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32,
    )  # fmt: skip


def _top_by_groups(values, count: int, group: int):
    """Returns values and columns of the `count` largest per row, best first, by way of group maxima.

    The largest values lie in the groups with the largest maxima, so sorting the maxima and then the members of the best
    groups sorts far less.
    """
    width = values.shape[1]
    if width <= 4 * group * count:
        return jax.lax.top_k(values, min(count, width))
    padded = jnp.pad(values, ((0, 0), (0, -width % group)), constant_values=-jnp.inf)
    # A group is every n-th column, so that group maxima are elementwise maxima of contiguous vectors.
    stride = padded.shape[1] // group
    _, chosen = jax.lax.top_k(padded.reshape(len(values), group, stride).max(1), count)
    columns = (chosen[:, :, None] + stride * jnp.arange(group)).reshape(len(values), -1)
    value, place = jax.lax.top_k(jnp.take_along_axis(padded, columns, 1), count)
    return value, jnp.take_along_axis(columns, place, 1)


def _search(queries, own, total, first, blocks, wide, keep: int, group: int):
    """Runs one device's pass: rows [q, <= keep], float32 scores, and an upper bound of all other rows' scores [q]."""
    number, size, _ = blocks.shape
    stride = size // group

    def maxima(start, block):
        scores = _scores(queries, block)
        scores = jnp.where(first + start + jnp.arange(size) < total, scores, -jnp.inf)
        return scores.reshape(len(queries), group, stride).max(1)

    found = jax.lax.map(lambda part: maxima(*part), (size * jnp.arange(number), blocks))  # [blocks, q, groups]
    found = jnp.moveaxis(found, 0, 1).reshape(len(queries), -1)
    value, chosen = _top_by_groups(found, min(keep + 1, found.shape[1]), 16)
    outside = value[:, keep] if value.shape[1] > keep else jnp.full(len(queries), -jnp.inf)
    chosen = chosen[:, :keep]
    row = (size * (chosen // stride) + chosen % stride)[:, :, None] + stride * jnp.arange(group)
    row = row.reshape(len(queries), -1)

    def rescore(query, own, row):
        # A sum of products, not a matrix product: float32 everywhere, and the gather need not be materialised.
        score = (query * wide[row]).sum(-1)
        left_out = ((first + row)[:, None] == own).any(1) | (first + row >= total)
        return jnp.where(left_out, -jnp.inf, score)

    batch = max(1, GATHERED // (row.shape[1] * queries.shape[1]))
    score = jax.lax.map(lambda part: rescore(*part), (queries, own, row), batch_size=min(batch, len(queries)))
    value, place = jax.lax.top_k(score, min(keep + 1, score.shape[1]))
    if value.shape[1] > keep:
        # These scores are exact up to rounding, which is below any slack that the caller adds.
        outside = jnp.maximum(outside, value[:, keep])
    row = first + jnp.take_along_axis(row, place, 1)
    return row[:, :keep], value[:, :keep], outside


def _approximate(queries, own, total, first, blocks, keep: int, target: float):
    """Runs one device's approximate pass: rows, unrefined scores, and no upper bound."""
    number, size, _ = blocks.shape

    def add(best, part):
        start, block = part
        row = first + start + jnp.arange(size)
        scores = jnp.where(row < total, _scores(queries, block), -jnp.inf)
        left_out = own - first - start  # columns of own rows; outside [0, size) if they are in other blocks
        left_out = jnp.where((own >= 0) & (left_out >= 0), left_out, size)
        scores = scores.at[jnp.arange(len(queries))[:, None], left_out].set(-jnp.inf, mode="drop")
        value, column = jax.lax.approx_max_k(
            scores, min(keep, size), recall_target=target, reduction_input_size_override=number * size
        )
        value = jnp.concatenate([best[0], value], 1)
        row = jnp.concatenate([best[1], row[column]], 1)
        value, place = jax.lax.top_k(value, keep)
        return (value, jnp.take_along_axis(row, place, 1)), None

    empty = (jnp.full((len(queries), keep), -jnp.inf), jnp.full((len(queries), keep), -1, jnp.int32))
    (value, row), _ = jax.lax.scan(add, empty, (size * jnp.arange(number), blocks))
    return row, value, jnp.full(len(queries), -jnp.inf)
