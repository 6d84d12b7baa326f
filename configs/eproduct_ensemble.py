"""eProduct, the published ensemble: ConvNeXt-XL, Swin-L and BEiT-L, each whitened, then concatenated and re-ranked.

    ./launch/local.sh --config=configs/eproduct_ensemble.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_ensemble.py:runlocal    # seconds, on the embedded catalogue

Trains its members first where they are missing, each in a work directory beside its own. `:more=true` adds a ViT-L and
two members in the manner of V2L, which claims that unlike networks complement each other.

Hardware: eight H200, 6.2 hours (estimated, its members together), and the search.
Expected: not measured; published 71.53 % MAR@10, second of eProduct 2022 (arXiv 2208.00955).

The search covers 1.1 million vectors of 4,608 dimensions.
"""

from retrieval_jax.settings import arguments, base, eproduct


def get_config(arg=None):
    """Returns the settings; `:more=true` joins six members, `:runlocal` takes tiny ones."""
    arg = arguments.parse(arg, more=False)
    config = eproduct.experiment(
        "eproduct_ensemble",
        arg,
        model="convnext",
        weights="",
        image_size=224,
        batch_size=8,
        learning_rate=0.0,
        drop_path=0.0,
    )
    members = "eproduct_convnext_xl", "eproduct_swin_l", "eproduct_beit_l"
    if arg.more:
        members += "eproduct_vit_l", "eproduct_v2l_self_supervised", "eproduct_v2l_image_title"
    base.ensemble(config, members, runlocal=arg.runlocal)
    config.search.steps = (("whitening", {}), ("ensemble", {}), ("reranking", {}))  # as published
    config.search.stages = ("ensemble", "reranking")  # searching every member and step takes several times as long
    return config
