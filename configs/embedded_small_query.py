"""The embedded catalogue: a small network for queries that searches the gallery of the quickstart's network.

    ./launch/local.sh --config=configs/embedded_small_query.py
    ./launch/local.sh --config=configs/embedded_small_query.py:losses=classifier

The quickstart runs first where it has not run yet; its network stays as it is. The query network reads pictures of half
the size.

Hardware: one core of a shared CPU, 8 minutes after the quickstart.
Expected: M(q,g) 8.7 % MAR@10 capped by the plain cosine (seed 0; 95 %: 6.7 to 10.7), where the quickstart's network
has 18.7.
"""

from retrieval_jax.settings import arguments, compatible, quickstart


def get_config(arg=None):
    """Returns the settings; `:losses=` is one of compatible.LOSSES, `pictures=` another run whose gallery is searched,
    `seed=1` another seed, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, pictures="", losses="contrast", seed=0)
    config = quickstart.experiment("embedded_small_query", arg)
    config.train.seed = arg.seed
    compatible.small_network(config)
    config.data.image_size = (32, 32)
    compatible.task(config, arg.pictures or ("quickstart:runlocal" if arg.runlocal else "quickstart"), arg.losses)
    return config
