"""Learns to bring words and pictures together, so that typed words search a gallery of pictures.

The words are a listing's title, texts made of its attributes ("red t-shirt"), and the queries it was clicked after.
With `pictures` = a finished run they are learned into the space of that run's network, which stays as it is: the
vectors of its train pictures are made once, and an index of its gallery is searched by words without embedding it
anew. Without, the picture network of config.train.model learns along.
"""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs as names_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import text as text_lib
from retrieval_jax.data.examples import Examples, Pictures, Ragged, RaggedRows
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive
from retrieval_jax.tasks import Predict, Task, parts, text_query
from retrieval_jax.tasks.parts import clicks, typed, vectors

OPTIONS = {
    **typed.QUERIES,
    "pictures": "",
    "words": ("transformer", "small"),
    "words_kwargs": {},
    "temperature": 0.05,
    "attributes": (),
    "attribute_texts": 2,
    "clicks": True,
    "positives": 100,
    "same_product": "",
    "typos": 0.1,
}


def learns_from(config) -> str:
    """Returns the run whose picture vectors the examples need, by config.train.task_kwargs.pictures; "" for none."""
    return parts.options(config.train, OPTIONS)["pictures"]


def examples(config, catalog, workdir):
    """Returns one example per text of a listing of the train split: its title, texts of its attributes, its queries.

    Columns: "text", tokens; "picture", the vector of the listing's picture, or "image" where the picture network learns
    along; "number", the product; "asked" int32 [n, fields], the attributes that the text names, -1 for those it does
    not; "known", those of the listing; "forbidden", the products that were clicked after the query; "weight".

    Args:
      config: the whole config.
      catalog: with a train split.
      workdir: the work directory, which receives the tokenizer.

    Returns:
      (Examples, DataInfo with tokens).

    Raises:
      InputError: no text at all, an attribute that does not exist, or vectors that are not those of the train split.
    """
    options, split, seed = parts.options(config.train, OPTIONS), catalog.split("train"), config.train.seed
    tokenizer = parts.tokenizer(config, catalog, workdir)
    product = clicks.products(split, options["same_product"])
    attributes = _attributes(split, options["attributes"])
    texts, listing, asked, weight = [], [], [], []
    if split.titles is not None:
        rows = np.array([row for row, title in enumerate(split.titles) if title], np.int64)
        texts += [split.titles[row] for row in rows.tolist()]
        listing.append(rows)
        asked.append(np.full((len(rows), attributes.shape[1]), -1, np.int32))
    for number in range(options["attribute_texts"] if options["attributes"] else 0):
        made, rows, named = _attribute_texts(split, options["attributes"], attributes, (seed, number))
        texts += made
        listing.append(rows)
        asked.append(named)
    weight.append(np.ones(len(texts), np.float32))
    forbidden = Ragged.of([()])
    of_query = np.zeros(len(texts), np.int64)  # the row without any
    if options["clicks"] and "queries/train" in catalog.tables:
        found = clicks.pairs(catalog.table("queries", "train"), product, options["positives"])
        texts += [found.texts[query] for query in found.query]
        listing.append(found.listing)
        asked.append(np.full((len(found.listing), attributes.shape[1]), -1, np.int32))
        weight.append(found.weight)
        forbidden = Ragged(np.append(0, found.forbidden.indptr), found.forbidden.values)
        of_query = np.append(of_query, 1 + found.query)
    if not texts:
        raise InputError(
            "there are no texts to learn from: the train split has no titles, and there are no clicks; name attributes "
            "in config.train.task_kwargs.attributes"
        )
    rng = np.random.default_rng((seed, 2))
    wrong = np.flatnonzero(rng.random(len(texts)) < options["typos"])
    misspelt = text_lib.with_typos([texts[at] for at in wrong], rng, 1.0)
    for at, typo in zip(wrong.tolist(), misspelt, strict=True):
        texts[at] = typo
    listing = np.concatenate(listing)
    columns = {
        "text": tokenizer.encode(texts, options["length"]),
        "number": product[listing],
        "asked": np.concatenate(asked),
        "known": attributes[listing],
        "forbidden": RaggedRows(forbidden, of_query),
        "weight": np.concatenate(weight),
    }
    info = info_lib.of_split(split)
    info.tokens = tokenizer.facts()
    if options["pictures"]:
        table, info.target_space = vectors.load(workdir, len(split))
        columns["picture"] = RaggedRows(table, listing)  # not a copy per text, which is several times as large
    else:
        columns["image"] = Pictures(sources.kept(split.images, config.data.cache_bytes), listing)
    return Examples(columns, [f"{split.ids[row]}" for row in listing.tolist()]), info


