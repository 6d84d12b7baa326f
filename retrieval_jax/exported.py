"""A servable model: a folder that jax, safetensors and the picture transforms can run, without the training code.

    model = exported.load("served/quickstart")
    vectors = model.embed(["shoe.jpg", "dress.png"])      # float32 [2, D]
    model.predict_attributes(["shoe.jpg"], top=3)         # [[("black", 0.93), ("leather", 0.81), ("running", 0.44)]]

    config.json         what pictures have to look like, outputs, platforms, checksums, and the config of the run
    model.safetensors   the parameters, "backbone/stem/kernel" and so on
    labels.json         names of the attributes and of the categories
    <program>.jax_export  StableHLO of (parameters, uint8 pictures [any number, height, width, 3]) -> {name: array}

Programs age with jax (they are read for six months at least); parameters and config do not.
"""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors.flax
import safetensors.numpy
from jax import export

from retrieval_jax.data.pictures import decoding, transforms
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import file_sha256

FORMAT = 1  # raised when a reader of before could not read it any more
_LARGEST_BATCH = 64


def save(folder, params, programs, labels, about):
    """Writes the files.

    Args:
      folder: empty local folder.
      params: nested dict of arrays.
      programs: {name: `jax.export.Exported` of (params, pictures) -> dict}.
      labels: json-able, for labels.json.
      about: json-able, what config.json says beside programs and checksums: see `retrieval_jax.export`.
    """
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        flat["/".join(str(key.key) for key in path)] = np.asarray(leaf)
    safetensors.flax.save_file(flat, folder / "model.safetensors", metadata={"format": "retrieval_jax"})
    atomic.write_json(folder / "labels.json", labels)
    for name, program in programs.items():
        (folder / f"{name}.jax_export").write_bytes(program.serialize())
    files = sorted(file.name for file in folder.iterdir())
    atomic.write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "programs": {name: f"{name}.jax_export" for name in programs},
            "platforms": sorted(set.intersection(*(set(program.platforms) for program in programs.values()))),
            **about,
            "sha256": {name: file_sha256(folder / name) for name in files},
        },
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that was exported.

    Attributes:
      about: config.json.
      labels: labels.json.
      params: nested dict of arrays on the device.
      programs: {name: compiled function (params, uint8 [B, height, width, 3]) -> {name: [B, ...]}}.
    """

    about: dict
    labels: dict
    params: dict
    programs: dict[str, Any]

    def embed(self, images):
        """Embeds pictures.

        Args:
          images: list of uint8 [h, w, 3] RGB arrays or paths of picture files.

        Returns:
          float32 [n, D].

        Raises:
          InputError: something else than a picture, named by its place in the list.
        """
        return self.run("embed", images)["embedding"]

    def predict_attributes(self, images, top=10):
        """Names the most probable attributes of pictures.

        Args:
          images: as for `embed`.
          top: how many.

        Returns:
          For each picture the list of (token, probability), most probable first.

        Raises:
          InputError: the model predicts no attributes, or something is not a picture.
        """
        probabilities = self.run("attributes", images)["probabilities"]
        ids = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        names = self.labels["label_names"]
        return [[(names[i], float(row[i])) for i in chosen] for chosen, row in zip(ids, probabilities, strict=True)]

    def run(self, program, images):
        """Runs a program over pictures, a batch at a time.

        Args:
          program: "embed", or "attributes" where the model has it.
          images: as for `embed`.

        Returns:
          {name: array [n, ...]}.
        """
        if program not in self.programs:
            there = ", ".join(sorted(self.programs))
            raise InputError(f"the exported model has no program {program!r}; it has {there}")
        size = tuple(self.about["input"]["image_size"])
        prepare = transforms.compose(self.about["input"]["transform"], size)
        batch = min(_LARGEST_BATCH, 1 << max(0, len(images) - 1).bit_length())  # few sizes, few compilations
        found = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            pictures = np.zeros((batch, *size, 3), np.uint8)
            for i, image in enumerate(part):
                pictures[i] = prepare(decoding.picture(start + i, image))
            out = self.programs[program](self.params, pictures)
            found.append({name: np.asarray(value)[: len(part)] for name, value in out.items()})
        if not found:
            raise InputError("give at least one picture")
        return {name: np.concatenate([out[name] for out in found]) for name in found[0]}


def load(folder):
    """Loads what `python -m retrieval_jax.export` wrote.

    Args:
      folder: local folder.

    Returns:
      The `Model`.

    Raises:
      InputError: it is no exported model, is damaged, or this machine cannot run it.
    """
    folder = pathlib.Path(folder)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no exported model: make one with python -m retrieval_jax.export")
    about = atomic.read_json(folder / "config.json")
    if "programs" not in about or about.get("format", math.inf) > FORMAT:
        raise InputError(f"{folder}/config.json is not of an exported model, or of a newer retrieval_jax")
    for name, digest in about["sha256"].items():
        if not (folder / name).exists() or file_sha256(folder / name) != digest:
            raise InputError(f"{folder / name} is missing or damaged: copy the folder, or export, again")
    here = export.default_export_platform()
    if here not in about["platforms"]:
        raise InputError(
            f"{folder} was exported for {', '.join(about['platforms'])}, this machine is {here}: export "
            f"again with --platforms={here}, or set JAX_PLATFORMS"
        )
    params: dict = {}
    for name, value in _tensors(folder / "model.safetensors").items():
        *path, last = name.split("/")
        functools.reduce(lambda node, key: node.setdefault(key, {}), path, params)[last] = value
    programs = {}
    for name, file in about["programs"].items():
        try:
            programs[name] = jax.jit(export.deserialize(bytearray((folder / file).read_bytes())).call)
        except Exception as error:  # whatever a reader of another age says
            raise InputError(
                f"{folder / file} was written by jax {about['versions'].get('jax')}, and jax "
                f"{jax.__version__} cannot read it ({error}): export again"
            ) from error
    return Model(about, atomic.read_json(folder / "labels.json"), params, programs)


def _tensors(file):
    try:
        return safetensors.numpy.load_file(file)
    except (KeyError, TypeError, AttributeError):  # types that NumPy has not, such as bfloat16
        return safetensors.flax.load_file(file)  # which imports flax
