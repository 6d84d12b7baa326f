"""The embedded catalogue: what goes together, learned from a twentieth of the outfits and unlabelled pictures.

    ./launch/local.sh --config=configs/embedded_outfits.py:labels=5
    ./launch/local.sh --config=configs/embedded_outfits.py:labels=5,losses=labelled
    ./launch/local.sh --config=configs/embedded_outfits.py:labels=100,losses=labelled,seed=1

Pieces go together that have one style and colours that match. The style shows in the brand's logo, which cannot be read
in pictures of fewer than 96 pixels, nor by a small network from scratch: public ImageNet weights (Lite0) learn the
titles first, which name brands and styles (`stage=titles`, one run for all seeds), then outfits. The system that this
follows (arXiv 2109.08052) reports, on Polyvore, 57.9 % of blanks filled and an AUC of .89.

Hardware: one core of an AMD EPYC: titles 16 minutes, then 13 minutes with all losses, 4 with labelled outfits alone.
Expected: AUC .863 and .584 of the blanks at 5 %, of labelled outfits alone .813 and .556; at 10 % with `steps=500` .915
and .610 (docs/outfits.md).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, base, outfits, quickstart

WEIGHTS = {"name": "tf_efficientnet_lite0.in1k", "path": "", "offline": False}


def get_config(arg=None):
    """Returns the settings; `:labels=` per cent of the outfits, `losses=` all, labelled, pseudo or consistency,
    `sets=true` for a model of whole outfits beside the pairs, `start=` the run to start from ("" for none),
    `name=`, `path=` and `offline=true` the public weights, `steps=` and `seed=` the training, `stage=titles` is what
    runs first, `:runlocal` runs for seconds, from no weights."""
    arg = arguments.parse(
        arg,
        labels=100.0,
        losses="all",
        sets=False,
        start="titles",
        stage="outfits",
        steps=250,
        seed=0,
        **WEIGHTS,
    )
    arguments.choice("stage", arg.stage, ("outfits", "titles"))
    config = quickstart.experiment("embedded_outfits", arg)
    config.data.image_size = (96, 96)
    config.data.kwargs.image_size = 96
    config.data.kwargs.products = True
    config.data.kwargs.num_train = 600 if arg.runlocal else 20_000
    config.data.kwargs.num_val = 400 if arg.runlocal else 3000
    config.data.kwargs.num_gallery = 1200 if arg.runlocal else 6000
    config.data.kwargs.num_query = 20 if arg.runlocal else 300
    config.data.kwargs.num_outfits = 24 if arg.runlocal else 8000
    if not arg.runlocal:  # a small network from scratch does not learn to read the logos
        config.train.model.name, config.train.model.variant = "efficientnet", "lite0"
        config.train.model.kwargs = ConfigDict({"pool_stages": (2, 3), "pooling": "max"})  # a logo is small
        # In both stages, because pictures are normalised as the weights expect.
        base.public_weights(config.train.model.pretrained, arg)
    if arg.stage == "titles":
        config.train.seed = arg.seed
        config.train.task_kwargs.loss = "softmax"
        config.train.learning_rate = 1.5e-3
        config.train.epochs = 0.2 if arg.runlocal else 4.0
        config.train.warmup_epochs = 0.1 if arg.runlocal else 0.2
        config.train.transforms = (
            ("random_resized_crop", {"scale": (0.8, 1.0)}),
            ("color_jitter", {"brightness": 0.15, "contrast": 0.15, "saturation": 0.15}),
        )
        config.train.eval_every_epochs = 0.0
        config.embed.models = ("trained",)
        config.search.steps = ()
        return config
    outfits.task(config, arg, types="middle", same_product="product")
    config.train.transforms = (("random_resized_crop", {"scale": (0.8, 1.0)}),)
    config.train.learning_rate = 2e-3
    if not arg.runlocal:
        config.train.batch_size = 16
        if arg.losses != "labelled":
            config.train.unlabelled.batch_size = 64
    outfits.epochs(config, arg, config.data.kwargs.num_outfits // 2)  # every second one goes together
    if arg.start == "titles":
        given = [f"{key}={arg[key]}" for key, value in WEIGHTS.items() if arg[key] != value]
        config.train.init_from = ",".join(["embedded_outfits:stage=titles", *given, *["runlocal"] * arg.runlocal])
    else:
        config.train.init_from = arg.start
    return config
