"""What the configs share: the argument after the colon, and the default blocks."""

import difflib

from ml_collections import ConfigDict


def parse_arg(arg: str | None, **defaults) -> ConfigDict:
    """Parses the argument of `--config=file.py:arg`, a comma-separated list of flag and key=value.

    Args:
      arg: "runlocal", "runlocal,members=2", or None or "" for the defaults.
      **defaults: every key the config knows, with its default; the default's type is the value's. `runlocal`
        (a version of the experiment that ends within minutes on a laptop) is always known.

    Returns:
      The values by name.

    Raises:
      ValueError: for a key that is not known (the message lists the near ones) or a value of another type.
    """
    values = {"runlocal": False, **defaults}
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in values:
            near = difflib.get_close_matches(key, values, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(sorted(values))}"
            raise ValueError(f"the argument {key!r} is not known; {hint}")
        values[key] = _value(key, text if equals else "true", values[key])
    return ConfigDict(values)


def _value(key: str, text: str, default):
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"the argument {key} wants true or false, not {text!r}")
        return text.lower() in ("true", "1")
    if default is None:
        return text
    try:
        return type(default)(text)
    except ValueError:
        raise ValueError(f"the argument {key} wants {type(default).__name__}, not {text!r}") from None


def apply_changes(config: ConfigDict, kind: str, names: str, changes: dict) -> None:
    """Applies one of several named changes, or some of them joined by "+".

    Args:
      config: or a block of it, changed in place.
      kind: what a change is called, for messages.
      names: "gem" or "gem+bands".
      changes: {name: {setting: value}}.

    Raises:
      ValueError: an unknown name.
    """
    for name in names.split("+"):
        if name not in changes:
            raise ValueError(f"the {kind} {name!r} is not known; there are {', '.join(changes)}")
        config.update_from_flattened_dict(changes[name])


