"""Learns from clicks to bring a typed query and the products clicked after it together.

Negatives are of three kinds: "rule", listings drawn by the published rule (broad queries take other groups, narrow ones
half from the same), "in_batch", the products of the other pairs of the batch, or "mined", the hardest of a part of the
catalogue that every step draws anew and embeds with the moving average: what is mined is never older than the step, and
a resumed training mines the same. The hardest is the nearest that is not nearer than what was clicked (semi-hard,
Schroff et al., arXiv 1503.03832): nearer ones are mostly products that fit and that nobody has clicked yet.

The same product, its duplicates and other products clicked after a query are never its negatives, whichever kind; nor
are products whose text has every token of the query, of which a click would be no surprise.

With `title_queries` it also learns from queries made of a listing's own words, and needs no clicks at all.
"""

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs as names_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import listing_texts
from retrieval_jax.data import text as text_lib
from retrieval_jax.data.examples import Examples, Ragged, RaggedRows
from retrieval_jax.errors import InputError
from retrieval_jax.losses import contrastive, triplet, unit
from retrieval_jax.tasks import Predict, Task, parts
from retrieval_jax.tasks.parts import clicks, typed

OPTIONS = {
    **typed.QUERIES,
    "loss": "triplet",
    "margin": 0.3,
    "temperature": 0.05,
    "negatives": "rule",
    "encoders": 1,
    "positives": 100,
    "candidates": 4,
    "broad_share": 0.3,
    "groups": "",
    "same_product": "",
    "pool": 512,
    "typos": 0.1,
    "title_queries": 0,
}
CHOICES = {"loss": ("triplet", "softmax"), "negatives": ("rule", "in_batch", "mined")}


def examples(config, catalog, workdir):
    """Returns one example per pair of a query and a clicked listing of the train split.

    Columns: "query" and "product", tokens; "weight"; "number", the product; "forbidden", the products that are never
    negatives of the query; "negative", `candidates` listings by the rule, with "negatives" = "rule". Beside them, where
    negatives are mined, "pool": all listings, "pool" of them a step.

    Args:
      config: the whole config.
      catalog: with the table "queries" about train.
      workdir: the work directory, which receives the tokenizer.

    Returns:
      (Examples, DataInfo with tokens).

    Raises:
      InputError: no clicks, or a column that does not exist.
    """
    options, split, seed = parts.options(config.train, OPTIONS, CHOICES), catalog.split("train"), config.train.seed
    product = clicks.products(split, options["same_product"])
    texts, made = listing_texts.of(split, options["text_columns"]), options["title_queries"]
    found = None
    if not made or len(catalog.tables.get("queries/train", ())):
        found = clicks.pairs(catalog.table("queries", "train"), product, options["positives"])
    if made:
        found = clicks.with_title_queries(found, texts, product, made, seed)
    tokenizer = parts.tokenizer(config, catalog, workdir)
    of_products = tokenizer.encode(texts, options["length"])
    columns = {
        "query": query_tokens(found, tokenizer, options, seed),
        "product": RaggedRows(of_products, found.listing),
        "weight": found.weight,
        "number": product[found.listing],
        "forbidden": RaggedRows(found.forbidden, found.query),
    }
    if options["negatives"] == "rule":
        group = groups(split, options["groups"])
        rows = clicks.negatives(found, group, options["broad_share"], options["candidates"], seed)
        columns["negative"] = RaggedRows(of_products, rows)
    beside = {}
    if options["negatives"] == "mined":
        pool = {"product": of_products, "number": product}
        beside["pool"] = Examples(pool, batch_size=min(options["pool"], len(split)))
    ids = [f"{found.texts[query]} / {split.ids[row]}" for query, row in zip(found.query, found.listing, strict=True)]
    info = info_lib.of_split(split)
    info.tokens = tokenizer.facts()
    return Examples(columns, ids, beside), info


