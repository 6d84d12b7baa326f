"""The embedded catalogue: one network, one budget, every loss; their scores side by side, and the ensemble of all.

./launch/local.sh --config=configs/quickstart_losses.py
"""

from configs import common


def get_config(arg=None):
    """Returns the settings; `:runlocal` takes seconds-long members."""
    arg = common.parse_arg(arg)
    config = common.quickstart("quickstart_losses", arg)
    common.ensemble(config, tuple(f"quickstart:loss={loss}" for loss in common.LOSSES), arg)
    return config
