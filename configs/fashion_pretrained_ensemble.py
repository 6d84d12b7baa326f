"""Fashion catalogue: two fine-tunings of public weights, and colours and edges, joined.

    ./launch/local.sh --config=configs/fashion_pretrained_ensemble.py
    ./launch/local.sh --config=configs/fashion_pretrained_ensemble.py:path=weights/lite0.safetensors

Trains its members first where they are missing. The weights of the three are chosen without labels.

Hardware: two CPU cores, two trainings of 4,500 CPU s.
Expected: 65.7 % MAR@10 capped (ensemble), no more than one of them joined with colours and edges.
"""

from retrieval_jax.settings import arguments, base, fashion


def get_config(arg=None):
    """Returns the settings; `:path=` chooses the weights, `:runlocal` takes the short members."""
    arg = arguments.parse(arg, path="")
    config = fashion.experiment("fashion_pretrained_ensemble", arg)
    path = f",path={arg.path}" if arg.path else ""
    base.ensemble(config, tuple(f"fashion_pretrained:seed={seed}{path}" for seed in (0, 1)), runlocal=arg.runlocal)
    config.search.join = ("colour_and_edges",)
    config.search.steps = (("chosen", {}), ("ensemble", {"weights": "chosen"}))
    return config
