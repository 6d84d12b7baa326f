"""What experiments with clicks after photos share: the catalogues, the network with its box, and budgets."""

from ml_collections import ConfigDict

from retrieval_jax.settings import tasks


def task(config: ConfigDict, arg: ConfigDict) -> None:
    """Sets what is learned: clicks beside titles, or titles alone from as many pictures a step.

    Args:
      config: changed in place.
      arg: parsed argument with `located`, whether the network looks for the product first, `clicks`, whether clicks
        teach, and `cut`, how a box is cut out.
    """
    if not arg.clicks and not arg.located:
        config.train.task_kwargs = tasks.multilabel()
        config.train.batch_size *= 3  # photo, clicked and unclicked listing
        return
    config.train.task = "click_triplet"
    config.train.task_kwargs = tasks.click_triplet()
    options = config.train.task_kwargs
    options.located, options.cut = arg.located, arg.cut
    if not arg.clicks:
        options.softmax_weight = options.triplet_weight = 0.0
