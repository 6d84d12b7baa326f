"""How informative a word is about a listing: about its category, and about its picture."""

import math

import numpy as np
import polars as pl

from retrieval_jax.attributes.statistics import Statistics

# Words that sellers and shippers write whatever they sell. One is dropped only if the categories do not contradict, and
# never from a phrase that is kept ("new balance", "hot pink").
JARGON = frozenset(
    """
    new nwt nwot nib bnwt bnib brand-new sale sales free shipping ship ships fast delivery postage p&p genuine authentic
    buy buys best wow look cheap cheapest price prices offer offers deal deals bargain discount clearance auction ebay
    amazon listing seller sellers shop store rare stock bonus guaranteed amazing item items pre-owned preowned
    excellent condition quality
    """.split()
)


def of_categories(statistics: Statistics, words: pl.Series) -> pl.DataFrame:
    """Measures how informative words are about the category.

    Information is the KL divergence (nats) of the category distribution of the word's titles from that of all titles,
    less its small-sample bias (Miller and Madow), as a share of the entropy of the categories: 0 for a word spread like
    all titles; rare categories can give more than 1. The p-value is that of the word's strongest category: the
    probability of at least as many of its titles falling into it by chance, times the number of categories
    (Bonferroni).

    Args:
      statistics: with by_category.
      words: words to measure.

    Returns:
      polars frame (token, information, category, in_category, share_of_category, p), sorted by token: the strongest
      category, the word's titles in it, and their share of the category's titles. Empty without categories.
    """
    schema = {
        "token": pl.String,
        "information": pl.Float64,
        "category": pl.Int64,
        "in_category": pl.Int64,
        "share_of_category": pl.Float64,
        "p": pl.Float64,
    }
    if statistics.by_category is None or len(statistics.categories) < 2:
        return pl.DataFrame(schema=schema)
    known = statistics.categories.rename({"titles": "size"})
    total = int(known["size"].sum())
    entropy = float(-(known["size"] / total * (known["size"] / total).log()).sum())
    table = statistics.by_category.filter(pl.col("token").is_in(words.to_list()))
    table = table.join(known, on="category").with_columns(pl.col("titles").sum().over("token").alias("n"))
    ratio = (pl.col("titles") / pl.col("n")) / (pl.col("size") / total)
    table = table.with_columns((pl.col("titles") / pl.col("n") * ratio.log()).alias("part"), ratio.alias("lift"))
    # The strongest category has the most surprising count: titles * ln(lift).
    table = table.with_columns((pl.col("titles") * pl.col("lift").log()).alias("surprise"))
    found = (
        table.sort(["token", "surprise", "category"], descending=[False, True, False])
        .group_by("token", maintain_order=True)
        .agg(
            ((pl.col("part").sum() - (pl.len() - 1) / (2 * pl.col("n").first())) / entropy).alias("information"),
            pl.col("category").first(),
            pl.col("titles").first().alias("in_category"),
            pl.col("n").first(),
            pl.col("size").first(),
        )
    )
    p = [
        min(1.0, len(known) * _tail(k, n, size / total))
        for k, n, size in found.select("in_category", "n", "size").iter_rows()
    ]
    return found.select(
        "token",
        "information",
        "category",
        "in_category",
        (pl.col("in_category") / pl.col("size")).alias("share_of_category"),
        pl.Series("p", p, dtype=pl.Float64),
    ).cast(schema)


def _tail(k: int, n: int, share: float) -> float:
    """Bounds the probability of k or more successes in n draws (Chernoff); exact if k is n."""
    if k <= n * share:
        return 1.0
    if k == n:
        return share**n
    rate = k / n
    return math.exp(-n * (rate * math.log(rate / share) + (1 - rate) * math.log((1 - rate) / (1 - share))))


def of_pictures(vectors: np.ndarray, rows: pl.DataFrame, tokens: list[str], *, folds: int = 5) -> pl.DataFrame:
    """Measures how well words can be predicted from held-out pictures.

    A ridge regression from the vectors to all words at once is cross-validated. The area under the ROC curve (the
    probability that a picture with the word scores above one without it) is 0.5 for a word unrelated to pictures; its
    standard error is that of Hanley and McNeil.

    Args:
      vectors: float [n, D] of n pictures, such as colour histograms and thumbnails.
      rows: frame (title, token): the words of the n listings, title in 0 .. n - 1.
      tokens: words to measure.
      folds: number of folds; listing i is in fold i mod folds.

    Returns:
      polars frame (token, positives, auc, low, high), sorted by token: the area with its 95 % interval. Words in fewer
      than 2 * folds listings, or in all of them, are left out.

    Source: Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic curve".
    """
    n = len(vectors)
    places = pl.DataFrame({"token": sorted(tokens)}).with_row_index("place")
    there = rows.join(places, on="token").select("title", "place").unique()
    has = np.zeros((n, len(places)), bool)
    has[there["title"].to_numpy(), there["place"].to_numpy()] = True
    positives = has.sum(0)
    chosen = np.flatnonzero((positives >= 2 * folds) & (positives < n))
    schema = {"token": pl.String, "positives": pl.Int64, "auc": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    if not len(chosen):  # a fold may have no listing
        return pl.DataFrame(schema=schema)
    has = has[:, chosen]
    fold = np.arange(n) % folds
    scores = np.zeros(has.shape, np.float32)
    for part in range(folds):
        seen, held = fold != part, fold == part
        mean, scale = vectors[seen].mean(0), vectors[seen].std(0) + 1e-6
        inputs = np.asarray((vectors[seen] - mean) / scale, np.float64)
        gram = inputs.T @ inputs
        gram[np.diag_indices_from(gram)] += 0.1 * len(inputs)
        weights = np.linalg.solve(gram, inputs.T @ (has[seen] - has[seen].mean(0)))
        scores[held] = ((vectors[held] - mean) / scale) @ weights
    out = []
    for column, place in enumerate(chosen.tolist()):
        auc = float(np.mean([_auc(scores[fold == part, column], has[fold == part, column]) for part in range(folds)]))
        m = int(positives[place])
        q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
        error = math.sqrt((auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - m - 1) * (q2 - auc**2)) / (m * (n - m)))
        out.append((places["token"][place], m, auc, auc - 1.96 * error, auc + 1.96 * error))
    return pl.DataFrame(out, schema=schema, orient="row").sort("token")


def _auc(scores: np.ndarray, has: np.ndarray) -> float:
    """Returns the area under the ROC curve; 0.5 if a fold lacks positives or negatives."""
    m = int(has.sum())
    if m in (0, len(has)):
        return 0.5
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    return float((ranks[has].sum() - m * (m + 1) / 2) / (m * (len(has) - m)))
