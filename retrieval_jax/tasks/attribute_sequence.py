"""Learns the attributes of a listing's labelled columns, written one after the other by an LSTM until an end.

An attribute follows from the picture and from the attributes before it, so those of one listing fit each other; known
ones can be given, and the others follow. A value that is unknown is left out of the sequence and of the softmax, so
nothing is learned about it. With `heads` = "sigmoid" every value has a sigmoid of its own on the same encoder.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import pairs
from retrieval_jax.attributes.vocabulary import Vocabulary
from retrieval_jax.data import fields as fields_lib
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.examples import Examples, Pictures, Ragged
from retrieval_jax.data.pictures import sources
from retrieval_jax.errors import InputError
from retrieval_jax.losses import sequence as losses
from retrieval_jax.models import heads
from retrieval_jax.models.attribute_sequence import DECISIONS, Decoder, Grammar, logits_of, search, used_before
from retrieval_jax.tasks import Predict, Task, parts

OPTIONS = {
    "fields": (),
    "optional_fields": (),
    "min_count": 5,
    "length": 0,
    "heads": "sequence",
    "cell_dims": 256,
    "teacher_forcing": 1.0,
    "field_weights": (),
    "label_smoothing": 0.0,
    "head_init_scale": 0.1,
    "beam": 8,
    "decision": "expected_f1",
    "length_penalty": 0.0,
}
HEADS = ("sequence", "sigmoid")
GIVEN = "attribute_given"  # the column of known attributes that guide a prediction


def examples(config, catalog, workdir):
    """Returns one example per listing of the train split.

    Columns: "image"; "attribute_ids", the listing's labels in order; "attribute_known", bool per field; "source" where
    several catalogues are joined.

    Args:
      config: the whole config.
      catalog: `data.catalog.Catalog`; its train split has the columns that config.train.task_kwargs.fields names.
      workdir: the work directory; read where "mined" is among the fields.

    Returns:
      (Examples, DataInfo), whose labels are "<field>=<value>".

    Raises:
      InputError: no or unknown fields, or fields with nothing to learn.
    """
    options, split = parts.options(config.train, OPTIONS), catalog.split("train")
    if not options["fields"]:
        raise InputError(
            "config.train.task_kwargs.fields is empty: name the attributes to learn, such as ('type', 'colour'), in "
            f"the order in which they are written; the catalogue has {', '.join(_names(split)) or 'none'}"
        )
    given = _fields(options["fields"], split, workdir)
    info = fields_lib.learned(given, options["min_count"], options["optional_fields"], options["length"])
    ids, known = fields_lib.encode(given, info, options["length"])
    images = sources.kept(split.images, config.data.cache_bytes)
    columns = {"image": Pictures(images), "attribute_ids": ids, "attribute_known": known}
    if split.sources is not None:
        columns["source"] = split.sources
    return Examples(columns, split.ids), info


def columns(config, split, workdir=None) -> dict:
    """Returns what predict functions and evaluations may read of a split: those of `parts.columns`, "attribute_ids" and
    "attribute_known", the true labels, and "attribute_given", which is empty: nothing guides a prediction by itself.

    Args:
      config: the whole config of the run that the network is from.
      split: `data.catalog.Split`.
      workdir: the work directory of that run.
    """
    found = parts.columns(config, split, workdir)
    found[GIVEN] = lambda: Ragged.of([()] * len(split))
    if workdir is not None:

        def encoded():
            info = info_lib.load(pathlib.Path(workdir) / "checkpoints" / "data_info.json")
            names = [field.name for field in info.fields]
            return fields_lib.encode(_fields(names, split, workdir), info)

        found["attribute_ids"], found["attribute_known"] = (lambda: encoded()[0]), (lambda: encoded()[1])
    return found


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `model`, `dtype`, `task_kwargs` (retrieval_jax.settings.tasks).
      info: `data.info.DataInfo` with fields.

    Returns:
      The Task. "attributes" and "attributes_given", which also reads the column "attribute_given" (labels that are
      known), return "chosen" bool [B, V] and "probabilities" [B, V].

    Raises:
      InputError: unknown option or heads, or a number of weights that is not that of the fields.
    """
    options = parts.options(config, OPTIONS)
    for name, choices in (("heads", HEADS), ("decision", DECISIONS)):
        if options[name] not in choices:
            near = pairs.near(options[name], choices)
            raise InputError(f"config.train.task_kwargs.{name}: there is no {options[name]!r}{near}")
    if not info.fields:
        raise InputError(
            "the labels of this run are not those of fields: train with the task 'attribute_sequence' in a new work "
            "directory"
        )
    weights = options["field_weights"] or (1.0,) * len(info.fields)
    if len(weights) != len(info.fields):
        raise InputError(
            f"config.train.task_kwargs.field_weights has {len(weights)} weights for {len(info.fields)} fields: give "
            "one per field, or () for equal ones"
        )
    return (_sequence if options["heads"] == "sequence" else _sigmoid)(config, info, options, weights)