def base() -> ConfigDict:
    """Returns the default blocks, one per verb; a config sets what differs."""
    config = ConfigDict()
    config.name = "base"

    config.data = ConfigDict()
    config.data.source = "synthetic"
    config.data.kwargs = ConfigDict()
    config.data.image_size = (64, 64)  # height, width of what networks see
    config.data.cache_bytes = 2**30  # of decoded pictures kept in memory, for each split
    config.data.leave_out = ""  # CSV (split, id, reason) of listings that stay out, such as retrieval_jax.leaks writes

    config.mine = ConfigDict()
    config.mine.threshold = 30  # keep tokens seen more than this many times in the titles of train and val
    # Better words, all off: docs/mining.md. One form of numbers with units and of spellings; Chinese and Japanese cut.
    config.mine.normalise = False
    config.mine.segment = False
    # Plurals, hyphens and typing errors merged, where categories (divergence, nats) and neighbours (likeness) agree.
    config.mine.variants = ConfigDict({"on": False, "most_divergence": 0.6, "least_likeness": 0.3})
    config.mine.phrases = ConfigDict({"on": False, "least_score": 0.55})  # normalised mutual information, at most 1
    # Words dropped that neither this many pictures show nor (as a share of the entropy) the categories; 0: those alone.
    config.mine.uninformative = ConfigDict({"on": False, "pictures": 10000, "most_auc": 0.6, "most_information": 0.5})
    # Words below the threshold kept: from this share of it where they name one category (p), or common in a category.
    config.mine.rare = ConfigDict({"on": False, "share": 0.4, "most_p": 1e-4})
    config.mine.categories = ConfigDict({"on": False, "least_titles": 3, "least_share": 0.05})
    config.mine.kinds = False  # guesses colour, material ... of every word, in attributes/kinds.csv
    config.mine.overrules = ""  # file of a person's decisions: keep, drop, split word; merge word target
    config.mine.statistics = ""  # folder of tables that were counted elsewhere, such as with Beam
    # Pseudo-products: train listings of one category whose titles and pictures differ at most so much (0 to 2, such as
    # 0.5; 0 for no clusters). Those in none have no instance, or with noise "own" each one of its own.
    config.mine.clusters = ConfigDict({"max_difference": 0.0, "title_share": 0.5, "max_size": 50, "noise": "none"})

    config.train = ConfigDict()
    config.train.seed = 0
    config.train.task = "multilabel"
    config.train.task_kwargs = ConfigDict(
        {
            "loss": "sigmoid",  # of the titles: sigmoid, focal, asymmetric, or softmax (over y / sum(y), with Poly-1)
            "loss_kwargs": {},  # its own numbers, such as label_smoothing, gamma or margin
            "title_weight": 1.0,
            "category_loss": "softmax",  # or cosface, arcface, proxy_nca, proxy_anchor, supcon
            "category_kwargs": {},  # its own numbers, such as scale and margin
            "category_weight": 0.0,
            "category_labels": "categories",  # or "clusters", those of config.mine.clusters
            "head": "linear",  # or "cosine", with a learned temperature
            "head_init_scale": 0.1,  # of linear heads
            "label_block": 0,  # labels whose logits are in memory at a time, such as 4096; 0 for all
            "temperature": 0.07,  # of every cosine; where it is learned (cosine heads, image_title), its first value
            "positive_weight_power": 0.5,  # sigmoid, focal, asymmetric: present labels weigh (N / n) ** power
            "positive_weight_limit": 100.0,
            "class_balanced_beta": 0.0,  # 0.9999 weighs labels and categories by their effective number; 0 does not
            "poly_epsilon": 0.5,
            "label_smoothing": 0.0,  # of the category head
            "distill_share": 0.0,  # of the target that the moving average gives at the end; grows from 0 over the run
            "unlabelled_weight": 0.0,  # of train.unlabelled's pictures, whose target it gives alone; grows likewise
        }
    )
    # Short runs from scratch: with the published layer scale of 1e-6 the blocks would sleep through the first epochs.
    # A projection of 0 dimensions leaves the embedding as wide as the backbone.
    config.train.model = ConfigDict({"name": "convnext", "variant": "mini", "projection": 0})
    config.train.model.kwargs = ConfigDict({"layer_scale": 1.0, "pool_stages": (1, 2, 3)})
    # timm's name of public weights, from the hub or a local safetensors file; empty to start from scratch. Its network
    # takes the place of name and variant above; `kwargs` are timm's own, model.kwargs ours (drop_path, remat ...).
    config.train.model.pretrained = ConfigDict({"name": "", "path": "", "offline": False})
    config.train.model.pretrained.kwargs = ConfigDict()
    # A run to start from: its folder, or a config's name ("name" or "name:arg"), which then runs first, beside this.
    config.train.init_from = ""
    config.train.frozen = ()  # regexes of parameters that stay as they are, such as "^backbone/"
    config.train.dtype = "float32"  # of the computation; "bfloat16" on accelerators
    config.train.batch_size = 128  # global, over all devices and processes
    # Devices along each axis, data 0: all that fsdp leaves. Along fsdp the train state is cut into parts, which saves
    # memory and costs traffic. May change when a run goes on.
    config.train.mesh = ConfigDict({"data": 0, "fsdp": 1})
    config.train.sharding_rules = ()  # (regex, spec) pairs before sharding.RULES, such as ("^heads_", (None, "fsdp"))
    config.train.accumulate_steps = 1  # parts that a batch is cut into where it does not fit in memory
    config.train.epochs = 6.0
    config.train.learning_rate = 2e-3
    config.train.final_learning_rate = 1e-6
    config.train.warmup_epochs = 0.5
    config.train.schedule = "cosine"  # or "wsd", "step", "constant", with the arguments of optim.SCHEDULES
    config.train.schedule_kwargs = ConfigDict()
    config.train.layer_decay = 1.0  # a layer n before the last learns with learning_rate * layer_decay ** n
    config.train.learning_rate_rules = ()  # (regex, factor) pairs; the first that matches counts
    config.train.weight_decay = 0.05
    config.train.decay_rules = ()  # (regex, share of weight_decay) pairs that go before optim.DECAY_RULES
    config.train.b2 = 0.999
    config.train.clip_norm = 1.0  # 0 for no clipping
    config.train.ema_decay = 0.99
    config.train.ema_paths = ""  # regex of what is averaged; empty for all, "^backbone/" without the heads
    config.train.transforms = (
        ("random_resized_crop", {"scale": (0.5, 1.0)}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}),
        ("erasing", {"p": 0.25}),
    )
    # On the device: ("mixup", {"alpha": 0.2}), ("cutmix", {"alpha": 1.0}), and before them random_resized_crop, flip,
    # color_jitter and erasing, where the host cannot keep up; ("resize", {}) is then enough for `transforms`.
    config.train.batch_transforms = ()
    config.train.views = ()  # further crops of a picture, each {"transforms": ..., "image_size": (height, width)}
    # Pictures without labels that join every step: the split's name, or empty for none.
    config.train.unlabelled = ConfigDict({"split": "", "batch_size": 0, "transforms": (("resize", {}),)})
    # Order of the rows: "shuffle", "balanced", "p_by_k" or "mixed", with the arguments of data/sampling.py's functions.
    config.train.sampling = "shuffle"
    config.train.sampling_kwargs = ConfigDict()
    config.train.num_threads = 2  # that decode and augment; beyond about six, Python keeps them waiting: take workers
    # Processes with so many threads each, a cache each; 0 for threads of this one. Their batches come through /dev/shm,
    # of which a container may have too little: six batches for each process are enough.
    config.train.num_workers = 0
    # Only what a first random_resized_crop needs of a JPEG is decoded, where pictures are not cached and have no views:
    # faster, and not the same pixels where the crop is more than twice as large as it is asked to be.
    config.train.crop_before_decoding = False
    config.train.non_finite = "stop"  # at a loss or gradient that is no number; "skip" leaves such steps out
    config.train.hang_seconds = 1800.0  # of one and the same wait, after which the process gives up; 0 for never
    config.train.log_every_steps = 10
    config.train.checkpoint_every_steps = 200
    config.train.keep_checkpoints = 2
    config.train.eval_every_epochs = 2.0  # retrieval during training; 0 for none
    config.train.evaluations = (("retrieval", {"max_queries": 500, "max_gallery": 2000}),)

    config.embed = ConfigDict()
    config.embed.models = ("histogram", "untrained", "trained")  # and "pretrained", public weights as they are:
    config.embed.pretrained = ConfigDict({"name": "", "path": "", "offline": False, "dtype": "float32"})
    config.embed.pretrained.kwargs = ConfigDict()
    config.embed.predict_fn = "embed_image"
    config.embed.model_kwargs = ConfigDict()  # before train.model.kwargs, such as {"pool_bands": (3, 3, 1)}
    config.embed.batch_size = 256
    config.embed.transforms = (("resize", {}),)  # () for what public weights were tested with
    # Test-time views, whose vectors are averaged: ("flip", {}), ("multi_scale", {"scales": (1.0, 1.25)}),
    # ("five_crops", {"enlarge": 8 / 7}), or several of them, multiplied; () for the picture as it is.
    config.embed.views = ()
    config.embed.image_size = ()  # (height, width); () for data.image_size, with "pretrained" for the weights' own
    config.embed.dtype = "float32"
    config.embed.shard_rows = 16384  # listings of a file: what is held in memory, and lost at most when a run is killed

    config.search = ConfigDict()
    config.search.k = 100
    config.search.index = "exact"
    config.search.index_kwargs = ConfigDict()
    config.search.steps = (("whitening", {}), ("reranking", {}))
    config.search.stages = ()  # those to search and save, such as ("ensemble", "reranking"); () for all
    config.search.members = ()

    config.evaluate = ConfigDict()
    config.evaluate.ks = (1, 10)
    config.evaluate.submission_stage = ""  # "stage" or "model/stage"; empty for the last
    config.evaluate.selection_share = 0.5
    config.evaluate.draws = 1000  # of the queries, for the confidence intervals; 0 for none
    # An alarm: pictures of queries and train that the gallery has nearly the same, by 8 x 8 mean colours; the largest
    # difference, as a share of a picture's contrast (below 0: not looked for), and how many train listings are read.
    config.evaluate.near_duplicates = ConfigDict({"max_difference": 0.05, "train_listings": 2000})

    # Of retrieval_jax.leaks: pictures that two splits share; max_difference as above. Altered (light, shift, mild crop)
    # ones are only reported; train listings that have a picture of leave_out_of are listed in leave_out.csv.
    config.leaks = ConfigDict(
        {"max_difference": 0.05, "mirrored": True, "altered": False, "leave_out_of": ("val", "query", "gallery")}
    )

    config.report = ConfigDict()
    config.report.rows = 12  # random ones, and as many of the worst
    config.report.stage = ""  # "stage" or "model/stage"; empty for the last of the trained model
    config.report.seed = 0
    return config


