"""eProduct, picture and title in one space: ConvNeXt-L, 224 px, 1536 dimensions, beside the titles' attributes; 8 x 32.

    ./launch/local.sh --config=configs/eproduct_v2l_image_title.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_v2l_image_title.py:runlocal    # seconds, on the embedded catalogue

In the manner of V2L, the winner of 2022 (arXiv 2207.12994), whose about 20 networks reached 76.23 % MAR@10 together:
vision-language networks are fine-tuned with the title, and complement the vision networks.

Expected: 0.6 hours on eight H200, an estimate: 20 epochs x 1,281,167 pictures x 3 x 69 GFLOP (a forward pass
is 34.4 GMAC) = 5.3e18 FLOP at 40 % of 790 TFLOP/s a device = 4.6 device hours. The host must decode
12,200 pictures a second for it.
Published: no number of one network, and no settings: those here are ours.
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` is seconds long."""
    arg = common.parse_arg(arg, seed=0)
    config = common.eproduct(
        "eproduct_v2l_image_title",
        arg,
        model="convnext",
        weights="convnext_large.fb_in22k",
        image_size=224,
        batch_size=8 * 32,
        learning_rate=1e-4,
        drop_path=0.3,
    )
    config.train.task = "image_title"
    config.train.task_kwargs.update({"contrastive_loss": "softmax", "temperature": 0.07})
    config.train.task_kwargs.hidden_dims = 32 if arg.runlocal else 1024
    return config
