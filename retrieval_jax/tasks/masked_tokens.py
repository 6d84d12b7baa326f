"""Learns the words of a catalogue: hides tokens of its titles and typed queries, and predicts them from the rest.

The network that it leaves is a start for tasks that compare texts: `config.train.init_from`.
"""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax.data import info as info_lib
from retrieval_jax.data import listing_texts
from retrieval_jax.data.examples import Examples
from retrieval_jax.errors import InputError
from retrieval_jax.models.token_head import TokenHead
from retrieval_jax.tasks import Predict, Task, parts

OPTIONS = {**parts.TEXT, "share": 0.15, "whole_words": False, "queries": True}
_MASKED, _RANDOM = 0.8, 0.1  # of the hidden tokens; the rest are shown as they are
_LEAST_OF_WORDS = 8  # tokens that a text may hide at least where whole words are hidden, which may be long

_log = logging.getLogger(__name__)


def examples(config, catalog, workdir):
    """Returns one example per text: the listings of the train split, and the queries typed for them.

    Columns: "tokens" and "words", the word of its text that a token belongs to, -1 for start and end tokens.

    Args:
      config: the whole config.
      catalog: `data.catalog.Catalog`.
      workdir: the work directory, which receives the tokenizer.

    Returns:
      (Examples, DataInfo with tokens).

    Raises:
      InputError: the catalogue has no text, or the tokenizer cannot be made.
    """
    options, split = parts.options(config.train, OPTIONS), catalog.split("train")
    tokenizer = parts.tokenizer(config, catalog, workdir)
    texts, ids = listing_texts.of(split, options["text_columns"]), list(split.ids)
    if options["queries"] and "queries/train" in catalog.tables:
        typed = list(catalog.tables["queries/train"].columns["text"])
        texts, ids = texts + typed, ids + [f"query {number}" for number in range(len(typed))]
    tokens = tokenizer.encode(texts, options["length"])
    kept = np.flatnonzero(np.diff(tokens.indptr) > 2)
    if not len(kept):
        raise InputError("every text of the train split is empty: name others in config.train.task_kwargs.text_columns")
    if len(kept) < len(texts):
        _log.warning("%s of %s texts are empty and teach nothing", f"{len(texts) - len(kept):,}", f"{len(texts):,}")
    tokens = tokens.take(kept)
    info = info_lib.of_split(split)
    info.tokens = tokenizer.facts()
    columns = {"tokens": tokens, "words": tokenizer.words(tokens)}
    return Examples(columns, [ids[row] for row in kept.tolist()]), info


