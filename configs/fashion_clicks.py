"""Fashion catalogue: photos made of its pictures pasted on clutter, learned from simulated clicks, with a learned box.

    ./launch/local.sh --config=configs/fashion_clicks.py:path=weights/tf_efficientnet_lite0.in1k.safetensors
    ./launch/local.sh --config=configs/fashion_clicks.py:start=runs/fashion_pretrained
    ./launch/local.sh --config=configs/fashion_clicks.py:start=runs/fashion_pretrained,located=false

The catalogue (eProduct's layout) is expected in data/fashion of the current folder. Where each product is pasted is
known, and used to score boxes only. The network is that of fashion_pretrained: a small one that starts from nothing
does not learn to find products in front of clutter in this budget.

Hardware: two CPU cores (shared), 11 minutes of training with the box, where both are busy with other work as well.
Expected: 22.5 and 20.2 % MAR@10 capped (cosine, report half, two seeds) from three epochs of fashion_pretrained; IoU
.250 and .248 (whole picture .217): the box shrinks and does not follow the product (docs/clicked_search.md).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, clicks, fashion


def get_config(arg=None):
    """Returns the settings; `:start=` names the folder of a run of fashion_pretrained to start from, `path=` and
    `offline=true` choose public weights, `located=false` learns without a box, `cut=mask` fades out what is around it
    instead of enlarging it, `clicks=false` learns from titles alone, `steps=`, `height=` and `seed=` choose the
    training, `:runlocal` trains for seconds."""
    arg = arguments.parse(
        arg,
        located=True,
        cut="crop",
        clicks=True,
        start="",
        steps=300,
        seed=0,
        name="tf_efficientnet_lite0.in1k",
        path="",
        offline=False,
        height=112,
    )
    config = fashion.experiment("fashion_clicks", arg)
    fashion.fine_tuned(config, arg, drop_path=0.0)
    config.data.source = "pasted"
    config.data.kwargs = ConfigDict({"root": "data/fashion", "seed": 0})
    config.data.kwargs.num_clicks = 200 if arg.runlocal else 20_000
    config.train.batch_size = 16 if arg.runlocal else 32
    config.train.ema_decay = 0.98
    clicks.task(config, arg)
    if arg.start:  # titles have taught it what they can, and heads that start from nothing would shake it
        config.train.task_kwargs.title_weight = 0.0
    config.train.learning_rate_rules = (("^backbone/(?!head_norm)", 0.5),)
    if arg.located:
        config.train.learning_rate_rules += (("^locate/", 2.0),)
    clicks.budget(config, ConfigDict({"steps": 4}) if arg.runlocal else arg, pairs=25_600, listings=24_669)
    config.embed.models = ("colour", "trained")
    return config
