"""Fashion catalogue: typed queries learned from clicks, fused with BM25, by kind of query.

    python benchmarks/fashion_queries.py fashion_attributes.csv.gz data/fashion
    ./launch/local.sh --config=configs/fashion_text.py
    ./launch/local.sh --config=configs/fashion_text.py:encoder=gru
    ./launch/local.sh --config=configs/fashion_text.py:pretrained=runs/masked_titles-catalogue=fashion

Titles are the products' text; queries are made of attributes, with families, wordings and combinations that the clicks
do not show (benchmarks/fashion_queries.py). The system that this follows (arXiv 2107.08291) reports an MRR of 48 % on
data of its own.

Hardware: two CPU cores, two minutes (idle).
Expected: report half, two seeds: nDCG@10 .84 dense and fused, .55 by BM25 (docs/text.md).
"""

from retrieval_jax.settings import arguments, tasks, texts


def get_config(arg=None):
    """Returns the settings; `:encoder=gru`, `pretrained=`, `loss=triplet`, `negatives=rule` (or mined), `epochs=` and
    `seed=` choose the training, `:runlocal` trains for seconds only."""
    arg = arguments.parse(
        arg, encoder="transformer", pretrained="", loss="softmax", negatives="in_batch", epochs=0.5, seed=0
    )
    config = texts.texts_only("fashion_text")
    texts.catalogue(config, "fashion", runlocal=arg.runlocal)
    config.train.task = "text_query"
    config.train.task_kwargs = tasks.text_query()
    config.train.task_kwargs.update({**texts.LENGTHS, "loss": arg.loss, "negatives": arg.negatives, "groups": "type"})
    config.train.task_kwargs.title_queries = 1
    config.train.task_kwargs.typos = 0.3  # with a tenth, BM25 was better on misspelt queries of another draw
    texts.encoder(config, arg.encoder, 100)
    texts.small_steps(config, arg, 0.02 if arg.runlocal else arg.epochs)
    config.train.init_from = arg.pretrained
    texts.searched(config, "embed_query", "embed_product")
    texts.with_lexical(config)
    return config
