"""eProduct, the published recipe with a network that was no member: ViT-L, 224 px, 1024 dimensions, batch 8 x 32.

    ./launch/local.sh --config=configs/eproduct_vit_l.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_vit_l.py:runlocal    # seconds, on the embedded catalogue

Expected: 0.8 hours on eight H200, an estimate: 20 epochs x 1,281,167 pictures x 3 x 123 GFLOP (a forward pass
is 61.6 GMAC) = 9.5e18 FLOP at 55 % of 790 TFLOP/s a device = 6.1 device hours. The host must decode
9,400 pictures a second for it.
Published: nothing for this network; its batch, rate and drop path are ours, after the members'.
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1`, `:augment=rand` and `:pooling=gem` are variants, `:runlocal` is seconds long."""
    arg = common.parse_arg(arg, seed=0, augment="trivial", pooling="")
    return common.eproduct(
        "eproduct_vit_l",
        arg,
        model="vit",
        weights="vit_large_patch16_224.augreg_in21k",
        image_size=224,
        batch_size=8 * 32,
        learning_rate=1e-4,
        drop_path=0.4,
    )
