"""Learns what goes together from outfits, of which few are labelled: items that are worn together are near each other.

A listing's picture is embedded and projected by its type (shoes, bags ...); the projections start as the identity.
Triplet hinges over the outfits of a batch pull items of one outfit together, away from other outfits' items of the same
type. Two more losses need no outfit, only pictures of known type (config.train.unlabelled):

    pseudo-outfits   every item of a labelled outfit is replaced by its nearest unlabelled item of the same type, never
                     the same product; the sets that this gives are learned like outfits
    consistency      a picture stays nearer to a transform of it that keeps colour and shape than to one that does not

With both weights at 0 nothing unlabelled is read, and the run is the supervised one, bit for bit. With `set_weight` a
transformer over the items of an outfit learns to score it as a whole, beside the distances of pairs.
"""

import dataclasses
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.data import fields as fields_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures
from retrieval_jax.data.outfits import sets
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.losses import outfits as losses
from retrieval_jax.losses import unit
from retrieval_jax.models import outfits as networks
from retrieval_jax.tasks import Predict, Task, parts
from retrieval_jax.tasks.parts import changes

OPTIONS = {
    **sets.OPTIONS,
    "min_count": 1,
    "labels": 1.0,
    "max_items": 8,
    "margin": 0.4,
    "pseudo_weight": 1.0,
    "pseudo_ramp": 100,
    "consistency_weight": 0.1,
    "set_weight": 0.0,
    "set_kwargs": {},
}
HEADS = ("head_types", "head_sets")
_log = logging.getLogger(__name__)


def examples(config, catalog, workdir):
    """Returns one example per labelled outfit of the train split, and beside them the unlabelled pictures.

    Columns: "items", pictures [B, k, ...]; "types", int [B, k]; "products", int [B, m], of all items of the outfit, the
    first k those that are learned. Beside them, where one of the two unlabelled losses has a weight, "unlabelled":
    "image", "type" and "product".

    Args:
      config: the whole config.
      catalog: `data.catalog.Catalog`, with the table "outfits" about train.
      workdir: not used: nothing is mined.

    Returns:
      (Examples, DataInfo), whose labels are the types that items of outfits have.

    Raises:
      InputError: no outfits, no such field of types, or unlabelled losses without unlabelled pictures.
    """
    del workdir
    options, split = parts.options(config.train, OPTIONS), catalog.split("train")
    name = options["types"]
    table = catalog.table("outfits", "train")
    items = sets.worn(table)
    if not len(items):
        raise InputError(
            "the table 'outfits' has no outfit of the train split that goes together: nothing to learn from"
        )
    info = fields_lib.learned({name: fields_lib.read(split, name).take(items)}, options["min_count"], (), 0)
    types, products = sets.types_of(split, name, info), sets.products_of(split, options["same_product"])
    found = sets.of_table(table, types)
    good = found.good()
    chosen = sets.labelled(good, split.ids, options["labels"])
    if not len(chosen):
        raise InputError(
            f"config.train.task_kwargs.types: none of {len(found) + found.left_out:,} outfits of the train split goes "
            f"together and has two items with a known {name!r}"
        )
    # A batch is as wide as its longest outfit: one of thirty items would make every step four times as long.
    whole, width = chosen, options["max_items"]
    chosen = dataclasses.replace(whole, rows=whole.rows[:, :width], types=whole.types[:, :width])
    past = int((whole.rows[:, width:] >= 0).sum())
    _log.info(
        "learning from %s of %s outfits; %s items are left out, past max_items of their outfit",
        f"{len(chosen):,}", f"{len(good):,}", f"{past:,}",
    )  # fmt: skip
    images = sources.kept(split.images, config.data.cache_bytes)
    there = whole.rows >= 0
    columns = {
        "items": Pictures(images, chosen.rows),
        "types": chosen.types,
        "products": np.where(there, products[np.maximum(whole.rows, 0)], -1).astype(np.int32),
    }
    ids = [" + ".join(split.ids[int(row)] for row in rows[rows >= 0]) for rows in chosen.rows]
    taught = np.unique(chosen.types[chosen.rows >= 0])
    return Examples(columns, ids, _unlabelled(config, catalog, options, info, taught)), info


