"""Fashion catalogue: the best single network and a different one, joined.

    ./launch/local.sh --config=configs/fashion_best_ensemble.py
    ./launch/local.sh --config=configs/fashion_best_ensemble.py:kind=alike  # two seeds of one network

Trains its members first where they are missing. V2L (arXiv 2207.12994) claims that unlike networks complement each
other more than like ones.

Hardware: two CPU cores, two trainings of twice the budget.
Expected: 52.4 ± 1.0 % MAR@10 capped (ensemble); kind=alike 52.6 ± 1.0.
"""

from retrieval_jax.settings import arguments, base, fashion

_VIEWS = "bands+multi_scale,budget=double"
MEMBERS = {
    # Attributes and image-title contrast; attributes alone, on smaller pictures for more epochs.
    "unlike": (f"titles+{_VIEWS},seed=0", f"train_small+{_VIEWS},seed=0"),
    "alike": (f"titles+{_VIEWS},seed=0", f"titles+{_VIEWS},seed=1"),
}


def get_config(arg=None):
    """Returns the settings; `:kind=` one of MEMBERS, `:runlocal` takes the short members."""
    arg = arguments.parse(arg, kind="unlike")
    config = fashion.experiment("fashion_best_ensemble", arg)
    changes = MEMBERS[arguments.choice("kind", arg.kind, MEMBERS)]
    base.ensemble(config, tuple(f"fashion_ablation:change={change}" for change in changes), runlocal=arg.runlocal)
    return config
