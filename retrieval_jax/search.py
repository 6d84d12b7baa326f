"""Search: embeddings -> post-processing -> index -> one ranking per stage.

    workdir/rankings/rankings.json               the stages in the order they were made
    workdir/rankings/<model>/<stage>/            a Ranking; the first stage is "cosine", each further one is named after
                                                 its step
    workdir/rankings/<model>/whitening_*.npz     what whitening fitted, for use from Python
    workdir/rankings/<model>/chosen_steps.json   which steps "chosen" stands for, and the table of what was tried
    workdir/rankings/ensemble/fusion.json        the weights of a fusion, and how they were chosen
    workdir/rankings/<model>/quality.json, .txt  the last stage "quality": its weight, how it was chosen, and its trees

The steps of `config.search.steps` are cumulative. They apply to the trained model, or the public weights
("pretrained"); "histogram" and "untrained" are baselines and get the plain cosine only. "colour_and_edges" has a step
of its own, "whitening_by_parts".

`config.search.query_from` and `gallery_from` take the two sides of "trained" from different runs, checkpoints or
predict functions (`workdir.sides`): text against pictures, or a small network for queries against a large one. Two
sides that do not share a space are refused.

With `config.search.members` (names of work directories beside this one) the trained embeddings of each member go
through the steps before "ensemble" or "fusion" on their own, as a model of the member's name; that step joins them, and
what follows ranks by the ensemble, as a model of that name. Members may hold the same listings in another order: they
are read in the order of the first. `config.search.join` names models of this run (of the first member's, where there
are members) that are joined in the same way: ("trained", "colour_and_edges").

"lexical" among `config.embed.models` is BM25 over texts (`index.lexical`, config.search.lexical): a ranking without
vectors, the stage "bm25". Named in `config.search.join`, it is fused with the others by "fusion", which is then the
last step. With weights "chosen", fusion reads the ground truth of the selection half of the queries, and no other;
so does "quality", which learns from the clicks after these queries (docs/clicked_search.md).

The index "attribute" has conditions on attributes; `config.search.index_kwargs.fields` names columns of the catalogue's
gallery ("category" for its categories), or a folder of fields; `conditions_column` a column of the queries with the
conditions of each, and `words_column` one whose words may name them, such as "-striped" (docs/attributes_search.md).

With `config.search.categories.mass` above 0, that index prefers the categories that a query's picture probably shows
(`postprocess.category_fusion`): workdir/rankings/categories.json and category_classifier.npz have what was fitted.

A search over a million listings takes minutes. `config.search.stages` names the stages to rank where not all are
wanted: the steps of the others are applied without a search. Vectors that a step changes are computed when the search
reads them (embeddings.Embeddings.map), not copied. Where `config.search.index_kwargs` names a folder to keep the index
in, the index of each searched stage lies in <folder>/<model>/<stage>.

Longer than 400 lines: whatever the stages read is loaded and checked in one place, before the first of them.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("search")

import dataclasses
import functools
import pathlib
import time
import warnings
from collections.abc import Callable

from retrieval_jax import index, pairs, paths, terms
from retrieval_jax import workdir as work_directory
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.embeddings import Embeddings, Ids, evidence
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.postprocess import State, category_fusion, ensemble, linear_classifier, quality, walk
from retrieval_jax.postprocess.walk import FIRST, JOINS, OWN_STEPS, Step
from retrieval_jax.scoring import metrics, ranking
from retrieval_jax.scoring.ranking import Ranking, Truth
from retrieval_jax.workdir import checks, preflight, sides

ADDS_LISTINGS = ("global_reranking",)  # steps whose results were not all found by the index; "chosen" has none of them
# Of the index "attribute": text columns of the queries with conditions of each, and the argument that they give.
COLUMNS = {"conditions_column": "conditions_of", "words_column": "words_of"}
ASKS = {"conditions", "conditions_of", "words_of"}  # arguments of the index "attribute" with a user's own conditions
LEXICAL, BM25 = "lexical", "bm25"  # the model and its stage: a ranking without vectors
NETWORKS = (sides.MODEL, "pretrained")  # the models that the steps apply to


def load_sides(folder: pathlib.Path, folders: dict[str, str], command: str, names=None) -> tuple[Embeddings, ...]:
    """Returns the embeddings of queries and gallery.

    Args:
      folder: the work directory.
      folders: {"query", "gallery": name of the folder below <workdir>/embeddings}.
      command: the command that makes the embeddings, for the message.
      names: {"query", "gallery": what the side is}, for the message; by default its folder.

    Raises:
      InputError: they are missing, or the two sides cannot be compared: unequal meta["space"] or dimensions.
    """
    found = []
    for split in sides.SPLITS:
        path = folder / "embeddings" / folders[split] / split
        if not (path / "embeddings.json").exists():
            raise InputError(f"no embeddings in {path}: make them first with `{command}`")
        found.append(Embeddings.load(path, verify=True))  # a second per gigabyte, before a search that takes longer
    queries, gallery = found
    if queries.meta.get("space") != gallery.meta.get("space") or queries.dim != gallery.dim:
        names = names or {split: folder / "embeddings" / folders[split] / split for split in sides.SPLITS}
        said = [
            f"the {what} ({names[split]}) in the space {side.meta.get('space')!r} with {side.dim} dimensions"
            for split, what, side in zip(sides.SPLITS, ("queries", "gallery"), found, strict=True)
        ]
        raise InputError(
            f"{folder}: two sides of a search must share a space; here are {said[0]}, and {said[1]}: embed both with "
            "one checkpoint, or change config.search.query_from and gallery_from"
        )
    return queries, gallery


def _trained(folder: pathlib.Path, config, command: str) -> tuple[Embeddings, ...]:
    """Returns the two sides of "trained" in a work directory, as its config chooses them."""
    chosen = sides.of(config)
    names = None if set(chosen.values()) == {sides.Side()} else {split: str(side) for split, side in chosen.items()}
    return load_sides(folder, {split: side.folder for split, side in chosen.items()}, command, names)


def _evidence(folder: pathlib.Path, config, model: str, gallery: Embeddings) -> evidence.Evidence:
    """Returns what embed left to choose the steps of a model by; nothing where its vectors are of another space."""
    names = {side.folder for side in sides.of(config).values()} if model == sides.MODEL else {model}
    found = evidence.load(folder / "embeddings" / names.pop() / evidence.FOLDER) if len(names) == 1 else None
    parts = () if found is None else (found.train, found.altered)
    fits = all(part is None or part.meta.get("space") == gallery.meta.get("space") for part in parts)
    return found if found is not None and fits else evidence.Evidence()


def _catalogue(config) -> Catalog:
    from retrieval_jax.data import loading  # here: other searches need no catalogue

    return loading.load(config.data)


def _index_kwargs(config, catalogue: Callable[[], Catalog], gallery: Embeddings) -> dict:
    """Returns the arguments of the index, with the gallery's attributes in the place of the names of their columns."""
    kwargs = dict(config.search.index_kwargs)
    for setting, argument in COLUMNS.items():
        if config.search.index == "attribute" and (column := kwargs.pop(setting, "")):
            kwargs[argument] = _texts_of(catalogue().split("query"), column, setting)
    if config.search.index == "attribute" and isinstance(kwargs.get("fields"), (tuple, list)):
        from retrieval_jax.data import fields
        from retrieval_jax.index import attribute

        found = fields.of_split(catalogue().split("gallery"), kwargs["fields"], ids=gallery.ids)
        kwargs["fields"] = attribute.build(found, len(gallery))  # once for all stages
    return kwargs


