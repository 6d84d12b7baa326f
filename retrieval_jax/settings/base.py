"""The default settings, one block per verb; a config changes what differs.

They come locked: a misspelt setting is an error, in a config file as on the command line. Blocks whose keys depend on
another setting (OPEN) take any key. A config that needs a setting of its own adds it inside
`with config.unlocked():` and then calls `lock(config)`, which keeps those blocks open.

Settings at None follow the size of the catalogue, see sizes.py; mine and train print what they chose, and why.
"""

from ml_collections import ConfigDict, config_dict

from retrieval_jax.settings import tasks

# Arguments of a catalogue's source, a network, a schedule, an index ...: what may stand there depends on the other
# setting, and is checked where it is used.
OPEN = (
    "data.kwargs",
    "train.model.kwargs",
    "train.model.pretrained.kwargs",
    "train.task_kwargs.loss_kwargs",
    "train.task_kwargs.category_kwargs",
    "train.task_kwargs.words_kwargs",
    "train.task_kwargs.joint_kwargs",
    "train.task_kwargs.set_kwargs",
    "train.schedule_kwargs",
    "train.sampling_kwargs",
    "embed.model_kwargs",
    "embed.pretrained.kwargs",
    "search.index_kwargs",
)


def defaults() -> ConfigDict:
    """Returns the default settings, locked except for the OPEN blocks."""
    config = ConfigDict()
    config.name = "base"

    config.data = ConfigDict()
    config.data.source = "synthetic"
    config.data.kwargs = ConfigDict()  # arguments of the source
    config.data.image_size = (64, 64)  # (height, width) of what networks see
    config.data.cache_bytes = 2**30  # of decoded pictures kept in memory, per split
    config.data.leave_out = ""  # CSV (split, id, reason) of listings to leave out, such as retrieval_jax.leaks writes

    config.mine = ConfigDict()
    # Keep tokens that occur in more than this many titles of train and val: by default 30, fewer for few titles.
    config.mine.threshold = config_dict.placeholder(int)
    # What a word of a title is: 1, as published for eProduct; 2, the same for plain ASCII, right for other scripts,
    # decomposed accents and HTML (attributes/titles.py). A vocabulary keeps the rule that it was made by.
    config.mine.rule = 2
    # Better words, all off by default: docs/mining.md.
    config.mine.normalise = False  # one form of numbers with units, and of spellings
    config.mine.segment = False  # cut Chinese and Japanese into words
    # Merge plurals, hyphens and typos where categories (divergence, nats) and neighbours (likeness) agree.
    config.mine.variants = ConfigDict({"on": False, "most_divergence": 0.6, "least_likeness": 0.3})
    config.mine.phrases = ConfigDict({"on": False, "least_score": 0.55})  # normalised mutual information, at most 1
    # Drop words that say nothing about the picture (most_auc, from this many pictures; 0 pictures: do not look) nor
    # about the category (most_information, as a share of the entropy).
    config.mine.uninformative = ConfigDict({"on": False, "pictures": 10000, "most_auc": 0.6, "most_information": 0.5})
    # Keep words below the threshold, down to this share of it, that point to one category (p-value at most most_p).
    config.mine.rare = ConfigDict({"on": False, "share": 0.4, "most_p": 1e-4})
    # Keep words that are common within a category, however small the category is.
    config.mine.categories = ConfigDict({"on": False, "least_titles": 3, "least_share": 0.05})
    config.mine.kinds = False  # guess the kind of every word (colour, material ...), in attributes/kinds.csv
    config.mine.overrules = ""  # file of manual decisions: keep, drop, split word; merge word target
    config.mine.statistics = ""  # folder of tables counted elsewhere, such as with Beam
    # Pseudo-products: train listings of one category whose titles and pictures differ by at most max_difference (0 to
    # 2, such as 0.5; 0 for no clusters). A listing in no cluster has no label, or with noise "own" one of its own.
    config.mine.clusters = ConfigDict({"max_difference": 0.0, "title_share": 0.5, "max_size": 50, "noise": "none"})

    config.train = ConfigDict()
    config.train.seed = 0
    config.train.task = "multilabel"  # and its options, from the function of that name in settings/tasks.py
    config.train.task_kwargs = tasks.multilabel()
    # layer_scale: with the published 1e-6, short runs from scratch would spend their first epochs with idle blocks.
    # projection 0: the embedding is as wide as the backbone.
    config.train.model = ConfigDict({"name": "convnext", "variant": "mini", "projection": 0})
    config.train.model.kwargs = ConfigDict({"layer_scale": 1.0, "pool_stages": (1, 2, 3)})
    # Public weights by timm's name, from the hub or a local safetensors file (path); empty to start from scratch. Their
    # network replaces name and variant above; `kwargs` are timm's own, model.kwargs ours (drop_path, remat ...).
    config.train.model.pretrained = ConfigDict({"name": "", "path": "", "offline": False})
    config.train.model.pretrained.kwargs = ConfigDict()
    # The run to start from: its folder, or a config ("name" or "name:arg"), which then runs first, beside this one.
    config.train.init_from = ""
    config.train.frozen = ()  # regexes of parameters that stay as they are, such as "^backbone/"
    config.train.dtype = "float32"  # of the computation; "bfloat16" on accelerators
    config.train.batch_size = config_dict.placeholder(int)  # global, over all devices and processes
    # Devices per axis; data 0 takes all that fsdp leaves. The train state is sharded along fsdp, which saves memory and
    # costs communication. May change when a run resumes.
    config.train.mesh = ConfigDict({"data": 0, "fsdp": 1})
    config.train.sharding_rules = ()  # (regex, spec) pairs before sharding.RULES, such as ("^heads_", (None, "fsdp"))
    config.train.accumulate_steps = 1  # parts to split a batch into when it does not fit in memory
    config.train.epochs = config_dict.placeholder(float)
    config.train.learning_rate = 2e-3
    config.train.final_learning_rate = 1e-6
    config.train.warmup_epochs = config_dict.placeholder(float)
    config.train.schedule = "cosine"  # or "wsd", "step", "constant", with the arguments of optim.SCHEDULES
    config.train.schedule_kwargs = ConfigDict()
    config.train.layer_decay = 1.0  # the n-th layer from the top learns at learning_rate * layer_decay ** n
    config.train.learning_rate_rules = ()  # (regex, factor) pairs; the first match counts
    config.train.weight_decay = 0.05
    config.train.decay_rules = ()  # (regex, share of weight_decay) pairs, before optim.DECAY_RULES
    config.train.b2 = 0.999
    config.train.clip_norm = 1.0  # 0 for no clipping
    config.train.ema_decay = 0.99
    config.train.ema_paths = ""  # regex of the parameters to average; empty for all, "^backbone/" without the heads
    config.train.transforms = (
        ("random_resized_crop", {"scale": (0.5, 1.0)}),
        ("flip", {}),
        ("color_jitter", {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}),
        ("erasing", {"p": 0.25}),
    )
    # On the device: ("mixup", {"alpha": 0.2}), ("cutmix", {"alpha": 1.0}); before them random_resized_crop, flip,
    # color_jitter and erasing where the host cannot keep up, with ("resize", {}) alone in `transforms`.
    config.train.batch_transforms = ()
    config.train.views = ()  # further crops of a picture, each {"transforms": ..., "image_size": (height, width)}
    # Unlabelled pictures that join every step: the name of their split, empty for no such pictures.
    config.train.unlabelled = ConfigDict({"split": "", "batch_size": 0, "transforms": (("resize", {}),)})
    # Order of the rows: "shuffle", "balanced", "p_by_k" or "mixed", with the arguments of data/sampling.py's functions.
    config.train.sampling = "shuffle"
    config.train.sampling_kwargs = ConfigDict()
    config.train.num_threads = 2  # that decode and augment; beyond about six they wait for Python: use workers instead
    # Processes with num_threads threads and a cache each; 0 for threads of this process. Their batches pass through
    # /dev/shm, which is small in many containers: it needs room for six batches per process.
    config.train.num_workers = 0
    # Decode only the part of a JPEG that an initial random_resized_crop needs, where pictures are not cached and have
    # no views. Faster, but the pixels differ where a crop is more than twice as large as its output.
    config.train.crop_before_decoding = False
    config.train.non_finite = "stop"  # on a non-finite loss or gradient; "skip" leaves such steps out
    config.train.hang_seconds = 1800.0  # in a single wait, after which the process exits; 0 for never
    config.train.log_every_steps = 10
    # Beside metrics.jsonl and TensorBoard: ("wandb", {"project": "shop"}), ("mlflow", {}); see training/trackers.py.
    config.train.trackers = ()
    config.train.checkpoint_every_steps = 200
    config.train.keep_checkpoints = 2
    # Evaluations during training, by their names in retrieval_jax/evaluators, every so many epochs; 0 for none.
    config.train.evaluations = (("retrieval", {"max_queries": 500, "max_gallery": 2000}),)
    config.train.eval_every_epochs = 2.0

    config.embed = ConfigDict()
    # Baselines and networks, and "pretrained", public weights as they are:
    config.embed.models = ("histogram", "colour_and_edges", "untrained", "trained")
    config.embed.pretrained = ConfigDict({"name": "", "path": "", "offline": False, "dtype": "float32"})
    config.embed.pretrained.kwargs = ConfigDict()
    # Of the model "appearance": the stage of the network whose signs it takes, and rows and columns of its pooled map.
    config.embed.appearance = ConfigDict({"stage": 2, "bands": (4, 3)})
    config.embed.predict_fn = "embed_image"  # the task's function that embeds
    config.embed.model_kwargs = ConfigDict()  # override train.model.kwargs, such as {"pool_bands": (3, 3, 1)}
    config.embed.batch_size = 256
    config.embed.transforms = (("resize", {}),)  # () for those the public weights were evaluated with
    # Test-time views, whose vectors are averaged: ("flip", {}), ("multi_scale", {"scales": (1.0, 1.25)}),
    # ("five_crops", {"enlarge": 8 / 7}), or the product of several; () for the picture as it is.
    config.embed.views = ()
    config.embed.image_size = ()  # (height, width); () for data.image_size, for "pretrained" for the weights' own size
    config.embed.dtype = "float32"
    # Crop the pictures of `splits` to the product that a run of the task "regions" finds ("" for none), `margin` of its
    # sides wider; `guided`: boxes of another type than the listing's are dropped, where it is known.
    config.embed.regions = ConfigDict({"run": "", "splits": ("query", "gallery"), "margin": 0.1, "guided": False})
    config.embed.shard_rows = 16384  # listings per file: what is held in memory, and lost at most when a run is killed

    config.search = ConfigDict()
    # What embeds each side: a run (its folder, or a config, "name" or "name:arg"), the step of its checkpoint, its
    # moving average ("ema") or raw parameters ("params"), and its predict function. Empty and 0: this run, its latest
    # checkpoint, its embed.predict_fn. Both sides must be of one embedding space.
    config.search.query_from = ConfigDict({"run": "", "step": 0, "which": "ema", "predict_fn": ""})
    # The gallery's `adapter`, a folder of `retrieval-jax upgrade`, maps what its run has embedded into the queries'
    # space, so that a new model searches what an old one has embedded.
    config.search.gallery_from = ConfigDict({"run": "", "step": 0, "which": "ema", "predict_fn": "", "adapter": ""})
    config.search.k = 100
    # Of the model "lexical": the text column of the queries, columns of the gallery that are read ("title", texts,
    # attributes), BM25's two numbers, and whether a misspelt word is read as the known one next to it.
    config.search.lexical = ConfigDict({"query": "query", "columns": ("title",), "k1": 1.5, "b": 0.75, "typos": True})
    config.search.index = "exact"
    config.search.index_kwargs = ConfigDict()
    # "chosen" chooses the steps by the data, without labels (docs/choosing_steps.md); as published for eProduct:
    # (("whitening", {}), ("reranking", {})).
    config.search.steps = (("chosen", {}),)
    # With the index "attribute": listings of the categories that a photo probably shows come first, the fewest that
    # together have the probability `mass` (such as 0.95; 0 for off). Embed then also embeds val and at most so many
    # train `listings`, the `k` nearest of which vote for their category, by the vectors of `vote`, one of embed.models
    # (docs/clicked_search.md).
    config.search.categories = ConfigDict({"mass": 0.0, "k": 30, "listings": 50_000, "vote": "trained"})
    config.search.stages = ()  # stages to search and save, such as ("ensemble", "reranking"); () for all
    config.search.members = ()  # of an ensemble: configs, "name" or "name:arg"
    # Models of this run that the step "ensemble" joins, such as ("trained", "colour_and_edges"); with members, those of
    # the first member's run that join them, such as ("colour_and_edges",).
    config.search.join = ()

    config.evaluate = ConfigDict()
    config.evaluate.ks = (1, 10)
    # Scores that text retrieval reports, such as ("mrr", "map", "ndcg@10", "precision@50", "recall@50"), beside those
    # of ks; the first one is then the headline. For a graded truth: the gain of a grade in nDCG, "exponential" (2 ** g
    # - 1) or "linear"; rows that nobody rated count as not relevant ("zero") or are left out first ("condensed").
    config.evaluate.metrics = ()
    config.evaluate.gain = "exponential"
    config.evaluate.unrated = "zero"
    config.evaluate.slices = ()  # columns of the queries whose values are scored apart, beside "kind"
    # Of queries that are edits ("this shirt, but in denim"): fields that should stay, and the embedding of the gallery,
    # one of embed.models that is not judged itself, by which the likeness of results is measured ("" for none).
    config.evaluate.edits = ConfigDict({"kept": ("type",), "similarity": "colour_and_edges"})
    config.evaluate.submission_stage = ""  # "stage" or "model/stage"; empty for the last
    config.evaluate.selection_share = 0.5  # of the queries, to make choices on; results are reported on the others
    config.evaluate.draws = 1000  # bootstrap resamples of the queries, for the confidence intervals; 0 for none
    # Warn of pictures of queries and train that have a near-duplicate in the gallery, by 8 x 8 mean colours:
    # max_difference as a share of a picture's contrast (below 0: off), and how many train listings are compared.
    config.evaluate.near_duplicates = ConfigDict({"max_difference": 0.05, "train_listings": 2000})

    # Of retrieval_jax.leaks: pictures that two splits share, with max_difference as above. Altered ones (brightness,
    # shift, mild crop) are only reported; train listings that share a picture with one of the splits leave_out_of go
    # into leave_out.csv.
    config.leaks = ConfigDict(
        {"max_difference": 0.05, "mirrored": True, "altered": False, "leave_out_of": ("val", "query", "gallery")}
    )

    config.report = ConfigDict()
    config.report.rows = 12  # random ones, and as many of the worst
    config.report.stage = ""  # "stage" or "model/stage"; empty for the last stage of the trained model
    config.report.seed = 0

    return lock(config)


