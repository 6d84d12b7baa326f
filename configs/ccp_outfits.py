"""Street photos (Clothing Co-Parsing): what goes together, from garments that were worn together.

    python benchmarks/ccp_outfits.py data/ccp data/ccp_outfits
    ./launch/local.sh --config=configs/ccp_outfits.py:losses=labelled
    ./launch/local.sh --config=configs/ccp_outfits.py:labels=25

data/ccp is the unpacked archive. Every garment is cut out by its mask and has a light of its own, so that the light of
one photo gives away less of which garments were worn together. Starts from public ImageNet weights (`path=` of a file
of them). The system that this follows (arXiv 2109.08052) reports, on Polyvore, 57.9 % of blanks filled and an AUC of
.89; 698 photos are a hundredth of that.

Hardware: one core of an AMD EPYC: 18 to 23 minutes with labelled outfits alone; with all losses about three times that,
which was not run.
Expected: of labelled outfits alone an AUC of .707 and .423 of the blanks, where mean colours have .542 and colours and
edges fill .351 (docs/outfits.md).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, base, outfits


def get_config(arg=None):
    """Returns the settings; `:labels=` per cent of the outfits, `losses=` all, labelled, pseudo or consistency,
    `sets=true` for a model of whole outfits beside the pairs, `name=`, `path=` and `offline=true` the weights, `steps=`
    and `seed=` the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(
        arg,
        labels=100.0,
        losses="all",
        sets=False,
        name="tf_efficientnet_lite0.in1k",
        path="",
        offline=False,
        steps=200,
        seed=0,
    )
    config = base.defaults()
    config.name = "ccp_outfits"
    config.data.source = "table"
    config.data.kwargs = ConfigDict(
        {
            "root": "data/ccp_outfits",
            "files": {"train": "train.csv", "val": "val.csv", "query": "query.csv", "gallery": "gallery.csv"},
            "columns": {"title": "label", "categories": ("group",), "photo": ("photo", "text")},
            "tables": {"outfits": "outfits.csv"},
        }
    )
    config.data.image_size = (96, 96)
    config.mine.threshold = 5
    outfits.task(config, arg, types="group", same_product="photo")
    outfits.epochs(config, arg, 372)  # photos of the train split with two garments or more
    if arg.runlocal:
        config.train.epochs, config.train.model.variant = 0.1, "micro"
    else:
        base.public_weights(config.train.model.pretrained, arg)
        config.train.model.kwargs = ConfigDict({"drop_path": 0.05})
    config.train.transforms = (
        ("resize", {}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": 0.1, "saturation": 0.2}),
    )
    return config
