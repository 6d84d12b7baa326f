"""eProduct, second member of the published ensemble: Swin-L, 384 px, 1536 dimensions, batch 8 x 14.

    ./launch/local.sh --config=configs/eproduct_swin_l.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_swin_l.py:runlocal    # seconds, on the embedded catalogue

Expected: 2.3 hours on eight H200, an estimate: 20 epochs x 1,281,167 pictures x 3 x 208 GFLOP (a forward pass
is 104.1 GMAC) = 1.6e19 FLOP at 30 % of 790 TFLOP/s a device = 18.8 device hours. The host must decode
3,000 pictures a second for it.
Published: 71.53 % MAR@10 for the ensemble of the three (arXiv 2208.00955); no member's own number.
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1`, `:augment=rand` and `:pooling=gem` are variants, `:runlocal` is seconds long."""
    arg = common.parse_arg(arg, seed=0, augment="trivial", pooling="")
    return common.eproduct(
        "eproduct_swin_l",
        arg,
        model="swin",
        weights="swin_large_patch4_window12_384.ms_in22k",
        image_size=384,
        batch_size=8 * 14,
        learning_rate=1.5e-4,
        drop_path=0.5,
    )
