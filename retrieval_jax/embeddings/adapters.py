"""Adapters: small maps from the space of an old model to that of a new one, applied to vectors when they are read.

    folder/adapter.json    kind, the two spaces, what it was fitted on, checksums
    folder/weights.npz     its arrays
    folder/renewed/        the listings that were embedded again to fit it: an upgraded gallery has their new vectors

A gallery that an old model has embedded is so searched in the new model's space before any other of its pictures is
embedded again. `training.adapters` fits them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Literal, TypedDict

import numpy as np

from retrieval_jax import arguments, brief
from retrieval_jax.embeddings.folder import Embeddings, computed
from retrieval_jax.embeddings.ids import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents
from retrieval_jax.files.arrays import file_sha256, load_npz

FORMAT = 1
RENEWED = "renewed"
# Of a linear map: unit vectors less "centre", times "kernel", plus "bias", is the expected new unit vector; a residual
# one adds a perceptron of the same input. No vector of the new model lies in the direction "aside".
_ARRAYS = {"centre": 1, "kernel": 2, "bias": 1, "aside": 1}
_RESIDUAL = {"hidden_kernel": 2, "hidden_bias": 1, "out_kernel": 2}
KINDS = {"linear": _ARRAYS, "residual": {**_ARRAYS, **_RESIDUAL}}


class _Info(TypedDict):
    """adapter.json."""

    format: int
    kind: Literal["linear", "residual"]
    source: str
    target: str
    length: float
    scale: float
    weights_sha256: documents.Sha256
    renewed_sha256: str
    facts: dict


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    """A map from the space of an old model to that of a new one.

    Attributes:
      kind: "linear" or "residual".
      source: name of the old space.
      target: name of the new space.
      weights: {name: float32 array}, see KINDS.
      length: mean length of the new model's vectors, which all that it makes have at most.
      scale: what cosines of adapted vectors are multiplied with, above 0, at most 1. An expected vector leaves out what
        cannot be known, so it is nearer to queries than the new vector, and adapted listings would be found before new
        ones. The rest of the length goes aside, where it changes no other cosine.
      renewed: listings with their new vectors, which take the place of adapted ones; None for none.
      facts: what it was fitted on and how well, JSON-able.
    """

    kind: str
    source: str
    target: str
    weights: dict[str, np.ndarray]
    length: float = 1.0
    scale: float = 1.0
    renewed: Embeddings | None = None
    facts: dict = dataclasses.field(default_factory=dict)

    __repr__ = brief.line

    @property
    def dim(self) -> int:
        """Number of dimensions of the new space."""
        return len(self.weights["bias"])

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Maps vectors of the old model, float32 [n, D], to [n, new D]; each row from its own row alone.

        Args:
          vectors: [n, D].

        Raises:
          InputError: vectors of other dimensions.
        """
        kernel = self.weights["kernel"]
        vectors = arguments.array(vectors, "vectors", "an adapter", ("n", len(kernel)))
        found = self.scale * unit(expected(self.weights, unit(vectors)))
        return self.length * (found + np.float32((1 - self.scale**2) ** 0.5) * self.weights["aside"])

    def upgraded(self, old: Embeddings) -> Embeddings:
        """Returns a gallery in the new space: the renewed listings as they are, the others adapted when they are read.

        Args:
          old: embedded by the old model.

        Raises:
          InputError: they are not of the adapter's space.
        """
        if old.meta.get("space") != self.source:
            raise InputError(
                f"the adapter maps vectors of the space {self.source!r} to {self.target!r}, and these are of "
                f"{old.meta.get('space')!r}: run `retrieval-jax upgrade` for the model that made them"
            )
        place = np.full(len(old), -1, np.int64)
        if self.renewed is not None:
            rows = {name: row for row, name in enumerate(self.renewed.ids)}
            place = np.array([rows.get(name, -1) for name in old.ids], np.int64)
        before, new = old.vectors, self.renewed

        def read(key):
            at = place[key]
            found, stale = np.empty((len(at), self.dim), np.float32), at < 0
            if stale.any():
                found[stale] = self(np.asarray(before[key], np.float32)[stale])
            if not stale.all():
                found[~stale] = new.vectors[at[~stale]]
            return found

        upgrade = {"adapted": int((place < 0).sum()), "renewed": int((place >= 0).sum())}
        meta = {**old.meta, "space": self.target, "upgraded": upgrade}
        return computed(old.ids, read, self.dim, meta)

    def sentence(self) -> str:
        """Returns what an upgrade of a gallery costs and how near it comes, in words."""
        fitted, gallery = self.facts["fitted_on"], self.facts["gallery"]
        return (
            f"upgrade: {fitted:,} of {gallery:,} listings embedded again ({100 * fitted / gallery:.0f} %), the others "
            f"mapped ({self.kind}); held-out listings have a cosine of {self.facts['cosine']:.3f} with their new "
            "vectors"
        )

    def save(self, folder: str | os.PathLike) -> pathlib.Path:
        """Writes the adapter; its description, adapter.json, last.

        Args:
          folder: created where missing.
        """
        folder, name = pathlib.Path(folder), ""
        folder.mkdir(parents=True, exist_ok=True)
        if self.renewed is not None:
            self.renewed.save(folder / RENEWED)
            name = Embeddings.load(folder / RENEWED).meta["vectors_sha256"]
        atomic.write_npz(folder / "weights.npz", **{key: self.weights[key] for key in KINDS[self.kind]})
        info = {
            "format": FORMAT,
            "kind": self.kind,
            "source": self.source,
            "target": self.target,
            "length": self.length,
            "scale": self.scale,
            "weights_sha256": file_sha256(folder / "weights.npz"),
            "renewed_sha256": name,
            "facts": self.facts,
        }
        atomic.write_text(folder / "adapter.json", json.dumps(info, indent=1))
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Adapter:
        """Returns the adapter of a folder; the vectors of renewed listings stay on disk.

        Args:
          folder: that `save` wrote.

        Raises:
          InputError: a file that is missing, damaged or of another version of the adapter.
        """
        folder, remedy = pathlib.Path(folder), "run `retrieval-jax upgrade` again"
        file = folder / "adapter.json"
        info = documents.read(file, _Info, remedy=remedy, missing="run `retrieval-jax upgrade` first")
        if info["format"] != FORMAT:
            raise InputError(f"{file} has format {info['format']}, this version reads {FORMAT}: {remedy}")
        weights = load_npz(
            folder / "weights.npz",
            {name: (("float32",), ndim) for name, ndim in KINDS[info["kind"]].items()},
            remedy=remedy,
        )
        renewed = Embeddings.load(folder / RENEWED) if info["renewed_sha256"] else None
        if file_sha256(folder / "weights.npz") != info["weights_sha256"] or (
            renewed is not None and renewed.meta["vectors_sha256"] != info["renewed_sha256"]
        ):
            raise InputError(f"the files of {folder} are not of one adapter: {remedy}")
        fits(weights, folder, remedy)
        return cls(
            info["kind"],
            info["source"],
            info["target"],
            weights,
            float(info["length"]),
            float(info["scale"]),
            renewed,
            info["facts"],
        )


