"""Fashion catalogue: leaf categories, the coarse-label baseline.

    ./launch/local.sh --config=configs/fashion_categories.py

Hardware: two CPU cores, 595 CPU s of training.
Expected: 44.0 ± 1.0 % MAR@10 capped (whitening).
"""

from retrieval_jax.settings import arguments, fashion, tasks


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = arguments.parse(arg, seed=0)
    config = fashion.experiment("fashion_categories", arg)
    config.train.task = "category"
    config.train.task_kwargs = tasks.category()
    return config
