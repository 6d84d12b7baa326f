"""Fashion catalogue: public ImageNet weights (EfficientNet-Lite0), fine-tuned on attributes mined from titles.

    ./launch/local.sh --config=configs/fashion_pretrained.py
    ./launch/local.sh --config=configs/fashion_pretrained.py:path=weights/tf_efficientnet_lite0.in1k.safetensors

Without a path the weights come from the Hugging Face hub, once, and stay in its cache.

Hardware: two CPU cores.
Expected: not measured.
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, fashion


def get_config(arg=None):
    """Returns the settings; `:path=` and `offline=true` choose the weights, `epochs=`, `height=` (of the pictures,
    which are 3 wide for 4 high) and `seed=` the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(
        arg, name="tf_efficientnet_lite0.in1k", path="", offline=False, epochs=3.0, height=112, seed=0
    )
    config = fashion.experiment("fashion_pretrained", arg)
    config.data.image_size = (arg.height, 16 * round(arg.height * 3 / 4 / 16))
    config.train.model.pretrained.name = arg.name
    config.train.model.pretrained.path = arg.path
    config.train.model.pretrained.offline = arg.offline
    config.train.model.kwargs = ConfigDict()
    config.train.task_kwargs.loss = "softmax"
    config.train.batch_size = 96
    if not arg.runlocal:
        config.train.epochs = arg.epochs
        config.train.warmup_epochs = 0.25
    # The head starts from nothing, the backbone from weights that mostly need a nudge.
    config.train.learning_rate = 1e-3
    config.train.learning_rate_rules = (("^backbone/", 0.4),)
    config.train.layer_decay = 1.0
    config.train.ema_decay = 0.99
    config.embed.models = ("histogram", "trained")
    config.embed.views = (("flip", {}),)
    return config
