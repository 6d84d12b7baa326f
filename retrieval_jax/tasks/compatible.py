"""Learns a network whose vectors search the gallery of another, frozen one: for queries alone, or a new model.

The gallery network's vectors of the train pictures are made once and kept. The network learns them (`regression`), to
tell them apart (`contrast`), to find them in the same order (`rank`) and to lie to each other as they do (`relation`),
to be right under the gallery network's own classifier (`classifier`) and to give the logits that it gives (`logits`);
each has a weight, and 0 leaves it out. Contrast and ranks may compare with a `bank` of its other vectors. Classifiers
of the network's own (`title_weight`, `category_weight`) read its own vector, which a linear map or a perceptron brings
into the gallery's space.
"""

import copy
import dataclasses

import jax
import jax.numpy as jnp

from retrieval_jax.data.examples import Examples
from retrieval_jax.errors import InputError
from retrieval_jax.losses import compatible, contrastive, distillation, multilabel, unit
from retrieval_jax.models import heads
from retrieval_jax.models.layers.linear import Dense
from retrieval_jax.tasks import Predict, Task, parts
from retrieval_jax.tasks import multilabel as multilabel_task
from retrieval_jax.tasks.parts import classifiers, vectors

OPTIONS = {
    **parts.TITLES,
    **parts.CATEGORY,
    **parts.HEADS,
    "title_weight": 0.0,
    "category_weight": 0.0,
    "pictures": "",
    "regression_weight": 1.0,
    "regression": "cosine",
    "contrast_weight": 0.0,
    "contrast_temperature": 0.05,
    "rank_weight": 0.0,
    "rank_temperature": 0.1,
    "relation_weight": 0.0,
    "classifier_weight": 0.0,
    "logits_weight": 0.0,
    "bank": 0,
    "own_length": False,
    "map_hidden": 0,
    "map_residual": False,
}
CHOICES = {"regression": ("cosine", "squared")}
WEIGHTS = tuple(name for name in OPTIONS if name.endswith("_weight") and name != "unlabelled_weight")
_COUPLED = ("contrast_weight", "rank_weight", "relation_weight")
_BANKED = ("contrast_weight", "rank_weight")
_HEAD = "head_compatible"  # parameters of the map into the gallery's space


def learns_from(config) -> str:
    """Returns the run of the gallery network, config.train.task_kwargs.pictures."""
    return parts.options(config.train, OPTIONS, CHOICES)["pictures"]


def learns_under(config) -> bool:
    """Returns whether the gallery network's classifiers are needed."""
    options = parts.options(config.train, OPTIONS, CHOICES)
    return options["classifier_weight"] > 0 or options["logits_weight"] > 0


def examples(config, catalog, workdir):
    """Returns one example per listing of the train split: the columns of `parts.listings`, and "picture", the gallery
    network's vector of its picture, float32 [n, D]. Beside them "bank", "picture" of all listings anew, where a loss
    compares with `bank` of them.

    Args:
      config: the whole config.
      catalog: `data.catalog.Catalog`.
      workdir: the work directory, with mined attributes where listings have titles.

    Returns:
      (Examples, DataInfo with the gallery's space and, where they are needed, its classifiers).

    Raises:
      InputError: no gallery network is named, its vectors are not those of the train split, or its classifiers cannot
        be learned under.
    """
    if not learns_from(config):
        raise InputError(
            "config.train.task_kwargs.pictures is empty: name the run whose gallery is searched, a config or a folder"
        )
    found, info = parts.listings(config, catalog, workdir)
    table, info.target_space = vectors.load(workdir, len(catalog.split("train")))
    found.columns["picture"] = table.values.reshape(len(table), -1)
    if learns_under(config):
        info.frozen = classifiers.load(workdir, info, found.columns["picture"].shape[1])
    options = parts.options(config.train, OPTIONS, CHOICES)
    if options["bank"] and any(options[name] for name in _BANKED):
        size = min(options["bank"], len(table))  # a smaller catalogue is in the bank as a whole
        more = Examples({"picture": found.columns["picture"]}, found.ids, batch_size=size)
        found = dataclasses.replace(found, beside={**found.beside, "bank": more})
    return found, info


