"""The order in which a run reads its examples: shuffled, balanced, in groups of P x K, or mixed.

A config names one, with its arguments:

    config.train.sampling = "balanced"
    config.train.sampling_kwargs = {"by": "category", "power": 0.5}

Each is a plain function of the position in the stream, step * batch_size + place, and of the seed. There is no state,
so a run resumes at any step, on any number of threads, processes and devices, with the rows it would have read.
"""

import sys

import grain
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.data.examples import Pictures, Ragged, RaggedRows
from retrieval_jax.errors import InputError


def rows(name, kwargs, columns, num_rows, seed, batch_size):
    """Returns the stream of rows, endless, by position.

    Args:
      name: "shuffle", "balanced", "p_by_k" or "mixed".
      kwargs: its keyword arguments, see the functions below.
      columns: those of `examples.Examples`; `by` names one of them.
      num_rows: number of examples.
      seed: of all random choices.
      batch_size: rows of a global batch.

    Returns:
      A seeded `grain.MapDataset` of ints.

    Raises:
      InputError: an unknown name or argument, a missing or unsuitable column, or a value out of range.
    """
    kwargs, known = dict(kwargs), {one: pairs.arguments(make, skip=4) for one, make in _SAMPLINGS.items()}
    pairs.check(name, kwargs, known, "config.train.sampling", "sampling")
    return _SAMPLINGS[name](columns, num_rows, seed, batch_size, **kwargs)


def shuffle(columns, num_rows, seed, batch_size):
    """Reads every row exactly once per epoch, in another order each epoch."""
    del columns, batch_size
    return grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat()


def balanced(columns, num_rows, seed, batch_size, by="category", power=0.5):
    """Reads rare groups more often: a group of n rows gets a share of the epoch proportional to n ** power.

    Args:
      by: a column of ints that number the groups (those below 0, such as "unknown", are one group too), or a ragged
        column such as "label_ids": a row's weight n ** (power - 1) is then that of its rarest label, and that of the
        most frequent label for a row without any.
      power: 1 leaves the groups as they are, 0.5 takes the square root of their sizes, 0 makes all equally frequent.

    An epoch has as many rows as there are examples. How often a row occurs in it is its share of the weights, rounded
    up or down at random (systematic sampling).

    Source: square roots: Mahajan et al. 2018, "Exploring the limits of weakly supervised pretraining" (arXiv
    1805.00932), section 2.2; the rarest label: Gupta et al. 2019, "LVIS" (arXiv 1908.03195), repeat factor sampling;
    systematic sampling: Madow 1949, "On the theory of systematic sampling, II".
    """
    del batch_size
    _power("balanced", power)
    if isinstance(columns.get(by), Ragged):
        indptr, ids = columns[by].indptr, columns[by].values
        if ids.dtype.kind not in "iu" or (len(ids) and ids.min() < 0):
            raise InputError(f"sampling 'balanced': the column {by!r} has to hold ints from 0, not {ids.dtype} values")
        counts, lengths = np.bincount(ids), np.diff(indptr)
        if not len(ids):
            raise InputError("sampling 'balanced': no row has a label")
        weights = np.full(num_rows, float(counts.max()) ** (power - 1))
        there = np.flatnonzero(lengths)
        weights[there] = np.maximum.reduceat(counts[ids].astype(np.float64) ** (power - 1), indptr[:-1][there])
    else:
        groups, sizes = np.unique(_column("balanced", columns, by), return_inverse=True, return_counts=True)[1:]
        weights = sizes[groups] ** (power - 1.0)

    def epoch(number):
        rng = np.random.default_rng((seed, number))
        order = rng.permutation(num_rows)
        upto = np.cumsum(weights[order])
        points = (np.arange(num_rows) + rng.random()) * (upto[-1] / num_rows)
        chosen = order[np.minimum(np.searchsorted(upto, points, side="right"), num_rows - 1)]
        rng.shuffle(chosen)
        return chosen

    return _stream(epoch, num_rows, seed)


