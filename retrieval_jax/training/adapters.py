"""Fits adapters: maps from an old model's vectors to a new one's, on listings that both have embedded.

A linear map by ridge regression in closed form; for a residual one, a perceptron then learns what the linear map
misses. A part of the listings is held out: it chooses the ridge, and when the perceptron stops. What cosines of adapted
vectors are scaled by is what lets neither half win in a gallery that is half adapted and half new: there, the nearest
listing is adapted half of the time, where every listing is mapped by a map that was fitted without it.
"""

from __future__ import annotations

import numpy as np

from retrieval_jax import arguments
from retrieval_jax.embeddings import adapters
from retrieval_jax.errors import InputError

RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)  # in units of the inputs' mean variance times listings
SCALES = tuple(step / 200 for step in range(160, 201))
LEAST = 20  # listings to fit on
_FOLDS, _MOST_HELD, _MOST_MIXED = 5, 1000, 5000


def fit(
    old: np.ndarray, new: np.ndarray, *, kind: str = "linear", hidden: int = 512, steps: int = 600, seed: int = 0
) -> tuple[dict[str, np.ndarray], float, float, dict]:
    """Fits an adapter.

    Args:
      old: [n, D] vectors of the old model.
      new: [n, new D] vectors of the new model, of the same listings.
      kind: "linear" or "residual".
      hidden: units of the residual map.
      steps: of its training, at most.
      seed: of what is held out, and of the perceptron.

    Returns:
      (weights, length, scale, facts) of `embeddings.adapters.Adapter`; facts: "fitted_on", "held_out", "ridge",
      "cosine" of held-out adapted vectors with the new ones, and "share", how often the nearest listing in a gallery of
      two halves is adapted.

    Raises:
      InputError: too few listings, or no such kind.
    """
    arguments.choice(kind, "kind", "an adapter", tuple(adapters.KINDS))
    old = arguments.array(old, "old", "an adapter", ("n", "D"))
    new = arguments.array(new, "new", "an adapter", (len(old), "E"))
    if len(old) < LEAST:
        raise InputError(f"an adapter is fitted on {len(old)} listings: give at least {LEAST}")
    length = float(np.linalg.norm(new, axis=1).mean())
    old, new = (adapters.unit(np.asarray(each, np.float32)) for each in (old, new))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(old))
    held = order[: min(_MOST_HELD, -(-len(old) // _FOLDS))]
    rows = order[len(held) :]
    part, whole = Ridge(old[rows], new[rows]), Ridge(old, new)
    cosines = [_cosine(part.predict(old[held], ridge), new[held]) for ridge in RIDGES]
    best = RIDGES[int(np.argmax(cosines))]
    chosen, whole = part.weights(best), whole.weights(best)
    if kind == "residual":
        added = perceptron(chosen, old, new, rows, held, hidden=hidden, steps=steps, seed=seed)
        chosen, whole = chosen | added, whole | added
    some = order[:_MOST_MIXED]
    shares = _shares(adapters.unit(_mapped_without(old[some], new[some], best)), new[some])
    at = int(np.argmin(np.abs(np.subtract(shares, 0.5))))
    facts = {
        "fitted_on": len(old),
        "held_out": len(held),
        "ridge": best,
        "cosine": round(_cosine(adapters.expected(chosen, old[held]), new[held]), 4),
        "share": round(shares[at], 4),
    }
    weights = {
        name: np.ascontiguousarray(value, np.float32) for name, value in (whole | {"aside": _aside(new, rng)}).items()
    }
    return weights, length, SCALES[at], facts


class Ridge:
    """The ridge regression of new unit vectors on old ones, for any ridge, from one decomposition.

    Args:
      old: [n, D].
      new: [n, E].
    """

    def __init__(self, old: np.ndarray, new: np.ndarray):
        self._centre, self._bias = old.mean(0, dtype=np.float64), new.mean(0, dtype=np.float64)
        inputs, targets = old - self._centre, new - self._bias
        if len(inputs) <= inputs.shape[1]:  # the smaller of the two problems
            values, vectors = np.linalg.eigh(inputs @ inputs.T)
            self._left, self._right = inputs.T @ vectors, vectors.T @ targets
        else:
            values, self._left = np.linalg.eigh(inputs.T @ inputs)
            self._right = self._left.T @ (inputs.T @ targets)
        self._values = np.maximum(values, 0.0)
        self._unit = max(float(values.sum()), 1e-12) / inputs.shape[1]

    def _scaled(self, ridge: float) -> np.ndarray:
        return self._right / (self._values + ridge * self._unit)[:, None]

    def predict(self, old: np.ndarray, ridge: float) -> np.ndarray:
        """Returns the expected new unit vectors [m, E].

        Args:
          old: [m, D].
          ridge: in units of the inputs' mean variance times n.
        """
        return ((old - self._centre) @ self._left) @ self._scaled(ridge) + self._bias

    def weights(self, ridge: float) -> dict[str, np.ndarray]:
        """Returns the arrays "centre", "kernel" and "bias" of `embeddings.adapters`.

        Args:
          ridge: see `predict`.
        """
        found = {"centre": self._centre, "kernel": self._left @ self._scaled(ridge), "bias": self._bias}
        return {name: value.astype(np.float32) for name, value in found.items()}


def perceptron(base, old, new, rows, held, *, hidden: int, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Trains what a residual map adds to a linear one, and returns its arrays where held-out cosines were best.

    Args:
      base: the linear map.
      old, new: [n, D], [n, E] unit vectors.
      rows: of those to learn from.
      held: rows that are held out.
      hidden: units.
      steps: of 256 listings each, at most.
      seed: of the first weights and of the batches.
    """
    import jax  # a linear map needs none of it
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng((seed, 1))
    width = old.shape[1]
    params = {
        "hidden_kernel": rng.normal(0, 2**0.5, (width, hidden)).astype(np.float32),
        "hidden_bias": np.zeros(hidden, np.float32),
        "out_kernel": np.zeros((hidden, new.shape[1]), np.float32),
    }
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps), weight_decay=1e-2)
    inputs, start = old - base["centre"], adapters.expected(base, old)

    def loss(params, inputs, start, targets):
        hidden = jax.nn.relu(inputs @ params["hidden_kernel"] + params["hidden_bias"])
        return ((start + hidden @ params["out_kernel"] - targets) ** 2).sum(axis=-1).mean()

    @jax.jit
    def update(params, state, inputs, start, targets):
        grads = jax.grad(loss)(params, inputs, start, targets)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state, best, found = optimizer.init(params), -np.inf, params
    params = jax.tree.map(jnp.asarray, params)
    for step in range(steps + 1):
        if step % 50 == 0:
            now = {name: np.asarray(value) for name, value in params.items()}
            if (score := _cosine(adapters.expected(base | now, old[held]), new[held])) > best:
                best, found = score, now
        at = rows[rng.integers(0, len(rows), 256)]
        params, state = update(params, state, inputs[at], start[at], new[at])
    return found


def _cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((adapters.unit(found) * wanted).sum(axis=1).mean())


def _aside(new: np.ndarray, rng) -> np.ndarray:
    """Returns a unit vector that is as orthogonal as can be to all vectors: by two steps of inverse iteration."""
    moment = new.T.astype(np.float64) @ new / len(new)
    moment[np.diag_indices(len(moment))] += 1e-3 * np.trace(moment) / len(moment)
    found = rng.normal(size=len(moment))
    for _ in range(2):
        found = np.linalg.solve(moment, found)
        found /= np.linalg.norm(found)
    return found.astype(np.float32)


def _mapped_without(old: np.ndarray, new: np.ndarray, ridge: float) -> np.ndarray:
    """Returns the expected new vector of every listing, [n, E], by a linear map that was fitted without it."""
    found, every = np.empty(new.shape, np.float32), np.arange(len(old))
    for held in np.array_split(every, _FOLDS):
        rows = np.setdiff1d(every, held)
        found[held] = Ridge(old[rows], new[rows]).predict(old[held], ridge)
    return found


def _shares(mapped: np.ndarray, new: np.ndarray) -> list[float]:
    """Returns, for each of SCALES, how often the nearest other listing is adapted where every second one is.

    The nearest one alone: what is searched has many more listings than what an adapter is fitted on, so that its first
    ten are as near as the nearest one here.

    Args:
      mapped: [n, E] unit vectors, adapted, in random order.
      new: [n, E] unit vectors, the true ones, which are the queries as well.
    """
    nearest = []
    for rows, gallery in ((slice(0, None, 2), mapped), (slice(1, None, 2), new)):
        scores = new @ gallery.T
        np.fill_diagonal(scores, -2.0)  # a listing does not find itself
        nearest.append(scores[:, rows].max(axis=1))
    return [float((scale * nearest[0] > nearest[1]).mean()) for scale in SCALES]
