"""Fashion catalogue: what each choice of the recipe is worth, one change at a time.

    ./launch/local.sh --config=configs/fashion_ablation.py:change=asymmetric
    ./launch/local.sh --config=configs/fashion_ablation.py:change=bands+gallery,budget=full,seed=1
    python benchmarks/ablation.py --budget=third runs/fashion_ablation-*

One network, one budget. The baseline, `change=none`, learns titles with the softmax and Poly-1, like fashion_softmax. A
third of the budget is for screening; benchmarks/README.md has the results.

Hardware: two CPU cores, about 220 CPU s of training for a third of the budget.
Expected: 44.5 % MAR@10 capped (whitening) without a change; every change is in benchmarks/README.md.
"""

import math

from retrieval_jax.settings import arguments, fashion, tasks

EPOCHS = {"third": 4 / 3, "full": 4.0, "double": 8.0}
_CROP, _FLIP = ("random_resized_crop", {"scale": (0.6, 1.0)}), ("flip", {})
_GALLERY = {
    "train.unlabelled.split": "gallery",
    "train.unlabelled.batch_size": 32,
    "train.unlabelled.transforms": (_CROP, _FLIP),
}
_CLUSTERS = {"mine.clusters.max_difference": 0.5, "train.task_kwargs.category_labels": "clusters"}
_IMAGE_TITLE = ("titles", "siglip", "titles_only", "siglip_only")  # changes that learn the task image_title

# change: {setting: value}; "+" joins several.
CHANGES = {
    "none": {},
    # Losses and heads.
    "sigmoid": {"train.task_kwargs.loss": "sigmoid"},
    "focal": {"train.task_kwargs.loss": "focal"},
    "asymmetric": {"train.task_kwargs.loss": "asymmetric"},
    "no_poly": {"train.task_kwargs.poly_epsilon": 0.0},
    "poly_2": {"train.task_kwargs.poly_epsilon": 2.0},
    "cosine": {"train.task_kwargs.head": "cosine"},
    "class_balanced": {"train.task_kwargs.class_balanced_beta": 0.9999},
    "categories_too": {"train.task_kwargs.category_weight": 1.0},
    "categories_only": {"train.task_kwargs.category_weight": 1.0, "train.task_kwargs.title_weight": 0.0},
    "clusters": {**_CLUSTERS, "train.task_kwargs.category_weight": 0.5},  # instances beside the attributes
    "clusters_supcon": {
        **_CLUSTERS,
        "train.task_kwargs.category_weight": 0.5,
        "train.task_kwargs.category_loss": "supcon",
    },
    "clusters_arcface": {
        **_CLUSTERS,
        "train.task_kwargs.category_weight": 0.1,
        "train.task_kwargs.category_loss": "arcface",
    },
    "titles": {"train.task_kwargs.contrastive_loss": "softmax"},  # image-title contrast beside the attributes
    "siglip": {"train.task_kwargs.contrastive_loss": "sigmoid"},
    "titles_only": {"train.task_kwargs.title_weight": 0.0},
    "siglip_only": {
        "train.task_kwargs.contrastive_loss": "sigmoid",
        "train.task_kwargs.title_weight": 0.0,
    },
    "distill": {"train.task_kwargs.distill_share": 0.8},
    "gallery": {**_GALLERY, "train.task_kwargs.unlabelled_weight": 1.0},
    # Pooling.
    "gem": {"train.model.kwargs.pooling": "gem"},
    "map": {"train.model.kwargs.pooling": "map"},
    "last_stage": {"train.model.kwargs.pool_stages": (3,)},
    "bands": {"embed.model_kwargs.pool_bands": (3, 3, 1)},  # like test-time views, this changes nothing in training
    # Augmentation.
    "plain": {"train.transforms": (("resize", {}), _FLIP)},
    "hard_crop": {"train.transforms": (("random_resized_crop", {"scale": (0.2, 1.0)}), _FLIP)},
    "trivial_augment": {"train.transforms": (_CROP, _FLIP, ("trivial_augment", {}))},
    "rand_augment": {"train.transforms": (_CROP, _FLIP, ("rand_augment", {}))},
    "erasing": {"train.transforms": (_CROP, _FLIP, ("erasing", {"p": 0.25}))},
    "mixup": {"train.batch_transforms": (("mixup", {"alpha": 0.2}),)},
    "cutmix": {"train.batch_transforms": (("cutmix", {"alpha": 1.0}),)},
    # Small pictures cost less, so a budget buys more epochs; larger ones to embed (FixRes, arXiv 1906.06423).
    "train_small": {"data.image_size": (64, 48), "embed.image_size": (80, 64)},
    # The rest of the recipe.
    "no_ema": {"train.ema_decay": 0.0},
    "drop_path": {"train.model.kwargs.drop_path": 0.1},
    "overlap": {"train.model.kwargs.stem": "overlap"},
    "small_batch": {"train.batch_size": 64},
    "twice_rate": {"train.learning_rate": 4e-3},
    # Test-time views: training stays the same.
    "flip": {"embed.views": (("flip", {}),)},
    "multi_scale": {"embed.views": (("flip", {}), ("multi_scale", {"scales": (1.0, 1.5)}))},
    "five_crops": {"embed.views": (("flip", {}), ("five_crops", {}))},
}


def get_config(arg=None):
    """Returns the settings; `:change=` one of CHANGES or several joined by "+", `budget=third|full|double`, `seed=`."""
    arg = arguments.parse(arg, change="none", budget="third", seed=0)
    epochs = EPOCHS[arguments.choice("budget", arg.budget, EPOCHS)]
    config = fashion.experiment("fashion_ablation", arg)
    if set(arg.change.split("+")) & set(_IMAGE_TITLE):
        config.train.task = "image_title"
        config.train.task_kwargs = tasks.image_title()
    config.train.task_kwargs.loss = "softmax"
    config.train.model.kwargs.update({"pooling": "avg", "drop_path": 0.0, "pool_bands": (1, 1, 1), "stem": "patch"})
    config.embed.model_kwargs.pool_bands = (1, 1, 1)
    config.embed.models = ("trained",)
    config.train.eval_every_epochs = 0.0  # costs time, and the budget is what is compared
    full_size = config.data.image_size
    arguments.apply_changes(config, "change", arg.change, CHANGES)
    if not arg.runlocal:
        config.train.epochs = epochs * math.prod(full_size) / math.prod(config.data.image_size)
    return config
