"""eProduct, then self-supervised: eproduct_v2l_categories continues on two crops of each picture.

    ./launch/local.sh --config=configs/eproduct_v2l_self_supervised.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_v2l_self_supervised.py:runlocal    # seconds, on the embedded catalogue

In the manner of V2L, the winner of 2022 (arXiv 2207.12994), whose roughly 20 networks together reached 76.23 % MAR@10:
vision networks learn categories, then continue self-supervised. Runs eproduct_v2l_categories first where it is missing,
in a work directory beside its own.

Hardware: eight H200, 0.8 hours (estimated).
Expected: not measured.

Estimate: 10 epochs x 1,281,167 pictures x 8 x 69 GFLOP (a forward pass is 34.4 GMAC) = 7.1e18 FLOP, at 40 % of
790 TFLOP/s per device = 6.2 device hours; the 8 passes are two learning crops, 3 each, and the teacher's two. The host
has to decode 4,600 pictures per second.
Nothing is published for a single network, nor its settings: these are our own.
"""

from retrieval_jax.settings import arguments, eproduct, tasks


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0)
    config = eproduct.experiment(
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
    config.train.task_kwargs = tasks.self_supervised()
    config.train.task_kwargs.update({"temperature": 0.2, "hidden_dims": 32 if arg.runlocal else 1024})
    config.train.views = ({"transforms": config.train.transforms},)
    config.train.ema_paths = ""  # the teacher is the whole network
    config.train.learning_rate = 2e-5
    if not arg.runlocal:
        config.train.epochs = 10.0
        config.train.warmup_epochs = 1.0
    return config