def query_tokens(found: clicks.Pairs, tokenizer, options, seed: int) -> RaggedRows:
    """Returns the tokens of every pair's query; a share of the pairs has it with typos of its own.

    Args:
      found: the pairs.
      tokenizer: `data.text.Tokenizer`.
      options: "typos", the share, and "query_length".
      seed: of the typos.
    """
    rng = np.random.default_rng((seed, 1))
    rows, wrong = found.query.copy(), np.flatnonzero(rng.random(len(found.query)) < options["typos"])
    rows[wrong] = len(found.texts) + np.arange(len(wrong))
    misspelt = text_lib.with_typos([found.texts[query] for query in found.query[wrong]], rng, 1.0)
    return RaggedRows(tokenizer.encode([*found.texts, *misspelt], options["query_length"]), rows)


def groups(split, name: str) -> np.ndarray:
    """Returns the product group of every listing, int [n], -1 where unknown: of a field, or the leaf category.

    Args:
      split: of a catalogue.
      name: of an attribute or category level; "" for the leaf, and one group where there are no categories.

    Raises:
      InputError: there is no such field, or a listing may have several of its values.
    """
    if not name:
        return np.zeros(len(split), np.int64) if split.categories is None else split.categories[:, -1].astype(np.int64)
    if name in split.category_levels and split.categories is not None:
        return split.categories[:, split.category_levels.index(name)].astype(np.int64)
    column = split.column(name)
    if name not in split.column_names or isinstance(column, Ragged):
        known = [*split.column_names, *split.category_levels]
        raise InputError(
            f"config.train.task_kwargs.groups: {name!r} is not an attribute with one value per listing"
            f"{names_lib.near(name, known)}"
        )
    return np.asarray(column, np.int64)


