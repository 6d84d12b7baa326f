"""Fashion catalogue: the best single network of the ablation.

Titles as attributes and, by image-title contrast, as text; eight epochs; pooling in bands and test-time views: the
settings of fashion_ablation:change=titles+bands+multi_scale,budget=double.

    ./launch/local.sh --config=configs/fashion_best.py

Hardware: two CPU cores, 1225 CPU s of training.
Expected: 51.7 % MAR@10 capped (whitening), mean of two seeds.
"""

from retrieval_jax.settings import arguments, fashion, tasks


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = arguments.parse(arg, seed=0)
    config = fashion.experiment("fashion_best", arg)
    config.train.task = "image_title"
    config.train.task_kwargs = tasks.image_title()
    config.train.task_kwargs.loss = "softmax"
    config.train.task_kwargs.contrastive_loss = "softmax"
    if not arg.runlocal:
        config.train.epochs = 8.0
    config.embed.model_kwargs.pool_bands = (3, 3, 1)
    config.embed.views = (("flip", {}), ("multi_scale", {"scales": (1.0, 1.5)}))
    return config
