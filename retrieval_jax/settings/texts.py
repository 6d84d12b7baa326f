"""What the experiments with typed queries share: catalogues, networks of text and budgets for two CPU cores."""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, base

ENCODERS = {  # (name, variant) of networks that train within minutes
    "gru": ("bigru", "mini"),
    "transformer": ("transformer", "mini"),
}
SCORES = ("ndcg@10", "mrr", "map", "precision@50", "recall@50")
CATALOGUES = ("embedded", "fashion")
LENGTHS = {"query_length": 12, "length": 16}  # tokens


def catalogue(config: ConfigDict, name: str, *, runlocal: bool, clicks: int = 3000, pictures: bool = False) -> None:
    """Points a config at a catalogue with typed queries.

    Args:
      config: changed in place.
      name: "embedded", whose shoppers type about 5,000 listings and are scored on held-out combinations; or "fashion",
        with the tables of benchmarks/fashion_queries.py in data/fashion/text.
      runlocal: whether it is a version for seconds.
      clicks: typed queries with clicks to learn from; of fashion all that the table has.
      pictures: whether listings are read with their pictures.

    Raises:
      InputError: there is no such catalogue.
    """
    arguments.choice("catalogue", name, CATALOGUES)
    if name == "embedded":
        config.data.kwargs = ConfigDict({"seed": 0, "queries": "typed", "image_size": 64})
        config.data.kwargs.num_train = 400 if runlocal else 5000
        config.data.kwargs.num_val = 64 if runlocal else 500
        config.data.kwargs.num_query = 80 if runlocal else 2000
        config.data.kwargs.num_gallery = 400 if runlocal else 5000
        config.data.kwargs.num_typed = min(60, clicks) if runlocal else clicks
        config.mine.threshold = 5 if runlocal else 30
        return
    config.data.source = "table"
    attributes = ("type", "colour", "gender", "usage", "season")
    config.data.kwargs = ConfigDict(
        {
            "root": "data/fashion",
            "image_root": "Images",
            "files": {split: f"text/{split}.csv" for split in ("train", "val", "gallery")}
            | {"query": "text/queries.csv"},
            "columns": {
                "image": "image" if pictures else "",
                "title": "title",
                "query": ("query", "text"),
                "kind": ("kind", "category"),
                "combination": ("combination", "category"),
                **{name: (name, "category") for name in attributes},
            },
            "ground_truth": "text/truth.csv",
            "tables": {"queries": "text/clicks.csv"},
        }
    )
    config.data.image_size = (80, 64)
    config.mine.threshold = 5


def encoder(config: ConfigDict, name: str, dims: int) -> None:
    """Sets the network of text that a config trains.

    Args:
      config: changed in place.
      name: of ENCODERS.
      dims: of the embedding.

    Raises:
      InputError: there is no such network.
    """
    config.train.model.name, config.train.model.variant = ENCODERS[arguments.choice("encoder", name, ENCODERS)]
    config.train.model.projection = dims
    config.train.model.kwargs = ConfigDict({"dropout": 0.1})


def small_steps(config: ConfigDict, arg: ConfigDict, epochs: float) -> None:
    """Sets a budget of minutes on two CPU cores.

    Args:
      config: changed in place.
      arg: parsed argument with `seed`; `runlocal` trains for seconds.
      epochs: of the training.
    """
    config.train.seed = arg.seed
    config.train.batch_size = 32 if arg.runlocal else 128
    config.train.epochs = min(epochs, 1.0) if arg.runlocal else epochs
    config.train.warmup_epochs = config.train.epochs / 10
    config.train.learning_rate = 1e-3
    config.train.weight_decay = 0.01
    config.train.ema_decay = 0.99
    config.train.transforms = (("resize", {}),)
    config.train.eval_every_epochs = 0.0


def searched(config: ConfigDict, query: str, gallery: str) -> None:
    """Sets which predict functions embed the two sides, and that the plain cosine ranks.

    Args:
      config: changed in place.
      query, gallery: predict functions of this run's network.
    """
    config.embed.models = ("trained",)
    config.search.query_from.predict_fn = query
    config.search.gallery_from.predict_fn = gallery
    config.search.steps = ()
    config.evaluate.metrics = SCORES


def with_lexical(config: ConfigDict) -> None:
    """Adds BM25, and its fusion with the network by weights chosen on the selection half of the queries.

    Args:
      config: changed in place, after `searched`.
    """
    config.embed.models = ("lexical", "trained")
    config.search.join = ("trained", "lexical")
    config.search.steps = (("fusion", {"method": "min_max", "weights": "chosen"}),)


def texts_only(name: str) -> ConfigDict:
    """Returns default settings for an experiment without pictures.

    Args:
      name: of the experiment.
    """
    config = base.defaults()
    config.name = name
    config.embed.batch_size = 1024
    config.evaluate.near_duplicates.max_difference = -1.0  # pictures are not read
    return config
