"""Chooses the weights of a fusion on judged queries: no member is given a weight that it has not earned.

The judged queries are those of the selection half; the report half is not looked at. The first member is the one to
beat (lexical search, where it takes part). Each further member joins with the weight from `GRID` that has the best mean
nDCG@10, smoothed over neighbouring weights, but only if that beats the weight 0 by more than one standard error of the
paired differences; otherwise it gets 0. So a fusion is not expected to be worse than its first member alone.

A member with the weight 0 still fills the places after everything that the others found (`FILL`): a query none of whose
words is in a title gets the results of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

GRID = tuple(step / 20 for step in range(20))  # of the member that joins; 0 first
FILL = 1e-9  # less than any difference between two ranks
LEAST = 20  # judged queries; fewer show nothing
METRIC, DEPTH = "ndcg@10", 10


def choose(
    rank: Callable[[np.ndarray, np.ndarray, int], Ranking], names: Sequence[str], first: int, judged: Truth | None
) -> tuple[list[float], list[dict], str]:
    """Chooses one weight per member.

    Args:
      rank: (weights [members], chosen bool [Q], depth) -> the fused ranking; only the chosen queries need results.
      names: of the members.
      first: number of the member to beat.
      judged: relevant rows of the queries of the selection half; None where nothing is known.

    Returns:
      The weights; what was tried, [{"member", "weights", "scores", "gain", "error", "chosen"}]; and why, in words.
    """
    order = [first, *(number for number in range(len(names)) if number != first)]
    weights = np.zeros(len(names))
    weights[first] = 1.0
    known = 0 if judged is None else int((judged.num_relevant > 0).sum())
    if judged is None or known < LEAST:
        why = f"{known} judged queries in the selection half, fewer than {LEAST}" if known else "no judged queries"
        why = f"{why}: {names[first]} alone, and the others fill up what it does not find"
        return np.maximum(weights, FILL).tolist(), [], why
    chosen, tried = judged.num_relevant > 0, []
    for number in order[1:]:
        each = []
        for weight in GRID:
            mixed = weights * (1 - weight)
            mixed[number] = weight
            scores = metrics.per_query(rank(np.maximum(mixed, FILL), chosen, DEPTH), judged, (), (METRIC,))[METRIC]
            each.append(scores[chosen])
        table = np.stack(each)
        padded = np.pad(table, ((1, 1), (0, 0)), mode="edge")
        smoothed = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        smoothed[0] = table[0]  # alone is alone
        best = int(smoothed.mean(1).argmax())
        gains = table[best] - table[0]
        gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
        taken = GRID[best] if gain > error else 0.0
        weights *= 1 - taken
        weights[number] = taken
        tried.append(
            {
                "member": names[number],
                "weights": list(GRID),
                "scores": [round(float(score), 4) for score in table.mean(1)],
                "gain": round(gain, 4),
                "error": round(error, 4),
                "chosen": taken,
            }
        )
    shares = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights.tolist(), strict=True))
    reasons = [
        f"{one['member']} changes {METRIC} by {100 * one['gain']:+.1f} points at its best weight (standard error "
        f"{100 * one['error']:.1f}), {'and gets it' if one['chosen'] else 'so it gets none'}"
        for one in tried
    ]
    why = "; ".join([f"weights {shares}, chosen on {known:,} judged queries of the selection half", *reasons])
    return np.maximum(weights, FILL).tolist(), tried, why
