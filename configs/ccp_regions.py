"""Street photos (Clothing Co-Parsing): where each garment is, and of what kind.

    python benchmarks/ccp_tables.py ccp.tar data/ccp
    ./launch/local.sh --config=configs/ccp_regions.py
    ./launch/local.sh --config=configs/ccp_regions.py:path=weights/tf_efficientnet_lite0.in1k.safetensors

Several boxes per photo: a listing is a garment, and those of one photo are learned together. Starts from public
ImageNet weights. The system that this follows (SK Planet, arXiv 1609.07859) reports a mean average precision at an
overlap of .5 of .849, and of .877 where the category is known, on data of its own.

Hardware: two CPU cores, 10 minutes on a shared machine.
Expected: mean average precision .28 on val, .30 with the types in the photo given (seed 0).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, base, tasks


def get_config(arg=None):
    """Returns the settings; `:path=` and `offline=true` choose the weights, `epochs=` and `seed=` the training,
    `:runlocal` trains for seconds only."""
    arg = arguments.parse(arg, name="tf_efficientnet_lite0.in1k", path="", offline=False, epochs=12.0, seed=0)
    config = base.defaults()
    config.name = "ccp_regions"
    config.data.source = "table"
    config.data.kwargs = ConfigDict(
        {
            "root": "data/ccp",
            "files": {"train": "train.csv", "val": "val.csv", "query": "query.csv", "gallery": "gallery.csv"},
            "columns": {
                "title": "label",
                "categories": ("group",),
                "kind": ("group", "category"),
                "photo": ("photo", "text"),
                "box": (("ymin", "xmin", "ymax", "xmax"), "number"),
            },
        }
    )
    config.data.image_size = (192, 128)
    config.mine.threshold = 5
    config.train.seed = arg.seed
    config.train.task = "regions"
    config.train.task_kwargs = tasks.regions()
    config.train.task_kwargs.types = "kind"
    config.train.task_kwargs.group = "photo"
    config.train.task_kwargs.boxes = 100
    base.public_weights(config.train.model.pretrained, arg)
    config.train.model.kwargs = ConfigDict({"pool_stages": (2, 4, 6), "drop_path": 0.05})  # 24 x 16 cells first
    config.train.batch_size = 32
    config.train.epochs = 0.2 if arg.runlocal else arg.epochs
    config.train.warmup_epochs = 0.1 if arg.runlocal else 1.0
    config.train.learning_rate = 1e-3
    config.train.learning_rate_rules = (("^backbone/(?!head_norm)", 0.5),)
    config.train.transforms = (
        ("resize", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}),
    )
    config.train.evaluations = (("regions", {}),)
    config.train.eval_every_epochs = 0.0 if arg.runlocal else 4.0
    config.embed.models = ("colour", "trained")
    return config