def _texts_of(queries: Split, column: str, setting: str) -> dict[str, str]:
    """Returns the texts of the queries that have some, {id: JSON of conditions, or words}."""
    texts = queries.column(column)
    if not all(isinstance(text, str) for text in texts):
        holds = {
            "conditions_column": 'JSON such as {"excluded": [{"field": "pattern", "values": ["striped"]}]}, or ""',
            "words_column": 'words such as "the same -striped"',
        }
        raise InputError(
            f"config.search.index_kwargs.{setting}: the column {column!r} of the queries is not text; it holds "
            f"{holds[setting]}"
        )
    return {query: text for query, text in zip(queries.ids, texts, strict=True) if text.strip()}


def _likely(
    config, folder: pathlib.Path, catalog: Catalog, queries: dict[str, Embeddings], kwargs: dict
) -> tuple[dict, Callable]:
    """Returns the index's arguments, now preferring the likely categories of each query, and what saves the fit."""
    from retrieval_jax.data import known_categories
    from retrieval_jax.index import attribute

    settings, table = config.search.categories, kwargs["fields"]
    if isinstance(table, attribute.Table):
        level, names = catalog.train.category_levels[-1], catalog.train.category_names[-1]
    if not isinstance(table, attribute.Table) or level not in table.fields:
        raise InputError(
            f"config.search.index_kwargs.fields is {config.search.index_kwargs.fields!r}, and config.search.categories "
            f"needs the finest category level among them: add {catalog.train.category_levels[-1]!r}"
        )
    own, known, labels = queries[sides.MODEL], {}, {}
    for model in dict.fromkeys((sides.MODEL, settings.vote)):
        for name in ("train", "val"):
            side = sides.of(config)["query"].folder if model == sides.MODEL else model
            path = folder / "embeddings" / side / name
            if not (path / "embeddings.json").exists():
                command = paths.command("embed", "--config=...", f"--workdir={folder}")
                raise InputError(f"no embeddings in {path}: make them first with `{command}`")
            known[model, name] = Embeddings.load(path, verify=True)
            labels[model, name] = known_categories.of(catalog.split(name), known[model, name].ids)
    train, val = ((sides.MODEL, name) for name in ("train", "val"))
    classifier = linear_classifier.fit(known[train], labels[train], len(names))
    voters = settings.vote, "train"
    reference = category_fusion.Reference(known[voters], labels[voters], len(names))
    near = [reference.neighbours(side, settings.k) for side in (known[settings.vote, "val"], queries[settings.vote])]
    weights, fit = category_fusion.fit(classifier.logits(known[val]), near[0], labels[val], ks=(settings.k,))
    chances = category_fusion.fused(classifier.logits(own), near[1], weights)
    found = category_fusion.conditions(chances, names, level, settings.mass, table.values()[level])
    asked = kwargs.get("conditions_of") or {}
    conditions = asked | {
        query: attribute.both(attribute.parse(asked.get(query)), attribute.parse(likely), f"query {query}")
        for query, likely in zip(own.ids, found, strict=True)
    }
    print(
        f"search: categories of {fit['listings']:,} val listings: {100 * fit['accuracy']:.1f} % are right, with a "
        f"share of {weights.share:g} for the vote of {weights.k} neighbours; a query prefers "
        f"{category_fusion.top(chances, settings.mass).sum(1).mean():.1f} categories on average"
    )

    def save(rankings: pathlib.Path) -> None:
        classifier.save(rankings / "category_classifier.npz")
        fitted = {
            "level": level,
            "vote": settings.vote,
            "categories": list(names),
            "weights": dataclasses.asdict(weights),
            "val": fit,
        }
        atomic.write_json(rankings / "categories.json", fitted)

    return {**kwargs, "conditions_of": conditions}, save


