"""What the experiments on the embedded catalogue share: minutes on two CPU cores."""

from ml_collections import ConfigDict

from retrieval_jax.settings import base

# Losses compared on the embedded catalogue: name -> options of the task multilabel.
LOSSES = {
    "softmax": {"loss": "softmax"},
    "sigmoid": {"loss": "sigmoid"},
    "both": {"loss": "softmax", "category_weight": 1.0},
    "category": {"title_weight": 0.0, "category_weight": 1.0},
}


def experiment(name: str, arg: ConfigDict) -> ConfigDict:
    """Returns the settings of an experiment on the embedded catalogue.

    Args:
      name: of the experiment.
      arg: parsed argument; `runlocal` makes a version that takes seconds.
    """
    config = base.defaults()
    config.name = name
    config.data.kwargs.seed = 0
    config.data.kwargs.num_train = 400 if arg.runlocal else 5000
    config.data.kwargs.num_val = 64 if arg.runlocal else 500
    config.data.kwargs.num_query = 40 if arg.runlocal else 500
    config.data.kwargs.num_gallery = 400 if arg.runlocal else 5000
    config.data.kwargs.image_size = 64
    config.mine.threshold = 5 if arg.runlocal else 30
    config.train.model.variant = "micro"
    config.train.epochs = 14.0
    config.train.warmup_epochs = 0.5
    config.train.batch_size = 64  # many small steps: titles are noisy, and training starts on a plateau
    config.train.learning_rate = 3e-3
    config.train.transforms = (
        ("random_resized_crop", {"scale": (0.7, 1.0)}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.15, "contrast": 0.15, "saturation": 0.15}),
    )
    if arg.runlocal:
        config.train.batch_size = 32
        config.train.epochs = 1.0
        config.train.eval_every_epochs = 1.0
        config.embed.batch_size = 64
    return config
