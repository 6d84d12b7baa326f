"""eProduct: EfficientNet-Lite0 for queries against the gallery of ConvNeXt-XL, at a hundredth of its cost.

    ./launch/local.sh --config=configs/small_query_published.py             # one machine with eight GPUs
    ./launch/local.sh --config=configs/small_query_published.py:runlocal    # seconds, on the embedded catalogue

Compatibility-aware search (CMP-NAS, arXiv 2105.06047) with a fixed query network; configs/eproduct_convnext_xl.py runs
first. The paper's query networks learn from their own classifier and the frozen one of the gallery network
(`losses=classifier`); InfoNCE among a bank, the default, is what did best here (docs/small_query.md).

Hardware: eight H200, not measured yet.
Expected: not measured; published for searched networks: within 0.3 points at 1/80 of the cost (DeepFashion2).
"""

from retrieval_jax.settings import arguments, compatible, eproduct


def get_config(arg=None):
    """Returns the settings; `:losses=` is one of compatible.LOSSES, `pictures=` another run whose gallery is searched,
    `seed=1` another seed, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, pictures="", losses="contrast", seed=0)
    config = eproduct.experiment(
        "small_query_published",
        arg,
        model="efficientnet",
        weights="tf_efficientnet_lite0.in1k",
        image_size=224,
        batch_size=8 * 128,
        learning_rate=1e-3,
        drop_path=0.1,
    )
    gallery = "eproduct_convnext_xl:runlocal" if arg.runlocal else "eproduct_convnext_xl"
    compatible.task(config, arg.pictures or gallery, arg.losses)
    return config
