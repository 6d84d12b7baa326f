"""Operations on an attribute index on disk, their expected result, and writers that are killed at random moments.

python tests/attribute_writes.py --kills=1000        # about ten minutes on two cores
"""

import argparse
import pathlib
import sys
import tempfile

if __name__ == "__main__":
    sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[number]) for number in (0, 1)]

import numpy as np

import killed_writers

DIM = 8
COLOURS = ("red", "green", "blue")


def listings(names, seed):
    """Returns vectors, colours and prices of listings, and new values now and then."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(len(names), DIM)).astype(np.float32)
    colours = [[*rng.choice(COLOURS, rng.integers(0, 3), replace=False).tolist()] for _ in names]
    if seed[-1] % 5 == 0 and colours:
        colours[0].append(f"new{seed[-1]}")
    return vectors, colours, rng.integers(0, 9, len(names)).astype(np.float32)


def operation(number):
    """Returns operation `number`: ("update", ids, vectors, colours, prices), ("delete", ids) or ("compact",)."""
    rng = np.random.default_rng([9, number])
    kind = rng.choice(["update", "delete", "compact"], p=[0.65, 0.28, 0.07])
    ids = [f"é{item}" for item in np.unique(rng.integers(0, 200, rng.integers(1, 30)))]
    if kind == "update":
        return kind, ids, *listings(ids, [9, number])
    return (kind, ids) if kind == "delete" else (kind,)


def apply(store, number, first=0):
    """Applies operation `number` to an index; all of them can be repeated, so the first of a writer is like others."""
    del first
    from retrieval_jax.index.attribute import Field

    kind, *arguments = operation(number)
    if kind == "update":
        ids, vectors, colours, prices = arguments
        store.update(ids, vectors, {"colour": Field.of(colours), "price": prices})
    else:
        getattr(store, kind)(*arguments)


def play(state, number):
    """Applies operation `number` to a dict of id -> (vector, colours, price)."""
    kind, *arguments = operation(number)
    if kind == "update":
        for name, *one in zip(*arguments, strict=True):
            state[name] = (tuple(one[0].tolist()), tuple(sorted(one[1])), float(one[2]))
    elif kind == "delete":
        for name in arguments[0]:
            state.pop(name, None)


def start(folder):
    """Creates the empty index that operations begin with."""
    from retrieval_jax.index import attribute

    empty = {"colour": attribute.Field(COLOURS, [0], []), "price": np.zeros(0, np.float32)}
    attribute.create(folder, np.zeros((0, DIM), np.float32), empty).close()


def contents(store):
    """Returns id -> (vector, colours, price) of every live listing, from what rows have and from the postings."""
    table, out = store.table, {}
    rows = np.array(list(table.alive), np.int64)
    for row, values, _ in table.values_of(rows):
        name = store.name(row)
        assert name not in out
        for value in values.tolist():
            assert row in table.posting(value)
        price = float(table.columns[0].array[row, 0])
        colours = tuple(sorted(table.names[value] for value in values.tolist()))
        out[name] = (tuple(store._vectors[row].tolist()), colours, price)
    listed = sum(len(table.posting(value) & table.alive) for value in range(len(table.names)))
    assert listed == sum(len(colours) for _, colours, _ in out.values())
    assert len(out) == len(store)
    return out


def kill_writers(folder, times, seed):
    """Kills writers at random moments; returns the number of acknowledged writes."""
    from retrieval_jax.index import attribute

    def check(state, number, write):
        with attribute.open(folder, write=write) as store:
            have = contents(store)
            store.verify()
        following = dict(state)
        play(following, number)
        # Ids of the write in progress are there or not, whole; all others are as acknowledged.
        for name in have.keys() | state.keys() | following.keys():
            assert have.get(name) in (state.get(name), following.get(name)), name

    start(folder)
    return killed_writers.kill([sys.executable, __file__, "--nursery"], folder, times, seed, play, check)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nursery", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.nursery:
        from retrieval_jax.index import attribute

        killed_writers.nursery(attribute.open, apply)
        return
    with tempfile.TemporaryDirectory() as folder:
        acknowledged = kill_writers(pathlib.Path(folder) / "index", given.kills, given.seed)
    print(f"{given.kills:,} kills, {acknowledged:,} acknowledged writes, none lost")


if __name__ == "__main__":
    main()
