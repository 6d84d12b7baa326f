"""The embedded catalogue: users' photos, learned from what shoppers clicked, with a box that is learned from clicks too.

    ./launch/local.sh --config=configs/embedded_clicks.py
    ./launch/local.sh --config=configs/embedded_clicks.py:located=false
    ./launch/local.sh --config=configs/embedded_clicks.py:clicks=false,located=false

The second sees whole pictures, the third learns from titles alone, from as many pictures. `wrong=0.2` makes a fifth of
the clicks wrong ones.

Hardware: two CPU cores (shared), four minutes.
Expected: not measured yet.
"""

from retrieval_jax.settings import arguments, clicks, quickstart


def get_config(arg=None):
    """Returns the settings; `:located=false` learns without a box, `cut=mask` fades out what is around it instead of
    enlarging it, `clicks=false` learns from titles alone, `wrong=` is the share of wrong clicks, `epochs=` and
    `seed=` choose the training, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, located=True, cut="crop", clicks=True, wrong=0.0, epochs=0.0, seed=0)
    config = quickstart.experiment("embedded_clicks", arg)
    config.train.seed = arg.seed
    config.data.kwargs.num_clicks = 100 if arg.runlocal else 5000
    config.data.kwargs.wrong_clicks = arg.wrong
    config.train.batch_size = 16 if arg.runlocal else 32
    clicks.task(config, arg)
    if not arg.runlocal:  # 600 steps
        config.train.epochs = arg.epochs or (1.25 if config.train.task == "click_triplet" else 11.5)
        config.train.warmup_epochs = config.train.epochs / 20
        config.train.eval_every_epochs = 0.0
    return config