def make(config, info) -> Task:
    """Builds the task.

    Args:
      config: the train block: `model`, the query network; `task_kwargs` (retrieval_jax.settings.tasks).
      info: `data.info.DataInfo` of `examples`.

    Returns:
      The Task; its predict functions are those of `multilabel`, and "embed_image" embeds into the gallery's space. The
      gallery network's classifiers are its constants; a task that only predicts has none.

    Raises:
      InputError: unknown option, nothing to learn, or settings that exclude each other.

    Source: Duggal et al., "Compatibility-aware Heterogeneous Visual Search" (CMP-NAS), arXiv 2105.06047; a new model
    for an old gallery: Shen et al., "Towards Backward-Compatible Representation Learning", arXiv 2003.11942.
    """
    options = parts.options(config, OPTIONS, CHOICES)
    if not any(options[name] > 0 for name in WEIGHTS):
        raise InputError(f"config.train.task_kwargs: {', '.join(WEIGHTS)} are all 0: nothing to learn")
    if options["bank"] and not any(options[name] for name in _BANKED):
        raise InputError(
            f"config.train.task_kwargs.bank is {options['bank']:,}, and only {' and '.join(_BANKED)} compare with it: "
            "give one of these a value, or set bank to 0"
        )
    if options["map_residual"] and not options["map_hidden"]:
        raise InputError("config.train.task_kwargs.map_residual adds what a perceptron says: set map_hidden as well")
    if not info.target_space:
        raise InputError("this run was not trained with the vectors of another: train again in a new work directory")
    if config.model.get("projection"):
        settings = copy.deepcopy(config)
        with settings.unlocked():
            settings.model.projection = 0  # the map into the gallery's space takes its place
        config = settings
    supervision = parts.supervision(config, info, options)
    network = parts.network(config, supervision.heads)
    frozen, title_loss = info.frozen or ({}, "")

    def mapping(dim):
        return heads.Mlp(options["map_hidden"], dim) if options["map_hidden"] else Dense(dim)

    def visual(params):
        return {name: value for name, value in params.items() if name != _HEAD}

    def into_space(params, out):
        head = params[_HEAD]
        dim = (head["out"] if options["map_hidden"] else head)["bias"].shape[-1]
        found = mapping(dim).apply({"params": head}, out["embedding"]).astype(jnp.float32)
        return found + out["embedding"] if options["map_residual"] else found

    def init(rng, batch):
        params = network.init(rng, batch)
        width = jax.eval_shape(network.apply, params, batch["image"][:1])["embedding"].shape[-1]
        dim = batch["picture"].shape[-1]
        params[_HEAD] = mapping(dim).init({"params": jax.random.fold_in(rng, 1)}, jnp.zeros((1, width)))["params"]
        if options["map_residual"]:
            if width != dim:
                raise InputError(
                    f"config.train.task_kwargs.map_residual adds to the network's own vector, which has {width:,} "
                    f"numbers, and the gallery's have {dim:,}: set it to False"
                )
            params[_HEAD]["out"]["kernel"] = jnp.zeros_like(params[_HEAD]["out"]["kernel"])
        elif width == dim and not options["map_hidden"]:  # a network that starts from the gallery's is right from there
            params[_HEAD]["kernel"] = jnp.eye(dim)
        return params

    def loss_fn(params, batch, *, train, step, **given):
        if network.sampled is None or not train:
            return loss_of(params, batch, train=train, step=step, **given)

        def one(_, choice):  # a loop, so that one network is compiled for all choices
            return None, loss_of({**params, "choice": choice}, batch, train=train, step=step, **given)

        _, (totals, values) = jax.lax.scan(one, None, network.sampled(config.seed, step))
        ends = {"cosine_largest": values["cosine"][0], "cosine_smallest": values["cosine"][1]}
        return totals.mean(), {**jax.tree.map(jnp.mean, values), **ends}

    def loss_of(params, batch, *, rng, step, ema, constants, train):
        out = network.apply(visual(params), batch["image"], train=train, rngs={"dropout": rng})
        query, gallery, where = into_space(params, out), batch["picture"], batch["_mask"]
        average = None if ema is None else visual(ema)
        total, values = supervision.loss(
            network, visual(params), batch, out, rng=rng, step=step, ema=average, train=train
        )
        count = jnp.maximum(batch.get("_whole", batch)["_mask"].sum(), 1)
        if not options["own_length"]:  # cosines do not learn lengths, which linear classifiers read
            length = jnp.linalg.norm(gallery.astype(jnp.float32), axis=-1, keepdims=True)
            classified = unit(query) * length
        else:
            classified = query
        bank = {}
        if "bank_picture" in batch:  # vectors that never grow stale, since their network is frozen
            others = (batch["row"][:, None] != batch["bank_row"]) & batch["bank_mask"]
            bank = {"bank": batch["bank_picture"], "bank_where": others}
        losses = {
            "regression": lambda: getattr(compatible, options["regression"])(query, gallery, where=where),
            "contrast": lambda: contrastive.softmax(
                query,
                jax.lax.stop_gradient(gallery),
                scale=1 / options["contrast_temperature"],
                symmetric=False,
                where=where,
                **bank,
            ),
            "rank": lambda: compatible.rank_preserving(
                query, gallery, temperature=options["rank_temperature"], where=where, **bank
            ),
            "relation": lambda: compatible.relational(query, gallery, where=where),
            "classifier": lambda: sum(labelled(constants, classified, batch)),
            "logits": lambda: sum(distilled(constants, classified, gallery, where)),
        }
        for name, loss in losses.items():
            if weight := options[f"{name}_weight"]:
                values[f"{name}_loss"] = loss().sum() / count
                total += weight * values[f"{name}_loss"]
        values["cosine"] = 1.0 - compatible.cosine(query, gallery, where=where).sum() / count
        return total, values

    def labelled(constants, query, batch):
        where = batch["_mask"]
        if "titles" in constants:
            found = classifiers.logits(constants["titles"], query)
            arguments = found, batch["label_ids"], batch["label_ids_mask"]
            if title_loss == "softmax":
                yield multilabel.softmax_poly1(*arguments, epsilon=options["poly_epsilon"], where=where)
            else:
                yield multilabel.sigmoid_cross_entropy(*arguments, where=where)
        if "category" in constants:
            found = classifiers.logits(constants["category"], query)
            yield multilabel.softmax_cross_entropy(found, batch["category"], where=where)

    def distilled(constants, query, gallery, where):
        for head, classifier in constants.items():
            function = distillation.sigmoid if head == "titles" and title_loss != "softmax" else distillation.softmax
            ours, theirs = classifiers.logits(classifier, query), classifiers.logits(classifier, gallery)
            yield function(ours, theirs, where=where)

    def embed_image(params, batch):
        out = network.apply(visual(params), batch["image"])
        return {"embedding": into_space(params, out), "space": info.target_space}

    def of_pictures(predict):
        return Predict(lambda params, batch: predict(visual(params), batch), predict.reads)

    named = {name: of_pictures(one) for name, one in multilabel_task.predict_fns(network, supervision).items()}

    def warm_start(params):
        return {**network.warm_start(visual(params)), _HEAD: params[_HEAD]}

    coupled = [name for name in _COUPLED if options[name] > 0]
    return Task(
        init,
        loss_fn,
        {**named, "embed_image": Predict(embed_image)},
        network.space,
        constants=frozen or None,
        warm_start=warm_start if network.warm_start else None,
        couples_rows=supervision.couples_rows or (coupled[0] if coupled else ""),
    )
