"""The published recipe on eProduct, which its experiments share: attributes of titles, softmax, public weights."""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, quickstart

# Makes the "micro" variant of a network smaller still, for :runlocal.
SMALL = {
    "efficientnet": {"channel_multiplier": 0.25, "depth_multiplier": 0.25, "pool_stages": (2,)},
    "convnext": {"depths": (1, 1), "dims": (8, 16), "pool_stages": (1,)},
    "swin": {"depths": (2, 1), "num_heads": (1, 2), "width": 16, "window_size": 4},
    "beit": {"depth": 2, "width": 32, "num_heads": 2, "patch_size": 8},
    "vit": {"depth": 2, "width": 32, "num_heads": 2, "patch_size": 8},
}
AUGMENTATIONS = {"trivial": ("trivial_augment", {}), "rand": ("rand_augment", {"magnitude": 9.0})}


def experiment(
    name: str,
    arg: ConfigDict,
    *,
    model: str,
    weights: str,
    image_size: int,
    batch_size: int,
    learning_rate: float,
    drop_path: float,
) -> ConfigDict:
    """Returns the settings of the published recipe.

    The catalogue is expected in data/eproduct of the current folder; --config.data.kwargs.root=... gives another place.
    What the paper leaves open (clipping: no; augmentation: TrivialAugment or RandAugment of magnitude 9; Poly-1's
    epsilon: 0.5 or 2; GeM or not) is set by the argument, or to the first of these.

    Only the crop of a picture is decoded, and one that is at least twice as large as the network's input on both sides
    at 1/2, 1/4 or 1/8 of its size; train.crop_before_decoding=False turns this off. Crops are resized by area
    averaging, like pictures at test time: interpolation "halves" would save a third of the host's work, but its effect
    on retrieval has not been measured.

    Args:
      name: of the experiment.
      arg: parsed argument; of `seed`, `augment` ("trivial" or "rand") and `pooling` ("" for the weights' own, "gem")
        those that the config takes; `runlocal` trains a tiny network from scratch on the embedded catalogue, for
        seconds.
      model: module in retrieval_jax/models/backbones, of the weights and of the tiny network.
      weights: timm's name.
      image_size: height and width in pixels.
      batch_size: over all eight devices.
      learning_rate: peak value.
      drop_path: rate of the last block.

    Source: "Large-Scale Product Retrieval with Weakly Supervised Representation Learning", arXiv 2208.00955.
    """
    config = quickstart.experiment(name, arg)
    if not arg.runlocal:
        config.data.source = "eproduct"
        config.data.kwargs = ConfigDict({"root": "data/eproduct"})
        config.data.image_size = (image_size, image_size)
        config.data.cache_bytes = 0  # 1.3 million pictures
        config.mine.threshold = 30
        config.mine.rule = 1  # as published: sellers' titles have HTML and accents, on which the rules differ
    config.train.seed = arg.get("seed", 0)
    config.train.task_kwargs.update({"loss": "softmax", "poly_epsilon": 0.5, "head_init_scale": 0.001})
    config.train.model.name = model
    config.train.model.kwargs = ConfigDict({"drop_path": drop_path})
    if arg.get("pooling", ""):
        config.train.model.kwargs.pooling = arg.pooling
    config.train.model.pretrained.name = weights
    config.train.model.pretrained.kwargs.img_size = image_size
    config.train.dtype = "bfloat16"
    config.train.batch_size = batch_size
    config.train.epochs = 20.0
    config.train.warmup_epochs = 5.0
    config.train.learning_rate = learning_rate
    config.train.final_learning_rate = 1e-6
    config.train.weight_decay = 1e-4
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.999
    config.train.ema_paths = "^backbone/"
    config.train.transforms = (
        ("random_resized_crop", {"scale": (0.2, 1.0)}),
        ("flip", {}),
        AUGMENTATIONS[arguments.choice("augment", arg.get("augment", "trivial"), AUGMENTATIONS)],
        ("erasing", {"p": 0.25}),
    )
    config.train.crop_before_decoding = True
    config.train.num_threads = 16
    config.train.log_every_steps = 100
    config.train.checkpoint_every_steps = 2000
    config.train.eval_every_epochs = 1.0  # runs only where the ground truth of the queries is known
    config.embed.models = ("trained",)
    config.search.steps = (("whitening", {}), ("reranking", {}))  # as published
    if arg.runlocal:
        config.data.kwargs.update({"num_train": 64, "num_val": 8, "num_query": 8, "num_gallery": 32, "image_size": 32})
        config.data.image_size = (32, 32)
        config.mine.threshold = 3
        config.train.model.variant = "lite0" if model == "efficientnet" else "micro"
        config.train.model.kwargs.update(SMALL[model])
        config.train.model.pretrained.name = ""
        config.train.dtype = "float32"
        config.train.batch_size = 16
        config.train.epochs = 0.5
        config.train.warmup_epochs = 0.25
        config.train.num_threads = 1
        config.train.log_every_steps = 1
        config.train.eval_every_epochs = 0.0
        config.embed.batch_size = 16
        config.report.rows = 2
    return config
