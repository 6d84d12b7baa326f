"""Operations on a binary index, their expected result, and the writer that tests/index/test_binary_store.py kills."""

import os
import sys

import numpy as np

DIM = 16


def operation(number):
    """Returns operation `number`: ("add" | "update", ids, vectors), ("delete", ids) or ("compact",)."""
    rng = np.random.default_rng([7, number])
    kind = rng.choice(["add", "update", "delete", "compact"], p=[0.3, 0.4, 0.25, 0.05])
    ids = [f"é{item}" for item in np.unique(rng.integers(0, 300, rng.integers(1, 40)))]
    if kind == "add":
        ids = [f"new{number}-{item}" for item in ids]
    if kind == "delete":
        ids += [f"new{earlier}-é{item}" for earlier in range(max(0, number - 40), number) for item in range(0, 300, 2)]
    if kind in ("add", "update"):
        return kind, ids, rng.normal(size=(len(ids), DIM)).astype(np.float32)
    return (kind, ids) if kind == "delete" else (kind,)


def play(state, number):
    """Applies operation `number` to a dict of id -> vector."""
    kind, *arguments = operation(number)
    if kind in ("add", "update"):
        state.update(zip(arguments[0], arguments[1], strict=True))
    elif kind == "delete":
        for item in arguments[0]:
            state.pop(item, None)


def write_forever(folder, first):
    """Opens the index and applies operations from `first` on; prints the number of each once it has returned."""
    from retrieval_jax.index import binary

    with binary.open(folder, write=True) as store:
        os.write(1, b"open\n")
        number = first
        while True:
            kind, *arguments = operation(number)
            # An interrupted addition may be partly in; unlike `add`, `update` can be repeated.
            getattr(store, "update" if kind == "add" and number == first else kind)(*arguments)
            os.write(1, f"{number}\n".encode())
            number += 1


def nursery():
    """Forks a writer for every line "folder first" on stdin, faster than starting Python; prints its pid."""
    import warnings

    import retrieval_jax.index.binary  # noqa: F401  so that the children need not

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        folder, first = line.rstrip("\n").rsplit(" ", 1)
        pid = os.fork()
        if pid == 0:
            write_forever(folder, int(first))
        os.write(1, f"pid {pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    nursery()
