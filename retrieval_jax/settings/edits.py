"""What experiments on edits share: catalogues whose queries are a picture and words, and their scores."""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, tasks, texts

CATALOGUES = ("embedded", "fashion")
SCORES = ("hit@1", "hit@10", "hit@50", "ndcg@10")
JOINTS = ("residual", "concat", "film", "transformer")


def catalogue(config: ConfigDict, name: str, *, runlocal: bool) -> None:
    """Points a config at a catalogue with edits.

    Args:
      config: changed in place.
      name: "embedded", whose shoppers edit colour, pattern, material and parts of about 5,000 listings; or "fashion",
        with the tables of benchmarks/fashion_edits.py in data/fashion/edits.
      runlocal: whether it is a version for seconds.

    Raises:
      InputError: there is no such catalogue.
    """
    arguments.choice("catalogue", name, CATALOGUES)
    if name == "embedded":
        config.data.kwargs = ConfigDict({"seed": 0, "queries": "edits", "image_size": 64})
        config.data.kwargs.num_train = 400 if runlocal else 5000
        config.data.kwargs.num_val = 64 if runlocal else 500
        config.data.kwargs.num_query = 60 if runlocal else 2000
        config.data.kwargs.num_gallery = 400 if runlocal else 5000
        config.data.kwargs.num_edits = 60 if runlocal else 6000
        config.data.image_size = (64, 64)
        config.mine.threshold = 5 if runlocal else 30
        config.evaluate.edits.kept = ("leaf",)
    else:
        config.data.source = "table"
        attributes = ("type", "colour", "gender", "usage", "season")
        config.data.kwargs = ConfigDict(
            {
                "root": "data/fashion",
                "image_root": "Images",
                "files": {split: f"edits/{split}.csv" for split in ("train", "val", "gallery")}
                | {"query": "edits/queries.csv"},
                "columns": {
                    "title": "title",
                    "words": ("words", "text"),
                    "reference": ("reference", "text"),
                    "wanted": ("wanted", "text"),
                    **{name: (name, "category") for name in ("edited", "kind", "phrasing", "combination")},
                    **{name: (name, "category") for name in attributes},
                },
                "ground_truth": "edits/truth.csv",
                "tables": {"edits": "edits/edits.csv"},
            }
        )
        config.data.image_size = (112, 80)
        config.mine.threshold = 5
        config.evaluate.edits.kept = ("type", "gender")
    config.evaluate.slices = ("phrasing", "combination")


def task(config: ConfigDict, arg: ConfigDict, *, frozen: bool) -> None:
    """Sets the task, and which sides are searched.

    Args:
      config: changed in place.
      arg: parsed argument with `joint`, `loss`, `drop_picture` and `drop_words`, and `pictures` where it is frozen.
      frozen: whether queries are learned into the space of the run `pictures`, whose network stays as it is.
    """
    config.train.task = "edit"
    config.train.task_kwargs = tasks.edit()
    options = config.train.task_kwargs
    options.query_length = 32
    options.pictures, options.loss = arg.pictures if frozen else "", arg.loss
    options.joint = arguments.choice("joint", arg.joint, JOINTS)
    options.drop_picture, options.drop_words = arg.drop_picture, arg.drop_words
    options.words_kwargs = {"dropout": 0.1}
    texts.searched(config, "embed_edit", "embed_image")
    config.embed.models = ("colour_and_edges", "trained")  # the former to measure how alike results are
    if frozen:
        config.search.gallery_from.run = arg.pictures
        config.embed.predict_fn = "embed_reference"
    else:
        options.siblings = 0  # the reference alone is a negative of its own: others would be embedded for nothing
        options.targets = 1
    config.evaluate.metrics = SCORES
    config.embed.batch_size = 256