def fashion(name: str, arg: ConfigDict) -> ConfigDict:
    """Returns the settings that every experiment on the fashion catalogue shares: same data, network and budget.

    The catalogue (eProduct's layout, 60x80 pictures) lies in data/fashion of the folder the run is started from;
    another place is given by --config.data.kwargs.root=...

    Args:
      name: of the experiment.
      arg: parsed argument; `seed`, where the config has one, is the training seed; `runlocal` trains for seconds.
    """
    config = base()
    config.name = name
    config.data.source = "eproduct"
    config.data.kwargs.root = "data/fashion"
    config.data.image_size = (80, 64)
    config.mine.threshold = 5
    config.train.seed = arg.get("seed", 0)
    config.train.epochs = 0.05 if arg.runlocal else 4.0
    config.train.ema_decay = 0.995
    config.train.eval_every_epochs = 0.0 if arg.runlocal else 1.0
    # Both sides are shop photos, and colour is part of what makes two listings the same product: mild crops, no jitter.
    config.train.transforms = (("random_resized_crop", {"scale": (0.6, 1.0)}), ("flip", {}))
    return config


def ensemble(config: ConfigDict, members: tuple[str, ...], arg: ConfigDict) -> None:
    """Makes an ensemble of a config: members train by themselves, their whitened embeddings are joined and searched.

    Args:
      config: changed in place: what the members do is taken out.
      members: names of config files, with arguments: "fashion_vit" or "quickstart:loss=softmax".
      arg: parsed argument; `runlocal` goes on to the members.
    """
    for block in ("mine", "train", "embed"):
        del config[block]
    if arg.runlocal:
        members = tuple(member + ("," if ":" in member else ":") + "runlocal" for member in members)
    config.search.members = members
    config.search.steps = (("whitening", {}), ("ensemble", {}), ("reranking", {}))


