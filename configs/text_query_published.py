"""Typed queries at the published size: six layers of RoBERTa, pre-trained on the catalogue's own text, then triplets.

    ./launch/local.sh --config=configs/text_query_published.py
    ./launch/local.sh --config=configs/text_query_published.py:encoder=gru

"Neural Search: Learning Query and Product Representations in Fashion E-commerce", arXiv 2107.08291: a byte-level BPE
of 30,000 tokens, 15 % of them hidden in pre-training, one encoder for queries and products, 100 dimensions, cosine
triplets with the 100 most clicked products of a query, and negatives of other groups for broad queries, half of the
same group for narrow ones. Its catalogue and clicks are not public; data/shop stands for a user's own (docs/text.md).

Not published, hence ours: width 384, margin, learning rates, batch size and epochs.

Hardware: 1 x H100, not measured yet.
Expected: the paper reports, on its own data, an MRR of 48 %, MAP 70.9, nDCG 81.1, P@50 4.5 and R@50 21.1; its best
BiGRU 44.5, 61.2, 74.5, 1.7 and 8.6.
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, tasks, texts


def get_config(arg=None):
    """Returns the settings; `:stage=masked` is the pre-training, which runs first, `encoder=gru` the published
    baseline without it, `:runlocal` runs for seconds on the embedded catalogue."""
    arg = arguments.parse(arg, stage="clicks", encoder="transformer", seed=0)
    arguments.choice("stage", arg.stage, ("clicks", "masked"))
    arguments.choice("encoder", arg.encoder, ("transformer", "gru"))
    config = texts.texts_only("text_query_published")
    texts.catalogue(config, "embedded", runlocal=arg.runlocal)
    if not arg.runlocal:
        config.data.source = "table"
        config.data.kwargs = ConfigDict(
            {
                "root": "data/shop",
                "files": {"train": "train.csv", "query": "queries.csv", "gallery": "gallery.csv"},
                "columns": {"image": "", "title": "title", "categories": ("category",), "query": ("query", "text")},
                "ground_truth": "qrels.csv",
                "tables": {"queries": "clicks.csv"},
            }
        )
        config.mine.threshold = 30
    masked = arg.stage == "masked"
    config.train.task = "masked_tokens" if masked else "text_query"
    config.train.task_kwargs = tasks.masked_tokens() if masked else tasks.text_query()
    config.train.task_kwargs.vocabulary = 2000 if arg.runlocal else 30_000
    config.train.task_kwargs.length = 16 if arg.runlocal else 64
    gru = arg.encoder == "gru"
    config.train.model.name = "bigru" if gru else "transformer"
    config.train.model.variant = "mini" if gru or arg.runlocal else "medium"
    config.train.model.projection = 0 if masked else 100
    config.train.model.kwargs = ConfigDict({"dropout": 0.1})
    texts.small_steps(config, arg, 10.0)
    if not arg.runlocal:
        config.train.batch_size = 1024
        config.train.dtype = "bfloat16"
        config.train.learning_rate = 5e-4 if masked else 1e-4
        config.train.warmup_epochs = 0.5
    if masked:
        config.embed.models = ("lexical",)
        config.search.steps = ()
        config.evaluate.metrics = texts.SCORES
        return config
    if not gru:
        config.train.init_from = "text_query_published:stage=masked" + (",runlocal" if arg.runlocal else "")
    config.train.task_kwargs.update({"loss": "triplet", "negatives": "rule", "positives": 100, "broad_share": 0.3})
    texts.searched(config, "embed_query", "embed_product")
    texts.with_lexical(config)
    return config