def columns(config, split, workdir=None) -> dict:
    """Returns what predict functions may read of a split: those of `parts.columns`, and "text", the tokens of the
    query where the split has one, of the listing's text otherwise.

    Args:
      config: the whole config of the run that the network is from.
      split: `data.catalog.Split`.
      workdir: the work directory of that run.
    """
    return typed.columns(config, parts.options(config.train, OPTIONS), split, workdir, ("text", "text"))


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `task_kwargs` (retrieval_jax.settings.tasks); `model`, the picture network, is read where
        it learns along.
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task; predict_fns "embed_text", and "embed_image" where the picture network is this run's.

    Raises:
      InputError: unknown option or network.

    Source: a frozen picture network: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", arXiv
    2111.07991.
    """
    options = parts.options(config, OPTIONS)
    frozen = bool(options["pictures"])
    if frozen and not info.target_space:
        raise InputError("this run was not trained with the vectors of another: train again in a new work directory")
    network = None if frozen else parts.network(config, {})

    def words(dim):
        return parts.words_tower(config, info, options, dim)

    name = words(1).name  # an unknown network or argument is reported here, not in the middle of a trace

    def init(rng, batch):
        params = {} if frozen else network.init(rng, batch)
        if frozen:
            dim = batch["picture"].shape[-1]
        else:
            dim = jax.eval_shape(network.apply, params, batch["image"][:1])["embedding"].shape[-1]
        params["backbone" if frozen else "words"] = words(dim).init(jax.random.fold_in(rng, 1))
        params["head_contrast"] = {"log_scale": jnp.log(1.0 / jnp.float32(options["temperature"]))}
        return params

    def visual(params):
        return {name: value for name, value in params.items() if name not in ("words", "head_contrast")}

    def embed(params, tokens, mask, train=False, rng=None):
        tower = params["backbone" if frozen else "words"]
        dim = tower["projection"]["kernel"].shape[-1]
        rngs = None if rng is None else {"dropout": rng}
        return words(dim).apply(tower, tokens, mask, train=train, rngs=rngs)["embedding"]

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, ema, constants
        first, second = jax.random.split(rng)
        texts = embed(params, batch["text"], batch["text_mask"], train, first)
        if frozen:
            pictures = batch["picture"]
        else:
            pictures = network.apply(visual(params), batch["image"], train=train, rngs={"dropout": second})["embedding"]
        scale = contrastive.learned_scale(params["head_contrast"]["log_scale"])
        facts = {name: batch[name] for name in ("asked", "number", "forbidden")}
        losses = contrastive.softmax(
            texts,
            pictures,
            scale=scale,
            related=(
                fits,
                {**facts, "mask": batch["forbidden_mask"]},
                {"known": batch["known"], "number": batch["number"]},
            ),
            where=batch["_mask"],
            weights=batch["weight"],
        )
        total = jnp.maximum((batch["weight"] * batch["_mask"]).sum(), 1e-6)
        return losses.sum() / total, {"scale": scale}

    def embed_text(params, batch):
        out = {"embedding": embed(params, batch["text"], batch["text_mask"])}
        return {**out, "space": info.target_space} if frozen else out

    predict_fns = {"embed_text": Predict(embed_text, ("text",))}
    if not frozen:
        predict_fns["embed_image"] = Predict(lambda params, batch: network.embed_image(visual(params), batch))

    def warm_start(params):
        if not frozen and network.warm_start:
            params = {**visual_start(params), **{name: params[name] for name in ("words", "head_contrast")}}
        if options["weights"]:
            at = "backbone" if frozen else "words"
            params = {**params, at: words(params[at]["projection"]["bias"].shape[-1]).warm_start(params[at])}
        return params

    def visual_start(params):
        return network.warm_start(visual(params))

    public = options["weights"] or (not frozen and network.warm_start)
    return Task(
        init,
        loss_fn,
        predict_fns,
        f"text_picture:{name}" if frozen else f"{network.space}:{name}",
        warm_start=warm_start if public else None,
        couples_rows="task='text_picture'",
    )


def fits(texts, pictures):
    """Returns whether a picture may be meant by a text, so that it is not a negative of it.

    Args:
      texts: {"asked": int [b, fields], values that the text names, -1 elsewhere; "number": int [b], product of the
        text's own listing; "forbidden" int [b, F] and "mask": products clicked after it}.
      pictures: {"known": int [n, fields], -1 where unknown; "number": int [n]}.

    Returns:
      bool [b, n]: of the same product, clicked after the text, or with every value that the text names.
    """
    same = texts["number"][:, None] == pictures["number"]
    asked, known = texts["asked"][:, None, :], pictures["known"][None]
    agrees = ((asked < 0) | (asked == known)).all(axis=-1) & (asked >= 0).any(axis=-1)
    return same | agrees | text_query.is_listed(texts, pictures["number"])


def _attributes(split, names) -> np.ndarray:
    """Returns the values of attributes with one value per listing, int32 [n, fields], -1 where unknown."""
    found = [np.asarray(text_query.groups(split, name), np.int32) for name in names]
    return np.stack(found, 1) if found else np.full((len(split), 1), -1, np.int32)


def _attribute_texts(split, names, attributes, seed):
    """Writes a text per listing of one to three of its attributes, in a random order.

    Returns:
      (texts, rows of the split, the values they name int32 [n, fields]); listings without any value have none.
    """
    rng = np.random.default_rng(seed)
    values = [_names(split, name) for name in names]
    there = attributes >= 0
    order = np.argsort(np.where(there, rng.random(there.shape), 2.0), axis=1)  # those that are known first
    most = np.minimum(there.sum(1), rng.integers(1, 4, len(split)))
    texts, rows, named = [], [], np.full_like(attributes, -1)
    for row in np.flatnonzero(most).tolist():
        chosen = order[row, : most[row]]
        named[row, chosen] = attributes[row, chosen]
        texts.append(" ".join(values[field][attributes[row, field]] for field in chosen.tolist()))
        rows.append(row)
    return texts, np.array(rows, np.int64), named[rows]


def _names(split, name) -> list[str]:
    if name in split.category_levels:
        return list(split.category_names[split.category_levels.index(name)])
    if name not in split.column_names:
        raise InputError(
            f"config.train.task_kwargs.attributes: there is no attribute {name!r}"
            f"{names_lib.near(name, [*split.column_names, *split.category_levels])}"
        )
    return list(split.column_names[name])
