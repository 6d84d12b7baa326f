"""A servable model: a folder that jax, safetensors and the picture transforms can run, without the training code.

    model = exported.load("served/quickstart")
    vectors = model.embed(["shoe.jpg", "dress.png"])      # float32 [2, D]
    model.predict_attributes(["shoe.jpg"], top=3)         # [[("black", 0.93), ("leather", 0.81), ("running", 0.44)]]

    config.json         how pictures are prepared, inputs and outputs of the programs, platforms, checksums, and the
                        config of the run
    model.safetensors   the parameters, "backbone/stem/kernel" and so on
    labels.json         names of the attributes and of the categories
    <program>.jax_export  StableHLO of (parameters, one array per entry of config.json's inputs) -> {name: array}; for
                        pictures that is uint8 [any number, height, width, 3]

A program of text takes padded ids and their mask: model.run("embed_title", {"label_ids": [[3, 17], [5]]}). Programs age
with jax (each can be read for at least six months); parameters and config do not.
"""

import collections.abc
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

from retrieval_jax import pairs
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.pictures import decoding, transforms
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.files.arrays import file_sha256

FORMAT = 1  # raise it when earlier readers cannot read it any more
_LARGEST_BATCH = 64


def save(folder, params, programs, labels, about):
    """Writes the files.

    Args:
      folder: empty local folder.
      params: nested dict of arrays.
      programs: {name: `jax.export.Exported` of (params, one array per input) -> dict}.
      labels: JSON-able, for labels.json.
      about: JSON-able, what config.json says beside programs and checksums: see `retrieval_jax.export`.
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
    """An exported model.

    Attributes:
      about: config.json.
      labels: labels.json.
      params: nested dict of arrays on the device.
      programs: {name: compiled function (params, one array per input) -> {name: [B, ...]}}.
    """

    about: dict
    labels: dict
    params: dict
    programs: dict[str, Any]

    def __repr__(self) -> str:
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        labels = len(self.labels.get("label_names", ()))
        return f"exported.Model({', '.join(sorted(self.programs))}; {size:,} parameters; {labels:,} labels)"

    def embed(self, inputs, program="embed"):
        """Embeds pictures, or whatever the program takes.

        Args:
          inputs: list of uint8 [h, w, 3] RGB arrays or paths of picture files; or {column: values}, see `run`.
          program: name of the program.

        Returns:
          float32 [n, D].

        Raises:
          InputError: something that is not a picture, with its position in the list; a column that is missing.
        """
        return self.run(program, inputs)["embedding"]

    def predict_attributes(self, inputs, top=10):
        """Predicts the most probable attributes of pictures.

        Args:
          inputs: as for `embed`.
          top: number of attributes per picture.

        Returns:
          For each picture a list of (token, probability), most probable first.

        Raises:
          InputError: the model does not predict attributes, or something is not a picture.
        """
        probabilities = self.run("attributes", inputs)["probabilities"]
        ids = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        names = self.labels["label_names"]
        return [[(names[i], float(row[i])) for i in chosen] for chosen, row in zip(ids, probabilities, strict=True)]

    def run(self, program, inputs):
        """Runs a program, a batch at a time.

        Args:
          program: name of the program: "embed", and others where the model has them (`programs`).
          inputs: list of pictures as for `embed`, or {column: values} for the columns in `about["inputs"]`: pictures;
            per row a list of pictures, as many or fewer than the column has; `Ragged` or per row a list of ids; or an
            array [n, ...].

        Returns:
          {name: array [n, ...]}.

        Raises:
          InputError: an unknown program, a column that is missing, or what `embed` raises.
        """
        if program not in self.programs:
            raise InputError(
                f"the exported model has no program {program!r}{pairs.near(program, sorted(self.programs))}"
            )
        specs = self.about.get("inputs", {}).get(program) or [
            {"name": "image", "kind": "pictures", "shape": [None, *self.about["input"]["image_size"], 3]}
        ]
        given = inputs if isinstance(inputs, collections.abc.Mapping) else {"image": inputs}
        missing = [spec["name"] for spec in specs if spec["kind"] != "mask" and spec["name"] not in given]
        if missing:
            raise InputError(f"the program {program} takes {missing[0]!r}{pairs.near(missing[0], sorted(given))}")
        counts = {spec["name"]: len(given[spec["name"]]) for spec in specs if spec["kind"] != "mask"}
        count = max(counts.values())
        if len(set(counts.values())) > 1 or not count:
            listed = ", ".join(f"{name} {rows}" for name, rows in counts.items())
            raise InputError(f"the program {program} needs at least one row, and as many of every column: {listed}")
        batch = min(_LARGEST_BATCH, 1 << max(0, count - 1).bit_length())  # few sizes, few compilations
        for spec in specs:
            if spec["kind"] == "ragged" and not isinstance(given[spec["name"]], Ragged):
                given = {**given, spec["name"]: Ragged.of(given[spec["name"]], spec["dtype"])}
        found = []
        for start in range(0, count, batch):
            rows, arrays = range(start, min(start + batch, count)), {}
            for spec in specs:
                if spec["kind"] != "mask":
                    arrays |= self._filled(spec, given[spec["name"]], rows, batch)
            out = self.programs[program](self.params, *(arrays[spec["name"]] for spec in specs))
            found.append({name: np.asarray(value)[: len(rows)] for name, value in out.items()})
        return {name: np.concatenate([out[name] for out in found]) for name in found[0]}

    def _filled(self, spec, column, rows, batch):
        """Returns the array of a column for a batch, and its mask; zeros after the last row."""
        name, shape = spec["name"], [batch, *spec["shape"][1:]]
        if spec["kind"] == "ragged":
            longest = max(1, *(len(column[row]) for row in rows))
            shape[1] = 1 << (longest - 1).bit_length()  # few lengths, few compilations
        out = np.zeros(shape, spec.get("dtype", "uint8"))
        mask = np.zeros(shape[:2] if spec["kind"] == "ragged" or len(shape) == 5 else shape[:1], bool)
        prepare = None
        if spec["kind"] == "pictures":
            prepare = transforms.compose(self.about["input"]["transform"], tuple(shape[-3:-1]))
        for i, row in enumerate(rows):
            value = column[row]
            if prepare is None:
                at = (i, slice(len(value))) if spec["kind"] == "ragged" else (i,)
                out[at], mask[at] = value, True
            elif len(shape) == 4:
                out[i], mask[i] = prepare(decoding.picture(row, value)), True
            else:
                for place, picture in enumerate(value):
                    out[i, place], mask[i, place] = prepare(decoding.picture(row, picture)), True
        return {name: out, f"{name}_mask": mask}


def load(folder):
    """Loads what `python -m retrieval_jax.export` wrote.

    Args:
      folder: local folder.

    Returns:
      The `Model`.

    Raises:
      InputError: it is not an exported model, is damaged, or this machine cannot run it.
    """
    folder = pathlib.Path(folder)
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no exported model: make one with `retrieval-jax export`")
    about = atomic.read_json(folder / "config.json")
    if "programs" not in about or about.get("format", math.inf) > FORMAT:
        raise InputError(f"{folder}/config.json is not that of an exported model, or is of a newer retrieval_jax")
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
        except Exception as error:  # whatever a reader of another version raises
            raise InputError(
                f"{folder / file} was written by jax {about['versions'].get('jax')}, and jax "
                f"{jax.__version__} cannot read it ({error}): export again"
            ) from error
    return Model(about, atomic.read_json(folder / "labels.json"), params, programs)


def _tensors(file):
    try:
        return safetensors.numpy.load_file(file)
    except (KeyError, TypeError, AttributeError):  # dtypes that NumPy lacks, such as bfloat16
        return safetensors.flax.load_file(file)  # which imports flax
