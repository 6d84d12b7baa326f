"""eProduct, pictures and titles in one space: ConvNeXt-L, 224 px, 1536 dimensions, batch 8 x 32.

    ./launch/local.sh --config=configs/eproduct_v2l_image_title.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/eproduct_v2l_image_title.py:runlocal    # seconds, on the embedded catalogue

In the manner of V2L, the winner of 2022 (arXiv 2207.12994), whose roughly 20 networks together reached 76.23 % MAR@10:
vision-language networks are fine-tuned with the titles and complement the vision networks. Learns the attributes of the
titles beside the contrast.

Hardware: eight H200, 0.6 hours (estimated).
Expected: not measured.

Estimate: 20 epochs x 1,281,167 pictures x 3 x 69 GFLOP (a forward pass is 34.4 GMAC) = 5.3e18 FLOP, at 40 % of
790 TFLOP/s per device = 4.6 device hours. The host has to decode 12,200 pictures per second.
Nothing is published for a single network, nor its settings: these are our own.
"""

from retrieval_jax.settings import arguments, eproduct, tasks


def get_config(arg=None):
    """Returns the settings; `:seed=1` trains with another seed, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, seed=0)
    config = eproduct.experiment(
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
    config.train.task_kwargs = tasks.image_title()
    config.train.task_kwargs.update({"loss": "softmax", "poly_epsilon": 0.5, "head_init_scale": 0.001})
    config.train.task_kwargs.update({"contrastive_loss": "softmax", "temperature": 0.07})
    config.train.task_kwargs.hidden_dims = 32 if arg.runlocal else 1024
    return config
