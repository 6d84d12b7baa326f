"""Learned sign codes: a projection trained so that codes keep the neighbours that the vectors have.

Every step takes some rows as anchors and some as their company, and lowers the cross-entropy between two
distributions over the company: the softmax of the cosines, and the softmax of the similarity of the codes. The sign
lets the gradient through unchanged where its input is small (straight-through), and a quantisation loss keeps the
inputs near +1 and -1. It starts from a fitted rotation.
"""

from __future__ import annotations

import numpy as np

STEPS = 400  # of Adam
ANCHORS = 256
COMPANY = 1024  # rows that anchors are compared with in a step
RATE = 0.2  # Adam's step, relative to the mean size of the projection's entries
COSINES = 0.03  # temperature of the cosines: about the spread of a row's nearest neighbours
CODES = 12.0  # what the similarity of codes, -1 to 1, is multiplied with before its softmax
QUANTISATION = 0.1  # weight of the quantisation loss
PASSES = 1.5  # largest input of a sign that passes the gradient on


def fit_projection(unit: np.ndarray, mean: np.ndarray, start: np.ndarray, seed: int) -> np.ndarray:
    """Trains the projection of sign codes.

    Args:
      unit: [n, D] float64, vectors of length 1.
      mean: [D], subtracted before the projection.
      start: [D, bits] projection to start from, such as that of iterative quantisation.
      seed: seed of the order of the rows.

    Returns:
      [D, bits] float64.

    Source: straight-through estimator: Bengio, Leonard and Courville, arXiv 1308.3432; quantisation loss: Zhu, Long,
      Wang and Cao, "Deep Hashing Network for Efficient Similarity Retrieval", AAAI 2016; distributions over
      neighbours: Hinton and Roweis, "Stochastic Neighbor Embedding", NIPS 2002.
    """
    rng, rows = np.random.default_rng(seed), np.asarray(unit, np.float32)
    centred = (unit - mean).astype(np.float32)
    weight = (start / max(np.abs(centred[:4096] @ start.astype(np.float32)).mean(), 1e-12)).astype(np.float32)
    rate = RATE * float(np.abs(weight).mean())
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    anchors, company = min(ANCHORS, len(rows)), min(COMPANY, len(rows))
    for step in range(STEPS if len(rows) > 1 else 0):  # one row has no neighbours
        some = rng.permutation(len(rows))[:company]  # the first of them are the anchors
        there = centred[some]
        gradient = there.T @ slope(there @ weight, rows[some[:anchors]] @ rows[some].T / np.float32(COSINES))
        first += 0.1 * (gradient - first)
        second += 0.01 * (gradient**2 - second)
        corrected = np.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-12
        decay = 0.5 * (1 + np.cos(np.pi * step / STEPS))
        weight -= np.float32(rate * decay / (1 - 0.9 ** (step + 1))) * (first / corrected)
    return weight.astype(np.float64)


def slope(value: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns the gradient of the loss with respect to the inputs of the signs, [m, bits].

    Args:
      value: [m, bits] float32, inputs of the signs; the first n rows are the anchors.
      wanted: [n, m] float32, the anchors' cosines divided by their temperature; overwritten.
    """
    (count, bits), anchors = value.shape, len(wanted)
    sign = np.where(value > 0, np.float32(1), np.float32(-1))
    error = _softmax(sign[:anchors] @ sign.T * np.float32(CODES / bits)) - _softmax(wanted)
    error *= np.float32(CODES / (bits * anchors))
    out = error.T @ sign[:anchors]
    out[:anchors] += error @ sign
    out *= np.abs(value) <= PASSES
    return out + np.float32(2 * QUANTISATION / (count * bits)) * (value - sign)


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over columns [n, m], leaving out each row's own column (row i, column i)."""
    own = np.arange(len(logits))
    logits[own, own] = -np.inf
    out = np.exp(logits - logits.max(1, keepdims=True))
    return out / out.sum(1, keepdims=True)
