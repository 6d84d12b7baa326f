"""The embedded catalogue: a last stage that orders the first results by listing quality, as shoppers' clicks teach.

    ./launch/local.sh --config=configs/embedded_quality.py

Listings have prices, ratings and sales, and shoppers who see a page look at its top and click what they like
(docs/clicked_search.md#the-last-stage-quality). Needs LightGBM: requirements-ranking.txt.

Hardware: two CPU cores, about as long as the quickstart, 7 minutes; not timed by itself.
Expected: not measured by itself. Search prints what the last stage gains by clicks and what it costs, at most one point
of nDCG@10; where it gains nothing, the order stays (docs/clicked_search.md measures it without a network).
"""

from retrieval_jax.settings import arguments, quickstart


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:shop=1` makes another shop, `:runlocal` runs for
    seconds."""
    arg = arguments.parse(arg, seed=0, shop=0)
    config = quickstart.experiment("embedded_quality", arg)
    config.train.seed = arg.seed
    config.data.kwargs.seed = arg.shop
    config.data.kwargs.biased_clicks = True
    config.data.kwargs.num_clicks = 3000 if arg.runlocal else 20_000
    if arg.runlocal:
        config.data.kwargs.num_query = 100  # the weight is chosen on half of them
    config.search.steps = (("chosen", {}), ("quality", {"cost": 0.01}))
    return config
