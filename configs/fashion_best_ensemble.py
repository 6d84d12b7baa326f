"""Fashion catalogue: the best single network joined with an unlike one.

    ./launch/local.sh --config=configs/fashion_best_ensemble.py
    ./launch/local.sh --config=configs/fashion_best_ensemble.py:kind=alike  # two seeds of one network

Trains the members first, if need be. V2L (arXiv 2207.12994) claims that unlike networks complement each other more than
like ones; the scores are in the README.
"""

from configs import common

_VIEWS = "bands+multi_scale,budget=double"
MEMBERS = {
    # Attributes and image-title contrast; attributes alone, on smaller pictures for more epochs.
    "unlike": (f"titles+{_VIEWS},seed=0", f"train_small+{_VIEWS},seed=0"),
    "alike": (f"titles+{_VIEWS},seed=0", f"titles+{_VIEWS},seed=1"),
}


def get_config(arg=None):
    """Returns the settings; `:kind=` one of MEMBERS, `:runlocal` takes the short members."""
    arg = common.parse_arg(arg, kind="unlike")
    if arg.kind not in MEMBERS:
        raise ValueError(f"the kind {arg.kind!r} is not known; there are {', '.join(MEMBERS)}")
    config = common.fashion("fashion_best_ensemble", arg)
    common.ensemble(config, tuple(f"fashion_ablation:change={member}" for member in MEMBERS[arg.kind]), arg)
    return config
