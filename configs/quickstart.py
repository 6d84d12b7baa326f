"""The embedded catalogue, end to end.

    ./launch/local.sh --config=configs/quickstart.py

Hardware: two CPU cores, about 7 minutes.
Expected: 18.7 ± 1.4 % MAR@10 capped (cosine), 20.8 ± 1.5 % with the steps that the search chooses.
"""

from retrieval_jax.settings import arguments, quickstart


def get_config(arg=None):
    """Returns the settings; `:loss=sigmoid` takes another of quickstart.LOSSES, `:seed=1` another seed, `:runlocal`
    runs for seconds."""
    arg = arguments.parse(arg, loss="softmax", seed=0)
    config = quickstart.experiment("quickstart", arg)
    config.train.seed = arg.seed
    config.train.task_kwargs.update(quickstart.LOSSES[arguments.choice("loss", arg.loss, quickstart.LOSSES)])
    return config
