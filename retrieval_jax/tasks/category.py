"""Learns the leaf category alone: the coarse-label baseline that title-mined attributes are measured against."""

import copy

from retrieval_jax.tasks import Task, multilabel


def make(config, data_info) -> Task:
    """Builds the task: `multilabel` with the category head only.

    Args:
      config: the train block; of `task_kwargs`, label_smoothing and head_init_scale apply.
      data_info: `data.info.DataInfo`.
    """
    config = copy.deepcopy(config)
    config.task_kwargs = {**dict(config.task_kwargs), "title_weight": 0.0, "category_weight": 1.0}
    return multilabel.make(config, data_info)
