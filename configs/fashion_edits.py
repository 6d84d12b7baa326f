"""Fashion catalogue: "the same in red", a query made of a picture and words, learned from titles that differ in colour.

    python benchmarks/fashion_edits.py fashion_attributes.csv.gz fashion_other_colour.csv.gz data/fashion
    ./launch/local.sh --config=configs/fashion_edits.py:pictures=runs/fashion_pretrained
    ./launch/local.sh --config=configs/fashion_edits.py:pictures=runs/fashion_pretrained,frozen=true,epochs=3

`pictures` is the folder of a finished run of configs/fashion_pretrained.py: its picture network learns along, or, with
`frozen=true`, stays as it is, and queries are learned into its space within minutes.

Hardware: two CPU cores, not measured yet.
Expected: not measured yet.
"""

from retrieval_jax.settings import arguments, base, edits, fashion, texts


def get_config(arg=None):
    """Returns the settings; `:pictures=` names the run whose network is learned with, `frozen=true` keeps it, `path=`
    (and `offline=true`) its public weights; `joint=` (concat, film, transformer), `loss=siamese`, `drop_picture=` and
    `drop_words=` (shares; 1 trains a specialist), `epochs=` and `seed=` choose the training, `:runlocal` trains for
    seconds only, without such a run."""
    arg = arguments.parse(
        arg,
        pictures="runs/fashion_pretrained",
        frozen=False,
        name="tf_efficientnet_lite0.in1k",
        path="",
        offline=False,
        height=112,
        joint="residual",
        loss="softmax",
        drop_picture=0.1,
        drop_words=0.1,
        epochs=1.0,
        seed=0,
    )
    config = base.defaults()
    config.name = "fashion_edits"
    edits.catalogue(config, "fashion", runlocal=arg.runlocal)
    if not arg.frozen:
        if arg.runlocal:
            arg.pictures = ""
        else:
            fashion.fine_tuned(config, arg, drop_path=0.1)
            config.train.init_from = arg.pictures
    texts.small_steps(config, arg, 0.02 if arg.runlocal else arg.epochs)
    edits.task(config, arg, frozen=arg.frozen)
    if arg.frozen:
        config.train.batch_size = 32 if arg.runlocal else 256
    else:
        config.train.transforms = (("random_resized_crop", {"scale": (0.7, 1.0)}),)
        config.train.learning_rate_rules = (("^backbone/", 0.3),)
    return config
