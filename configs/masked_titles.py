"""Learns the words of a catalogue from hidden tokens: where a training on typed queries may start.

    ./launch/local.sh --config=configs/masked_titles.py
    ./launch/local.sh --config=configs/masked_titles.py:catalogue=fashion

Reads titles and typed queries, no pictures and no clicks. configs/embedded_text.py and configs/fashion_text.py take its
folder as `pretrained=`. Its search is BM25 alone.

Hardware: two CPU cores, nine minutes beside other work.
Expected: helps no search of the embedded catalogue (docs/text.md); fashion not measured yet.
"""

from retrieval_jax.settings import arguments, tasks, texts


def get_config(arg=None):
    """Returns the settings; `:catalogue=fashion` replaces the embedded catalogue, `encoder=gru` and `clicks=` (typed
    queries of the embedded catalogue) what is read, `epochs=` and `seed=` the training, `:runlocal` runs for
    seconds."""
    arg = arguments.parse(arg, catalogue="embedded", encoder="transformer", clicks=300, epochs=0.0, seed=0)
    config = texts.texts_only("masked_titles")
    texts.catalogue(config, arg.catalogue, runlocal=arg.runlocal, clicks=arg.clicks)
    config.train.task = "masked_tokens"
    config.train.task_kwargs = tasks.masked_tokens()
    config.train.task_kwargs.length = texts.LENGTHS["length"]
    texts.encoder(config, arg.encoder, 0)
    texts.small_steps(config, arg, arg.epochs or (60.0 if arg.catalogue == "embedded" else 5.0))
    config.train.learning_rate = 2e-3
    config.embed.models = ("lexical",)  # what a search without any training finds
    config.search.steps = ()
    config.evaluate.metrics = texts.SCORES
    return config
