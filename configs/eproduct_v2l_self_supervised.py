"""eProduct, then self-supervised: the ConvNeXt-L of eproduct_v2l_categories goes on, on two crops of each picture.

    ./launch/local.sh --config=configs/eproduct_v2l_self_supervised.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_v2l_self_supervised.py:runlocal    # seconds, on the embedded catalogue

In the manner of V2L, the winner of 2022 (arXiv 2207.12994), whose about 20 networks reached 76.23 % MAR@10 together:
vision networks learn categories, then go on self-supervised. eproduct_v2l_categories runs first, if need be, in a work
directory beside this one's.

Expected: 0.8 hours on eight H200, an estimate: 10 epochs x 1,281,167 pictures x 8 x 69 GFLOP (a forward pass
is 34.4 GMAC) = 7.1e18 FLOP at 40 % of 790 TFLOP/s a device = 6.2 device hours. The host must decode
4,600 pictures a second for it.
The 8 are two crops that learn, 3 each, and the teacher's two.
Published: no number of one network, and no settings: those here are ours.
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` is seconds long."""
    arg = common.parse_arg(arg, seed=0)
    config = common.eproduct(
        "eproduct_v2l_self_supervised",
        arg,
        model="convnext",
        weights="convnext_large.fb_in22k",
        image_size=224,
        batch_size=8 * 32,
        learning_rate=1e-4,
        drop_path=0.3,
    )
    config.train.init_from = "eproduct_v2l_categories" + (":runlocal" if arg.runlocal else "")
    config.train.task = "self_supervised"
    config.train.task_kwargs.update({"temperature": 0.2, "hidden_dims": 32 if arg.runlocal else 1024})
    config.train.views = ({"transforms": config.train.transforms},)
    config.train.ema_paths = ""  # the teacher is the whole network
    config.train.learning_rate = 2e-5
    if not arg.runlocal:
        config.train.epochs = 10.0
        config.train.warmup_epochs = 1.0
    return config
