"""Real users' photos of clothes against the fashion catalogue, by the network of a finished run.

    python benchmarks/users_photos.py clothing_photos fashion_attributes.csv.gz data/fashion
    ./launch/local.sh --config=configs/users_photos.py:run=runs/fashion_clicks

Nothing is trained: no clicks are known for these photos. A listing is right for a photo if it is of its kind (dress,
hat, shirt ...), so this scores whether photos find the right kind of thing, not the same product.

Hardware: two CPU cores (shared), two minutes.
Expected: 34.8 % precision@10 with a learned box, 34.0 % without (networks of fashion_clicks, seed 0; difference within
noise); by colours alone 9.4 %.
"""

from ml_collections import ConfigDict

from retrieval_jax.settings import arguments, base, quickstart


def get_config(arg=None):
    """Returns the settings; `:run=` is the folder of the run whose network embeds photos and listings, `:runlocal`
    embeds a few pictures of the embedded catalogue by their colours."""
    arg = arguments.parse(arg, run="runs/fashion_clicks")
    config = quickstart.experiment("users_photos", arg)
    base.without_training(config)
    config.search.steps = ()
    config.embed.models = ("colour",)
    if arg.runlocal:
        return config
    config.data.source = "table"
    config.data.kwargs = ConfigDict(
        {
            "root": "data/fashion",
            "image_root": "Images",
            "files": {"query": "photos/query.csv", "gallery": "photos/gallery.csv"},
            "columns": {"kind": ("kind", "category")},
            "ground_truth": "photos/truth.csv",
        }
    )
    config.data.image_size = (80, 64)
    config.embed.models = ("colour", "trained")
    config.search.query_from.run = config.search.gallery_from.run = arg.run
    config.evaluate.metrics = ("precision@10", "ndcg@10")
    return config
