"""Typed queries against any table with titles, without clicks: BM25, fused with an encoder learned from the titles.

    ./launch/local.sh --config=configs/zero_shot_text.py:root=data/shop
    ./launch/local.sh --config=configs/zero_shot_text.py:root=data/shop,weights=sentence-transformers/all-MiniLM-L6-v2

Without `root` it is the embedded catalogue. The folder holds train.csv and gallery.csv (id, title) and queries.csv (id,
query); with qrels.csv (query, gallery, and perhaps grade) the result is scored. train.csv and gallery.csv may be the
same file (`train=gallery.csv`). Queries made of the titles' own words take the place of clicks; with `weights` the
encoder starts from public weights. The weights of the fusion are fixed, because nothing judges them: the encoder has
the largest weight that did no harm to three catalogues (docs/text.md). To choose them on half of the judged queries:

    --config.search.steps="(('fusion', {'method': 'min_max', 'weights': 'chosen'}),)"

Hardware: two CPU cores, about a minute per 5,000 titles.
Expected: nDCG@10 of 49.0 % on the embedded catalogue, as BM25 alone; 56.4 against 54.2 % on fashion titles and 38.0
against 37.7 % on electronics titles (selection half, docs/text.md).
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, tasks, texts


def get_config(arg=None):
    """Returns the settings; `:root=`, `train=`, `gallery=`, `queries=`, `qrels=` (files below it), `title=` and `id=`
    (headers) choose the data, `weights=` (of a public encoder), `epochs=` and `seed=` the training, `judged=false`
    leaves out the scores, `:runlocal` runs for seconds."""
    arg = arguments.parse(
        arg,
        root="",
        train="train.csv",
        gallery="gallery.csv",
        queries="queries.csv",
        qrels="qrels.csv",
        judged=True,
        id="id",
        title="title",
        weights="",
        epochs=0.0,
        seed=0,
    )
    config = texts.texts_only("zero_shot_text")
    texts.catalogue(config, "embedded", runlocal=arg.runlocal, clicks=0)
    if arg.root:
        config.data.source = "table"
        config.data.kwargs = ConfigDict(
            {
                "root": arg.root,
                "files": {"train": arg.train, "query": arg.queries, "gallery": arg.gallery},
                "columns": {"id": arg.id, "image": "", "title": arg.title, "query": ("query", "text")},
                "ground_truth": arg.qrels if arg.judged else None,
            }
        )
    config.train.task = "text_query"
    config.train.task_kwargs = tasks.text_query()
    config.train.task_kwargs.update({"loss": "softmax", "negatives": "in_batch", "title_queries": 4})
    config.train.task_kwargs.update(texts.LENGTHS if not arg.root else {"query_length": 16, "length": 32})
    texts.encoder(config, "transformer", 128)
    if arg.weights:
        config.train.task_kwargs.weights = arg.weights
        config.train.model.kwargs = ConfigDict()
        config.train.model.projection = 0
    texts.small_steps(config, arg, arg.epochs or 2.0)
    texts.searched(config, "embed_query", "embed_product")
    texts.with_lexical(config)
    config.search.steps = (("fusion", {"method": "min_max", "weights": {"trained": 0.2, "lexical": 0.8}}),)
    return config
