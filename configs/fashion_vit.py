"""Fashion catalogue: fashion_softmax with a ViT in place of the ConvNeXt.

    ./launch/local.sh --config=configs/fashion_vit.py

Hardware: two CPU cores, 1084 CPU s of training.
Expected: 35.4 ± 0.9 % MAR@10 capped (whitening).
"""

from retrieval_jax.settings import arguments, fashion


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` for seconds only."""
    arg = arguments.parse(arg, seed=0)
    config = fashion.experiment("fashion_vit", arg)
    config.train.task_kwargs.loss = "softmax"
    config.train.model.name = "vit"
    config.train.model.variant = "micro"
    config.train.model.kwargs = {"patch_size": 8}
    config.train.learning_rate = 1e-3
    return config
