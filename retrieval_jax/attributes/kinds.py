"""Guesses what kind of attribute a word is (colour, material, pattern, size, for whom, quantity), with a score.

Words of one kind have the same neighbours, and a title seldom has two of them. The kind spreads from seed words to
words with the same neighbours. The result is written beside the vocabulary; nothing depends on it.
"""

import numpy as np
import polars as pl

from retrieval_jax.attributes import normalising
from retrieval_jax.attributes.statistics import Statistics

SEEDS = {
    "colour": "black white red blue green yellow orange purple pink brown gray grey navy beige gold golden silver "
    "maroon olive teal cream turquoise lavender magenta cyan khaki charcoal multicolor violet ivory mustard "
    "peach burgundy coral bronze copper tan rust",
    "material": "cotton leather steel plastic wood wooden wool silk denim nylon polyester rubber glass metal aluminum "
    "copper suede canvas linen ceramic satin lace fleece mesh viscose",
    "pattern": "striped stripes printed print checked checks solid floral graphic plain melange polka embroidered",
    "size": "small medium large xl xxl xs mini maxi long short slim big wide",
    "for": "men women mens womens boys girls kids unisex baby ladies boy girl",
}
SEEN = frozenset(word for kind in ("colour", "material", "pattern") for word in SEEDS[kind].split())


def guess(statistics: Statistics, words: list[str], *, least_score: float = 0.5) -> pl.DataFrame:
    """Guesses the kinds of words.

    A word's feature vector is the square root of its neighbours' shares, with left and right neighbours kept apart.
    Its score for a kind is the mean cosine (the Bhattacharyya coefficient of the shares) to the kind's three nearest
    seed words, and must exceed that of every other kind by 0.1. Quantities are recognised by their form.

    Args:
      statistics: with pairs.
      words: words to guess, such as those of a vocabulary.
      least_score: words that score less have no kind.

    Returns:
      polars frame (word, kind, score) sorted by word; seeds have score 1, words without a kind have no row.
    """
    wanted = {word for word in words if " " not in word}
    seeds = {word: kind for kind, several in SEEDS.items() for word in reversed(several.split())}
    described = sorted(wanted | (set(seeds) & set(statistics.tokens["token"].to_list())))
    sides = pl.concat(
        [
            statistics.pairs.select(pl.col(word).alias("word"), (pl.lit(mark) + pl.col(other)).alias("near"), "titles")
            for word, other, mark in (("first", "second", ">"), ("second", "first", "<"))
        ]
    )
    # A neighbour shared by few words identifies those words, not their kind.
    common = (
        sides.group_by("near")
        .agg(pl.len().alias("words"), pl.col("titles").sum().alias("size"))
        .filter(pl.col("words") >= 5)
        .sort("size", "near", descending=[True, False])
        .head(2000)
    )
    sizes = sides.group_by("word").agg(pl.col("titles").sum().alias("n"))
    sides = sides.join(common, on="near").join(sizes, on="word").filter(pl.col("word").is_in(described))
    near = {name: place for place, name in enumerate(sorted(common["near"].to_list()))}
    place = {word: row for row, word in enumerate(described)}
    table = np.zeros((len(described), len(near)), np.float32)
    shares = np.sqrt((sides["titles"] / sides["n"]).to_numpy())
    rows_, columns = [place[word] for word in sides["word"]], [near[name] for name in sides["near"]]
    table[rows_, columns] = shares
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
    rows = []
    scores = {}
    for kind in SEEDS:
        its = [place[word] for word, its_kind in seeds.items() if its_kind == kind and word in place]
        if its:
            best = np.sort(table @ table[its].T, axis=1)[:, ::-1][:, :3]
            scores[kind] = best.mean(1)
    for word in sorted(wanted):
        if word in seeds:
            rows.append((word, seeds[word], 1.0))
        elif normalising.quantity(word):
            rows.append((word, "quantity", 1.0))
        elif scores:
            found = sorted(((float(score[place[word]]), kind) for kind, score in scores.items()), reverse=True)
            if found[0][0] >= least_score and (len(found) < 2 or found[0][0] >= found[1][0] + 0.1):
                rows.append((word, found[0][1], round(found[0][0], 3)))
    return pl.DataFrame(rows, schema={"word": pl.String, "kind": pl.String, "score": pl.Float64}, orient="row")
