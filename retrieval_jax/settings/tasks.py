"""The options of each task: `config.train.task_kwargs`.

A config that sets `train.task` takes the options from the function of the same name, so that it holds those of its own
task and no others:

    config.train.task = "category"
    config.train.task_kwargs = tasks.category()
    config.train.task_kwargs.label_smoothing = 0.1

The blocks are locked: an option that does not exist is an error. `loss_kwargs` and `category_kwargs` are open, because
every loss has parameters of its own.
"""

from ml_collections import ConfigDict


def multilabel() -> ConfigDict:
    """Returns the options of `multilabel`: attributes mined from titles, and the category where its weight is not 0."""
    return _locked(_title_options(), _category_options(), {"category_weight": 0.0})


def category() -> ConfigDict:
    """Returns the options of `category`: the leaf category alone."""
    return _locked(_category_options())


def image_title() -> ConfigDict:
    """Returns the options of `image_title`: image-title contrast beside the options of `multilabel`."""
    return _locked(
        multilabel().to_dict(),
        {
            "contrastive_loss": "softmax",  # softmax (CLIP) or sigmoid (SigLIP)
            "contrastive_weight": 1.0,  # relative to title_weight and category_weight
            "hidden_dims": 512,  # width of the title tower
            "code_weight": 0.0,  # of the same contrast for the signs of the embedding: a binary code; 0 leaves it out
        },
    )


def self_supervised() -> ConfigDict:
    """Returns the options of `self_supervised`: two or more crops of a picture recognise each other."""
    return _locked(
        {
            "temperature": 0.07,  # fixed
            "hidden_dims": 512,  # width of projector and predictor
        }
    )


def attribute_sequence() -> ConfigDict:
    """Returns the options of `attribute_sequence`: attributes of labelled columns, written one after the other."""
    return _locked(
        {
            "fields": (),  # in the order in which they are written: columns, category levels, "mined"
            "optional_fields": (),  # those where a listing without a value has none; elsewhere it is unknown
            "min_count": 5,  # training listings that a value needs; rarer ones are set aside
            "length": 0,  # values of a listing, at most; 0 for no limit
            "heads": "sequence",  # or "sigmoid", each value by itself, for comparison
            "cell_dims": 256,  # of the LSTM
            "teacher_forcing": 1.0,  # share of the true labels among those that the LSTM reads; the rest are its own
            "field_weights": (),  # of the loss, one per field; () for 1 each
            "label_smoothing": 0.0,
            "head_init_scale": 0.1,  # of the logits' weights
            "beam": 8,  # sequences that the search keeps
            "decision": "expected_f1",  # which of them is the best: the set with the best expected F1, or "probability"
            "length_penalty": 0.0,  # "probability" compares log probability / length ** length_penalty
        }
    )


def regions() -> ConfigDict:
    """Returns the options of `regions`: boxes with a type."""
    return _locked(
        {
            "types": "category",  # the field of a box's type: a column or a category level
            "group": "",  # a text column that is equal for listings of one picture; empty where each has its own
            "min_count": 5,  # training listings that a type needs
            "dims": 96,  # width of the head
            "smallest_crop": 0.7,  # of training pictures, as a share of their sides; 1 for no crops
            "box_weight": 2.0,  # of the boxes' loss, relative to that of objectness
            "type_weight": 1.0,  # of the types' loss
            "boxes": 50,  # per picture, before overlapping ones are dropped
        }
    )


def click_triplet() -> ConfigDict:
    """Returns the options of `click_triplet`: photos, and the listings that were and were not clicked after them."""
    return _locked(
        _title_options(),
        {
            "located": True,  # look for the product first: a box, learned without true ones
            "cut": "crop",  # what is done with the box: "crop" enlarges it, "mask" fades out what is around it
            "slopes": (8.0, 40.0),  # of the mask's edges, first and last; a quarter is their rise per picture's side
            "slope_steps": 400,  # steps from the first to the last
            "area": 0.02,  # loss of a box as large as the picture
            "smallest": 0.5,  # side of the smallest box, as a share of the picture's: below it colour alone would do
            "softmax_weight": 1.0,  # of finding the clicked listing among those of the batch and the page
            "triplet_weight": 1.0,  # of being nearer to it than to the unclicked ones of the page
            "margin": 0.3,  # of the triplet, in cosines
            "temperature": 0.07,  # of the softmax, its first value
            "unclicked": 1,  # listings of the page that nobody clicked
            "near": 0.95,  # cosine with the clicked listing from which another one is taken for the same product
            "titles_first": 100,  # steps before clicks count, where titles teach too
            "same_product": "",  # column of text whose equal values are one product; equal titles are in any case
            "agree": True,  # leave out clicks on another category than most of the page has
            "groups": "",  # the field that is meant: an attribute or a category level; empty for the leaf
        },
    )