def _sequence(config, info, options, weights) -> Task:
    """Builds the task with the LSTM."""
    network, grammar = parts.network(config, {}), Grammar.of(info.fields)
    decoder = Decoder(grammar.end + 1, options["cell_dims"], options["head_init_scale"], _log_odds(info))
    step_weights, each_by_itself = jnp.asarray((*weights, 1.0))[grammar.field_of], _by_itself(grammar, options, weights)

    def init(rng, batch):
        params = network.init(rng, batch)
        width = jax.eval_shape(network.apply, params, batch["image"][:1])["pooled"].shape[-1]
        own = decoder.init({"params": jax.random.fold_in(rng, 1)}, jnp.zeros((1, width)))["params"]
        return {**params, "head_sequence": own}

    def visual(params):
        return {name: value for name, value in params.items() if name != "head_sequence"}

    def alone(params, pooled):
        return decoder.apply({"params": params["head_sequence"]}, pooled, method="alone")

    def decoding(params, logits):
        variables = {"params": params["head_sequence"]}

        def step(state, seen, before):
            return decoder.apply(variables, state, seen, before, method="step")

        return step, decoder.apply(variables, logits, method="start")

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, ema, constants
        dropout, sampling = jax.random.split(rng)
        out = network.apply(visual(params), batch["image"], train=train, rngs={"dropout": dropout})
        # The encoder learns every value by itself, as with sigmoid heads: a value that follows from those before it
        # would teach it nothing. What the labels before change is learned on top.
        by_itself = alone(params, out["pooled"])
        decode, start = decoding(params, jax.lax.stop_gradient(by_itself))
        where, found = batch["_mask"], {}

        def of_labels(ids, mask, known):
            targets = jnp.concatenate([jnp.where(mask, ids, grammar.end), jnp.full((len(ids), 1), grammar.end)], axis=1)
            counted = jnp.arange(targets.shape[1]) <= mask.sum(axis=1)[:, None]
            before, used = used_before(grammar, targets)
            allowed = grammar.allowed(before, used, jnp.broadcast_to(known[:, None], (*targets.shape, known.shape[1])))
            guesses = None
            if train and options["teacher_forcing"] < 1:

                def guesses(number, logits):
                    own = jax.random.uniform(jax.random.fold_in(sampling, number), (len(logits),))
                    at = jnp.take(allowed, number, axis=1)
                    return own >= options["teacher_forcing"], jnp.where(at, logits, -1e9).argmax(-1)

            logits = logits_of(decode, start, targets, guesses)
            hits = (jnp.where(allowed, logits, -1e9).argmax(-1) == targets) & counted & where[:, None]
            found.setdefault("hits", hits.sum())  # of mixed pictures, those of their own labels
            found.setdefault("labels", (counted & where[:, None]).sum())
            # padded labels may follow nothing: at least the target is allowed
            allowed |= jnp.arange(grammar.end + 1) == targets[..., None]
            value = losses.cross_entropy(
                logits,
                targets,
                allowed,
                counted,
                step_weights=step_weights[targets],
                label_smoothing=options["label_smoothing"],
                where=where,
            )
            return value + each_by_itself(by_itself, ids, mask, known, where)

        per_picture = parts.mixed(of_labels, batch, "attribute_ids", "attribute_ids_mask", "attribute_known")
        value = per_picture.sum() / _count(batch)
        return value, {"attribute_loss": value, "label_accuracy": found["hits"] / jnp.maximum(found["labels"], 1)}

    def predicted(params, batch):
        pooled = network.apply(visual(params), batch["image"])["pooled"]
        given = _dense(batch[GIVEN], batch[f"{GIVEN}_mask"], grammar.end) if GIVEN in batch else None
        step, start = decoding(params, alone(params, pooled))
        chosen_by = {name: options[name] for name in ("beam", "decision", "length_penalty")}
        found = search(step, start, grammar, given=given, **chosen_by)
        return {name: found[name] for name in ("chosen", "probabilities")}

    def embed_image(params, batch):
        return network.embed_image(visual(params), batch)

    functions = _predict_fns(embed_image, predicted)
    return Task(init, loss_fn, functions, network.space, warm_start=network.warm_start, mixes=True)


