"""The embedded catalogue: every loss with one network and budget, and the ensemble of all four.

    ./launch/local.sh --config=configs/quickstart_losses.py

Hardware: two CPU cores, four trainings of the quickstart's size.
Expected: 8.3 % MAR@10 capped (ensemble); by loss, cosine: softmax 18.7, sigmoid 6.8, both 19.8, category 10.5.
"""

from retrieval_jax.settings import arguments, base, quickstart


def get_config(arg=None):
    """Returns the settings; `:runlocal` takes members that run for seconds."""
    arg = arguments.parse(arg)
    config = quickstart.experiment("quickstart_losses", arg)
    base.ensemble(config, tuple(f"quickstart:loss={loss}" for loss in quickstart.LOSSES), runlocal=arg.runlocal)
    return config
