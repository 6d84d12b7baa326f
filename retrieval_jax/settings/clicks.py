"""What experiments with clicks after photos share: catalogues, what is learned, and budgets of minutes on two cores."""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, tasks

CUTS = ("crop", "mask")


def task(config: ConfigDict, arg: ConfigDict) -> None:
    """Sets what is learned: clicks beside titles, or titles alone from as many pictures per step.

    Args:
      config: changed in place; its batch size is that of photos.
      arg: parsed argument with `located`, whether the network looks for the product first, `cut`, how it is cut out,
        `clicks`, whether clicks teach, `start`, the folder of a run that learned from titles, "" for none, and
        `runlocal`.
    """
    config.train.evaluations = ()
    config.train.eval_every_epochs = 0.0
    if arg.start:
        config.train.init_from = arg.start
        config.train.learning_rate = 1e-3
    if not arg.clicks and not arg.located:
        config.train.task_kwargs = tasks.multilabel()
        config.train.batch_size *= 3  # a photo, a clicked and an unclicked listing
        return
    config.train.task = "click_triplet"
    config.train.task_kwargs = tasks.click_triplet()
    options = config.train.task_kwargs
    options.located, options.cut = arg.located, arguments.choice("cut", arg.cut, CUTS)
    options.title_weight = 0.1  # their loss is a sum over some hundred words
    if arg.start or arg.runlocal:  # a few steps, in which clicks are to count
        options.titles_first = 0
    if arg.located:
        config.train.learning_rate_rules = (("^locate/", 0.3),)
    if not arg.clicks:
        options.softmax_weight = options.triplet_weight = 0.0


def budget(config: ConfigDict, arg: ConfigDict, *, pairs: int, listings: int) -> None:
    """Sets the length of the training, `steps` of photos or of as many titles.

    Args:
      config: changed in place, after `task`.
      arg: parsed argument with `steps`.
      pairs: of a photo and a clicked listing, about.
      listings: of train.
    """
    rows = pairs if config.train.task == "click_triplet" else listings
    config.train.epochs = arg.steps * config.train.batch_size / rows
    config.train.warmup_epochs = config.train.epochs / 20