def _check_categories(config) -> None:
    """Raises an InputError where likely categories are preferred by a search that cannot prefer any."""
    if not sides.wants_categories(config):
        return
    where = "config.search.categories.mass is set"
    if config.search.index != "attribute":
        raise InputError(
            f"{where}, and config.search.index is {config.search.index!r}: set it to 'attribute', with the finest "
            "category level among index_kwargs.fields"
        )
    if work_directory.members(config):
        raise InputError(f"{where}, and config.search.members too, which have spaces of their own: remove one of them")
    if sides.regions(config).run and "query" in config.embed.regions.splits:
        raise InputError(
            f"{where}, and config.embed.regions crops the queries, but not the listings that categories are learned "
            "from: set mass = 0, or leave 'query' out of embed.regions.splits"
        )
    for model in (sides.MODEL, config.search.categories.vote):
        if model not in config.embed.models or model == LEXICAL:
            near = pairs.near(model, config.embed.models)
            raise InputError(f"{where}, and config.embed.models has no vectors of {model!r}{near}: add it there")


def _check_attribute(kwargs, steps: list[Step]) -> None:
    """Raises an InputError for settings of the index "attribute" that no search could keep to."""
    from retrieval_jax.index import attribute

    where = "config.search.index_kwargs"
    if not kwargs.get("fields"):
        raise InputError(
            f"{where}: the index 'attribute' needs fields: name columns of the catalogue, such as ('colour', 'price'), "
            "or a folder that `save` wrote"
        )
    attribute.parse(kwargs.get("conditions"), f"{where}.conditions")
    for setting in COLUMNS:
        if not isinstance(kwargs.get(setting, ""), str):
            raise InputError(f"{where}.{setting} is {kwargs[setting]!r}: name a text column of the queries")
    if adding := [step.name for step in steps if step.name in ADDS_LISTINGS]:
        raise InputError(
            f"config.search.steps has {adding[0]!r}, which finds listings on its own, whether or not they meet the "
            "conditions of the index 'attribute': use 'reranking', which reorders what the index found"
        )


