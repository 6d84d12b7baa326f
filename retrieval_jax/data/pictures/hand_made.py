"""The embeddings that need no network, by the names that config.embed.models has for them."""

from retrieval_jax.data.pictures import colour, colour_and_edges, histogram

# modules with embed(images), DIM, SPACE, META
MODELS = {"histogram": histogram, "colour_and_edges": colour_and_edges, "colour": colour}


NO_VECTORS = ("lexical",)  # models of the search that embed has nothing to do for


def width(models, dim: int) -> int:
    """Returns the sum of the dimensions of a config's models, for estimates of what their embeddings take.

    Args:
      models: config.embed.models.
      dim: of an embedding that a network makes.
    """
    return sum(MODELS[name].DIM if name in MODELS else dim for name in models if name not in NO_VECTORS)