def fits(weights: dict[str, np.ndarray], name, remedy: str) -> None:
    """Raises InputError unless the shapes of an adapter's arrays belong together.

    Args:
      weights: see KINDS.
      name: of the adapter, for the message.
      remedy: what to do.
    """
    source, target = weights["kernel"].shape
    wanted = {"centre": (source,), "bias": (target,), "aside": (target,)}
    if "hidden_kernel" in weights:
        width = weights["hidden_kernel"].shape[1]
        wanted |= {"hidden_kernel": (source, width), "hidden_bias": (width,), "out_kernel": (width, target)}
    for part, shape in wanted.items():
        if weights[part].shape != shape:
            raise InputError(f"{name}: {part} has the shape {weights[part].shape}, expected {shape}: {remedy}")


def expected(weights: dict[str, np.ndarray], vectors: np.ndarray) -> np.ndarray:
    """Returns the expected new unit vectors, float32 [n, new D], shorter than 1 where they are uncertain.

    Args:
      weights: see KINDS.
      vectors: [n, D] unit vectors of the old model.
    """
    inputs = np.asarray(vectors, np.float32) - weights["centre"]
    found = inputs @ weights["kernel"] + weights["bias"]
    if "hidden_kernel" in weights:
        hidden = inputs @ weights["hidden_kernel"] + weights["hidden_bias"]
        found += np.maximum(hidden, 0.0) @ weights["out_kernel"]
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors [n, D] divided by their lengths; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def common(one: Ids, other: Ids) -> tuple[Ids, np.ndarray, np.ndarray]:
    """Returns the ids that are in both, in the order of the first, and their rows in each.

    Args:
      one, other: ids.
    """
    places = {name: row for row, name in enumerate(other)}
    pairs = [(row, places[name]) for row, name in enumerate(one) if name in places]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return Ids.of([one[row] for row in rows[:, 0].tolist()]), rows[:, 0], rows[:, 1]


def write_upgraded(
    adapter: str | os.PathLike, old: str | os.PathLike, ids: Ids, folder: str | os.PathLike, dtype: str, meta: dict
) -> dict[str, int]:
    """Writes a gallery that an old model has embedded as one of the new space, block by block.

    Args:
      adapter: folder of the adapter.
      old: folder of the old model's embeddings.
      ids: of the gallery, in their order.
      folder: where to write.
      dtype: "float32" or "float16".
      meta: provenance beside that of the old embeddings.

    Returns:
      {"adapted", "renewed": listings}.

    Raises:
      InputError: the old model has not embedded exactly these listings, or not in the adapter's space.
    """
    before = Embeddings.load(old)
    known, _, places = common(ids, before.ids)
    if not len(known) == len(ids) == len(before):
        raise InputError(
            f"{old} holds {len(before):,} listings, of which {len(known):,} are among the {len(ids):,} of this "
            "gallery: embed this gallery with the old model first"
        )
    found = Adapter.load(adapter).upgraded(before.take(places))
    Embeddings(ids, found.vectors, {**found.meta, **meta}).save(folder, dtype=dtype)
    return found.meta["upgraded"]
