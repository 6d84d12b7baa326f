"""Public weights as they are: no mining, no training, only embedding, searching and scoring.

    ./launch/local.sh --config=configs/pretrained.py:name=convnext_tiny.fb_in22k
    ./launch/local.sh --config=configs/pretrained.py:name=convnext_tiny.fb_in22k,path=weights/model.safetensors

Without a path the weights come from the Hugging Face hub, once, and stay in its cache; their licence is printed. Mean,
standard deviation, picture size, crop and interpolation are the weights' own. Minutes on two CPU cores for a tiny
network on the embedded catalogue; another catalogue is given by --config.data.source and --config.data.kwargs.
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:runlocal` embeds a few hundred listings of the embedded catalogue."""
    arg = common.parse_arg(arg, name="convnext_tiny.fb_in22k", path="", offline=False)
    config = common.quickstart("pretrained", arg)
    common.without_training(config)
    config.embed.models = ("histogram", "pretrained")
    config.embed.pretrained.name = arg.name
    config.embed.pretrained.path = arg.path
    config.embed.pretrained.offline = arg.offline
    config.embed.batch_size = 32
    config.embed.transforms = ()
    return config