def _lexical(config, catalog: Catalog, query: Ids, gallery: Ids) -> Ranking:
    """Returns the BM25 ranking of the catalogue's texts, queries and gallery in the order of some ids."""
    from retrieval_jax.data import listing_texts
    from retrieval_jax.index import lexical

    settings = dict(config.search.get("lexical") or {})
    names = {"query": (settings.pop("query", "query"),), "gallery": settings.pop("columns", ("title",))}
    texts = {}
    for split, ids in (("query", query), ("gallery", gallery)):
        setting = f"config.search.lexical.{'query' if split == 'query' else 'columns'}"
        if not names[split]:
            raise InputError(f"{setting} is empty: name a text column of the {split} split, such as 'title'")
        own = catalog.split(split)
        rows, found = own.rows(ids), listing_texts.of(own, names[split], setting)
        texts[split] = [found[row] for row in rows]
        if split == "query" and names[split] != ("title",):  # BM25 would find what "-striped" excludes
            texts[split] = [terms.spoken(text) for text in texts[split]]
    return lexical.Index(texts["gallery"], gallery, **settings).search(texts["query"], config.search.k, query)


def _judged(config, catalog: Catalog, query: Ids, gallery: Ids) -> Truth | None:
    """Returns the truth, without that of queries outside the selection half; None for a catalogue without truth."""
    truth = catalog.truth
    if truth is None:
        return None
    share = (config.get("evaluate") or {}).get("selection_share", 0.5)
    return truth.moved(query, gallery, metrics.selection_half(truth.query_ids, share))


def _numbers(steps: list[Step]) -> list[str] | None:
    """Returns the columns that the step "quality" reads; None without it."""
    found = [quality.checked(step.kwargs.get("columns", quality.COLUMNS)) for step in steps if step.name == "quality"]
    return list(dict.fromkeys(name for names in found for name in names)) if found else None


def _quality(config, catalog: Catalog, query: Ids, gallery: Ids, names: list[str]) -> dict:
    """Returns what the step "quality" reads of a `State`: numbers of the gallery, and clicks of the selection half."""
    from retrieval_jax.data import listing_quality

    share = (config.get("evaluate") or {}).get("selection_share", 0.5)
    clicked = listing_quality.clicked(catalog, metrics.selection_half(catalog.query.ids, share))
    listed = listing_quality.of_split(catalog.gallery, names, gallery)
    return {"clicked": clicked.moved(query, gallery), "listed": listed}


def check(config, workdir) -> None:
    """Raises an InputError for names and arguments of config.search that do not exist; writes nothing.

    Args:
      config: the whole config.
      workdir: where its catalogue may not have been read yet.
    """
    checks.check(config)
    steps = walk.parse(config.search.steps)
    walk.chosen(config.search.get("stages", ()), steps)
    taken = pairs.arguments(index.get(config.search.index).Index, skip=2)
    if config.search.index == "attribute":  # what queries ask for is read from the catalogue
        taken = [*(name for name in taken if name not in COLUMNS.values()), *COLUMNS]
    pairs.check_arguments(config.search.index, config.search.index_kwargs, taken, "config.search.index_kwargs", "index")
    if config.search.index == "attribute":
        _check_attribute(config.search.index_kwargs, steps)
    _check_categories(config)
    chosen = set(sides.of(config).values())
    names, joined = work_directory.members(config), tuple(config.search.get("join", ()))
    if (names or joined) and not any(step.name in JOINS for step in steps):
        setting, count = ("members", len(names)) if names else ("join", len(joined))
        raise InputError(
            f"search.{setting} names {count} members, but search.steps has no 'ensemble' (or 'fusion') to join "
            "them: add one"
        )
    if names and sides.MODEL in joined:
        raise InputError("config.search.join has 'trained', which every one of config.search.members is: remove it")
    if joined and not names:
        for model in joined:
            if model not in config.embed.models:
                near = pairs.near(model, config.embed.models)
                raise InputError(
                    f"config.search.join has {model!r}, and config.embed.models has not{near}: add it there, or remove "
                    "it here"
                )
        if len(joined) < 2:
            raise InputError(f"config.search.join is {joined}: give at least two models, or () to join none")
    _check_lexical(config, steps, joined)
    if (numbers := _numbers(steps)) is not None:
        from retrieval_jax.data import listing_quality

        quality.library()
        if (catalog := preflight.catalogue(config, workdir, *sides.SPLITS)) is not None:
            listing_quality.check(catalog, numbers)
    if chosen != {sides.Side()} and sides.MODEL not in config.embed.models:
        raise InputError(
            "config.search.query_from and gallery_from choose the sides of 'trained', and config.embed.models has "
            f"{', '.join(config.embed.models)}: add 'trained'"
        )