def p_by_k(columns, num_rows, seed, batch_size, by="category", rows_each=4, power=0.0):
    """Fills every batch with P = batch_size / K groups, the K rows of a group next to each other.

    For losses that compare the rows of a batch. A batch holds no group twice unless its share exceeds 1 / P, and no row
    twice unless its group is smaller than K. An epoch does not contain every row.

    Args:
      by: a column of ints that number the groups; rows below 0 belong to no group and are not read.
      rows_each: K; `batch_size` has to be a multiple of it.
      power: a group of n rows is drawn in proportion to n ** power; 0 draws all groups alike, 1 all rows alike.

    Source: Hermans et al. 2017, "In defense of the triplet loss for person re-identification" (arXiv 1703.07737),
    section 2.
    """
    _power("p_by_k", power)
    if not isinstance(rows_each, int) or rows_each < 1 or batch_size % rows_each:
        raise InputError(f"sampling 'p_by_k': the batch size {batch_size} is not a multiple of rows_each={rows_each!r}")
    column = _column("p_by_k", columns, by)
    known = np.flatnonzero(column >= 0)
    if not len(known):
        raise InputError(f"sampling 'p_by_k': no row has a {by!r}")
    members = known[np.argsort(column[known], kind="stable")]
    starts = np.unique(column[members], return_index=True)[1]
    sizes = np.diff(np.append(starts, len(members)))
    weights = sizes ** float(power)

    def batch(number):
        rng = np.random.default_rng((seed, number))
        order, num_groups = rng.permutation(len(sizes)), batch_size // rows_each
        upto = np.cumsum(weights[order])
        points = (np.arange(num_groups) + rng.random()) * (upto[-1] / num_groups)
        groups = order[np.minimum(np.searchsorted(upto, points, side="right"), len(sizes) - 1)]
        rng.shuffle(groups)
        several = {
            group: iter(members[starts[group] + _several(rng, sizes[group], rows_each * times)])
            for group, times in zip(*np.unique(groups, return_counts=True), strict=True)
        }
        return np.fromiter((next(several[group]) for group in groups for _ in range(rows_each)), np.int64, batch_size)

    return _stream(batch, batch_size, seed)


def mixed(columns, num_rows, seed, batch_size, weights, by="source"):
    """Mixes the rows of several catalogues in fixed shares; each keeps an order and epochs of its own.

    Args:
      weights: one per group, in the order of the numbers in the column; normalised to sum to 1. A group of weight 0 is
        not read.
      by: a column of ints from 0, such as the catalogue that a row is from.
    """
    del num_rows, batch_size
    column = _column("mixed", columns, by)
    weights = [float(weight) for weight in weights]
    if column.min() < 0 or column.max() >= len(weights):
        raise InputError(
            f"sampling 'mixed': there are {len(weights)} weights, and {by!r} goes from {column.min()} to "
            f"{column.max()}: give one for each, from 0 on"
        )
    if not all(0 <= weight < np.inf for weight in weights) or not sum(weights):
        raise InputError(f"sampling 'mixed': weights are 0 or more, and not all 0, not {weights}")
    streams, shares = [], []
    for group, weight in enumerate(weights):
        members = np.flatnonzero(column == group)
        if weight and not len(members):
            raise InputError(f"sampling 'mixed': no row has the {by!r} {group}, whose weight is {weight}")
        if weight:
            # A seed of its own: two catalogues of equal length would otherwise be shuffled alike.
            own = int(np.random.SeedSequence((seed, group)).generate_state(1)[0] >> 1)
            stream = grain.MapDataset.range(len(members)).seed(own).shuffle().repeat()
            streams.append(stream.map(lambda at, members=members: int(members[at])))
            shares.append(weight)
    return grain.MapDataset.mix(streams, shares).seed(seed)


_SAMPLINGS = {f.__name__: f for f in (shuffle, balanced, p_by_k, mixed)}


class _Table:
    """Rows by position, in blocks of equal length that are made on demand; the last few are kept."""

    def __init__(self, block, length):
        self.block, self.length, self.kept = block, length, {}
        # Every thread works on a batch of its own, a block of p_by_k; a block of balanced, an epoch, is large.
        self.most = max(2, min(64, 2**22 // length))

    def __call__(self, position):
        number, at = divmod(int(position), self.length)
        rows = self.kept.get(number)
        if rows is None:
            rows = self.kept[number] = self.block(number)  # at worst several threads make it at once, all alike
            for oldest in list(self.kept)[: -self.most]:
                self.kept.pop(oldest, None)
        return int(rows[at])


def _stream(block, length, seed):
    return grain.MapDataset.range(sys.maxsize).map(_Table(block, length)).seed(seed)


def _several(rng, size, count):
    """Chooses `count` of `size` rows; no row repeats before all have been chosen once."""
    if size >= count:
        return rng.choice(size, count, replace=False)
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def _column(sampling, columns, by):
    column = columns.get(by)
    if column is None or isinstance(column, Pictures | Ragged | RaggedRows):
        there = [name for name, one in columns.items() if not isinstance(one, Pictures | Ragged | RaggedRows)]
        raise InputError(f"sampling {sampling!r}: there is no column {by!r} of ints{pairs.near(by, there)}")
    column = np.asarray(column)
    if column.ndim != 1 or column.dtype.kind not in "iu":
        raise InputError(
            f"sampling {sampling!r}: the column {by!r} is {column.dtype} {list(column.shape)}; it has to be one int "
            "per row"
        )
    return column


def _power(sampling, power):
    if not isinstance(power, int | float) or not 0 <= power <= 1:
        raise InputError(f"sampling {sampling!r}: power is a number from 0 to 1, not {power!r}")
