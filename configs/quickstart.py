"""The embedded catalogue, end to end, within five minutes on two CPU cores.

./launch/local.sh --config=configs/quickstart.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:loss=sigmoid` takes another loss of common.LOSSES, `:runlocal` is seconds long."""
    arg = common.parse_arg(arg, loss="softmax", seed=0)
    config = common.quickstart("quickstart", arg)
    if arg.loss not in common.LOSSES:
        raise ValueError(f"the loss {arg.loss!r} is not known; there are {', '.join(common.LOSSES)}")
    config.train.seed = arg.seed
    config.train.task_kwargs.update(common.LOSSES[arg.loss])
    config.report.stage = "cosine"  # users' photos are unlike the gallery that whitening is fitted on: it hurts here
    return config
