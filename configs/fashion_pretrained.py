"""Fashion catalogue: public ImageNet weights (EfficientNet-Lite0), fine-tuned on attributes mined from titles.

    ./launch/local.sh --config=configs/fashion_pretrained.py
    ./launch/local.sh --config=configs/fashion_pretrained.py:path=weights/tf_efficientnet_lite0.in1k.safetensors

Without a path the weights come from the Hugging Face hub, once, and stay in its cache.

Learns as fashion_best does, on pictures of 112 x 80 and maps of three depths; `epochs=3` is the short run.

Hardware: two CPU cores, about 4,500 CPU s of training for eight epochs.
Expected: 63.5 and 63.4 % MAR@10 capped (chosen steps, two seeds), 65.8 and 65.1 % joined with colours and edges
(ensemble); epochs=3 gives 60.7 % and 63.1 % in a third of the time.
"""

from retrieval_jax.settings import arguments, fashion, tasks


def get_config(arg=None):
    """Returns the settings; `:path=` and `offline=true` choose the weights, `epochs=`, `height=` (of the pictures,
    which are 3 wide for 4 high) and `seed=` the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(
        arg, name="tf_efficientnet_lite0.in1k", path="", offline=False, epochs=8.0, height=112, seed=0
    )
    config = fashion.experiment("fashion_pretrained", arg)
    fashion.fine_tuned(config, arg, drop_path=0.1)
    config.train.task = "image_title"
    config.train.task_kwargs = tasks.image_title()
    config.train.task_kwargs.loss = "softmax"
    if not arg.runlocal:
        config.train.epochs = arg.epochs
        config.train.eval_every_epochs = 2.0
    config.embed.models = ("histogram", "colour_and_edges", "trained")
    config.embed.model_kwargs.pool_bands = (3, 3, 1)
    config.embed.views = (("flip", {}), ("multi_scale", {"scales": (1.0, 1.5)}))
    config.search.join = ("trained", "colour_and_edges")
    config.search.steps = (("chosen", {}), ("ensemble", {"weights": "chosen"}))
    return config
