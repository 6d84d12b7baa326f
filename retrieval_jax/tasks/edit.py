"""Learns a query made of a picture and words: "the same shirt, but in denim".

The examples are the catalogue's table "edits": a reference in view, words that say what to change, and the listings
that are then right. A joint network (`models.joint`) makes one vector of both, near the pictures of what is right. The
reference itself, what other words about it ask for, and listings drawn at random are negatives of their own; the
targets of the other examples are negatives unless they are right too.

With `pictures` = a finished run the vectors of its network are what is searched, and that network stays as it is.
Without, the picture network of config.train.model learns along, at first with its pictures' vectors held still
(`still`). A share of the examples loses its picture or its words (`drop_picture`, `drop_words`), so that one model
serves a picture alone, words alone, and both.
"""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures, RaggedRows
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive, siamese, unit
from retrieval_jax.models import joint as joint_networks
from retrieval_jax.tasks import Predict, Task, parts
from retrieval_jax.tasks.parts import edits, typed, vectors
from retrieval_jax.tasks.text_query import is_listed

OPTIONS = {
    **typed.QUERIES,
    "query_column": "words",
    "pictures": "",
    "words": ("transformer", "mini"),
    "words_kwargs": {},
    "words_dim": 256,
    "joint": "residual",
    "joint_kwargs": {},
    "loss": "softmax",
    "margin": 0.5,
    "temperature": 0.05,
    "targets": 3,
    "siblings": 2,
    "neighbours": 3,
    "titles": 0,
    "drop_picture": 0.1,
    "drop_words": 0.1,
    "still": 0,
    "weight": 1.0,
    "typos": 0.1,
    "fillers": 0.5,
    "turned": 0.3,
}
CHOICES = {"loss": ("softmax", "siamese")}


def learns_from(config) -> str:
    """Returns the run whose picture vectors are learned with, by config.train.task_kwargs.pictures; "" for none."""
    return parts.options(config.train, OPTIONS, CHOICES)["pictures"]


def examples(config, catalog, workdir):
    """Returns one example per edit and target, and `titles` per listing with a title: its words alone.

    Columns: "words", tokens; "picture" and "target", vectors [D] of the reference and of what is right, and "negative",
    vectors of what is not; or, where the picture network learns along, "image" and "target_image". An example of a
    title has no reference. "number", the row of the target; "asked", equal for equal words; "about", the row of the
    reference; "forbidden", the rows of everything that is right; "weight", so that each edit counts once.

    Args:
      config: the whole config.
      catalog: with the table "edits" about train.
      workdir: the work directory, which receives the tokenizer.

    Returns:
      (Examples, DataInfo with tokens).

    Raises:
      InputError: there are no edits, or vectors that are not those of the train split.
    """
    options, split, seed = parts.options(config.train, OPTIONS, CHOICES), catalog.split("train"), config.train.seed
    tokenizer = parts.tokenizer(config, catalog, workdir, {"edits": "words"})
    found = edits.pairs(catalog.table("edits", "train"), len(split), options["targets"], options["siblings"], seed)
    if options["pictures"]:
        table, space = vectors.load(workdir, len(split))
        if options["neighbours"]:
            found = edits.with_neighbours(found, table.values.reshape(len(split), -1), options["neighbours"], seed)
    if options["titles"]:
        found = edits.with_titles(found, split.titles, options["titles"])
    longest = options["query_length"]

    def fits(texts):
        return np.diff(tokenizer.encode(texts, longest + 1).indptr) <= longest

    texts = edits.varied(found.words, found.edit, options["typos"], options["fillers"], options["turned"], seed, fits)
    _, asked = np.unique([" ".join(text.casefold().split()) for text in found.words], return_inverse=True)
    columns = {
        "words": tokenizer.encode(texts, options["query_length"]),
        "number": found.target.astype(np.int32),
        "asked": asked[found.edit].astype(np.int32),
        "about": found.reference.astype(np.int32),
        "forbidden": RaggedRows(found.right, found.edit),
        "weight": found.weight,
    }
    info = info_lib.of_split(split)
    info.tokens = tokenizer.facts()
    if options["pictures"]:
        info.target_space = space
        rows = {"picture": found.reference, "target": found.target, "negative": found.negative}
        columns |= {name: RaggedRows(table, of) for name, of in rows.items()}
    else:
        images = sources.kept(split.images, config.data.cache_bytes)
        columns |= {"image": Pictures(images, found.reference), "target_image": Pictures(images, found.target)}
    return Examples(
        columns, [f"{text} / {split.ids[row]}" for text, row in zip(texts, found.target, strict=True)]
    ), info


