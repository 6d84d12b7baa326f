"""Fashion catalogue: a new model that searches the gallery of an old one, so that no picture is embedded again.

    ./launch/local.sh --config=configs/fashion_new_model.py:pictures=runs/fashion_old,path=weights/lite0.safetensors

`pictures` is the folder of the old run of configs/fashion_pretrained.py. The new model learns titles as that did, for
longer, and the old vectors of the train pictures beside them.

Hardware: two CPU cores, about 20 minutes of one core for three epochs on pictures of 80 x 64.
Expected: no more than the old model on the old gallery: 45.7 against 48.0 % MAR@10 capped (docs/small_query.md).
"""

from retrieval_jax.settings import arguments, compatible, fashion


def get_config(arg=None):
    """Returns the settings; `:pictures=` is the old run, `losses=` one of compatible.LOSSES, `path=` and
    `offline=true` choose the public weights, `epochs=`, `height=` (of the pictures, which are 3 wide for 4 high) and
    `seed=` the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(
        arg,
        pictures="runs/fashion_old",
        losses="all",
        name="tf_efficientnet_lite0.in1k",
        path="",
        offline=False,
        epochs=8.0,
        height=112,
        seed=0,
    )
    config = fashion.experiment("fashion_new_model", arg)
    fashion.fine_tuned(config, arg, drop_path=0.1)
    compatible.task(config, arg.pictures, arg.losses)
    config.train.task_kwargs.title_weight = 1.0
    if not arg.runlocal:
        config.train.epochs = arg.epochs
    return config
