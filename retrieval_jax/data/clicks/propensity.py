"""How likely a listing is looked at, by its place on the page: without it, clicks say where a listing was shown.

The position-based model: a click is a look, which depends on the place, times an attraction, which depends on query and
listing. Where the same listing was shown for the same query at several places, both can be told apart, by expectation
maximisation; elsewhere a power law, 1 / place, is assumed.

Sources: Craswell et al., "An Experimental Comparison of Click Position-Bias Models", WSDM 2008; EM without an
intervention: Wang et al., "Position Bias Estimation for Unbiased Learning to Rank in Personal Search", WSDM 2018; the
power law and clipped inverse propensities: Joachims et al., "Unbiased Learning-to-Rank with Biased Feedback", WSDM
2017.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.errors import InputError

LEAST = 0.1  # a look is never taken to be rarer, so that no click counts more than ten times
PLACES = 50  # places of their own; those below have the propensity of the last one
INFORMATIVE = 100  # clicks on pairs shown at several places that an estimate needs
ROUNDS, ENOUGH = 2_000, 1e-6


@dataclasses.dataclass(frozen=True)
class Propensities:
    """The probability that a place is looked at, relative to the first.

    Attributes:
      looks: [places] float64, of place 1, 2, ...; 1 at the first, clipped at `LEAST`.
      method: "em" or "power law".
      informative: clicks that the estimate rests on.
    """

    looks: np.ndarray
    method: str
    informative: int = 0

    __repr__ = brief.line

    def of(self, positions: np.ndarray) -> np.ndarray:
        """Returns the propensities of places, counted from 1; 1 for those below 1, which are unknown."""
        positions = np.asarray(positions, np.int64)
        return np.where(positions < 1, 1.0, self.looks[np.clip(positions, 1, len(self.looks)) - 1])


def estimate(
    pair: np.ndarray, position: np.ndarray, shown: np.ndarray, clicked: np.ndarray, *, informative: int = INFORMATIVE
) -> Propensities:
    """Estimates propensities from counts.

    Args:
      pair: int [n], number of the pair of a query and a listing.
      position: int [n], where it was shown, from 1.
      shown: [n], how often.
      clicked: [n], how often it was clicked there, at most `shown`.
      informative: least number of clicks on pairs that were shown at several places; with fewer, 1 / place is taken.

    Returns:
      The `Propensities`.

    Raises:
      InputError: arrays that do not match, places below 1, or more clicks than impressions.
    """
    arrays = [
        arguments.array(array, name, "propensity", ("n",)).astype(np.float64)
        for name, array in (("pair", pair), ("position", position), ("shown", shown), ("clicked", clicked))
    ]
    if len({len(array) for array in arrays}) > 1:
        raise InputError(f"propensity: the arrays have different lengths, {[len(array) for array in arrays]}")
    pair, position, shown, clicked = arrays
    if len(pair) and ((position < 1).any() or (clicked < 0).any() or (clicked > shown).any()):
        raise InputError("propensity: places count from 1, and a listing is clicked at most as often as it is shown")
    _, pair = np.unique(pair, return_inverse=True)
    place = np.minimum(position.astype(np.int64), PLACES) - 1
    cells, cell = np.unique(pair * PLACES + place, return_inverse=True)
    shown, clicked = np.bincount(cell, shown), np.bincount(cell, clicked)
    pair, place = np.divmod(cells, PLACES)
    several = np.bincount(pair)[pair] > 1 if len(pair) else np.zeros(0, bool)
    evidence = int(clicked[several].sum())
    if evidence < informative or not clicked[several & (place == 0)].sum():
        return Propensities(np.maximum(1 / np.arange(1, PLACES + 1), LEAST), "power law", evidence)
    _, pair = np.unique(pair[several], return_inverse=True)
    place, shown, clicked = place[several], shown[several], clicked[several]
    places, place = np.unique(place, return_inverse=True)
    looks, attraction = 1 / (1.0 + places), np.full(int(pair.max()) + 1, 0.5)
    unclicked, seen = shown - clicked, np.bincount(place, shown)
    appeared = np.bincount(pair, shown)
    for _ in range(ROUNDS):
        both = looks[place] * attraction[pair]
        missed = unclicked / np.maximum(1 - both, 1e-12)
        looked = np.bincount(place, clicked + missed * looks[place] * (1 - attraction[pair])) / seen
        liked = np.bincount(pair, clicked + missed * attraction[pair] * (1 - looks[place])) / appeared
        change = np.abs(looked - looks).max()
        looks, attraction = np.clip(looked, 1e-6, 1 - 1e-9), np.clip(liked, 1e-6, 1 - 1e-9)
        if change < ENOUGH:
            break
    relative = np.clip(looks / looks[0], LEAST, 1.0)
    known = np.interp(
        np.arange(places[-1] + 1), places, relative
    )  # places without evidence lie between their neighbours
    return Propensities(known, "em", evidence)
