"""The smallest training with everything that a fault could lose: many steps, many checkpoints, evaluations."""

from retrieval_jax.settings import arguments, base


def get_config(arg=None):
    """Returns the settings; `:steps=200` is the length of the training, `:every=10` the interval of checkpoints."""
    arg = arguments.parse(arg, steps=200, every=10)
    config = base.defaults()
    config.name = "fault_config"
    config.data.kwargs.update(
        {"seed": 0, "num_train": 96, "num_val": 8, "num_query": 8, "num_gallery": 24, "image_size": 16}
    )
    config.data.image_size = (16, 16)
    config.mine.threshold = 3
    config.train.model.variant = "micro"
    config.train.model.kwargs.update(
        {"depths": (1, 1), "dims": (8, 12), "pool_stages": (0, 1), "patch_size": 2, "drop_path": 0.2}
    )
    config.train.batch_size = 24  # divisible by the devices and processes of every topology
    config.train.epochs = arg.steps * 24 / 96
    config.train.warmup_epochs = 0.5
    config.train.eval_every_epochs = config.train.epochs / 4
    config.train.log_every_steps = 1
    config.train.checkpoint_every_steps = arg.every
    config.train.num_threads = 1
    config.embed.batch_size = 24
    return config
