"""Fashion catalogue: ConvNeXt + ViT, whitened one by one and concatenated. Trains both members first, if need be.

./launch/local.sh --config=configs/fashion_ensemble.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:runlocal` takes the short members."""
    arg = common.parse_arg(arg)
    config = common.fashion("fashion_ensemble", arg)
    common.ensemble(config, ("fashion_softmax", "fashion_vit"), arg)
    return config
