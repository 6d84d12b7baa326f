"""The embedded catalogue: its true attributes, written one after the other.

    ./launch/local.sh --config=configs/embedded_attributes.py
    ./launch/local.sh --config=configs/embedded_attributes.py:heads=sigmoid

The system that this follows (SK Planet, arXiv 1609.07859) reports a precision of .841 and a recall of .842 on data of
its own.

Hardware: two CPU cores, under 5 minutes.
Expected: not measured yet.
"""

from retrieval_jax.settings import arguments, quickstart, tasks


def get_config(arg=None):
    """Returns the settings; `:heads=sigmoid` trains a sigmoid per value on the same encoder, `:seed=1` another seed,
    `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, heads="sequence", seed=0)
    config = quickstart.experiment("embedded_attributes", arg)
    config.train.seed = arg.seed
    config.train.task = "attribute_sequence"
    config.train.task_kwargs = tasks.attribute_sequence()
    config.train.task_kwargs.heads = arguments.choice("heads", arg.heads, ("sequence", "sigmoid"))
    config.train.task_kwargs.fields = ("leaf", "middle", "colour", "pattern", "material", "brand", "style", "parts")
    config.train.task_kwargs.optional_fields = ("parts",)  # a listing without parts has none
    config.train.evaluations = (
        ("attributes", {"guide": ("leaf",), "combinations": (("leaf", "middle"), ("leaf", "material"))}),
        ("retrieval", {"max_queries": 500, "max_gallery": 2000}),
    )
    config.embed.models = ("colour_and_edges", "trained")
    return config
