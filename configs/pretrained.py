"""Public weights as they are: no mining, no training, only embedding, search and scores.

    ./launch/local.sh --config=configs/pretrained.py
    ./launch/local.sh --config=configs/pretrained.py:path=weights/tf_efficientnet_lite0.in1k.safetensors
    ./launch/local.sh --config=configs/pretrained.py:catalogue=fashion
    ./launch/local.sh --config=configs/pretrained.py:name=convnext_tiny.fb_in22k

Without a path the weights come from the Hugging Face hub, once, and stay in its cache; their licence is printed. Mean
and standard deviation are the weights' own. So are picture size, crop and interpolation, except on the fashion
catalogue, whose whole pictures (60x80) are enlarged to 160 x 120. Another catalogue than the embedded one:
--config.data.source=eproduct --config.data.kwargs="{'root': '/data/shop'}".

Hardware: two CPU cores, 165 CPU s for Lite0 on the fashion catalogue.
Expected: there 40.4 % MAR@10 capped (cosine) and 43.5 (full whitening), as with the same weights in PyTorch.
"""

from retrieval_jax.settings import arguments, base, fashion, quickstart


def get_config(arg=None):
    """Returns the settings; `:name=`, `path=`, `offline=true` choose the weights, `catalogue=fashion` replaces the
    embedded catalogue, `:runlocal` embeds a few hundred listings of that."""
    arg = arguments.parse(arg, name="tf_efficientnet_lite0.in1k", path="", offline=False, catalogue="quickstart")
    arguments.choice("catalogue", arg.catalogue, ("quickstart", "fashion"))
    experiment = fashion.experiment if arg.catalogue == "fashion" else quickstart.experiment
    config = experiment("pretrained", arg)
    base.without_training(config)
    config.embed.models = ("histogram", "pretrained")
    base.public_weights(config.embed.pretrained, arg)
    config.embed.batch_size = 32
    config.embed.transforms = ()
    if arg.catalogue == "fashion":
        config.embed.image_size, config.embed.transforms = (160, 120), (("resize", {}),)
    return config
