"""Retrieval as embed, search and evaluate would score it: every stage of search.steps, over the whole gallery.

Takes test-time views and the dtype of the stored embeddings into account, ranks all queries of the selection half, and
searches exactly, whatever config.search.index is. The stage "chosen" has the steps that the run's last search chose;
before the first search it is the plain cosine. The step "quality", which learns from clicks, is left out. Hand-made
models that config.search.join names are embedded once and joined to each set of parameters.
"""

import numpy as np

from retrieval_jax import inference
from retrieval_jax.data import pipeline
from retrieval_jax.data.examples import Pictures
from retrieval_jax.data.pictures import hand_made
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.evaluators import Evaluation
from retrieval_jax.evaluators._selection import Selection
from retrieval_jax.evaluators.retrieval import SCORES, K
from retrieval_jax.index import exact
from retrieval_jax.postprocess import State, choosing, walk
from retrieval_jax.scoring import metrics
from retrieval_jax.workdir import as_path, sides


def make(task, catalog, *, config, mesh=None, workdir=None) -> Evaluation | None:
    """Makes the evaluation.

    Args:
      task, catalog, config, mesh, workdir: see `evaluators`.

    Returns:
      The `Evaluation`, with the scores of `evaluators.retrieval` for each stage, "whitening/mar@10" and so on; None
      where the relevant listings of the queries are not known.

    Raises:
      InputError: an unknown step or stage, or what `evaluators.retrieval.make` raises.
    """
    if catalog.truth is None or catalog.query is None or catalog.gallery is None:
        return None
    steps = [walk.FIRST, *walk.parse(config.search.steps)]
    wanted = walk.chosen(config.search.get("stages", ()), steps[1:])
    steps = [step for step in steps if step.name != "quality"]
    others = _joined(config)
    joins = next((i for i, step in enumerate(steps) if step.name in walk.JOINS), len(steps)) if others else len(steps)
    selection = Selection(task, catalog, config=config, mesh=mesh, workdir=workdir, views=config.embed.get("views", ()))

    def stored(side):
        vectors = side.block(0, len(side)).astype(config.embed.dtype).astype(np.float32)
        return Embeddings(side.ids, vectors, side.meta)

    chosen = () if workdir is None else choosing.steps_of(choosing.load(as_path(workdir) / "rankings" / sides.MODEL))

    def rank(state, stage):
        del stage
        queries, gallery = state.members[0]
        return exact.Index(gallery).search(queries, config.search.k)

    members = {}  # of the hand-made models, after steps of their own

    def walked(state):
        for step, last in walk.walk(state, steps[:joins], rank, wanted, lambda state: chosen):
            yield step, last
        if not others:
            return
        for model in others:
            if model not in members:
                own = [stored(_hand_made(model, selection, catalog, config, split)) for split in sides.SPLITS]
                *_, (_, after) = walk.walk(
                    State([tuple(own)], None, (model,)), walk.OWN_STEPS.get(model, (walk.FIRST,)), rank, ()
                )
                members[model] = after.members[0]
        both = {sides.MODEL: last.members[0], **members}
        joined = State([both[model] for model in config.search.join], None, tuple(config.search.join))
        yield from walk.walk(joined, steps[joins:], rank, wanted)

    def run(params, on_batch=None):
        queries, gallery = selection.embed(params, on_batch)
        for step, state in walked(State([(stored(queries), stored(gallery))], None, (sides.MODEL,))):
            if step.stage in wanted:
                scores = metrics.evaluate(state.ranking, selection.truth, ks=(K,))
                for name in SCORES:
                    yield f"{step.stage}/{name}", scores[name]

    names = [f"{step.stage}/{name}" for step in steps if step.stage in wanted for name in SCORES]
    return Evaluation(run, tuple(names), f"stages: {selection.of}")


def _joined(config) -> tuple[str, ...]:
    """Returns the hand-made models that join the trained one."""
    join = tuple(config.search.get("join", ()))
    if not join:
        return ()
    for model in join:
        if model not in (sides.MODEL, *hand_made.MODELS):
            raise InputError(
                f"config.search.join has {model!r}, which cannot be scored with checkpoints, only "
                f"{', '.join((sides.MODEL, *hand_made.MODELS))}: search and evaluate the finished run"
            )
    if sides.MODEL not in join:
        raise InputError("config.search.join does not have 'trained', so no checkpoint changes its scores: add it")
    return tuple(model for model in join if model != sides.MODEL)


def _hand_made(model, selection, catalog, config, split) -> Embeddings:
    """Embeds one side of a selection by a hand-made model."""
    module, arguments = hand_made.MODELS[model], inference.test_arguments(config)
    columns = {"image": Pictures(catalog.split(split).images)}
    batches = pipeline.eval_batches(columns, rows=selection.rows[split], **arguments)
    vectors = np.concatenate([module.embed(batch["image"][batch["_mask"]]) for batch in batches])
    return Embeddings(selection.ids[split], vectors, {**module.META, "space": module.SPACE})
