"""Fashion catalogue: article type, colour, gender, season and usage of a picture, written one after the other.

    ./launch/local.sh --config=configs/fashion_attributes.py
    ./launch/local.sh --config=configs/fashion_attributes.py:path=weights/tf_efficientnet_lite0.in1k.safetensors
    ./launch/local.sh --config=configs/fashion_attributes.py:heads=sigmoid

The true attributes are expected in fashion_attributes.csv (UUID, gender, articleType ...) beside metadata/. Starts
from public ImageNet weights; without a path they come from the Hugging Face hub. `heads=sigmoid` trains a sigmoid per
value on the same encoder instead. The system that this follows (SK Planet, arXiv 1609.07859) reports a precision of
.841 and a recall of .842 on data of its own.

Hardware: two CPU cores, 10 minutes of both for three epochs.
Expected: report half, seeds 0 / 1: article type .858 / .851, colour .671 / .675, with two epochs from a network that
has learned the titles: `:epochs=2 --config.train.init_from=runs/fashion_pretrained` (docs/attributes.md).
"""

from retrieval_jax.settings import arguments, fashion, tasks


def get_config(arg=None):
    """Returns the settings; `:heads=sigmoid` for the comparison, `:path=` and `offline=true` choose the weights,
    `epochs=`, `height=` (of the pictures, which are 3 wide for 4 high) and `seed=` the training, `:runlocal` trains for
    seconds only."""
    arg = arguments.parse(
        arg,
        heads="sequence",
        name="tf_efficientnet_lite0.in1k",
        path="",
        offline=False,
        epochs=3.0,
        height=80,
        seed=0,
    )
    config = fashion.experiment("fashion_attributes", arg)
    fashion.fine_tuned(config, arg, drop_path=0.05)
    config.data.kwargs.columns = {
        name: (header, "category", "fashion_attributes.csv")
        for name, header in (
            ("type", "articleType"),
            ("gender", "gender"),
            ("colour", "baseColour"),
            ("usage", "usage"),
            ("season", "season"),
        )
    }
    config.train.learning_rate_rules += (("^head_sequence/(?!seen)", 3.0),)  # the LSTM, which starts from nothing
    config.train.task = "attribute_sequence"
    config.train.task_kwargs = tasks.attribute_sequence()
    config.train.task_kwargs.heads = arguments.choice("heads", arg.heads, ("sequence", "sigmoid"))
    # Type first: people choose it, and the others follow from it. Season is the noisiest.
    config.train.task_kwargs.fields = ("type", "CATEG_LVL2_ID", "gender", "colour", "usage", "season")
    if not arg.runlocal:
        config.train.epochs = arg.epochs
        config.train.warmup_epochs = 0.25
    config.train.evaluations = (
        (
            "attributes",
            {"guide": ("type",), "combinations": (("type", "CATEG_LVL2_ID"), ("type", "gender", "usage"))},
        ),
    )
    config.embed.models = ("colour_and_edges", "trained")
    return config