def lock(config: ConfigDict) -> ConfigDict:
    """Locks a config except for its OPEN blocks, as `defaults` does, and returns it.

    A config that adds settings inside `with config.unlocked():` locks its OPEN blocks too; this opens them again.
    """
    config.lock()
    for name in OPEN:
        block = config
        for part in name.split("."):
            block = block.get(part) if block is not None else None
        if block is not None:
            block.unlock()
    return config


def ensemble(config: ConfigDict, members: tuple[str, ...], *, runlocal: bool) -> None:
    """Turns a config into an ensemble: members train by themselves, their embeddings are joined and searched.

    Args:
      config: changed in place: the blocks of what the members do are removed.
      members: configs, with arguments: "fashion_vit" or "quickstart:loss=softmax".
      runlocal: whether the members run locally too.
    """
    _remove(config, "mine", "train", "embed")
    if runlocal:
        members = tuple(member + ("," if ":" in member else ":") + "runlocal" for member in members)
    config.search.members = members
    config.search.steps = (("chosen", {}), ("ensemble", {}))


def public_weights(block: ConfigDict, arg: ConfigDict) -> None:
    """Sets which public weights a network has.

    Args:
      block: config.train.model.pretrained or config.embed.pretrained; changed in place.
      arg: parsed argument with `name` (timm's), `path` of a file of them ("" for the hub) and `offline`.
    """
    block.name, block.path, block.offline = arg.name, arg.path, arg.offline


def without_training(config: ConfigDict) -> None:
    """Removes mining and training from a config: it starts at embed, with public weights or colours alone."""
    _remove(config, "mine", "train")


def _remove(config: ConfigDict, *blocks: str) -> None:
    config.unlock()
    for block in blocks:
        del config[block]
    lock(config)
