"""eProduct, second member of the published ensemble: Swin-L, 384 px, 1536 dimensions, batch 8 x 14.

    ./launch/local.sh --config=configs/eproduct_swin_l.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_swin_l.py:runlocal    # seconds, on the embedded catalogue

Hardware: eight H200, 2.3 hours (estimated).
Expected: not measured; published 71.53 % MAR@10 for the ensemble of three (arXiv 2208.00955).

Estimate: 20 epochs x 1,281,167 pictures x 3 x 208 GFLOP (a forward pass is 104.1 GMAC) = 1.6e19 FLOP, at 30 % of
790 TFLOP/s per device = 18.8 device hours. The host has to decode 3,000 pictures per second.
"""

from retrieval_jax.settings import arguments, eproduct


def get_config(arg=None):
    """Returns the settings; `:seed=1`, `augment=rand`, `pooling=gem` are variants, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0, augment="trivial", pooling="")
    return eproduct.experiment(
        "eproduct_swin_l",
        arg,
        model="swin",
        weights="swin_large_patch4_window12_384.ms_in22k",
        image_size=384,
        batch_size=8 * 14,
        learning_rate=1.5e-4,
        drop_path=0.5,
    )
