"""Operations on a binary index, their expected result, and the writer that tests/index/test_binary_store.py kills."""

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


def apply(store, number, first):
    """Applies operation `number` to an index; `first` is the first of a writer."""
    kind, *arguments = operation(number)
    # An interrupted addition may be partly in; unlike `add`, `update` can be repeated.
    getattr(store, "update" if kind == "add" and number == first else kind)(*arguments)


if __name__ == "__main__":
    import killed_writers
    from retrieval_jax.index import binary

    killed_writers.nursery(binary.open, apply)
