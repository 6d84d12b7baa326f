"""In which order a run reads the rows of its split: every row in turn, balanced, in groups of P x K, or mixed.

A config names one, with its arguments:

    config.train.sampling = "balanced"
    config.train.sampling_kwargs = {"by": "category", "power": 0.5}

Each is a plain function of the position in the stream, step * batch_size + place, and of the seed: nothing is counted
along the way, so a run goes on at any step, on any number of threads, processes and devices, with the rows that it
would have read.
"""

import inspect
import sys

import grain
import numpy as np

from retrieval_jax.errors import InputError


def rows(name, kwargs, columns, num_rows, seed, batch_size):
    """Returns the stream of rows, endless, by position.

    Args:
      name: "shuffle", "balanced", "p_by_k" or "mixed".
      kwargs: its keyword arguments, see the functions below.
      columns: what a batch holds, see `pipeline.train_batches`; `by` names one of them.
      num_rows: of the split.
      seed: of all random choices.
      batch_size: rows of a global batch.

    Returns:
      A seeded `grain.MapDataset` of ints.

    Raises:
      InputError: an unknown name or argument, a column that is not there or does not fit, a value out of range.
    """
    if name not in _SAMPLINGS:
        raise InputError(f"config.train.sampling is {name!r}; there are: {', '.join(_SAMPLINGS)}")
    make, kwargs = _SAMPLINGS[name], dict(kwargs)
    known = list(inspect.signature(make).parameters)[4:]
    for key in kwargs:
        if key not in known:
            raise InputError(f"sampling {name!r} has no argument {key!r}; it takes: {', '.join(known) or 'none'}")
    return make(columns, num_rows, seed, batch_size, **kwargs)


def shuffle(columns, num_rows, seed, batch_size):
    """Reads every row exactly once an epoch, in another order each epoch."""
    del columns, batch_size
    return grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat()


def balanced(columns, num_rows, seed, batch_size, by="category", power=0.5):
    """Reads rare groups more often: an epoch has as many rows as the split, a group of n a share like n ** power.

    Args:
      by: a column of ints, a group each (those below 0, such as "unknown", are one too), or "label_ids", of which a
        row has several: its weight n ** (power - 1) is that of its rarest label; without any, of the commonest.
      power: 1 leaves the groups as they are, 0.5 takes the square root of their sizes, 0 makes all equally frequent.

    How often a row comes in an epoch is its share of the weights, rounded up or down at random (systematic sampling).

    Source: square roots: Mahajan et al. 2018, "Exploring the limits of weakly supervised pretraining" (arXiv
    1805.00932), section 2.2; the rarest label: Gupta et al. 2019, "LVIS" (arXiv 1908.03195), repeat factor sampling;
    systematic sampling: Madow 1949, "On the theory of systematic sampling, II".
    """
    del batch_size
    _power("balanced", power)
    if by == "label_ids" and columns.get(by) is not None:
        indptr, ids = (np.asarray(part) for part in columns[by])
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
    """Fills every batch with groups: K rows of one group next to each other, P = batch_size / K groups.

    For losses that compare the rows of a batch. Within a batch no group comes twice, unless its share is larger than
    one in P, and no row twice, unless its group has fewer rows than places. An epoch does not hold every row.

    Args:
      by: a column of ints, a group each; rows below 0 belong to none and are not read.
      rows_each: K; `batch_size` has to be a multiple of it.
      power: how often a group of n comes: like n ** power; 0 for all alike, 1 for every row alike.

    Source: Hermans et al. 2017, "In defense of the triplet loss for person re-identification" (arXiv 1703.07737),
    section 2.
    """
    _power("p_by_k", power)
    if not isinstance(rows_each, int) or rows_each < 1 or batch_size % rows_each:
        raise InputError(
            f"sampling 'p_by_k': rows_each is {rows_each!r}, of which the batch size {batch_size} has to be a multiple"
        )
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
    """Mixes the rows of several catalogues in fixed shares, each in its own order and with its own epochs.

    Args:
      weights: one a group, in the order of the numbers in the column; shares of the stream, once they are divided
        by their sum. A group of weight 0 is not read.
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
            # a seed of its own: two catalogues of equal length would else be shuffled alike
            own = int(np.random.SeedSequence((seed, group)).generate_state(1)[0] >> 1)
            stream = grain.MapDataset.range(len(members)).seed(own).shuffle().repeat()
            streams.append(stream.map(lambda at, members=members: int(members[at])))
            shares.append(weight)
    return grain.MapDataset.mix(streams, shares).seed(seed)


_SAMPLINGS = {f.__name__: f for f in (shuffle, balanced, p_by_k, mixed)}


class _Table:
    """Rows by position, out of blocks of equal length that are made when they are asked for; the last few are kept."""

    def __init__(self, block, length):
        self.block, self.length, self.kept = block, length, {}
        # Every thread is in a batch of its own, which is a block of p_by_k; an epoch, a block of balanced, is large.
        self.most = max(2, min(64, 2**22 // length))

    def __call__(self, position):
        number, at = divmod(int(position), self.length)
        rows = self.kept.get(number)
        if rows is None:
            rows = self.kept[number] = self.block(number)  # by several threads at once, at worst, with the same result
            for oldest in list(self.kept)[: -self.most]:
                self.kept.pop(oldest, None)
        return int(rows[at])


def _stream(block, length, seed):
    return grain.MapDataset.range(sys.maxsize).map(_Table(block, length)).seed(seed)


def _several(rng, size, count):
    """Chooses `count` of so many, none twice before all have come once."""
    if size >= count:
        return rng.choice(size, count, replace=False)
    return np.concatenate([rng.permutation(size) for _ in range(-(-count // size))])[:count]


def _column(sampling, columns, by):
    column = None if by in ("image", "label_ids") else columns.get(by)
    if column is None:
        there = [name for name, one in columns.items() if one is not None and name not in ("image", "label_ids")]
        raise InputError(
            f"sampling {sampling!r}: there is no column {by!r} of ints; there are: {', '.join(there) or 'none'}"
        )
    column = np.asarray(column)
    if column.ndim != 1 or column.dtype.kind not in "iu":
        raise InputError(
            f"sampling {sampling!r}: the column {by!r} is {column.dtype} {list(column.shape)}, not one int a row"
        )
    return column


def _power(sampling, power):
    if not isinstance(power, int | float) or not 0 <= power <= 1:
        raise InputError(f"sampling {sampling!r}: power is a number from 0 to 1, not {power!r}")
