"""The embedded catalogue: where the product of a picture is, and of what kind.

    ./launch/local.sh --config=configs/embedded_regions.py

The system that this follows (SK Planet, arXiv 1609.07859) reports a mean average precision at an overlap of .5 of .849,
and of .877 where the category is known, on data of its own.

Hardware: two CPU cores, 12 minutes on a shared machine.
Expected: mean average precision .42 on users' photos, .84 with the type given (seed 0).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, quickstart, tasks


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0)
    config = quickstart.experiment("embedded_regions", arg)
    config.train.seed = arg.seed
    config.train.task = "regions"
    config.train.task_kwargs = tasks.regions()
    config.train.task_kwargs.types = "middle"
    config.train.model.kwargs = ConfigDict({"layer_scale": 1.0, "pool_stages": (1, 2, 3)})  # 8 x 8 cells first
    config.train.epochs = 1.0 if arg.runlocal else 10.0
    config.train.transforms = (
        ("resize", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}),
    )
    config.train.evaluations = (("regions", {}),)
    config.embed.models = ("colour", "trained")
    return config
