"""Fashion catalogue: a query network that searches the gallery of fashion_pretrained at a fraction of the cost.

    ./launch/local.sh --config=configs/fashion_small_query.py:pictures=runs/fashion_pretrained
    ./launch/local.sh --config=configs/fashion_small_query.py:pictures=runs/fashion_pretrained,network=same
    ./launch/local.sh --config=configs/fashion_small_query.py:pictures=runs/fashion_pretrained,losses=regression

`pictures` is the folder of a finished run of configs/fashion_pretrained.py, whose vectors of the train pictures are
made once. `network=narrow` is a narrow network from scratch, of a twentieth of its operations; `network=same` the
gallery's network itself, from its weights, for smaller pictures: a twentieth of what the gallery costs with its views.
Losses that read its classifier (`losses=classifier`, `logits`) need one that embeds without pool_bands:
--config.embed.model_kwargs.pool_bands="()" with that run.

Hardware: two CPU cores, about 10 minutes of one core for narrow, 27 for same, and 3 for the vectors of train.
Expected: M(q,g) 35.1 % MAR@10 capped narrow (33.0 to 38.7 by seed), 55.8 % same (55.1 to 56.4), where the gallery
network has 57.4 (docs/small_query.md).
"""

from retrieval_jax.settings import arguments, compatible, fashion


def get_config(arg=None):
    """Returns the settings; `:pictures=` is the run whose gallery is searched, `losses=` one of compatible.LOSSES,
    `network=` narrow or same, `name=`, `path=` and `offline=true` the public weights that the gallery's network started
    from, `epochs=` (0: 6 for narrow, 8 for same) and `seed=` the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(
        arg,
        pictures="runs/fashion_pretrained",
        losses="contrast",
        network="narrow",
        name="tf_efficientnet_lite0.in1k",
        path="",
        offline=False,
        epochs=0.0,
        seed=0,
    )
    config = fashion.experiment("fashion_small_query", arg)
    if arguments.choice("network", arg.network, ("narrow", "same")) == "narrow":
        compatible.small_network(config)
        config.train.learning_rate = 3e-3
        config.train.transforms = (("random_resized_crop", {"scale": (0.8, 1.0)}), ("flip", {}))
    else:
        compatible.same_network(config, arg)
        config.train.transforms = (("resize", {}), ("flip", {}))
    compatible.task(config, arg.pictures, arg.losses)
    if arg.network == "same":
        options = config.train.task_kwargs  # a linear map of such wide vectors would double the parameters
        options.map_hidden, options.map_residual = 256, True
    if not arg.runlocal:
        config.train.epochs = arg.epochs or (6.0 if arg.network == "narrow" else 8.0)
    return config
