"""Fashion catalogue: as fashion_softmax, with a ViT in place of the ConvNeXt.

./launch/local.sh --config=configs/fashion_vit.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = common.parse_arg(arg, seed=0)
    config = common.fashion("fashion_vit", arg)
    config.train.task_kwargs.loss = "softmax"
    config.train.model.name = "vit"
    config.train.model.variant = "micro"
    config.train.model.kwargs = {"patch_size": 8}
    config.train.learning_rate = 1e-3
    return config
