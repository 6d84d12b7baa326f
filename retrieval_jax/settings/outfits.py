"""What experiments on outfits share: the task, what is unlabelled, and how they are scored."""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, tasks

LOSSES = {  # pseudo_weight, consistency_weight
    "all": (1.0, 0.1),
    "labelled": (0.0, 0.0),
    "pseudo": (1.0, 0.0),
    "consistency": (0.0, 0.1),
}


def task(config: ConfigDict, arg: ConfigDict, *, types: str, same_product: str) -> None:
    """Sets the task and its budget.

    Args:
      config: changed in place.
      arg: parsed argument with `labels` (per cent of the outfits), `losses`, `sets`, `steps` and `seed`; `runlocal`
        trains for seconds.
      types: the field of an item's type.
      same_product: a column of text whose equal values are one product.
    """
    config.train.seed = arg.seed
    config.train.task = "outfit"
    config.train.task_kwargs = tasks.outfit()
    options = config.train.task_kwargs
    options.types, options.same_product = types, same_product
    options.labels = arg.labels / 100
    options.pseudo_weight, options.consistency_weight = LOSSES[arguments.choice("losses", arg.losses, LOSSES)]
    options.set_weight = 1.0 if arg.sets else 0.0
    config.train.batch_size = 6 if arg.runlocal else 32
    if arg.losses != "labelled":
        config.train.unlabelled.split = "train"
        config.train.unlabelled.batch_size = 24 if arg.runlocal else 128  # four to one, as published
    config.train.warmup_epochs = 0.0
    config.train.learning_rate = 5e-4
    config.train.learning_rate_rules = (("^backbone/", 0.3),)
    config.train.weight_decay = 0.01
    config.train.ema_decay = 0.99
    config.train.transforms = (("random_resized_crop", {"scale": (0.8, 1.0)}), ("flip", {}))
    config.train.evaluations = (("outfits", {}),)
    config.embed.predict_fn = "embed_item"
    config.embed.models = ("colour_and_edges", "trained")
    config.search.steps = ()


def epochs(config: ConfigDict, arg: ConfigDict, outfits: int) -> None:
    """Sets the epochs that give `arg.steps` steps, so that few labels are trained for as long as many.

    Args:
      config: changed in place; its batch size is set.
      arg: parsed argument with `steps` and `labels`.
      outfits: outfits of the train split that go together.
    """
    labelled = max(1, round(outfits * arg.labels / 100))
    config.train.epochs = 1.0 if arg.runlocal else arg.steps * config.train.batch_size / labelled
    config.train.eval_every_epochs = 0.0 if arg.runlocal else config.train.epochs / 3