def _unlabelled(config, catalog, options, info, taught) -> dict[str, Examples]:
    """Returns the unlabelled pictures of types in labelled outfits, and those types; {} where no loss reads them.

    A picture of another type can stand for no item of an outfit.
    """
    if not options["pseudo_weight"] and not options["consistency_weight"]:
        return {}
    found = parts.unlabelled(config, catalog)
    if not found:
        raise InputError(
            "config.train.task_kwargs: pseudo_weight and consistency_weight learn from unlabelled pictures: set "
            "config.train.unlabelled.split and batch_size, such as 'train' and 1024, or both weights to 0"
        )
    split, plain = catalog.split(config.train.unlabelled.split), found["unlabelled"]
    types = sets.types_of(split, options["types"], info)
    train = None if split.name == "train" else catalog.split("train")
    products = sets.products_of(split, options["same_product"], train)
    rows = np.flatnonzero(np.isin(types, taught))
    if not len(rows):
        raise InputError(
            f"config.train.unlabelled.split: none of the {len(split):,} listings of {split.name} is of a type that the "
            "outfits have: name a split with such listings, or set pseudo_weight and consistency_weight to 0"
        )
    _log.info("%s of %s unlabelled pictures are of a type that the outfits have", f"{len(rows):,}", f"{len(split):,}")
    columns = {"image": dataclasses.replace(plain.columns["image"], rows=rows)}
    columns |= {"type": types[rows], "product": products[rows]}
    return {"unlabelled": Examples(columns, [plain.ids[int(row)] for row in rows], batch_size=plain.batch_size)}


