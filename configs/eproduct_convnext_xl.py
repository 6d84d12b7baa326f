"""eProduct, first member of the published ensemble: ConvNeXt-XL, 224 px, 2048 dimensions, batch 8 x 28.

    ./launch/local.sh --config=configs/eproduct_convnext_xl.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_convnext_xl.py:runlocal    # seconds, on the embedded catalogue

Hardware: eight H200, 1.0 hours (estimated).
Expected: not measured; published 71.53 % MAR@10 for the ensemble of three (arXiv 2208.00955).

Estimate: 20 epochs x 1,281,167 pictures x 3 x 122 GFLOP (a forward pass is 60.9 GMAC) = 9.4e18 FLOP, at 40 % of
790 TFLOP/s per device = 8.2 device hours. The host has to decode 6,900 pictures per second.
"""

from retrieval_jax.settings import arguments, eproduct


def get_config(arg=None):
    """Returns the settings; `:seed=1`, `augment=rand`, `pooling=gem` are variants, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0, augment="trivial", pooling="")
    return eproduct.experiment(
        "eproduct_convnext_xl",
        arg,
        model="convnext",
        weights="convnext_xlarge.fb_in22k",
        image_size=224,
        batch_size=8 * 28,
        learning_rate=1e-4,
        drop_path=0.4,
    )