def masked_tokens() -> ConfigDict:
    """Returns the options of `masked_tokens`: hidden tokens of titles and typed queries are predicted from the rest."""
    return _locked(
        text_options(),
        {
            "share": 0.15,  # of a text's tokens that are hidden, at least one of each text
            "whole_words": False,  # hide all tokens of a word together
            "queries": True,  # learn from the train queries of the table "queries" as well
        },
    )


def text_query() -> ConfigDict:
    """Returns the options of `text_query`: typed queries and the products clicked after them."""
    return _locked(
        text_options(),
        _query_options(),
        {
            "loss": "triplet",  # or "softmax", over the products of the batch
            "margin": 0.3,  # of the triplet, in cosines
            "temperature": 0.05,  # of the softmax, its first value
            "negatives": "rule",  # "rule", the published one; "in_batch"; or "mined", the hardest of a pool
            "encoders": 1,  # one for queries and products, or 2
            "positives": 100,  # most clicked products of a query that count
            "candidates": 4,  # "rule": negatives drawn per pair, of which each step takes one
            "broad_share": 0.3,  # a query is broad where its clicks cover more of a product group
            "groups": "",  # the attribute or category level of product groups; empty for the leaf category
            "same_product": "",  # a column of text whose equal values are one product; equal titles always are
            "pool": 512,  # "mined": listings that each step looks at
            "typos": 0.1,  # share of the queries that are misspelt for training
            "title_queries": 0,  # queries per listing that are made of its own words, beside or without clicks
        },
    )


def text_picture() -> ConfigDict:
    """Returns the options of `text_picture`: words beside pictures."""
    options = _locked(
        text_options(),
        _query_options(),
        {
            "pictures": "",  # the run whose space words are learned into; empty where the picture network learns along
            "words": ("transformer", "small"),  # the network of text and its variant
            "words_kwargs": {},  # and its arguments
            "temperature": 0.05,  # its first value
            "attributes": (),  # attributes of which texts are made, such as ("colour", "type")
            "attribute_texts": 2,  # per listing
            "clicks": True,  # whether queries and what was clicked after them are learned too, where there are any
            "positives": 100,  # most clicked products of a query that count
            "same_product": "",  # a column of text whose equal values are one product; equal titles always are
            "typos": 0.1,  # share of the texts that are misspelt for training
        },
    )
    options.words_kwargs.unlock()
    return options


def edit() -> ConfigDict:
    """Returns the options of `edit`: a picture and words that change it."""
    options = _locked(
        text_options(),
        _query_options(),
        {
            "pictures": "",  # the run whose pictures are searched; empty where the picture network learns along
            "words": ("transformer", "mini"),  # the network of text and its variant
            "words_kwargs": {},  # and its arguments
            "words_dim": 256,  # dimensions of the words' vector
            "joint": "residual",  # or "concat", "film", "transformer" (models/joint)
            "joint_kwargs": {},  # and its arguments
            "loss": "softmax",  # over the targets of the batch; or "siamese", pairs attract and repel
            "margin": 0.5,  # of "siamese": the distance from which on a negative costs nothing
            "temperature": 0.05,  # of the softmax, its first value
            "targets": 3,  # of an edit that are learned, at most; the others are never negatives
            "siblings": 2,  # negatives beside the reference: targets of its other edits, then any; needs `pictures`
            "neighbours": 3,  # more negatives: listings that look like the target and are not right; needs `pictures`
            "titles": 0,  # how often each listing's title is learned as words alone
            "drop_picture": 0.1,  # share of the examples that lose their picture
            "drop_words": 0.1,  # and of those that lose their words
            "still": 0,  # steps before a picture network that learns along is changed by edits
            "weight": 1.0,  # of what words change when queries are embedded; below 1 results stay nearer the picture
            "typos": 0.1,  # share of the words that are misspelt for training
            "fillers": 0.5,  # share of the words that stand among words that mean nothing, to be read past
            "turned": 0.3,  # share of the words whose two parts, cut at random, change places
        },
    )
    options.query_column = "words"
    options.words_kwargs.unlock()
    options.joint_kwargs.unlock()
    return options