def columns(config, split, workdir=None) -> dict:
    """Returns what predict functions may read of a split: those of `parts.columns`, and "type", int32 [n], -1 where the
    type of a listing is unknown.

    Args:
      config: the whole config of the run that the network is from.
      split: `data.catalog.Split`.
      workdir: the work directory of that run.
    """
    found = parts.columns(config, split, workdir)
    if workdir is not None:

        def types():
            name = parts.options(config.train, OPTIONS)["types"]
            if name not in fields_lib.names(split):
                return np.full(len(split), -1, np.int32)  # a person's own photo
            info = info_lib.load(pathlib.Path(workdir) / "checkpoints" / "data_info.json")
            return sets.types_of(split, name, info)

        found["type"] = types
    return found


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block; `task_kwargs` are explained in retrieval_jax.settings.tasks.
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task. "embed_item" projects a listing's picture by its type, for distances between items; "embed_image" does
      not project; "score_outfit", with a set model, scores vectors [B, k, D] with types [B, k], negative past the end.

    Raises:
      InputError: unknown option.

    Source: Revanur et al., "Semi-Supervised Visual Representation Learning for Fashion Compatibility", arXiv
    2109.08052; the ramp: Laine and Aila, "Temporal Ensembling", arXiv 1610.02242.
    """
    options = parts.options(config, OPTIONS)
    network = parts.network(config, {})
    margin, num_types = options["margin"], len(info.label_names)
    scorer = networks.SetScorer(num_types, **options["set_kwargs"]) if options["set_weight"] else None
    pseudo, stays = options["pseudo_weight"], options["consistency_weight"]

    def visual(params):
        return {name: value for name, value in params.items() if name not in HEADS}

    def init(rng, batch):
        one = {"image": batch["items"][:, 0]}
        params = network.init(rng, one)
        dim = jax.eval_shape(network.apply, params, one["image"][:1])["embedding"].shape[-1]
        params["head_types"] = {"kernel": networks.projections(num_types, dim, dim)}
        if scorer is not None:
            zeros = jnp.zeros((1, 2, dim)), jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool)
            params["head_sets"] = scorer.init({"params": jax.random.fold_in(rng, 1)}, *zeros)["params"]
        return params

    def embedded(params, images, types, **kwargs):
        """Returns unit vectors [n, D] of pictures, projected by their types."""
        vectors = unit(network.apply(visual(params), images, **kwargs)["embedding"])
        return unit(networks.project(params["head_types"]["kernel"], vectors, types))

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del ema, constants
        items, types, whole = batch["items"], batch["types"], batch["products"]
        products = whole[:, : types.shape[1]]
        there, where = batch["items_mask"], batch["_mask"]
        rows = jnp.maximum(where.sum(), 1)
        dropout, others = jax.random.split(rng)
        flat = items.reshape(-1, *items.shape[2:])
        vectors = embedded(params, flat, types.reshape(-1), train=train, rngs={"dropout": dropout})
        vectors = vectors.reshape(*types.shape, -1)
        shared = {"margin": margin, "where": where, "further": whole}  # nothing of an outfit is its negative
        loss = losses.hinges(vectors, types, there, products, **shared).sum() / rows
        total, values = loss, {"outfit_loss": loss}
        if scorer is not None:
            good, bad, usable = _scored(scorer, params["head_sets"], vectors, batch, others, train)
            values["set_loss"] = losses.sets(good, bad, where=usable).sum() / jnp.maximum(usable.sum(), 1)
            total += options["set_weight"] * values["set_loss"]
        if pseudo or stays:
            views = jax.random.split(jax.random.fold_in(others, 1), 4)
            images, kinds, exist = batch["unlabelled_image"], batch["unlabelled_type"], batch["unlabelled_mask"]
            free = embedded(params, images, kinds, train=train, rngs={"dropout": views[0]})
            if stays:
                near, far = (
                    embedded(params, change(images, key), kinds, train=train, rngs={"dropout": views[3]})
                    for change, key in ((changes.kept, views[1]), (changes.changed, views[2]))
                )
                kept = losses.consistency(free, near, far, margin=margin, where=exist)
                values["consistency_loss"] = kept.sum() / jnp.maximum(exist.sum(), 1)
                total += stays * values["consistency_loss"]
            if pseudo:
                own = batch["unlabelled_product"]
                match, found = losses.nearest(vectors, types, products, free, kinds, own, exist)
                found &= there
                taken = jnp.where(found, own[match], -1)
                made = losses.hinges(free[match], types, found, taken, **shared)
                values["pseudo_loss"] = made.sum() / rows
                values["matched"] = found.sum() / jnp.maximum(there.sum(), 1)
                ramp = jnp.clip((step + 1) / options["pseudo_ramp"], 0.0, 1.0) if options["pseudo_ramp"] else 1.0
                total += pseudo * jnp.exp(-5 * (1 - ramp) ** 2) * values["pseudo_loss"]
        return total, values

    def embed_item(params, batch):
        return {"embedding": embedded(params, batch["image"], batch["type"])}

    def embed_image(params, batch):
        found = unit(network.embed_image(visual(params), batch)["embedding"])
        return {"embedding": found, "space": f"{network.space}:not projected"}

    def score_outfit(params, batch):
        types = batch["types"]
        return {"score": scorer.apply({"params": params["head_sets"]}, batch["vectors"], types, types >= 0)}

    predict_fns = {"embed_item": Predict(embed_item, ("image", "type")), "embed_image": Predict(embed_image)}
    if scorer is not None:
        predict_fns["score_outfit"] = Predict(score_outfit, ("vectors", "types"))
    return Task(init, loss_fn, predict_fns, network.space, warm_start=network.warm_start, couples_rows="task='outfit'")


def _scored(scorer, params, vectors, batch, rng, train):
    """Returns the set model's scores of the outfits [B], of the same with an item exchanged, and which could be."""
    types, products = batch["types"], batch["products"]
    there = batch["items_mask"] & batch["_mask"][:, None]
    count, width = types.shape
    choose, draw, first, second = jax.random.split(rng, 4)
    place = jax.random.categorical(choose, jnp.where(there, 0.0, -jnp.inf), axis=1)
    kind = jnp.take_along_axis(types, place[:, None], axis=1)
    own = (products[:, :width].reshape(-1) == products[:, :, None]).any(axis=1)
    other = jnp.repeat(jnp.arange(count), width) != jnp.arange(count)[:, None]
    allowed = there.reshape(-1) & (types.reshape(-1) == kind) & other & ~own
    usable = allowed.any(axis=1) & batch["_mask"] & (there.sum(axis=1) >= 2)
    chosen = jax.random.categorical(draw, jnp.where(allowed, 0.0, -1e9), axis=1)
    at = jnp.arange(width) == place[:, None]
    bad = jnp.where(at[..., None], vectors.reshape(count * width, -1)[chosen][:, None], vectors)
    scores = [
        scorer.apply({"params": params}, of, types, batch["items_mask"], train=train, rngs={"dropout": key})
        for of, key in ((vectors, first), (bad, second))
    ]
    return *scores, usable