def columns(config, split, workdir=None) -> dict:
    """Returns what predict functions may read of a split: those of `parts.columns`, and "words", the tokens of a
    query's words. "picture", the vector of another run's network, is made by the caller (`inference.columns`).

    Args:
      config: the whole config of the run that the network is from.
      split: `data.catalog.Split`.
      workdir: the work directory of that run.
    """
    options = parts.options(config.train, OPTIONS, CHOICES)
    return typed.columns(config, options, split, workdir, ("words", "words"))


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `task_kwargs` (retrieval_jax.settings.tasks); `model`, the picture network, is read where
        it learns along.
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task; predict_fns "embed_edit" of picture and words, "embed_reference" of the picture alone, "embed_text" of
      words alone, and "embed_image", what is searched, where the picture network is this run's.

    Raises:
      InputError: unknown option or network.

    Source: see `models.joint`; dropped modalities: Neverova et al., "ModDrop", arXiv 1501.00102.
    """
    options = parts.options(config, OPTIONS, CHOICES)
    frozen = bool(options["pictures"])
    if options["drop_picture"] + options["drop_words"] > 1:
        raise InputError(
            f"config.train.task_kwargs: drop_picture {options['drop_picture']} and drop_words {options['drop_words']} "
            "are shares of the same examples: lower one, so that they sum to at most 1"
        )
    if frozen and not info.target_space:
        raise InputError("this run was not trained with the vectors of another: train again in a new work directory")
    network = None if frozen else parts.network(config, {})
    tower = parts.words_tower(config, info, options, options["words_dim"])
    name, kwargs = options["joint"], dict(options["joint_kwargs"])
    model = joint_networks.get(name).Model
    known = set(model.__dataclass_fields__) - {"parent", "name", "dim"}
    pairs.check_arguments(name, kwargs, sorted(known), "config.train.task_kwargs.joint_kwargs", "joint network")
    visual = ("image",) if not frozen else ("picture",)

    def dim_of(params):
        return params["head_absent"]["picture"].shape[-1]

    def init(rng, batch):
        params = {} if frozen else network.init(rng, batch)
        if frozen:
            dim = batch["picture"].shape[-1]
        else:
            dim = jax.eval_shape(network.apply, params, batch["image"][:1])["embedding"].shape[-1]
        keys = jax.random.split(jax.random.fold_in(rng, 1), 4)
        params["backbone" if frozen else "words"] = tower.init(keys[0])
        shapes = jax.eval_shape(
            lambda: tower.apply(tower.init(keys[0]), jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
        )
        zeros = {name: jnp.zeros(one.shape, one.dtype) for name, one in shapes.items()}
        arguments = jnp.zeros((1, dim)), zeros["embedding"], zeros["states"], jnp.ones((1, 2), bool)
        params["joint"] = model(dim=dim, **kwargs).init({"params": keys[1]}, *arguments)["params"]
        params["head_absent"] = {
            "picture": jax.random.normal(keys[2], (dim,)),
            "words": jax.random.normal(keys[3], (zeros["embedding"].shape[-1],)),
        }
        params["head_contrast"] = {"log_scale": jnp.log(1.0 / jnp.float32(options["temperature"]))}
        return params

    def picture_params(params):
        own = ("words", "joint", "head_absent", "head_contrast")
        return {name: value for name, value in params.items() if name not in own}

    def composed(params, picture, there, tokens, mask, said, train=False, rng=None):
        """Returns the query's vectors [B, D] of pictures [B, D] (there: bool [B]) and words (said: bool [B])."""
        first, second = (None, None) if rng is None else jax.random.split(rng)
        out = tower.apply(
            params["backbone" if frozen else "words"],
            tokens,
            mask,
            train=train,
            rngs=None if first is None else {"dropout": first},
        )
        absent = params["head_absent"]
        words = jnp.where(said[:, None], out["embedding"], absent["words"])
        picture = jnp.where(there[:, None], unit(picture), unit(absent["picture"]))
        return model(dim=dim_of(params), **kwargs).apply(
            {"params": params["joint"]},
            picture,
            words,
            out["states"],
            mask & said[:, None],
            train=train,
            rngs=None if second is None else {"dropout": second},
        )

    def said(batch):
        """Returns which rows have words: a token beside start and end."""
        tokens = batch["words"]
        return (batch["words_mask"] & (tokens != info.tokens.start) & (tokens != info.tokens.end)).any(axis=1)

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del ema, constants
        drop, inner, outer = jax.random.split(rng, 3)
        if frozen:
            picture, target, there = batch["picture"], batch["target"], batch["picture_mask"].any(axis=1)
            negatives, allowed = batch["negative"], batch["negative_mask"].any(axis=-1)
        else:
            images = jnp.concatenate([batch["image"], batch["target_image"]])
            both = network.apply(picture_params(params), images, train=train, rngs={"dropout": outer})["embedding"]
            if options["still"]:
                both = jnp.where(step >= options["still"], both, jax.lax.stop_gradient(both))
            picture, target = jnp.split(both, 2)
            there = batch["image_mask"]
            negatives, allowed = picture[:, None], there[:, None]
        has_words = said(batch)
        no_picture = no_words = jnp.zeros(len(there), bool)
        if train:
            chance = jax.random.uniform(drop, (len(there),))
            no_picture = (chance < options["drop_picture"]) & has_words
            no_words = (chance > 1 - options["drop_words"]) & there & ~no_picture
            there, has_words = there & ~no_picture, has_words & ~no_words
        query = composed(params, picture, there, batch["words"], batch["words_mask"], has_words, train, inner)
        weights, where = batch["weight"], batch["_mask"]
        scale = contrastive.learned_scale(params["head_contrast"]["log_scale"])
        facts = {name: batch[name] for name in ("number", "asked", "about")}
        lost = {"no_picture": no_picture, "no_words": no_words}
        of_query = {**facts, **lost, "forbidden": batch["forbidden"], "mask": batch["forbidden_mask"]}
        if options["loss"] == "siamese":
            # The target of the example before is one more negative, so that not only references are kept away.
            before = {name: jnp.roll(value, 1) for name, value in facts.items()}
            wrong = ~jax.vmap(lambda one, key: right(_row(one), _row(key))[0, 0])(of_query, before) & jnp.roll(where, 1)
            losses = siamese.contrastive(
                query,
                target,
                jnp.concatenate([negatives, jnp.roll(target, 1, axis=0)[:, None]], axis=1),
                margin=options["margin"],
                allowed=jnp.concatenate([allowed, wrong[:, None]], axis=1),
                where=where,
                weights=weights,
            )
        else:
            losses = contrastive.softmax(
                query,
                target,
                scale=scale,
                symmetric=False,
                related=(right, of_query, facts),
                negatives=negatives,
                negatives_where=allowed,
                where=where,
                weights=weights,
            )
        total = jnp.maximum((weights * where).sum(), 1e-6)
        return losses.sum() / total, {"scale": scale}

    def picture_of(params, batch):
        return batch["picture"] if frozen else network.embed_image(picture_params(params), batch)["embedding"]

    def out(embedding):
        return {"embedding": embedding, **({"space": info.target_space} if frozen else {})}

    def embed_edit(params, batch):
        picture = picture_of(params, batch)
        every = jnp.ones(picture.shape[:1], bool)
        found = unit(composed(params, picture, every, batch["words"], batch["words_mask"], said(batch)))
        if (weight := options["weight"]) != 1.0:
            found = unit(unit(picture) + weight * (found - unit(picture)))
        return {**out(found), "reference": unit(picture)}

    def embed_reference(params, batch):
        picture = picture_of(params, batch)
        every, count = jnp.ones(picture.shape[:1], bool), picture.shape[0]  # of any number, where it is exported
        none = jnp.zeros((count, 2), jnp.int32), jnp.zeros((count, 2), bool)
        return out(composed(params, picture, every, *none, ~every))

    def embed_text(params, batch):
        count = batch["words"].shape[0]
        no_picture = jnp.zeros((count, dim_of(params))), jnp.zeros(count, bool)
        return out(composed(params, *no_picture, batch["words"], batch["words_mask"], said(batch)))

    predict_fns = {
        "embed_edit": Predict(embed_edit, (*visual, "words")),
        "embed_reference": Predict(embed_reference, visual),
        "embed_text": Predict(embed_text, ("words",)),
    }
    if not frozen:
        predict_fns["embed_image"] = Predict(lambda params, batch: network.embed_image(picture_params(params), batch))

    def warm_start(params):
        if not frozen and network.warm_start:
            params = {**params, **network.warm_start(picture_params(params))}
        if options["weights"]:
            at = "backbone" if frozen else "words"
            params = {**params, at: tower.warm_start(params[at])}
        return params

    public = options["weights"] or (not frozen and network.warm_start)
    return Task(
        init,
        loss_fn,
        predict_fns,
        f"edit:{tower.name}" if frozen else f"{network.space}:{tower.name}",
        warm_start=warm_start if public else None,
        couples_rows="task='edit'",
    )


def right(queries, targets):
    """Returns whether the target of another example may be right for a query too, so that it is not a negative of it.

    A query that has lost its picture may mean whatever is right after the same words, one that has lost its words
    whatever the same reference is changed into.

    Args:
      queries: {"number", "asked", "about": int [b], the target, the words and the reference; "forbidden" int [b, F],
        ascending rows of all that is right; "mask" bool [b, F]; "no_picture", "no_words" bool [b]}.
      targets: {"number", "asked", "about": int [n], of the examples that the targets are from}.

    Returns:
      bool [b, n].
    """
    same = {name: queries[name][:, None] == targets[name] for name in ("number", "asked", "about")}
    return (
        is_listed(queries, targets["number"])
        | same["number"]
        | (queries["no_picture"][:, None] & same["asked"])
        | (queries["no_words"][:, None] & same["about"])
    )


def _row(facts):
    """Returns the facts of one example as those of a batch."""
    return {name: value[None] for name, value in facts.items()}
