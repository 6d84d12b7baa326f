"""Typed words search a gallery of pictures: a tower of words, learned beside pictures.

    ./launch/local.sh --config=configs/text_picture.py
    ./launch/local.sh --config=configs/text_picture.py:pictures=runs/quickstart
    ./launch/local.sh --config=configs/text_picture.py:catalogue=fashion,pictures=runs/fashion_pretrained

`pictures` is the folder of a finished run: words are learned into the space of its network, which stays as it is.
Without it, a small picture network learns along. The gallery's titles are not read. The fashion catalogue needs the
tables of benchmarks/fashion_queries.py.

Hardware: two CPU cores, six minutes on the fashion catalogue, embedding included; the embedded one not measured yet.
Expected: fashion, report half, two seeds: nDCG@10 .62 over all queries, .61 for colour and type (docs/text.md).
"""

from retrieval_jax.settings import arguments, tasks, texts

ATTRIBUTES = {
    "embedded": ("leaf", "colour", "pattern", "material", "brand"),
    "fashion": ("type", "colour", "gender", "usage", "season"),
}


def get_config(arg=None):
    """Returns the settings; `:catalogue=fashion` replaces the embedded catalogue, `pictures=` names the run whose space
    words are learned into, `clicks=`, `epochs=` and `seed=` choose the training, `:runlocal` runs for seconds."""
    arg = arguments.parse(arg, catalogue="embedded", pictures="", clicks=3000, epochs=0.0, seed=0)
    config = texts.texts_only("text_picture")
    texts.catalogue(config, arg.catalogue, runlocal=arg.runlocal, clicks=arg.clicks, pictures=True)
    frozen = bool(arg.pictures)
    config.train.task = "text_picture"
    config.train.task_kwargs = tasks.text_picture()
    config.train.task_kwargs.update({**texts.LENGTHS, "length": texts.LENGTHS["query_length"]})
    config.train.task_kwargs.pictures = arg.pictures
    config.train.task_kwargs.words = texts.ENCODERS["transformer"]
    config.train.task_kwargs.words_kwargs = {"dropout": 0.1}
    config.train.task_kwargs.attributes = ATTRIBUTES[arg.catalogue]
    if arg.catalogue == "embedded":
        config.train.task_kwargs.same_product = "product"
    config.train.model.variant = "micro"
    epochs = {"embedded": (6.0, 8.0), "fashion": (0.5, 2.0)}[arg.catalogue][0 if frozen else 1]
    texts.small_steps(config, arg, 0.1 if arg.runlocal else arg.epochs or epochs)
    if not frozen:
        config.train.batch_size = 32 if arg.runlocal else 64
    texts.searched(config, "embed_text", "" if frozen else "embed_image")
    config.search.gallery_from.run = arg.pictures
    config.embed.batch_size = 64
    return config
