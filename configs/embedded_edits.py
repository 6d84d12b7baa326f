"""The embedded catalogue: "in red", "without stripes", "add a pocket", queries made of a picture and words.

    ./launch/local.sh --config=configs/embedded_edits.py
    ./launch/local.sh --config=configs/embedded_edits.py:pictures=runs/embedded_attributes
    ./launch/local.sh --config=configs/embedded_edits.py:pictures=runs/embedded_attributes,frozen=false
    ./launch/local.sh --config=configs/embedded_edits.py:joint=transformer

`pictures` is the folder of a finished run, into whose space queries are learned: best one that has learned what edits
name (configs/embedded_attributes.py:heads=sigmoid). With `frozen=false` its network learns along after some steps,
without `pictures` a new one learns from the start. Half of the scored edits have a wording or a pair of value and
category that training has not seen.

Hardware: two CPU cores, five minutes into the space of another run (shared); learning along is not measured yet.
Expected: seed 0 in the space of embedded_attributes, report half: both@10 36.6 %, late fusion 34.2 %, attribute swap
43.0 % (docs/edits.md).
"""

from retrieval_jax.settings import arguments, base, edits, texts


def get_config(arg=None):
    """Returns the settings; `:pictures=` names the run whose space queries are learned into, `frozen=false` lets its
    network learn along, `joint=` (concat, film,
    transformer), `loss=siamese`, `drop_picture=` and `drop_words=` (shares; 1 trains a specialist), `epochs=` and
    `seed=` choose the training, `:runlocal` runs for seconds."""
    arg = arguments.parse(
        arg,
        pictures="",
        frozen=True,
        joint="residual",
        loss="softmax",
        drop_picture=0.1,
        drop_words=0.1,
        epochs=0.0,
        seed=0,
    )
    config = base.defaults()
    config.name = "embedded_edits"
    edits.catalogue(config, "embedded", runlocal=arg.runlocal)
    frozen = bool(arg.pictures) and arg.frozen
    texts.small_steps(config, arg, 0.1 if arg.runlocal else arg.epochs or (6.0 if frozen else 12.0))
    edits.task(config, arg, frozen=frozen)
    config.train.model.variant = "micro"
    if arg.pictures and not frozen:
        config.train.init_from = arg.pictures
        config.train.task_kwargs.still = 60  # steps: frozen first, then free
    if not frozen:
        config.train.batch_size = 16 if arg.runlocal else 64
        config.train.transforms = (("random_resized_crop", {"scale": (0.7, 1.0)}), ("flip", {}))
    return config
