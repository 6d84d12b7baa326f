"""eProduct, third member of the published ensemble: BEiT-L, 384 px, 1024 dimensions, batch 8 x 8.

    ./launch/local.sh --config=configs/eproduct_beit_l.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_beit_l.py:runlocal    # seconds, on the embedded catalogue

Hardware: eight H200, 2.9 hours (estimated).
Expected: not measured; published 71.53 % MAR@10 for the ensemble of three (arXiv 2208.00955).

Estimate: 20 epochs x 1,281,167 pictures x 3 x 382 GFLOP (a forward pass is 191.2 GMAC) = 2.9e19 FLOP, at 45 % of
790 TFLOP/s per device = 23.0 device hours. The host has to decode 2,500 pictures per second.
"""

from retrieval_jax.settings import arguments, eproduct


def get_config(arg=None):
    """Returns the settings; `:seed=1`, `augment=rand`, `pooling=gem` are variants, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0, augment="trivial", pooling="")
    return eproduct.experiment(
        "eproduct_beit_l",
        arg,
        model="beit",
        weights="beit_large_patch16_384.in22k_ft_in22k_in1k",
        image_size=384,
        batch_size=8 * 8,
        learning_rate=1e-4,
        drop_path=0.4,
    )
