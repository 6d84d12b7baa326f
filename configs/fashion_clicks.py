"""Fashion catalogue: photos made of its pictures pasted on clutter, learned from simulated clicks, with a learned box.

    ./launch/local.sh --config=configs/fashion_clicks.py
    ./launch/local.sh --config=configs/fashion_clicks.py:located=false
    ./launch/local.sh --config=configs/fashion_clicks.py:clicks=false,located=false

The catalogue (eProduct's layout) is expected in data/fashion of the current folder. Where each product is pasted is
known, and used to score boxes only.

Hardware: two CPU cores (shared), five minutes of training.
Expected: IoU .255 (whole picture .217); the default 600 steps do not teach retrieval (docs/clicked_search.md).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, clicks, fashion


def get_config(arg=None):
    """Returns the settings; `:located=false` learns without a box, `cut=mask` fades out what is around it instead of
    enlarging it, `clicks=false` learns from titles alone, `start=` names the folder of such a run to start from,
    `steps=` and `seed=` choose the training, `:runlocal` trains for seconds."""
    arg = arguments.parse(arg, located=True, cut="crop", clicks=True, start="", steps=600, seed=0)
    config = fashion.experiment("fashion_clicks", arg)
    config.data.source = "pasted"
    config.data.kwargs = ConfigDict({"root": "data/fashion", "seed": 0})
    config.data.kwargs.num_clicks = 200 if arg.runlocal else 20_000
    config.train.model.variant = "micro"
    config.train.batch_size = 16 if arg.runlocal else 32
    config.train.learning_rate = 3e-3
    config.train.ema_decay = 0.99
    config.data.image_size = (48, 40)  # of 160 x 120: minutes on two cores
    clicks.task(config, arg)
    clicks.budget(config, ConfigDict({"steps": 4}) if arg.runlocal else arg, pairs=25_600, listings=24_669)
    config.embed.models = ("colour", "trained")
    return config
