"""Public weights as they are: no mining, no training, only embedding, search and scores.

    ./launch/local.sh --config=configs/pretrained.py:name=convnext_tiny.fb_in22k
    ./launch/local.sh --config=configs/pretrained.py:name=convnext_tiny.fb_in22k,path=weights/model.safetensors

Without a path the weights come from the Hugging Face hub, once, and stay in its cache; their licence is printed. Mean,
standard deviation, picture size, crop and interpolation are the weights' own. Another catalogue than the embedded one:
--config.data.source=eproduct --config.data.kwargs="{'root': '/data/shop'}".

Hardware: two CPU cores, minutes for a tiny network on the embedded catalogue.
Expected: not measured.
"""

from retrieval_jax.settings import arguments, base, quickstart


def get_config(arg=None):
    """Returns the settings; `:name=`, `path=`, `offline=true` choose the weights, `:runlocal` embeds a few hundred
    listings."""
    arg = arguments.parse(arg, name="convnext_tiny.fb_in22k", path="", offline=False)
    config = quickstart.experiment("pretrained", arg)
    base.without_training(config)
    config.embed.models = ("histogram", "pretrained")
    config.embed.pretrained.name = arg.name
    config.embed.pretrained.path = arg.path
    config.embed.pretrained.offline = arg.offline
    config.embed.batch_size = 32
    config.embed.transforms = ()
    return config