def without_training(config: ConfigDict) -> None:
    """Takes out of a config what mines and trains: it starts at embed, with public weights or colours alone."""
    for block in ("mine", "train"):
        del config[block]


# Losses of the table on the embedded catalogue: name -> settings of task_kwargs.
LOSSES = {
    "softmax": {"loss": "softmax"},
    "sigmoid": {"loss": "sigmoid"},
    "both": {"loss": "softmax", "category_weight": 1.0},
    "category": {"title_weight": 0.0, "category_weight": 1.0},
}


def quickstart(name: str, arg: ConfigDict) -> ConfigDict:
    """Returns the settings of the embedded catalogue: minutes on two CPU cores.

    Args:
      name: of the experiment.
      arg: parsed argument; `runlocal` makes a version of seconds.
    """
    config = base()
    config.name = name
    config.data.kwargs.seed = 0
    config.data.kwargs.num_train = 400 if arg.runlocal else 5000
    config.data.kwargs.num_val = 64 if arg.runlocal else 500
    config.data.kwargs.num_query = 40 if arg.runlocal else 500
    config.data.kwargs.num_gallery = 400 if arg.runlocal else 5000
    config.data.kwargs.image_size = 64
    config.mine.threshold = 5 if arg.runlocal else 30
    config.train.model.variant = "micro"
    config.train.epochs = 14.0
    config.train.batch_size = 64  # many small steps: titles are noisy, and training starts on a plateau
    config.train.learning_rate = 3e-3
    config.train.transforms = (
        ("random_resized_crop", {"scale": (0.7, 1.0)}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.15, "contrast": 0.15, "saturation": 0.15}),
    )
    if arg.runlocal:
        config.train.batch_size = 32
        config.train.epochs = 1.0
        config.train.eval_every_epochs = 1.0
        config.embed.batch_size = 64
    return config


