"""Fashion catalogue: ConvNeXt and ViT, each whitened, then concatenated.

Trains its members first where they are missing, each in a work directory beside its own.

    ./launch/local.sh --config=configs/fashion_ensemble.py

Hardware: two CPU cores, 615 + 1084 CPU s of training (its members).
Expected: 47.1 ± 1.0 % MAR@10 capped (ensemble).
"""

from retrieval_jax.settings import arguments, base, fashion


def get_config(arg=None):
    """Returns the settings; `:runlocal` takes the short members."""
    arg = arguments.parse(arg)
    config = fashion.experiment("fashion_ensemble", arg)
    base.ensemble(config, ("fashion_softmax", "fashion_vit"), runlocal=arg.runlocal)
    return config