def _check_lexical(config, steps: list[Step], joined: tuple[str, ...]) -> None:
    """Raises an InputError where lexical search, which has no vectors, cannot do what is wanted."""
    there = LEXICAL in joined or LEXICAL in ((config.get("embed") or {}).get("models") or ())
    if there and config.search.index == "attribute":
        raise InputError(
            "config.search.index is 'attribute', and 'lexical' does not keep to its conditions: remove one of them"
        )
    joins = [step.name for step in steps if step.name in JOINS]
    if LEXICAL in joined and (joins != ["fusion"] or steps[-1].name != "fusion"):
        raise InputError(
            "config.search.join has 'lexical', which has a ranking and no vectors: let search.steps end with "
            "('fusion', {'method': 'min_max', 'weights': 'chosen'})"
        )
    if set(joined) == {LEXICAL}:
        raise InputError("config.search.join has 'lexical' alone: name a model with vectors beside it")


def run(config, workdir) -> dict:
    """Ranks the gallery for every query and writes workdir/rankings, whole or not at all.

    Args:
      config: the search block (k, steps, stages, query_from, gallery_from, members, join, index, index_kwargs) and
        embed.models.
      workdir: the work directory, with embeddings (or its members beside it).

    Returns:
      Summary: queries, gallery, k, and for each stage model, name, step and seconds (since the stage before it,
      including the steps in between).

    Raises:
      InputError: missing or unfitting embeddings, or steps that cannot be done.
    """
    check(config, workdir)
    workdir = pathlib.Path(workdir)
    k = config.search.k
    steps = walk.parse(config.search.steps)
    wanted = walk.chosen(config.search.get("stages", ()), steps)
    make_index = index.get(config.search.index).Index
    member_names, join = work_directory.members(config), tuple(config.search.get("join", ()))
    joins = next((i for i, step in enumerate(steps) if step.name in JOINS), len(steps))

    # Everything is loaded before the first search, so that whatever is missing is reported at once.
    catalogue = functools.cache(functools.partial(_catalogue, config))  # once, and only where something reads it
    sources, known = [], {}  # (model, (queries, gallery)); {model: its evidence}
    reads = any(step.name == walk.CHOSEN or step.kwargs.get("fit_on") == "train" for step in steps)
    for name in member_names:
        folder = work_directory.member_folder(workdir, name)
        command = paths.command("run", f"--config={name}", f"--workdir={folder}")
        own = work_directory.read_config(folder) if (folder / "config.json").exists() else {}
        sources.append((folder.name, _trained(folder, own, command)))
        if reads:
            known[folder.name] = _evidence(folder, own, sides.MODEL, sources[-1][1][1])
    for model in [name for name in join if name != LEXICAL] if member_names else ():
        folder = work_directory.member_folder(workdir, member_names[0])
        command = paths.command("embed", f"--config={member_names[0]}", f"--workdir={folder}")
        sources.append((model, load_sides(folder, dict.fromkeys(sides.SPLITS, model), command)))
    for model in () if member_names else [name for name in config.embed.models if name != LEXICAL]:
        command = paths.command("embed", "--config=...", f"--workdir={workdir}")
        if model == sides.MODEL:
            sources.append((model, _trained(workdir, config, command)))
        else:
            sources.append((model, load_sides(workdir, dict.fromkeys(sides.SPLITS, model), command)))
        if reads and model in NETWORKS:
            known[model] = _evidence(workdir, config, model, sources[-1][1][1])
    models = tuple(model for model, _ in sources)
    baselines = {*(join if member_names else models)} - {*NETWORKS, LEXICAL}
    aligned = [
        ensemble.align([both[side] for _, both in sources], [f"{model} ({split})" for model in models])
        for side, split in enumerate(sides.SPLITS if sources else ())
    ]
    sources = list(zip(models, zip(*aligned, strict=True), strict=True))
    if sources:
        ids = {split: side.ids for split, side in zip(sides.SPLITS, sources[0][1], strict=True)}
    else:  # nothing but lexical
        ids = {split: Ids.of(catalogue().split(split).ids) for split in sides.SPLITS}
    index_kwargs = _index_kwargs(config, catalogue, sources[0][1][1]) if sources else {}
    save, preferring = None, index_kwargs
    if sides.wants_categories(config):
        queries = {model: both[0] for model, both in sources}
        preferring, save = _likely(config, workdir, catalogue(), queries, index_kwargs)
    # A likely category with fewer than k listings is nothing that the user asked for.
    quiet = preferring is not index_kwargs and not ASKS & index_kwargs.keys()
    chooses = any(step.name == "fusion" and step.kwargs.get("weights") == "chosen" for step in steps)
    numbers = _numbers(steps)
    about = {"judged": _judged(config, catalogue(), **ids) if chooses or numbers is not None else None}
    if numbers is not None:
        about |= _quality(config, catalogue(), **ids, names=numbers)
    stages = []

    def fill(folder: pathlib.Path) -> None:
        def walked(model: str, state: State, steps: list[Step], wanted: set[str]) -> State:
            def rank(state: State, stage: str) -> Ranking:
                # The trained vectors predict the categories: what they are compared with does without.
                kwargs = preferring if model in (sides.MODEL, "ensemble") else index_kwargs
                queries, gallery = state.members[0]
                if kwargs.get("folder"):  # every stage searches other vectors, so each keeps an index of its own
                    kwargs = {**kwargs, "folder": str(paths.expanded(kwargs["folder"]) / model / stage)}
                with warnings.catch_warnings():
                    if quiet:
                        warnings.filterwarnings("ignore", "conditions of")
                    return make_index(gallery, **kwargs).search(queries, k)

            start, last = time.monotonic(), state
            for step, last in walk.walk(state, steps, rank, wanted):
                if step.stage in wanted:
                    entry = {"model": model, "stage": step.stage, "step": step.name}
                    entry["kwargs"] = work_directory.plain(step.kwargs)
                    last.ranking.save(folder / model / step.stage, **entry)
                    stages.append({**entry, "seconds": round(time.monotonic() - start, 3)})
                    start = time.monotonic()
            return last

        if save is not None:
            save(folder)
        finished, beside = {}, ()
        if LEXICAL in (join if member_names else config.embed.models):
            start, found = time.monotonic(), _lexical(config, catalogue(), **ids)
            kwargs = work_directory.plain(config.search.get("lexical") or {})
            entry = {"model": LEXICAL, "stage": BM25, "step": None, "kwargs": kwargs}
            found.save(folder / LEXICAL / BM25, **entry)
            stages.append({**entry, "seconds": round(time.monotonic() - start, 3)})
            beside = ((LEXICAL, found),) if LEXICAL in join else ()
        for model, both in sources:
            (folder / model).mkdir()
            found = (known[model],) if model in known else ()
            state = State([tuple(both)], None, (model,), folder / model, evidence=found, **about)
            if model in baselines:  # to compare with, or to join: steps of their own
                own = OWN_STEPS.get(model, (FIRST,))
                finished[model] = walked(model, state, own, {step.stage for step in own})
            else:  # members go as far as the step that joins them
                own = steps[:joins] if join or member_names else steps
                finished[model] = walked(model, state, [FIRST, *own], wanted)
        joined = [finished[model] for model in (models if member_names else join) if model != LEXICAL]
        if joined:
            (folder / "ensemble").mkdir()
            rankings = tuple(state.ranking for state in joined if state.ranking is not None)
            members, names = [state.members[0] for state in joined], tuple(state.names[0] for state in joined)
            state = State(members, None, names, folder / "ensemble", rankings, beside=beside, **about)
            walked("ensemble", state, steps[joins:], wanted)
        atomic.write_json(folder / "rankings.json", {"stages": stages})

    ranking.replace_all(workdir / "rankings", fill)
    for stage in stages:
        print(f"search: {stage['model']:>10} {stage['stage']:<12} {stage['seconds']:8.2f} s")
    return {"queries": len(ids["query"]), "gallery": len(ids["gallery"]), "k": k, "stages": stages}