def columns(config, split, workdir=None) -> dict:
    """Returns what predict functions may read of a split: those of `parts.columns`, and "query" and "product", tokens.

    Args:
      config: the whole config of the run that the network is from.
      split: `data.catalog.Split`.
      workdir: the work directory of that run.
    """
    return typed.columns(config, parts.options(config.train, OPTIONS, CHOICES), split, workdir)


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `model` (a network of text; `projection` is the embedding's dimension), `task_kwargs`
        (retrieval_jax.settings.tasks).
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task; predict_fns "embed_query" and "embed_product" share a space.

    Raises:
      InputError: unknown option, or a value out of range.

    Source: "Neural Search: Learning Query and Product Representations in Fashion E-commerce", arXiv 2107.08291. Its
    margin is not published; 0.3 is ours.
    """
    options = parts.options(config, OPTIONS, CHOICES)
    tower = parts.tower(config, info, options)
    of_queries = "backbone" if options["encoders"] == 1 else "query_backbone"

    def init(rng, batch):
        del batch
        params = {}
        for number, name in enumerate(dict.fromkeys(("backbone", of_queries))):
            params[name] = tower.init(jax.random.fold_in(rng, number))
        if options["loss"] == "softmax":
            params["head_contrast"] = {"log_scale": jnp.log(1.0 / jnp.float32(options["temperature"]))}
        return params

    def embed(params, name, tokens, mask, train=False, rng=None):
        rngs = None if rng is None else {"dropout": rng}
        return tower.apply(params[name], tokens, mask, train=train, rngs=rngs)["embedding"]

    def chosen(params, ema, batch, queries, products, rng, train):
        """Returns a negative of every query [B, 1, D] by the option "negatives", and whether there is one [B, 1]."""
        if options["negatives"] == "rule":
            usable = batch["negative_mask"].any(axis=-1)
            draw = jax.random.uniform(jax.random.fold_in(rng, 0), usable.shape)
            pick = jnp.where(usable, draw, -1.0).argmax(axis=1)[:, None, None]
            tokens = jnp.take_along_axis(batch["negative"], pick, axis=1)[:, 0]
            mask = jnp.take_along_axis(batch["negative_mask"], pick, axis=1)[:, 0]
            there = usable.any(axis=1) & ~jax.vmap(_has_all)(batch["query"], batch["query_mask"], tokens, mask)
        else:
            pool = batch["pool_product"], batch["pool_product_mask"]
            known = jax.lax.stop_gradient(unit(embed(ema, "backbone", *pool)))
            asked, clicked = jax.lax.stop_gradient((unit(queries), unit(products)))
            cosines = asked @ known.T
            of_pool = {"number": batch["pool_number"], "tokens": pool[0], "mask": pool[1]}
            allowed = ~never_negative(_of_queries(batch), of_pool) & batch["pool_mask"]
            allowed &= cosines < (asked * clicked).sum(axis=-1)[:, None]
            pick, there = jnp.where(allowed, cosines, -jnp.inf).argmax(axis=1), allowed.any(axis=1)
            tokens, mask = pool[0][pick], pool[1][pick]
        key = jax.random.fold_in(rng, 1)
        return embed(params, "backbone", tokens, mask, train, key)[:, None], there[:, None]

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, constants
        keys = jax.random.split(rng, 3)
        queries = embed(params, of_queries, batch["query"], batch["query_mask"], train, keys[0])
        products = embed(params, "backbone", batch["product"], batch["product_mask"], train, keys[1])
        where, weights, values = batch["_mask"], batch["weight"], {}
        of_products = {"number": batch["number"], "tokens": batch["product"], "mask": batch["product_mask"]}
        extra, there = None, None
        if options["negatives"] != "in_batch":
            extra, there = chosen(params, ema, batch, queries, products, keys[2], train)
        if options["loss"] == "triplet":
            if extra is None:
                extra, there = products, ~never_negative(_of_queries(batch), of_products) & where
            losses = triplet.cosine(
                queries, products, extra, margin=options["margin"], allowed=there, where=where, weights=weights
            )
            values["violations"] = ((losses > 0) & where).sum() / jnp.maximum(where.sum(), 1)
        else:
            scale = contrastive.learned_scale(params["head_contrast"]["log_scale"])
            losses = contrastive.softmax(
                queries,
                products,
                scale=scale,
                related=(never_negative, _of_queries(batch), of_products),
                negatives=extra,
                negatives_where=there,
                where=where,
                weights=weights,
            )
            values["scale"] = scale
        whole = batch.get("_whole", batch)
        return losses.sum() / jnp.maximum((whole["weight"] * whole["_mask"]).sum(), 1e-6), values

    def warm_start(params):
        public = [name for name in params if name.endswith("backbone")]
        return {**params, **{name: tower.warm_start(params[name]) for name in public}}

    def predicted(encoder, name):
        def fn(params, batch):
            return {"embedding": embed(params, encoder, batch[name], batch[f"{name}_mask"])}

        return Predict(fn, (name,))

    predict_fns = {
        "embed_query": predicted(of_queries, "query"),
        "embed_product": predicted("backbone", "product"),
    }
    coupled = options["loss"] == "softmax" or options["negatives"] == "in_batch"
    return Task(
        init,
        loss_fn,
        predict_fns,
        f"text_query:{tower.name}",
        warm_start=warm_start if tower.warm_start else None,
        couples_rows="task='text_query' with the products of other pairs as negatives" if coupled else "",
    )


def _of_queries(batch):
    names = {"forbidden": "forbidden", "mask": "forbidden_mask", "tokens": "query", "tokens_mask": "query_mask"}
    return {ours: batch[name] for ours, name in names.items()}


def never_negative(queries, products):
    """Returns which products are never negatives of queries.

    Args:
      queries: see `is_listed`; and "tokens" int [b, L] with "tokens_mask".
      products: {"number": int [n], "tokens": int [n, L'], "mask": bool [n, L']}.

    Returns:
      bool [b, n]: listed, or with every token of the query.
    """
    with_all = jax.vmap(jax.vmap(_has_all, (None, None, 0, 0)), (0, 0, None, None))
    found = with_all(queries["tokens"], queries["tokens_mask"], products["tokens"], products["mask"])
    return found | is_listed(queries, products["number"])


def _has_all(query, query_mask, product, product_mask):
    """Returns whether a product [L'] has every token of a query [L]."""
    return (((query[:, None] == product) & product_mask).any(axis=1) | ~query_mask).all()


def is_listed(queries, numbers):
    """Returns whether products are among those that are never negatives of queries.

    Args:
      queries: {"forbidden": int [b, F], ascending products; "mask": bool [b, F], False behind their end}.
      numbers: int [n], products.

    Returns:
      bool [b, n].
    """
    ordered = jnp.where(queries["mask"], queries["forbidden"], clicks.NONE)

    def one(row):
        at = jnp.minimum(jnp.searchsorted(row, numbers), row.shape[0] - 1)
        return row[at] == numbers

    return jax.vmap(one)(ordered)
