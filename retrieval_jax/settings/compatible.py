"""What experiments with two networks share: a small one for queries, or a new one, whose vectors search the gallery of
another run."""

from ml_collections import ConfigDict

from retrieval_jax.errors import InputError
from retrieval_jax.settings import arguments, base, tasks

# Which losses a network learns the gallery's space by: weights of the task `compatible`.
LOSSES = {
    "all": {"regression_weight": 1.0, "rank_weight": 1.0, "relation_weight": 1.0, "contrast_weight": 0.1},
    "regression": {"regression_weight": 1.0},
    "contrast": {"contrast_weight": 1.0, "bank": 2048},
    "rank": {"rank_weight": 1.0},
    "relation": {"relation_weight": 1.0},
    "classifier": {"classifier_weight": 1.0},
    "logits": {"logits_weight": 1.0},
    "none": {"title_weight": 1.0},  # its own classifier alone: a space of its own, whatever it is called
}


def task(config: ConfigDict, pictures: str, losses: str) -> None:
    """Sets the task, and that the gallery of another run is searched by plain cosines.

    Args:
      config: changed in place.
      pictures: the run whose gallery is searched, a config or a folder.
      losses: of LOSSES.

    Raises:
      InputError: there are no such losses.
    """
    config.train.task = "compatible"
    config.train.task_kwargs = tasks.compatible()
    options = config.train.task_kwargs
    options.pictures, options.loss = pictures, "softmax"
    options.regression_weight = 0.0
    options.update(LOSSES[arguments.choice("losses", losses, LOSSES)])
    config.search.gallery_from.run = pictures
    config.search.steps = ()
    config.embed.models = ("trained",)
    config.train.eval_every_epochs = 0.0


def small_network(config: ConfigDict) -> None:
    """Sets the query network for two CPU cores: a narrow, shallow EfficientNet-Lite for pictures of 56 x 40.

    Args:
      config: changed in place.
    """
    config.data.image_size = (56, 40)
    config.train.model = ConfigDict({"name": "efficientnet", "variant": "lite0", "projection": 0})
    config.train.model.kwargs = ConfigDict(
        {"channel_multiplier": 0.35, "depth_multiplier": 0.6, "pool_stages": (2, 4, 6)}
    )


def same_network(config: ConfigDict, arg: ConfigDict) -> None:
    """Sets the network of fashion_pretrained, from the weights of such a run, for pictures of 56 x 40.

    Args:
      config: changed in place.
      arg: parsed argument with `pictures`, the run that is searched, a folder, and `name`, `path` and `offline`, the
        public weights that it started from: pictures are normalised as these expect.
    """
    config.data.image_size = (56, 40)
    kwargs = {"pool_stages": (2, 4, 7), "pool_bands": (3, 3, 1), "drop_path": 0.1}  # bands: as the gallery is embedded
    config.train.model.projection, config.train.model.kwargs = 0, ConfigDict(kwargs)
    base.public_weights(config.train.model.pretrained, arg)
    config.train.init_from = arg.pictures
    config.train.learning_rate = 1e-3


def super_network(config: ConfigDict, choice: str) -> None:
    """Sets the super-net for two CPU cores, or one of its small networks, for square pictures of up to 40 px.

    Args:
      config: changed in place.
      choice: an architecture that `retrieval-jax nas` has found, which begins with its size; "" for the super-net.
    """
    side = choice.partition("_")[0]
    if choice and not side.isdecimal():
        raise InputError(f"choice={choice!r} is not an architecture: give what `retrieval-jax nas` prints")
    side = int(side) if choice else 40
    config.data.image_size = (side, side)
    config.train.model = ConfigDict({"name": "supernet", "variant": "small", "projection": 0})
    config.train.model.kwargs = ConfigDict({"choice": choice})