def compatible() -> ConfigDict:
    """Returns the options of `compatible`: a network whose vectors search the gallery of another."""
    return _locked(
        _title_options(),
        _category_options(),
        {
            "title_weight": 0.0,  # of classifiers of its own, which read its own vector
            "category_weight": 0.0,
            "pictures": "",  # the run whose gallery is searched: a config, or a folder
            "regression_weight": 1.0,  # of the gallery network's vector itself; 0 leaves a loss out
            "regression": "cosine",  # of its direction, or "squared", with its length
            "contrast_weight": 0.0,  # of telling it from those of the batch's other pictures (InfoNCE)
            "contrast_temperature": 0.05,  # fixed
            "rank_weight": 0.0,  # of finding the batch's pictures in the order in which the gallery network does
            "rank_temperature": 0.1,  # lower ones look at the nearest pictures alone
            "bank": 0,  # vectors of train pictures, drawn anew, that these two compare with beside the batch's
            "relation_weight": 0.0,  # of lying as far from each other as the gallery network's vectors do
            "classifier_weight": 0.0,  # of the labels under the gallery network's own classifiers
            "logits_weight": 0.0,  # of the logits that these give to its own vector
            "own_length": False,  # they read vectors as long as they are, not as long as the gallery network's
            "map_hidden": 0,  # hidden units of a perceptron into the gallery's space; 0 for a linear map
            "map_residual": False,  # it is added to the network's vector, which is as wide as the gallery's
        },
    )


def outfit() -> ConfigDict:
    """Returns the options of `outfit`: what goes together, from outfits of which few are labelled."""
    options = _locked(
        {
            "types": "category",  # the field of an item's type: a column or a category level
            "same_product": "",  # a column of text whose equal values are one product; empty: each listing is its own
            "min_count": 1,  # training listings that a type needs
            "labels": 1.0,  # share of the outfits that is learned from; a smaller share is part of a larger one
            "max_items": 8,  # of an outfit that are learned, the first; a step is as wide as its longest outfit
            "margin": 0.4,  # of all triplets, in distances of unit vectors
            "pseudo_weight": 1.0,  # of outfits made of unlabelled items, relative to those that are labelled
            "pseudo_ramp": 100,  # steps in which that weight grows from almost 0
            "consistency_weight": 0.1,  # of pictures and their transforms
            "set_weight": 0.0,  # of a transformer that scores whole outfits; 0 for none
            "set_kwargs": {},  # its arguments: width, depth, heads, dropout
        }
    )
    options.set_kwargs.unlock()
    return options


def text_options() -> dict:
    """Returns the options that all tasks of text share."""
    return {
        "text_columns": ("title",),  # of listings, joined: title, text columns, attributes, category levels
        "length": 32,  # tokens of a text at most, its start and end included; the rest is cut
        "vocabulary": 8000,  # tokens to learn from the catalogue's text
        "tokenizer": "",  # file or folder of one; empty for that of weights or init_from, or a new one
        "weights": "",  # public RoBERTa, BERT or MiniLM: a folder, or "owner/name" of the hub; empty for none
    }


def _query_options() -> dict:
    return {
        "query_column": "query",  # of the query split: what was typed
        "query_length": 16,  # tokens of a query at most, its start and end included
    }


def _title_options() -> dict:
    return {
        "loss": "sigmoid",  # sigmoid, focal, asymmetric, or softmax (over y / sum(y), with Poly-1)
        "loss_kwargs": {},  # parameters of that loss, such as label_smoothing, gamma or margin
        "title_weight": 1.0,  # 0 trains no title head
        "label_block": 0,  # logits of this many labels at a time in memory, such as 4096; 0 for all
        "positive_weight_power": 0.5,  # sigmoid, focal, asymmetric: a present label weighs (N / n) ** power
        "positive_weight_limit": 100.0,  # at most
        "poly_epsilon": 0.5,  # softmax: weight of Poly-1's first-order term
    }


def _category_options() -> dict:
    return {
        "category_loss": "softmax",  # softmax, cosface, arcface, proxy_nca, proxy_anchor or supcon
        "category_kwargs": {},  # parameters of that loss, such as scale and margin
        "category_labels": "categories",  # or "clusters", the pseudo-products of config.mine.clusters
        "head": "linear",  # or "cosine", with a learned temperature
        "head_init_scale": 0.1,  # of linear heads
        "temperature": 0.07,  # of every cosine; the initial value where it is learned (cosine heads, image_title)
        "class_balanced_beta": 0.0,  # 0.9999 weighs labels and categories by their effective number; 0 weighs all alike
        "label_smoothing": 0.0,  # of the category head
        "distill_share": 0.0,  # share of the target given by the moving average at the end; grows from 0 over the run
        "unlabelled_weight": 0.0,  # of train.unlabelled, whose target is the moving average alone; grows likewise
    }


def _locked(*blocks: dict) -> ConfigDict:
    options = ConfigDict({name: value for block in blocks for name, value in block.items()}).lock()
    for name in ("loss_kwargs", "category_kwargs"):
        if name in options:
            options[name].unlock()
    return options