def _sigmoid(config, info, options, weights) -> Task:
    """Builds the task with a sigmoid per value."""
    grammar = Grammar.of(info.fields)
    head = heads.Head(grammar.end, options["head_init_scale"], _log_odds(info))
    each_by_itself = _by_itself(grammar, options, weights)
    network, fields = parts.network(config, {"attributes": head}), grammar.field_of[:-1]

    def loss_fn(params, batch, *, rng, step, ema, constants, train):
        del step, ema, constants
        logits = network.apply(params, batch["image"], train=train, rngs={"dropout": rng})["logits"]["attributes"]

        def of_labels(ids, mask, known):
            return each_by_itself(logits, ids, mask, known, batch["_mask"])

        per_picture = parts.mixed(of_labels, batch, "attribute_ids", "attribute_ids_mask", "attribute_known")
        value = per_picture.sum() / _count(batch)
        return value, {"attribute_loss": value}

    def predicted(params, batch):
        probabilities = jax.nn.sigmoid(network.apply(params, batch["image"])["logits"]["attributes"])
        chosen, ends = probabilities >= 0.5, np.cumsum(grammar.sizes)
        for size, end, many, optional in zip(grammar.sizes, ends, grammar.many, grammar.optional, strict=True):
            if not many:
                own = probabilities[:, end - size : end]
                best = own.argmax(axis=1)[:, None] == jnp.arange(size)
                chosen = chosen.at[:, end - size : end].set(best & (own >= 0.5) if optional else best)
        if GIVEN in batch:  # the known field is what it is; the other fields do not depend on it
            given = _dense(batch[GIVEN], batch[f"{GIVEN}_mask"], grammar.end)
            guided = jnp.zeros((len(given), len(grammar.sizes)), jnp.int32).at[:, fields].add(given)[:, fields] > 0
            shut = guided & ~given & ~np.asarray(grammar.many)[fields]
            chosen = (chosen | given) & ~shut
            probabilities = jnp.where(given, 1.0, jnp.where(shut, 0.0, probabilities))
        return {"chosen": chosen, "probabilities": probabilities}

    return Task(
        network.init,
        loss_fn,
        _predict_fns(network.embed_image, predicted),
        network.space,
        warm_start=network.warm_start,
        mixes=True,
    )


def _predict_fns(embed_image, predicted) -> dict[str, Predict]:
    return {
        "embed_image": Predict(embed_image),
        "attributes": Predict(predicted),
        "attributes_given": Predict(predicted, ("image", GIVEN)),
    }


def _by_itself(grammar, options, weights):
    """Returns the loss of each value by itself: (logits [B, V], ids, mask, known, where) -> [B]."""
    fields = grammar.field_of[:-1]

    def loss(logits, ids, mask, known, where):
        return losses.sigmoid_of_known(
            logits,
            _dense(ids, mask, grammar.end),
            known[:, fields],
            label_weights=jnp.asarray(weights)[fields],
            label_smoothing=options["label_smoothing"],
            where=where,
        )

    return loss


def _log_odds(info) -> tuple[float, ...]:
    """Returns for every label the log odds of its share of the training listings whose field is known."""
    known = np.repeat([max(1, field.known) for field in info.fields], [field.values for field in info.fields])
    shares = np.clip(info.label_counts / known, 0.5 / known, 1 - 0.5 / known)
    return tuple((np.log(shares) - np.log1p(-shares)).tolist())


def _dense(ids, mask, count: int):
    """Returns bool [B, count] of labels [B, L]; what the mask leaves out goes to a place that is cut off."""
    out = jnp.zeros((len(ids), count + 1), bool)
    return out.at[jnp.arange(len(ids))[:, None], jnp.where(mask, ids, count)].set(True)[:, :count]


def _count(batch):
    """Returns the rows of the whole batch that count."""
    return jnp.maximum(batch.get("_whole", batch)["_mask"].sum(), 1)


def _names(split) -> list[str]:
    return [*split.column_names, *split.category_levels]


def _fields(names, split, workdir) -> dict:
    """Returns {name: Field} of a split."""
    mined = None
    if fields_lib.MINED in names:
        if split.name == "train":
            vocabulary, labels = parts.mined(pathlib.Path(workdir), len(split))
            mined = vocabulary.tokens, labels
        else:
            mined = _mined_titles(split, pathlib.Path(workdir))
    return {name: fields_lib.read(split, name, mined) for name in names}


def _mined_titles(split, workdir):
    """Returns the vocabulary of a run and the words of a split's titles; listings without a title have none."""
    vocabulary = Vocabulary.load(workdir / "attributes" / "vocabulary.json")
    indptr, ids = vocabulary.encode(split.titles if split.titles is not None else [""] * len(split))
    return vocabulary.tokens, Ragged(indptr, np.asarray(ids, np.int32))