def eproduct(
    name: str,
    arg: ConfigDict,
    *,
    model: str,
    weights: str,
    image_size: int,
    batch_size: int,
    learning_rate: float,
    drop_path: float,
) -> ConfigDict:
    """Returns the published recipe on eProduct: titles' attributes with the softmax, from public weights.

    The catalogue lies in data/eproduct of the folder the run is started from; another place is given by
    --config.data.kwargs.root=... What the source does not tell (clipping: none; augmentation: TrivialAugment or
    RandAugment of magnitude 9; Poly-1's epsilon: 0.5 or 2; GeM or not) is set by the argument or by its first value.

    Crops are decoded without the rest of the picture; those at least twice as large as the network sees, on both sides,
    at 1/2, 1/4 or 1/8 of their size, which train.crop_before_decoding=False undoes. All are averaged over areas, as
    pictures are at test time: interpolation "halves" would spare a third of the host's work, but nobody has measured
    what it does to retrieval.

    Args:
      name: of the experiment.
      arg: parsed argument; `seed`, `augment` ("trivial" or "rand"), `pooling` ("" for the weights' own, "gem"), as far
        as the config has them; `runlocal` takes a tiny network from scratch on the embedded catalogue, for seconds.
      model: file in retrieval_jax/models, of the weights and of the tiny network.
      weights: timm's name.
      image_size: side of the pictures, pixels.
      batch_size: of all eight devices together.
      learning_rate: at its highest.
      drop_path: rate of the last block.

    Source: "Large-Scale Product Retrieval with Weakly Supervised Representation Learning", arXiv 2208.00955.
    """
    config = quickstart(name, arg)
    if not arg.runlocal:
        config.data.source = "eproduct"
        config.data.kwargs = ConfigDict({"root": "data/eproduct"})
        config.data.image_size = (image_size, image_size)
        config.data.cache_bytes = 0  # 1.3 million pictures
        config.mine.threshold = 30
    config.train.seed = arg.get("seed", 0)
    config.train.task_kwargs.update({"loss": "softmax", "poly_epsilon": 0.5, "head_init_scale": 0.001})
    config.train.model.name = model
    config.train.model.kwargs = ConfigDict({"drop_path": drop_path})
    if arg.get("pooling", ""):
        config.train.model.kwargs.pooling = arg.pooling
    config.train.model.pretrained.name = weights
    config.train.model.pretrained.kwargs.img_size = image_size
    config.train.dtype = "bfloat16"
    config.train.batch_size = batch_size
    config.train.epochs = 20.0
    config.train.warmup_epochs = 5.0
    config.train.learning_rate = learning_rate
    config.train.final_learning_rate = 1e-6
    config.train.weight_decay = 1e-4
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.999
    config.train.ema_paths = "^backbone/"
    augment = {"trivial": ("trivial_augment", {}), "rand": ("rand_augment", {"magnitude": 9.0})}
    if arg.get("augment", "trivial") not in augment:
        raise ValueError(f"the augmentation {arg.augment!r} is not known; there are {', '.join(augment)}")
    config.train.transforms = (
        ("random_resized_crop", {"scale": (0.2, 1.0)}),
        ("flip", {}),
        augment[arg.get("augment", "trivial")],
        ("erasing", {"p": 0.25}),
    )
    config.train.crop_before_decoding = True
    config.train.num_threads = 16
    config.train.log_every_steps = 100
    config.train.checkpoint_every_steps = 2000
    config.train.eval_every_epochs = 1.0  # only where the truth of the queries is known
    config.embed.models = ("trained",)
    if arg.runlocal:
        config.data.kwargs.update({"num_train": 64, "num_val": 8, "num_query": 8, "num_gallery": 32, "image_size": 32})
        config.data.image_size = (32, 32)
        config.mine.threshold = 3
        config.train.model.variant = "micro"
        config.train.model.kwargs.update(SMALL[model])
        config.train.model.pretrained.name = ""
        config.train.dtype = "float32"
        config.train.batch_size = 16
        config.train.epochs = 0.5
        config.train.warmup_epochs = 0.25
        config.train.num_threads = 1
        config.train.log_every_steps = 1
        config.train.eval_every_epochs = 0.0
        config.embed.batch_size = 16
        config.report.rows = 2
    return config


# What makes the "micro" variant of a model smaller still, for :runlocal alone.
SMALL = {
    "convnext": {"depths": (1, 1), "dims": (8, 16), "pool_stages": (1,)},
    "swin": {"depths": (2, 1), "num_heads": (1, 2), "width": 16, "window_size": 4},
    "beit": {"depth": 2, "width": 32, "num_heads": 2, "patch_size": 8},
    "vit": {"depth": 2, "width": 32, "num_heads": 2, "patch_size": 8},
}
