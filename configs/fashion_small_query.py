"""Fashion catalogue: a query network of a twentieth of the cost that searches the gallery of fashion_pretrained.

    ./launch/local.sh --config=configs/fashion_small_query.py:pictures=runs/fashion_pretrained
    ./launch/local.sh --config=configs/fashion_small_query.py:pictures=runs/fashion_pretrained,losses=regression

`pictures` is the folder of a finished run of configs/fashion_pretrained.py, whose vectors of the train pictures are
made once. Losses that read its classifier (`losses=classifier`, `logits`) need one that embeds without pool_bands:
--config.embed.model_kwargs.pool_bands="()" with that run.

Hardware: two CPU cores, not measured yet.
Expected: not measured yet; benchmarks/compatible.py scores it against the gallery network (docs/small_query.md).
"""

from retrieval_jax.settings import arguments, compatible, fashion


def get_config(arg=None):
    """Returns the settings; `:pictures=` is the run whose gallery is searched, `losses=` one of compatible.LOSSES,
    `epochs=` and `seed=` choose the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(arg, pictures="runs/fashion_pretrained", losses="all", epochs=6.0, seed=0)
    config = fashion.experiment("fashion_small_query", arg)
    compatible.small_network(config)
    compatible.task(config, arg.pictures, arg.losses)
    config.train.transforms = (("random_resized_crop", {"scale": (0.8, 1.0)}), ("flip", {}))
    config.train.learning_rate = 3e-3
    if not arg.runlocal:
        config.train.epochs = arg.epochs
    return config
