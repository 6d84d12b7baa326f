"""What of a trained model is exported: its programs, the texts that they read, the other network that it needs."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from retrieval_jax import inference, tasks
from retrieval_jax.data import text
from retrieval_jax.errors import InputError
from retrieval_jax.losses import unit
from retrieval_jax.workdir import sides

EDIT = "embed_edit"  # the predict function of a picture and words
WHITENED = "embed_whitened"  # the program whose vectors are compared as they are
WORDS = ("embed_query", "embed_text", EDIT)  # predict functions of typed words


def programs_of(config, task) -> dict[str, str]:
    """Returns the programs that embed, {name: predict function}.

    Args:
      config: the whole config.
      task: `tasks.Task`.
    """
    own = {split: side.predict_fn for split, side in sides.of(config).items() if not side.run and side.predict_fn}
    first = config.embed.predict_fn
    if first not in task.predict_fns:  # a network of text has no use for the default, which embeds pictures
        first = own.get("gallery") or own.get("query") or first
    there = [*own.values(), *(name for name in WORDS if name in task.predict_fns)]
    return {"embed": first} | {name: name for name in there if name != first or name in WORDS}


def side_program(side, embeds, functions) -> str:
    """Returns the name of the program of one side of the search: its own where that reads one column, else "embed".

    Args:
      side: `sides.Side`.
      embeds: of `programs_of`.
      functions: {program: `tasks.Predict`}.
    """
    name = "embed" if side.run else next((name for name, own in embeds.items() if own == side.predict_fn), "embed")
    return name if len(functions[name].reads) == 1 else "embed"


def whitened(function, stage) -> tasks.Predict:
    """Returns a predict function whose vectors are those that a stage of the search compares: whitened, of length 1.

    Args:
      function: `tasks.Predict` of the queries, with "embedding".
      stage: `postprocess.new_queries.Stage` with a whitening.
    """
    fitted = stage.whitening
    mean = np.asarray(fitted.mean if fitted.query_mean is None else fitted.query_mean, np.float32)
    matrix = np.asarray(fitted.matrix, np.float32)

    def fn(params, batch):
        vectors = function(params, batch)["embedding"].astype(jnp.float32)
        vectors = unit(vectors) if stage.l2_first else vectors
        # A device may multiply in fewer bits than the whitening's small directions need.
        return {"embedding": unit(jnp.matmul(vectors - mean, matrix, precision="highest"))}

    return tasks.Predict(fn, function.reads)


def texts(config, functions) -> dict[str, dict]:
    """Returns how the columns of text that programs read become token ids.

    Args:
      config: the whole config of the run of text.
      functions: {program: `tasks.Predict`}.

    Returns:
      {column: {"length": most tokens; "typed": whether terms that exclude are left out, as of typed queries; "columns":
      of a listing, whose text it is, [] for typed words}}.
    """
    options = {**tasks.get(config.train.task).OPTIONS, **config.train.task_kwargs}
    read = {column for function in functions.values() for column in function.reads} & set(text.LENGTHS)
    return {
        column: {
            "length": int(options[text.LENGTHS[column]]),
            "typed": text.LENGTHS[column] == text.TYPED,
            "columns": [] if text.LENGTHS[column] == text.TYPED else list(options["text_columns"]),
        }
        for column in sorted(read)
    }


def with_pictures(model, pictures):
    """Returns a model that reads pictures where the trained one reads their vectors by the network of another run.

    Args:
      model: `inference.Model`.
      pictures: that of the run whose vectors it learned with; None where it learned with no other.

    Returns:
      One with the parameters of both networks, whose "embed_image" is that of the other run; `model` itself without it;
      where it reads pictures itself, `model` with the other one's space.

    Raises:
      InputError: the other network reads more than a picture, or was trained again since this one learned with it.
    """
    if pictures is None:
        return model
    name = pictures.config.embed.predict_fn
    of_picture = inference.named(pictures.task.predict_fns, name)
    reads_itself = "embed_image" in model.task.predict_fns
    if of_picture.reads != ("image",) and not reads_itself:
        raise InputError(f"the network of {pictures.folder} reads {', '.join(of_picture.reads)}, not pictures alone")
    arguments, config = inference.test_arguments(pictures.config), model.config.copy_and_resolve_references()
    inference.check_learned(_space(of_picture, pictures, arguments["image_size"]), model.folder)
    if reads_itself:  # and embeds into the other one's space
        return dataclasses.replace(model, space=model.data_info.target_space)

    def reading(function):
        if "picture" not in function.reads:
            return tasks.Predict(lambda params, batch: function(params["words"], batch), function.reads)

        def fn(params, batch):
            seen = of_picture(params["pictures"], batch)["embedding"].astype("float32")
            return function(params["words"], {**batch, "picture": seen})

        return tasks.Predict(fn, tuple("image" if column == "picture" else column for column in function.reads))

    def embed_image(params, batch):
        return of_picture(params["pictures"], batch)

    predict_fns = {own: reading(function) for own, function in model.task.predict_fns.items()}
    predict_fns["embed_image"] = tasks.Predict(embed_image)
    if pictures.task.predict_fns.get("attributes", tasks.Predict(None, ())).reads == ("image",):
        attributes = pictures.task.predict_fns["attributes"]
        predict_fns["attributes"] = tasks.Predict(lambda params, batch: attributes(params["pictures"], batch))
    with config.unlocked():
        config.embed.predict_fn = "embed_image"
        config.embed.transforms, config.embed.image_size = arguments["transform"], arguments["image_size"]
        config.embed.views = pictures.config.embed.get("views", ())
    labels = {name: getattr(pictures.data_info, name) for name in ("label_names", "vocabulary_hash", "category_names")}
    return dataclasses.replace(
        model,
        config=config,
        task=dataclasses.replace(model.task, predict_fns=predict_fns),
        params={"words": model.params, "pictures": pictures.params},
        data_info=dataclasses.replace(model.data_info, **labels),
        space=model.data_info.target_space,
    )


def _space(function, model, size) -> str:
    """Returns the name of the space that a predict function of pictures embeds into: its own, or that of its model."""
    found = {}

    def traced(params, batch):
        found.update(function(params, batch))
        return found["embedding"]

    jax.eval_shape(traced, model.params, {"image": np.zeros((1, *size, 3), np.uint8)})
    return found.get("space", model.space)