def columns(config, split, workdir=None):
    """Returns what predict functions may read of a split: those of `parts.columns`, "tokens" and "words"."""
    found = parts.columns(config, split, workdir)
    names = {**OPTIONS, **dict(config.train.task_kwargs)}
    there = {"title"} if split.titles is not None else set()
    there |= {*split.columns, *(split.category_levels if split.categories is not None else ())}
    if workdir is None or not set(names["text_columns"]) <= there:
        return found

    def encoded():
        tokenizer = parts.tokenizer(config, None, workdir)
        return tokenizer, tokenizer.encode(listing_texts.of(split, names["text_columns"]), names["length"])

    def words():
        tokenizer, tokens = encoded()
        return tokenizer.words(tokens)

    return {**found, "tokens": lambda: encoded()[1], "words": words}


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block; of `task_kwargs`, `share` of a text's tokens is hidden (one at least): 80 % behind the
        mask token, 10 % behind a random one, 10 % shown as they are; with `whole_words`, words are hidden as a whole.
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task. "embed_text" returns the tower's embedding; "masked", of tokens that are hidden the same way every time,
      "hidden", "right" and "loss" [B]: how many, how many of them the network finds, and their cross-entropy in nats.

    Raises:
      InputError: unknown option or network, or a share out of range.

    Source: Devlin et al., "BERT", arXiv 1810.04805, section 3.1; the tied output and its bias are RoBERTa's.
    """
    options = parts.options(config, OPTIONS)
    if not 0 < options["share"] < 1:
        raise InputError(
            f"config.train.task_kwargs.share is {options['share']}: give a share of tokens between 0 and 1"
        )
    tower = parts.tower(config, info, options, dim=0)
    head = TokenHead(jnp.dtype(config.dtype))

    def init(rng, batch):
        del batch
        backbone = tower.init(rng)
        table = backbone["stem_tokens"]["embedding"]
        states = jax.eval_shape(tower.apply, backbone, jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))["states"]
        params = head.init({"params": jax.random.fold_in(rng, 1)}, jnp.zeros(states.shape), table)["params"]
        return {"backbone": backbone, "head_tokens": params}

    def scored(params, batch, rng, own=False, **kwargs):
        """Returns the cross-entropy of hidden tokens [B, M], whether each is found, and which count."""
        tokens, there = batch["tokens"], batch["tokens_mask"]
        hidden = hide(batch, rng, info.tokens, options["share"], options["whole_words"], own)
        states = tower.apply(params["backbone"], hidden["tokens"], there, **kwargs)["states"]
        states = jnp.take_along_axis(states, hidden["places"][..., None], axis=1)
        table = params["backbone"]["stem_tokens"]["embedding"]
        logits = head.apply({"params": params["head_tokens"]}, states, table)
        target = jnp.take_along_axis(tokens, hidden["places"], axis=1)
        chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - chosen, logits.argmax(-1) == target, hidden["count"]

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, ema, constants
        hiding, dropout = jax.random.split(rng)
        losses, right, count = scored(params, batch, hiding, train=train, rngs={"dropout": dropout})
        # Of a whole batch that is worked on in parts, only how many tokens are meant to be hidden is known.
        total = wanted(batch["_whole"], options["share"]).sum() if "_whole" in batch else count.sum()
        total = jnp.maximum(total, 1)
        return (losses * count).sum() / total, {"masked_accuracy": (right & count).sum() / total}

    def masked(params, batch):
        losses, right, count = scored(params, batch, jax.random.key(0), own=True)
        return {"hidden": count.sum(1), "right": (right & count).sum(1), "loss": (losses * count).sum(1)}

    def embed_text(params, batch):
        out = tower.apply(params["backbone"], batch["tokens"], batch["tokens_mask"])
        return {"embedding": out["embedding"]}

    def warm_start(params):
        return {**params, "backbone": tower.warm_start(params["backbone"])}

    predict_fns = {
        "embed_text": Predict(embed_text, ("tokens",)),
        "masked": Predict(masked, ("tokens", "words")),
    }
    start = warm_start if tower.warm_start else None
    return Task(init, loss_fn, predict_fns, f"masked_tokens:{tower.name}", warm_start=start)


def wanted(batch, share: float) -> jax.Array:
    """Returns how many tokens of each text are to be hidden, int32 [B]: the share, at least 1 where there are any."""
    count = (batch["words_mask"] & (batch["words"] >= 0)).sum(1)
    return jnp.where(count > 0, jnp.maximum(1, jnp.round(share * count)), 0).astype(jnp.int32)


def hide(batch, rng, facts, share: float, whole_words: bool, own: bool) -> dict[str, jax.Array]:
    """Hides tokens of texts.

    Args:
      batch: "tokens", "words" [B, L] with their masks.
      rng: key.
      facts: `data.info.Tokens`.
      share: of a text's tokens.
      whole_words: whether all tokens of a word are hidden together: words in random order while they fit into the
        share, the first in any case, as far as it fits into a batch.
      own: whether what is hidden depends on a row's number alone, so that it is the same whatever it is batched with.

    Returns:
      "tokens" [B, L] with some hidden, "places" [B, M] of these, and "count" bool [B, M], which of the places count.
    """
    tokens, words = batch["tokens"], batch["words"]
    rows, length = tokens.shape
    if own:
        keys = jax.vmap(lambda row: jax.random.fold_in(rng, row))(batch["row"])
        draws = jax.vmap(lambda key: jax.random.uniform(key, (length, 3)))(keys)
    else:
        draws = jax.random.uniform(rng, (rows, length, 3))
    may, aim = batch["words_mask"] & (words >= 0), wanted(batch, share)
    most = max(1, round(share * max(1, length - 2)))
    place = jnp.broadcast_to(jnp.arange(length), (rows, length))
    turn, word = draws[..., 0], place
    if whole_words:
        most = min(length, max(most, _LEAST_OF_WORDS))
        begins = jnp.concatenate([jnp.ones((rows, 1), bool), words[:, 1:] != words[:, :-1]], axis=1)
        word = jax.lax.cummax(jnp.where(begins, place, 0), axis=1)  # place of the word's first token
        turn = jnp.take_along_axis(turn, word, axis=1)
    order = jnp.argsort(jnp.where(may, turn, 2.0), axis=1, stable=True)
    in_order = jnp.take_along_axis(word, order, axis=1)
    last = jnp.concatenate([in_order[:, 1:] != in_order[:, :-1], jnp.ones((rows, 1), bool)], axis=1)
    end = jax.lax.cummin(jnp.where(last, place + 1, length), axis=1, reverse=True)  # tokens up to the word's last one
    count = jnp.take_along_axis(may, order, axis=1) & ((end <= aim[:, None]) | (in_order == in_order[:, :1]))
    places, count = order[:, :most], count[:, :most]
    kind, other = (jnp.take_along_axis(draws[..., one], places, axis=1) for one in (1, 2))
    random = jnp.minimum((other * facts.size).astype(jnp.int32), facts.size - 1)
    shown = jnp.take_along_axis(tokens, places, axis=1)
    shown = jnp.where(kind < _MASKED, facts.mask, jnp.where(kind < _MASKED + _RANDOM, random, shown))
    at = jnp.where(count, places, length)  # past the end: dropped
    hidden = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))(tokens, at, shown.astype(tokens.dtype))
    return {"tokens": hidden, "places": places, "count": count}
