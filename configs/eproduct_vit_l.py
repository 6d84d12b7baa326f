"""eProduct, the published recipe with a network outside its ensemble: ViT-L, 224 px, 1024 dimensions, batch 8 x 32.

    ./launch/local.sh --config=configs/eproduct_vit_l.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_vit_l.py:runlocal    # seconds, on the embedded catalogue

Hardware: eight H200, 0.8 hours (estimated).
Expected: not measured.

Estimate: 20 epochs x 1,281,167 pictures x 3 x 123 GFLOP (a forward pass is 61.6 GMAC) = 9.5e18 FLOP, at 55 % of
790 TFLOP/s per device = 6.1 device hours. The host has to decode 9,400 pictures per second.
Nothing is published for this network; batch size, learning rate and drop path are our own, after the members'.
"""

from retrieval_jax.settings import arguments, eproduct


def get_config(arg=None):
    """Returns the settings; `:seed=1`, `augment=rand`, `pooling=gem` are variants, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0, augment="trivial", pooling="")
    return eproduct.experiment(
        "eproduct_vit_l",
        arg,
        model="vit",
        weights="vit_large_patch16_224.augreg_in21k",
        image_size=224,
        batch_size=8 * 32,
        learning_rate=1e-4,
        drop_path=0.4,
    )
