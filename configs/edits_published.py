"""A picture and words on the public benchmarks, Fashion IQ and Fashion200k, where a user has them.

    ./launch/local.sh --config=configs/edits_published.py:root=data/fashion_iq,category=dress
    ./launch/local.sh --config=configs/edits_published.py:data=fashion200k,root=data/fashion200k

ConvNeXt-Tiny with public weights in the place of the published ResNets, a transformer of words, and a gated residual
of both (TIRG, arXiv 1812.07119). Both data sets are read as they are distributed (docs/edits.md). Not published, hence
ours: the networks' sizes, learning rates, batch size and epochs.

Hardware: 1 x H100, not measured yet.
Expected: published for TIRG with a ResNet: Fashion200k R@1 / 10 / 50 14.1 / 42.5 / 63.8; Fashion IQ R@10 / 50 14.9 /
34.7 (dress), 18.3 / 37.9 (shirt), 19.1 / 39.6 (toptee), as Chen et al. (VAL, CVPR 2020) report it.
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, base, edits, texts

DATA = ("fashion_iq", "fashion200k")


def get_config(arg=None):
    """Returns the settings; `:data=fashion200k` replaces Fashion IQ, `root=` says where it is, `category=` (shirt,
    toptee) what of Fashion IQ is scored, `joint=`, `loss=siamese`, `epochs=` and `seed=` choose the training,
    `:runlocal` runs for seconds on the embedded catalogue."""
    arg = arguments.parse(
        arg,
        data="fashion_iq",
        root="",
        category="dress",
        joint="residual",
        loss="softmax",
        drop_picture=0.0,
        drop_words=0.0,
        epochs=20.0,
        seed=0,
    )
    arguments.choice("data", arg.data, DATA)
    config = base.defaults()
    config.name = "edits_published"
    edits.catalogue(config, "embedded", runlocal=arg.runlocal)
    texts.small_steps(config, arg, 0.1 if arg.runlocal else arg.epochs)
    edits.task(config, arg, frozen=False)
    config.train.transforms = (("random_resized_crop", {"scale": (0.8, 1.0)}), ("flip", {}))
    if arg.runlocal:
        config.train.model.variant = "micro"
        config.train.batch_size = 16
        return config
    config.data.source = arg.data
    config.data.kwargs = ConfigDict({"root": arg.root or f"data/{arg.data}"})
    if arg.data == "fashion_iq":
        config.data.kwargs.category = arg.category
    config.data.image_size = (224, 224)
    config.evaluate.edits.kept = ()
    config.train.task_kwargs.text_columns = ()  # neither has titles
    config.evaluate.slices = ()
    config.train.model.pretrained.name = "convnext_tiny.fb_in22k"
    config.train.model.kwargs = ConfigDict({"drop_path": 0.1})
    config.train.model.projection = 512
    config.train.dtype = "bfloat16"
    config.train.batch_size = 256
    config.train.learning_rate = 5e-4
    config.train.learning_rate_rules = (("^backbone/", 0.1),)
    config.train.task_kwargs.words = ("transformer", "medium")
    config.train.task_kwargs.words_dim = 512
    return config
