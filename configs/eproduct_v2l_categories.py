"""eProduct, categories first: a ConvNeXt-L learns the 1,000 leaf categories; 224 px, 1536 dimensions, batch 8 x 32.

    ./launch/local.sh --config=configs/eproduct_v2l_categories.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_v2l_categories.py:runlocal    # seconds, on the embedded catalogue

In the manner of V2L, the winner of 2022 (arXiv 2207.12994), whose roughly 20 networks together reached 76.23 % MAR@10:
vision networks learn categories, then continue self-supervised (eproduct_v2l_self_supervised starts from this run).

Hardware: eight H200, 0.3 hours (estimated).
Expected: not measured.

Estimate: 10 epochs x 1,281,167 pictures x 3 x 69 GFLOP (a forward pass is 34.4 GMAC) = 2.6e18 FLOP, at 40 % of
790 TFLOP/s per device = 2.3 device hours. The host has to decode 12,200 pictures per second.
Nothing is published for a single network, nor its settings: these are our own.
"""

from retrieval_jax.settings import arguments, eproduct, tasks


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0)
    config = eproduct.experiment(
        "eproduct_v2l_categories",
        arg,
        model="convnext",
        weights="convnext_large.fb_in22k",
        image_size=224,
        batch_size=8 * 32,
        learning_rate=1e-4,
        drop_path=0.3,
    )
    config.train.task = "category"
    config.train.task_kwargs = tasks.category()
    config.train.task_kwargs.update({"head_init_scale": 0.001, "label_smoothing": 0.1})
    if not arg.runlocal:
        config.train.epochs = 10.0
        config.train.warmup_epochs = 1.0
    return config
