"""The published size: a photo and the listings that were and were not clicked after it, where a user has such a log.

    ./launch/local.sh --config=configs/clicks_published.py:root=data/shop
    ./launch/local.sh --config=configs/clicks_published.py:runlocal    # seconds, on the embedded catalogue

A catalogue in eProduct's layout with metadata/photo.csv and the table "clicks" (docs/columns_and_tables.md). The
network is a ConvNeXt-Tiny with public weights. Not published, hence ours: its size, batch size, learning rate, area
penalty and slopes, and how titles teach beside clicks.

Hardware: 8 x H100, hours not measured yet.
Expected: published ("Visual Search at Alibaba", arXiv 2102.04674) on its own log of clicks; no public data to compare.
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, clicks, quickstart


def get_config(arg=None):
    """Returns the settings; `:root=` says where the catalogue is, `:located=false` learns without a box, `cut=crop`
    enlarges what is in it instead of fading out the rest, `epochs=` and `seed=` choose the training, `:runlocal` runs
    for seconds on the embedded catalogue."""
    arg = arguments.parse(arg, root="data/shop", located=True, cut="mask", epochs=10.0, seed=0)
    with arg.unlocked():
        arg.clicks, arg.start = True, ""
    config = quickstart.experiment("clicks_published", arg)
    config.train.seed = arg.seed
    config.data.kwargs.num_clicks = 100
    config.train.batch_size = 16
    clicks.task(config, arg)
    if arg.runlocal:
        return config
    config.data.source = "eproduct"
    config.data.kwargs = ConfigDict({"root": arg.root, "tables": {"clicks": "metadata/clicks.csv"}})
    config.data.image_size = (224, 224)
    config.train.model.pretrained.name = "convnext_tiny.fb_in22k"
    config.train.model.kwargs = ConfigDict({"drop_path": 0.1})
    config.train.model.projection = 512
    config.train.dtype = "bfloat16"
    config.train.batch_size = 256
    config.train.epochs = arg.epochs
    config.train.learning_rate = 5e-4
    config.train.learning_rate_rules += (("^backbone/", 0.1),)
    config.train.task_kwargs.titles_first = 2000
    config.train.task_kwargs.slope_steps = 20_000
    config.train.task_kwargs.unclicked = 3
    return config
