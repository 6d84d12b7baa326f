"""Fashion catalogue: leaf-category training, the coarse-label baseline.

./launch/local.sh --config=configs/fashion_categories.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = common.parse_arg(arg, seed=0)
    config = common.fashion("fashion_categories", arg)
    config.train.task = "category"
    return config
