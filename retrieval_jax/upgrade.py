"""Upgrades a gallery to a new model without embedding all of it again: fits an adapter on a sample of its listings.

    python -m retrieval_jax.upgrade runs/old --to runs/new --out runs/adapter
    python -m retrieval_jax.run --config=... --workdir=runs/new --config.search.gallery_from.run=runs/old \
        --config.search.gallery_from.adapter=runs/adapter
    python -m retrieval_jax.compare runs/new --against runs/old

Both runs are finished trainings on one catalogue, and the old one has embedded its gallery. The new model embeds
`--rows` of its listings again; where it has embedded them before, for an earlier adapter of that folder or as its own
gallery, these vectors are taken. The adapter (`embeddings.adapters`) maps what the old model has embedded to what the
new one would make of it, and the listings that were embedded again keep their new vectors. More rows cost more
pictures and lose less; all of them are a gallery that is embedded again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("upgrade")

import pathlib

import numpy as np

from retrieval_jax import inference, paths, workdir
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings, Ids, adapters
from retrieval_jax.errors import InputError
from retrieval_jax.training import adapters as fitting
from retrieval_jax.workdir import sides


def run(old, new, out, *, kind: str = "linear", rows: int = 2000, seed: int = 0) -> adapters.Adapter:
    """Fits an adapter from the space of one run to that of another, and writes it.

    Args:
      old: work directory of the run that has embedded the gallery.
      new: work directory of the run whose space it is to be searched in.
      out: folder of the adapter; one that is there gives the vectors that it has, and is replaced.
      kind: "linear" or "residual".
      rows: listings of the gallery to embed again; a larger number has those of a smaller one among them.
      seed: of the choice of listings, and of the fit.

    Returns:
      The `embeddings.adapters.Adapter`.

    Raises:
      InputError: the old run has embedded no gallery, the new one has no network, or their catalogues share too few
        listings.
    """
    old, new, out = pathlib.Path(old), pathlib.Path(new), pathlib.Path(out)
    before = gallery_of(old)
    if before is None:
        raise InputError(f"{old} has embedded no gallery: run `{paths.command('embed', f'--workdir={old}')}` first")
    model = inference.load(new)
    split = loading.load(model.config.data).gallery
    known, places, _ = adapters.common(before.ids, Ids.of(split.ids))
    if len(known) < fitting.LEAST:
        raise InputError(
            f"{old} and the catalogue of {new} share {len(known):,} listings of their galleries: give two runs of one "
            "catalogue"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(known))[: max(rows, fitting.LEAST)])
    sample = before.take(places[chosen])
    vectors, space, embedded = _renewed(model, new, out, split, sample.ids)
    if space == before.meta.get("space"):
        raise InputError(f"{old} and {new} embed into one space already: no adapter is needed")
    weights, length, scale, facts = fitting.fit(
        np.asarray(sample.vectors[:], np.float32), vectors, kind=kind, seed=seed
    )
    facts |= {"gallery": len(before), "old": str(old), "new": str(new), "seed": seed}
    renewed = Embeddings(sample.ids, vectors, {"space": space})
    adapter = adapters.Adapter(kind, before.meta["space"], space, weights, length, scale, renewed, facts)
    adapter.save(out)
    print(adapter.sentence())
    print(f"upgrade: {embedded:,} of them were embedded now; wrote {out}")
    return adapter


def gallery_of(folder: pathlib.Path) -> Embeddings | None:
    """Returns the gallery that a run has embedded, None where it has none.

    Args:
      folder: the work directory.
    """
    there = folder / "embeddings" / sides.of(workdir.read_config(folder))["gallery"].folder / "gallery"
    return Embeddings.load(there) if (there / "embeddings.json").exists() else None


def _renewed(model, new, out, split, ids) -> tuple[np.ndarray, str, int]:
    """Returns the new model's vectors of listings, their space, and how many had to be embedded for it."""
    config, name = model.config, model.config.embed.predict_fn
    function = inference.named(model.task.predict_fns, name)
    space = model.data_info.target_space or model.space
    found, there = None, np.zeros(len(ids), bool)
    earlier = adapters.Adapter.load(out).renewed if (out / "adapter.json").exists() else None
    for source in (gallery_of(new), earlier):
        if source is not None and source.meta.get("space") == space:
            found = np.zeros((len(ids), source.dim), np.float32) if found is None else found
            _, rows, others = adapters.common(ids, source.ids)
            found[rows], there[rows] = source.vectors[others], True
    missing = np.flatnonzero(~there)
    if len(missing):
        _, _, places = adapters.common(ids, Ids.of(split.ids))
        columns = inference.columns(function, split, config, new, f"the predict function {name!r}")
        arguments = {"views": config.embed.get("views", ()), **inference.test_arguments(config)}
        made = inference.predict(
            function, model.params, columns, rows=places[missing], mesh=model.mesh, desc="upgrade", **arguments
        )
        found = np.zeros((len(ids), made["embedding"].shape[1]), np.float32) if found is None else found
        found[missing], space = made["embedding"], made.get("space", model.space)
    return found, space, len(missing)


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    run(given.old, given.to, given.out, kind=given.kind, rows=given.rows, seed=given.seed)
