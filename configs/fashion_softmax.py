"""Fashion catalogue: attributes mined from titles, softmax over y / sum(y) with Poly-1, as published.

    ./launch/local.sh --config=configs/fashion_softmax.py

Hardware: two CPU cores, 615 CPU s of training.
Expected: 46.4 ± 1.0 % MAR@10 capped (whitening).
"""

from retrieval_jax.settings import arguments, fashion


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = arguments.parse(arg, seed=0)
    config = fashion.experiment("fashion_softmax", arg)
    config.train.task_kwargs.loss = "softmax"
    return config
