"""Fashion catalogue: attributes mined from titles, sigmoid multi-label head.

./launch/local.sh --config=configs/fashion_sigmoid.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = common.parse_arg(arg, seed=0)
    config = common.fashion("fashion_sigmoid", arg)
    config.train.task_kwargs.loss = "sigmoid"
    return config
