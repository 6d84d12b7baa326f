"""Words that belong together: "running shoes", "stainless steel"."""

import numpy as np
import polars as pl

from retrieval_jax.attributes import normalising
from retrieval_jax.attributes.statistics import Statistics


def find(statistics: Statistics, *, threshold: int, least_score: float = 0.55) -> pl.DataFrame:
    """Finds pairs of words that are adjacent far more often than by chance.

    The score is the normalised pointwise mutual information, ln(p(ab) / (p(a) p(b))) / -ln p(ab), where p is the share
    of titles: 1 if neither word occurs without the other, 0 at chance. Unlike Mikolov's phrase score or the
    log-likelihood it does not grow with the number of titles, so one limit fits every catalogue; the threshold guards
    against coincidences of small numbers.

    Args:
      statistics: with pairs.
      threshold: a phrase must be in more titles than this.
      least_score: least normalised pointwise mutual information.

    Returns:
      polars frame (first, second, titles, score, first_titles, second_titles), sorted by first and second. Quantities
      are never part of a phrase, and no phrase starts with a number or ends with a ratio: "8gb kit" is not one thing.

    Source: Bouma 2009, "Normalized (Pointwise) Mutual Information in Collocation Extraction".
    """
    tokens = statistics.tokens.select("token", pl.col("titles").alias("n"))
    pairs = statistics.pairs.filter((pl.col("titles") > threshold) & (pl.col("first") != pl.col("second")))
    pairs = pairs.join(tokens, left_on="first", right_on="token").rename({"n": "first_titles"})
    pairs = pairs.join(tokens, left_on="second", right_on="token").rename({"n": "second_titles"})
    together = pairs["titles"].to_numpy() / statistics.num_titles
    chance = pairs["first_titles"].to_numpy() * pairs["second_titles"].to_numpy() / statistics.num_titles**2
    # A pair in every title carries no information (0 / 0).
    score = np.divide(np.log(together / chance), -np.log(together), out=np.zeros(len(pairs)), where=together < 1)
    found = pairs.with_columns(pl.Series("score", score)).filter(pl.col("score") >= least_score)
    counted = [
        any(map(normalising.quantity, pair))
        or normalising.number_of(pair[0]) is not None
        or (normalising.number_of(pair[1]) is not None and "/" in pair[1])
        for pair in found.select("first", "second").iter_rows()
    ]
    return (
        found.filter(~pl.Series(counted, dtype=pl.Boolean))
        .select("first", "second", "titles", "score", "first_titles", "second_titles")
        .sort("first", "second")
    )


def only_inside(found: pl.DataFrame, share: float = 0.95) -> dict[str, str]:
    """Finds words that hardly ever occur outside one phrase: beside it they would be the same label twice.

    The other parts stay as attributes beside the phrase: running shoes are still shoes, and the losses handle several
    labels per title at no cost.

    Args:
      found: frame from `find`.
      share: least share of a word's titles that contain the phrase.

    Returns:
      {word: the phrase}.
    """
    inside = {}
    for first, second, titles, _, first_titles, second_titles in found.sort("titles").iter_rows():
        for word, its_titles in ((first, first_titles), (second, second_titles)):
            if titles >= share * its_titles:
                inside[word] = f"{first} {second}"
    return inside
