"""What the experiments on the fashion catalogue share: data, network and budget."""

from ml_collections import ConfigDict

from retrieval_jax.settings import base


def experiment(name: str, arg: ConfigDict) -> ConfigDict:
    """Returns the settings of an experiment on the fashion catalogue.

    The catalogue (eProduct's layout, 60x80 pictures) is expected in data/fashion of the current folder;
    --config.data.kwargs.root=... gives another place.

    Args:
      name: of the experiment.
      arg: parsed argument; `seed`, where the config takes one, is the training seed; `runlocal` trains for seconds.
    """
    config = base.defaults()
    config.name = name
    config.data.source = "eproduct"
    config.data.kwargs.root = "data/fashion"
    config.data.image_size = (80, 64)
    config.mine.threshold = 5
    config.train.seed = arg.get("seed", 0)
    config.train.batch_size = 128
    config.train.epochs = 0.05 if arg.runlocal else 4.0
    config.train.warmup_epochs = 0.05 if arg.runlocal else 0.5
    config.train.ema_decay = 0.995
    config.train.eval_every_epochs = 0.0 if arg.runlocal else 1.0
    # Both sides are shop photos, and colour is part of what makes two listings the same product: mild crops, no jitter.
    config.train.transforms = (("random_resized_crop", {"scale": (0.6, 1.0)}), ("flip", {}))
    return config


def fine_tuned(config: ConfigDict, arg: ConfigDict, drop_path: float) -> None:
    """Lets a config start from public weights of an EfficientNet-Lite.

    Args:
      config: from `experiment`; changed in place.
      arg: parsed argument with `name`, `path` and `offline` of the weights, and `height` of the pictures, which are 3
        wide for 4 high.
      drop_path: of the network.
    """
    config.data.image_size = (arg.height, 16 * round(arg.height * 3 / 4 / 16))
    base.public_weights(config.train.model.pretrained, arg)
    # Maps at 1/8 and 1/16 of the picture's size keep what the head's discards.
    config.train.model.kwargs = ConfigDict({"pool_stages": (2, 4, 7), "drop_path": drop_path})
    # The heads start from nothing, the backbone from weights that mostly need a nudge.
    config.train.learning_rate = 1e-3
    config.train.learning_rate_rules = (("^backbone/(?!head_norm)", 0.5),)
