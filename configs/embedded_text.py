"""The embedded catalogue: typed queries learned from simulated clicks, scored on combinations that nobody clicked.

    ./launch/local.sh --config=configs/embedded_text.py
    ./launch/local.sh --config=configs/embedded_text.py:encoder=gru,clicks=300
    ./launch/local.sh --config=configs/embedded_text.py:pretrained=runs/masked_titles

`clicks` is the number of typed queries to learn from, `pretrained` the folder of a run of configs/masked_titles.py. The
system that this follows (arXiv 2107.08291) reports, on data of its own, an MRR of 48 % with pre-training against 44.5 %
with the best BiGRU, and a MAP of 70.9 against 61.2 %.

Hardware: two CPU cores, one to two minutes (idle).
Expected: unseen combinations, 300 clicked queries, three seeds: MRR .77, MAP .40; BiGRU .72, .34 (docs/text.md).
"""

from retrieval_jax.settings import arguments, tasks, texts


def get_config(arg=None):
    """Returns the settings; `:encoder=gru`, `clicks=`, `pretrained=`, `loss=softmax`, `negatives=in_batch` (or mined),
    `epochs=` and `seed=` choose the training, `:runlocal` runs for seconds."""
    arg = arguments.parse(
        arg, encoder="transformer", clicks=3000, pretrained="", loss="triplet", negatives="rule", epochs=0.0, seed=0
    )
    config = texts.texts_only("embedded_text")
    texts.catalogue(config, "embedded", runlocal=arg.runlocal, clicks=arg.clicks)
    config.train.task = "text_query"
    config.train.task_kwargs = tasks.text_query()
    config.train.task_kwargs.update({**texts.LENGTHS, "loss": arg.loss, "negatives": arg.negatives})
    config.train.task_kwargs.same_product = "product"
    texts.encoder(config, arg.encoder, 100)
    # As many steps for few clicks as for many.
    texts.small_steps(config, arg, arg.epochs or min(40.0, 2.0 * 3000 / max(1, arg.clicks)))
    config.train.init_from = arg.pretrained
    texts.searched(config, "embed_query", "embed_product")
    texts.with_lexical(config)
    return config
