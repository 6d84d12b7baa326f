"""The smallest run of the task 'outfit': trained for a few steps, and embedded by types."""

from retrieval_jax import embed, search, train
from retrieval_jax.models.backbones import convnext
from retrieval_jax.settings import tasks
from tiny import TINY, tiny_config


def settings():
    """Returns the config of a training of two steps."""
    config = tiny_config()
    config.data.kwargs.update(
        {"num_train": 300, "num_val": 60, "num_gallery": 1000, "num_outfits": 16, "products": True}
    )
    config.train.task, config.train.task_kwargs = "outfit", tasks.outfit()
    config.train.task_kwargs.update({"types": "middle", "same_product": "product"})
    config.train.task_kwargs.update({"pseudo_weight": 0.0, "consistency_weight": 0.0})
    config.train.epochs, config.train.warmup_epochs, config.train.batch_size = 1.0, 0.0, 4
    config.train.evaluations = ()
    config.embed.predict_fn, config.embed.models, config.search.steps = "embed_item", ("trained",), ()
    return config


def save(folder):
    """Trains, embeds and searches in a work directory; returns its config."""
    convnext.VARIANTS["tiny test"] = TINY  # which stays: tests of other folders may need it
    config = settings()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json())
    for verb in (train, embed, search):
        verb.run(config, folder)
    return config
