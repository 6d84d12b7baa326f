"""The embedded catalogue: users' photos, learned from what shoppers clicked, with a box that clicks teach.

    ./launch/local.sh --config=configs/embedded_clicks.py
    ./launch/local.sh --config=configs/embedded_clicks.py:located=false
    ./launch/local.sh --config=configs/embedded_clicks.py:clicks=false,located=false

The second sees whole pictures; the third learns from titles alone, from as many pictures. `wrong=0.2` sends a fifth of
the clicks on the photo's product to another listing of the page.

Hardware: two CPU cores (shared), four minutes.
Expected: 18.3 and 16.9 % MAR@10 capped by the cosine (two seeds, the shop of seed 1, report half); 14.7 and 14.0 %
without the box, 5.3 and 4.7 % without clicks (docs/clicked_search.md).
"""

from retrieval_jax.settings import arguments, clicks, quickstart


def get_config(arg=None):
    """Returns the settings; `:located=false` learns without a box, `cut=mask` fades out what is around it instead of
    enlarging it, `clicks=false` learns from titles alone, `start=` names the folder of such a run to start from,
    `wrong=` is the share of wrong clicks, `steps=` and `seed=` choose the training, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, located=True, cut="crop", clicks=True, start="", wrong=0.0, steps=600, seed=0)
    config = quickstart.experiment("embedded_clicks", arg)
    config.train.seed = arg.seed
    config.data.kwargs.num_clicks = 100 if arg.runlocal else 5000
    config.data.kwargs.wrong_clicks = arg.wrong
    config.train.batch_size = 16 if arg.runlocal else 32
    config.data.image_size = (32, 32)  # half of the pictures': minutes on two cores
    clicks.task(config, arg)
    if not arg.runlocal:
        clicks.budget(config, arg, pairs=16_000, listings=5000)
    return config
