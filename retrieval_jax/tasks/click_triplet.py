"""Learns from clicks: a shopper's photo is nearer to the listing that was clicked after it than to others of its page.

The examples are the catalogue's table "clicks". With `located` the network first decides where to look: a branch
gives a box, what is outside of it is cut away (`models.located`), and what is left is embedded. There are no boxes to
learn from; the losses of the vectors move it. Titles of the listings, where there are some, teach beside clicks, and
alone for the first `titles_first` steps, because a network that knows nothing learns little from clicks.
"""

import jax
import jax.numpy as jnp

from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures, RaggedRows
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive, triplet, unit
from retrieval_jax.models import located
from retrieval_jax.tasks import Predict, Task, parts
from retrieval_jax.tasks.parts import clicks, photo_clicks
from retrieval_jax.tasks.text_query import groups, is_listed

OPTIONS = {
    **parts.TITLES,
    "located": True,
    "cut": "crop",
    "slopes": (8.0, 40.0),
    "slope_steps": 400,
    "area": 0.02,
    "smallest": 0.5,
    "softmax_weight": 1.0,
    "triplet_weight": 1.0,
    "margin": 0.3,
    "temperature": 0.07,
    "unclicked": 1,
    "near": 0.95,
    "titles_first": 100,
    "same_product": "",
    "agree": True,
    "groups": "",
}
CHOICES = {"cut": located.CUTS}


