"""Fashion catalogue: what each way to mine better words is worth. One network, one budget, one switch at a time.

    ./launch/local.sh --config=configs/fashion_mining.py:switch=phrases
    ./launch/local.sh --config=configs/fashion_mining.py:switch=variants+phrases,budget=full,seed=1
    python benchmarks/ablation.py --budget=third --out=benchmarks/mining_third.json runs/fashion_mining-*

The baseline, `switch=none`, has the plain tokens that were seen more than 5 times: configs/fashion_ablation.py of no
change. All else is the same: softmax with Poly-1, mild crops, no evaluation during training.
"""

from configs import common

EPOCHS = {"third": 4 / 3, "full": 4.0}

# switch: {setting of config.mine: value}; several are joined by "+".
SWITCHES = {
    "none": {},
    "normalise": {"normalise": True},
    "segment": {"segment": True},
    "variants": {"variants.on": True},
    "phrases": {"phrases.on": True},
    "uninformative": {"uninformative.on": True},
    "rare": {"rare.on": True},
    "categories": {"categories.on": True},
}
SWITCHES["all"] = {setting: value for one in SWITCHES.values() for setting, value in one.items()}


def get_config(arg=None):
    """Returns the settings; `:switch=` one of SWITCHES or several joined by "+", `budget=third|full`, `seed=`."""
    arg = common.parse_arg(arg, switch="none", budget="third", seed=0)
    if arg.budget not in EPOCHS:
        raise ValueError(f"the budget {arg.budget!r} is not known; there are {', '.join(EPOCHS)}")
    config = common.fashion("fashion_mining", arg)
    config.train.task_kwargs.loss = "softmax"
    config.train.eval_every_epochs = 0.0
    config.embed.models = ("trained",)
    common.apply_changes(config.mine, "switch", arg.switch, SWITCHES)
    if not arg.runlocal:
        config.train.epochs = EPOCHS[arg.budget]
    return config
