"""eProduct, the published ensemble: ConvNeXt-XL, Swin-L and BEiT-L, whitened one by one, concatenated, re-ranked.

    ./launch/local.sh --config=configs/eproduct_ensemble.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_ensemble.py:runlocal    # seconds, on the embedded catalogue

Trains the members first, if need be, each in a work directory beside this one's. `:more=true` adds a ViT-L and the two
members in the manner of V2L, whose claim is that unlike networks complement each other.

Expected: the sum of the members' hours, 6.2 on eight H200, an estimate as theirs are; then a search over 1.1 million
vectors of 4,608 dimensions.
Published: 71.53 % MAR@10, second of eProduct 2022 (arXiv 2208.00955).
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:more=true` joins six members, `:runlocal` takes the tiny ones."""
    arg = common.parse_arg(arg, more=False)
    config = common.eproduct(
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
    common.ensemble(config, members, arg)
    config.search.stages = ("ensemble", "reranking")  # a search of every member and step takes several times as long
    return config
