"""Fashion catalogue: attributes mined from titles, softmax over y / sum(y) with Poly-1, the published choice.

./launch/local.sh --config=configs/fashion_softmax.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = common.parse_arg(arg, seed=0)
    config = common.fashion("fashion_softmax", arg)
    config.train.task_kwargs.loss = "softmax"
    return config
