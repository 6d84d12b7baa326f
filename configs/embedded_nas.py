"""The embedded catalogue: a super-net of small query networks for the quickstart's gallery, to be searched by `nas`.

    ./launch/local.sh --config=configs/embedded_nas.py
    python -m retrieval_jax.nas runs/embedded_nas --flops=1.5e6
    ./launch/local.sh --config=configs/embedded_nas.py:choice=32_16-c5x2_48-m3x4-c7x2_64-c3x2

The first trains the super-net, after the quickstart where that has not run yet; the second searches it; the third
trains an architecture that the search has found, alone and from scratch.

Hardware: two CPU cores, 30 minutes of one core for the super-net, three for a network alone.
Expected: cross scores of 40 % on val within 1.5 MFLOP (docs/small_query.md).
"""

from retrieval_jax.settings import arguments, compatible, quickstart


def get_config(arg=None):
    """Returns the settings; `:choice=` trains one small network, `losses=` is one of compatible.LOSSES, `pictures=`
    another run whose gallery is searched, `epochs=` (0: 24 for the super-net, 8 for one network) and `seed=` choose
    the training, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, choice="", pictures="", losses="contrast", epochs=0.0, seed=0)
    config = quickstart.experiment("embedded_nas", arg)
    config.train.seed = arg.seed
    compatible.super_network(config, arg.choice)
    compatible.task(config, arg.pictures or ("quickstart:runlocal" if arg.runlocal else "quickstart"), arg.losses)
    config.train.transforms = (("random_resized_crop", {"scale": (0.8, 1.0)}), ("flip", {}))
    if not arg.runlocal:
        config.train.epochs = arg.epochs or (8.0 if arg.choice else 24.0)  # a super-net has many networks to teach
    return config