def examples(config, catalog, workdir):
    """Returns one example per photo and clicked listing of the train split.

    Columns: "photo", "clicked" and "unclicked", pictures, the last `unclicked` of each; "number", the product of the
    clicked listing, and "unclicked_number"; "forbidden", the products clicked for the photo; where titles teach,
    "clicked_labels" and "unclicked_labels", what was mined from them.

    Args:
      config: the whole config.
      catalog: with the table "clicks" about train.
      workdir: the work directory, with mined attributes where titles teach.

    Returns:
      (Examples, DataInfo).

    Raises:
      InputError: no clicks, nothing was mined, or clicks alone are to teach a network that knows nothing.
    """
    options, split = parts.options(config.train, OPTIONS, CHOICES), catalog.split("train")
    _check_start(options, config.train)
    table = catalog.table("clicks", "train")
    photos = catalog.split(table.rows_of.get("photo", "photo"))
    product = clicks.products(split, options["same_product"])
    grouped = bool(options["groups"]) or split.categories is not None
    group = groups(split, options["groups"]) if options["agree"] and grouped else None
    found = photo_clicks.pairs(table, product, group, len(photos), options["unclicked"], config.train.seed)
    print(
        "train: {read:,} clicks: {used:,} used; set aside {other category:,} on another category than their page and "
        "{no listing:,} without a listing".format(**found.counts)
        + ("" if grouped or not options["agree"] else "; no click is checked: the catalogue has no categories"),
        flush=True,
    )
    images = sources.kept(split.images, config.data.cache_bytes)
    columns = {
        "photo": Pictures(sources.kept(photos.images, config.data.cache_bytes), found.photo),
        "clicked": Pictures(images, found.clicked),
        "unclicked": Pictures(images, found.unclicked),
        "number": product[found.clicked],
        "forbidden": RaggedRows(found.forbidden, found.photo),
    }
    vocabulary = None
    if options["title_weight"] > 0:
        vocabulary, labels = parts.mined(workdir, len(split))
        columns["clicked_labels"] = RaggedRows(labels, found.clicked)
        columns["unclicked_labels"] = RaggedRows(labels, found.unclicked)
    ids = [f"{photos.ids[photo]} / {split.ids[row]}" for photo, row in zip(found.photo, found.clicked, strict=True)]
    return Examples(columns, ids), info_lib.of_split(split, vocabulary)


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block.
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task; predict functions "embed_image"; "attributes", where titles teach; and with `located` "locate", "boxes"
      [B, 4]: ymin, xmin, ymax, xmax as shares of the picture, and for crops "embed_whole" and "attributes_whole", which
      read what somebody else has cropped.

    Raises:
      InputError: unknown option, or nothing to learn.

    Source: "Visual Search at Alibaba", arXiv 2102.04674.
    """
    options = parts.options(config, OPTIONS, CHOICES)
    if not any(options[name] > 0 for name in ("softmax_weight", "triplet_weight", "title_weight")):
        raise InputError(
            "config.train.task_kwargs: softmax_weight, triplet_weight and title_weight are all 0: nothing to learn"
        )
    titles = options["title_weight"] > 0
    chosen = {**parts.HEADS, **options, "category_weight": 0.0, "title_weight": 1.0 if titles else 0.0}
    supervision = parts.supervision(config, info, chosen)
    network = parts.network(config, supervision.heads)
    branch = located.Localiser(dtype=jnp.dtype(config.dtype))

    def visual(params):
        return {name: value for name, value in params.items() if name not in ("locate", "head_contrast")}

    def boxes_of(params, images):
        return located.box(branch.apply({"params": params["locate"]}, images), options["smallest"])

    def cut(images, boxes, slope):
        return located.cropped(images, boxes) if options["cut"] == "crop" else located.masked(images, boxes, slope)

    def init(rng, batch):
        key, name = jax.random.fold_in(rng, 1), "photo" if "photo" in batch else "image"
        params = network.init(rng, {"image": batch[name]})
        params["head_contrast"] = {"log_scale": jnp.log(1.0 / jnp.float32(options["temperature"]))}
        if options["located"]:
            params["locate"] = branch.init({"params": key}, batch[name][:1])["params"]
        return params

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del constants
        count, where = len(batch["photo"]), batch["_mask"]
        further = batch["unclicked"].reshape(-1, *batch["unclicked"].shape[2:])
        images, values = jnp.concatenate([batch["photo"], batch["clicked"], further]), {}
        if options["located"]:
            low, high = options["slopes"]
            boxes = boxes_of(params, images)
            # A network that knows nothing yet would shrink it to anything.
            boxes = jnp.where(step >= options["titles_first"], boxes, jax.lax.stop_gradient(boxes)) if titles else boxes
            images = cut(images, boxes, low + (high - low) * jnp.clip(step / max(options["slope_steps"], 1), 0, 1))
            values["area"] = jnp.where(where, located.area(boxes[:count]), 0).sum() / jnp.maximum(where.sum(), 1)
        out = network.apply(visual(params), images, train=train, rngs={"dropout": rng})
        photo, clicked = out["embedding"][:count], out["embedding"][count : 2 * count]
        unclicked = out["embedding"][2 * count :].reshape(count, -1, photo.shape[-1])
        near = jnp.einsum("bd,bnd->bn", unit(clicked), unit(unclicked)) > options["near"]
        allowed = batch["unclicked_mask"] & ~jax.lax.stop_gradient(near)
        there = batch["unclicked_mask"] & where[:, None]
        values["near_share"] = (there & near).sum() / jnp.maximum(there.sum(), 1)
        total = options["area"] * values.get("area", 0.0)
        begun = jnp.where(step >= options["titles_first"], 1.0, 0.0) if titles else 1.0
        rows = jnp.maximum(where.sum(), 1)
        if options["softmax_weight"] > 0:
            facts = {"number": batch["number"], "vector": jax.lax.stop_gradient(unit(clicked))}
            of_photo = {**facts, "forbidden": batch["forbidden"], "mask": batch["forbidden_mask"]}
            scale = contrastive.learned_scale(params["head_contrast"]["log_scale"])
            losses = contrastive.softmax(
                photo,
                clicked,
                scale=scale,
                symmetric=False,
                related=(lambda one, other: never_negative(one, other, options["near"]), of_photo, facts),
                negatives=unclicked,
                negatives_where=allowed,
                where=where,
            )
            values |= {"softmax_loss": losses.sum() / rows, "scale": scale}
            total += begun * options["softmax_weight"] * values["softmax_loss"]
        if options["triplet_weight"] > 0:
            losses = triplet.cosine(photo, clicked, unclicked, margin=options["margin"], allowed=allowed, where=where)
            values["triplet_loss"] = losses.sum() / rows
            total += begun * options["triplet_weight"] * values["triplet_loss"]
        if titles:
            value, more = supervision.loss(
                network,
                visual(params),
                _listings(batch),
                jax.tree.map(
                    lambda leaf: leaf[count:], {name: out[name] for name in ("embedding", "pooled", "logits")}
                ),
                rng=rng,
                step=step,
                ema=ema,
                train=train,
            )
            values |= more
            total += options["title_weight"] * value
        return total, values

    def shown(params, images):
        """Returns what is embedded of pictures: at prediction the last slope, and a box inside of the picture.

        The box is the one that is shown, and that the search service crops to. Training lets it reach out, so that its
        gradient does not stop at the edge; trained boxes hardly do (4 % of photos, none by a twentieth of a side).
        """
        if not options["located"]:
            return images
        return cut(images, jnp.clip(boxes_of(params, images), 0, 1), options["slopes"][1])

    def embed_image(params, batch):
        return network.embed_image(visual(params), {"image": shown(params, batch["image"])})

    predict_fns = {"embed_image": Predict(embed_image)}
    if titles:

        def attributes_whole(params, batch):
            logits = network.apply(visual(params), batch["image"])["logits"]["titles"]
            return {"probabilities": supervision.probabilities(logits)}

        def attributes(params, batch):
            return attributes_whole(params, {"image": shown(params, batch["image"])})

        predict_fns["attributes"] = Predict(attributes)
    if options["located"]:
        if options["cut"] == "crop":  # what a mask leaves is not a picture that stands for itself
            predict_fns["embed_whole"] = Predict(lambda params, batch: network.embed_image(visual(params), batch))
            if titles:
                predict_fns["attributes_whole"] = Predict(attributes_whole)
        predict_fns["locate"] = Predict(
            lambda params, batch: {"boxes": jnp.clip(boxes_of(params, batch["image"]), 0, 1)}
        )

    def warm_start(params):
        return {**params, **network.warm_start(visual(params))}

    return Task(
        init,
        loss_fn,
        predict_fns,
        network.space,
        warm_start=warm_start if network.warm_start else None,
        couples_rows="task='click_triplet'",
    )


def _check_start(options, train) -> None:
    """Raises an InputError where `near` would take all listings for one product, and nothing else teaches otherwise."""
    knows = options["title_weight"] > 0 or train.get("init_from") or train.model.get("pretrained", {}).get("name")
    if options["near"] < 1 and not knows:
        raise InputError(
            "config.train.task_kwargs: a network that knows nothing makes all listings alike, so that none of them is "
            f"a negative (near={options['near']:g}), and clicks alone do not change that: give title_weight above 0, "
            "near=1, config.train.init_from or public weights (config.train.model.pretrained.name)"
        )


def _listings(batch) -> dict:
    """Returns the labels of the listings of a batch, clicked ones first, as a batch of their own."""
    labels, width = batch["clicked_labels"], batch["clicked_labels"].shape[-1]
    there = batch["unclicked_mask"] & batch["_mask"][:, None]
    return {
        "label_ids": jnp.concatenate([labels, batch["unclicked_labels"].reshape(-1, width)]),
        "label_ids_mask": jnp.concatenate(
            [batch["clicked_labels_mask"], batch["unclicked_labels_mask"].reshape(-1, width)]
        ),
        "_mask": jnp.concatenate([batch["_mask"], there.reshape(-1)]),
    }


def never_negative(photos, listings, near: float):
    """Returns which clicked listings of other examples are never negatives of photos.

    Args:
      photos: {"number" int [b], the product of the listing that was clicked; "vector" [b, D], its unit vector;
        "forbidden" int [b, F], ascending products clicked for the photo; "mask" bool [b, F]}.
      listings: {"number" int [n], "vector" [n, D]}.
      near: cosine of two listings above which they may show the same product.

    Returns:
      bool [b, n].
    """
    same = photos["number"][:, None] == listings["number"]
    return same | is_listed(photos, listings["number"]) | (photos["vector"] @ listings["vector"].T > near)
