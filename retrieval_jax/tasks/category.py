"""Learns the leaf category alone: the coarse-label baseline for attributes mined from titles."""

from retrieval_jax.tasks import Task, multilabel, parts

OPTIONS = {**parts.CATEGORY, **parts.HEADS}
examples = parts.listings


def make(config, info) -> Task:
    """Builds the task: `multilabel` with the category head only.

    Args:
      config: the train block.
      info: `data.info.DataInfo`.

    Returns:
      The Task.

    Raises:
      InputError: unknown option or loss, or a catalogue without categories.
    """
    options = {**parts.options(config, OPTIONS), "title_weight": 0.0, "category_weight": 1.0}
    return multilabel.supervised(config, info, {**parts.TITLES, **options})
