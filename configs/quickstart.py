"""The embedded catalogue, end to end, within five minutes on two CPU cores.

    ./launch/local.sh --config=configs/quickstart.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:runlocal` is a version for tests, seconds long."""
    arg = common.parse_arg(arg)
    config = common.base()
    config.name = "quickstart"

    config.data.kwargs.seed = 0
    config.data.kwargs.num_train = 400 if arg.runlocal else 6000
    config.data.kwargs.num_val = 64 if arg.runlocal else 600
    config.data.kwargs.num_query = 40 if arg.runlocal else 500
    config.data.kwargs.num_gallery = 200 if arg.runlocal else 3000
    config.data.kwargs.image_size = 64

    config.mine.threshold = 5 if arg.runlocal else 30

    if arg.runlocal:
        config.train.batch_size = 32
        config.train.epochs = 1.0
        config.train.eval_every_epochs = 1.0
        config.embed.batch_size = 64
    return config
