"""Fashion catalogue: what each way to mine better words is worth, one switch at a time.

    ./launch/local.sh --config=configs/fashion_mining.py:switch=phrases
    ./launch/local.sh --config=configs/fashion_mining.py:switch=variants+phrases,budget=full,seed=1
    python benchmarks/ablation.py --budget=third --out=benchmarks/mining_third.json runs/fashion_mining-*

The baseline, `switch=none`, keeps the plain tokens that occur in more than 5 titles, like fashion_ablation:change=none.
Everything else is the same for all: one network, one budget, softmax with Poly-1, mild crops, no evaluation during
training.

Hardware: two CPU cores, about 200 CPU s of training for a third of the budget.
Expected: 44.5 % MAR@10 capped (whitening) without a switch; every switch is in docs/mining.md.
"""

from retrieval_jax.settings import arguments, fashion

EPOCHS = {"third": 4 / 3, "full": 4.0}

# switch: {setting of config.mine: value}; "+" joins several.
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
    arg = arguments.parse(arg, switch="none", budget="third", seed=0)
    config = fashion.experiment("fashion_mining", arg)
    config.train.task_kwargs.loss = "softmax"
    config.train.eval_every_epochs = 0.0
    config.embed.models = ("trained",)
    arguments.apply_changes(config.mine, "switch", arg.switch, SWITCHES)
    if not arg.runlocal:
        config.train.epochs = EPOCHS[arguments.choice("budget", arg.budget, EPOCHS)]
    return config
