"""Fashion catalogue: what the ablation found best for one network.

Titles as attributes and, by image-title contrast, as texts; eight epochs, bands of the map, views at test time.

    ./launch/local.sh --config=configs/fashion_best.py

The settings of configs/fashion_ablation.py:change=titles+bands+multi_scale,budget=double; its scores are in the README.
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = common.parse_arg(arg, seed=0)
    config = common.fashion("fashion_best", arg)
    config.train.task = "image_title"
    config.train.task_kwargs.loss = "softmax"
    config.train.task_kwargs.contrastive_loss = "softmax"
    if not arg.runlocal:
        config.train.epochs = 8.0
    config.embed.model_kwargs.pool_bands = (3, 3, 1)
    config.embed.views = (("flip", {}), ("multi_scale", {"scales": (1.0, 1.5)}))
    return config
