"""A servable model: a folder that jax, safetensors and the picture transforms can run, without the training code.

    model = exported.load("served/quickstart")
    vectors = model.embed(["shoe.jpg", "dress.png"])      # float32 [2, D]
    model.for_search(["shoe.jpg"], "query")               # whitened as in the run's search, of length 1
    model.predict_attributes(["shoe.jpg"], top=3)         # [[("black", 0.93), ("leather", 0.81), ("running", 0.44)]]
    model.embed_text(["red shoes"])                       # of a network that reads words
    model.embed(["shoe.jpg"], words=["the same, in red"])  # of one that composes words with pictures

    config.json         how pictures are prepared, inputs and outputs of the programs, platforms, checksums, and the
                        config of the run
    model.safetensors   the parameters, "backbone/stem/kernel" and so on
    labels.json         names of the attributes and of the categories
    search.json, whitening.npz, vocabulary.json
                        of a run that was searched: its steps and scores, the fitted whitening, counts of the attributes
    tokenizer.json      of a run that reads text: what makes token ids of it, as Hugging Face's library writes it
    <program>.jax_export  StableHLO of (parameters, one array per entry of config.json's inputs) -> {name: array}; for
                        pictures that is uint8 [any number, height, width, 3]

A program of text takes padded ids and their mask; `Model.run` makes them of texts (config.json's texts say of which
columns) or of rows of ids: model.run("embed_title", {"label_ids": [[3, 17], [5]]}). Programs age with jax (each can be
read for at least six months); parameters and config do not.

Longer than 400 lines: the files of the folder, their reader and its checks belong together.
"""

import collections.abc
import dataclasses
import math
import os
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import jax
import msgspec
import numpy as np
import safetensors.flax
import safetensors.numpy
from jax import export

from retrieval_jax import pairs, terms
from retrieval_jax import programs as program_check
from retrieval_jax.data import worded
from retrieval_jax.data.examples import WIDTHS, Ragged
from retrieval_jax.data.pictures import decoding, transforms
from retrieval_jax.errors import InputError, first_line, short
from retrieval_jax.files import atomic, documents, versions
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.postprocess.new_queries import Stage, of_export
from retrieval_jax.postprocess.whitening import Whitening
from retrieval_jax.sharing import facts, float16, int8, token_files

# Raise the last one when earlier readers cannot read it any more.
FORMATS = {"float": 1, "int8": 2, "float16": 3}  # by the weights in model.safetensors
_LARGEST_BATCH = 64
_MOST_PIXELS = 1 << 24  # of a picture, or of all pictures of a row
_REMEDY = "copy the folder, or export, again"


class _Input(TypedDict):
    """config.json's image size and transform of pictures."""

    image_size: Annotated[list[documents.Size], msgspec.Meta(min_length=2, max_length=2)]
    transform: list[tuple[str, dict[str, Any]]]


class _Spec(TypedDict):
    """What a program takes, see `export.specs`."""

    name: str
    kind: Literal["pictures", "ragged", "array", "mask"]
    dtype: NotRequired[str]
    shape: Annotated[list[documents.Size | None], msgspec.Meta(min_length=1, max_length=8)]


class _Text(TypedDict):
    """How the texts of a column become token ids, see `export.texts`."""

    length: Annotated[int, msgspec.Meta(ge=3, le=1 << 16)]
    typed: bool
    columns: list[str]


class _About(TypedDict):
    """config.json."""

    programs: Annotated[dict[str, documents.FileName], msgspec.Meta(min_length=1)]
    sha256: dict[documents.FileName, documents.Sha256]
    platforms: list[str]
    input: _Input
    inputs: NotRequired[dict[str, list[_Spec]]]
    sides: NotRequired[dict[Literal["query", "gallery"], str]]
    texts: NotRequired[dict[str, _Text]]
    versions: NotRequired[dict[str, str]]


class _Labels(TypedDict):
    """labels.json."""

    label_names: list[str]


class _Stage(TypedDict):
    """A stage of search.json."""

    stage: str
    steps: list[tuple[str, dict[str, Any]]]


class _Search(TypedDict):
    """search.json."""

    steps: list[tuple[str, dict[str, Any]]]
    stages: NotRequired[list[_Stage]]
    scores: list[dict[str, Any]]
    whitening: str | None


def save(folder, params, programs, labels, about, weights="float"):
    """Writes the files.

    Args:
      folder: local folder, empty but for further files of the model.
      params: nested dict of arrays.
      programs: {name: `jax.export.Exported` of (params, one array per input) -> dict}.
      labels: JSON-able, for labels.json.
      about: JSON-able, what config.json says beside programs and checksums: see `retrieval_jax.export`.
      weights: "float", as they are, or "float16" or "int8", see `sharing.float16` and `sharing.int8`.
    """
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        flat["/".join(str(key.key) for key in path)] = np.asarray(leaf)
    if weights != "float":
        flat = {"float16": float16, "int8": int8}[weights].rounded(flat)
    safetensors.flax.save_file(flat, folder / "model.safetensors", metadata={"format": "retrieval_jax"})
    atomic.write_json(folder / "labels.json", labels)
    for name, program in programs.items():
        (folder / f"{name}.jax_export").write_bytes(program.serialize())
    files = sorted(file.name for file in folder.iterdir())
    atomic.write_json(
        folder / "config.json",
        {
            "format": FORMATS[weights],
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
      search: search.json, or {}.
      whitening: the one of the run's search, or None.
      tokenizer: `data.text.Tokenizer` of a run that reads text, or None.
    """

    about: dict
    labels: dict
    params: dict
    programs: dict[str, Any]
    search: dict = dataclasses.field(default_factory=dict, repr=False)
    whitening: Whitening | None = None
    tokenizer: Any = dataclasses.field(default=None, repr=False)
    compiled: dict = dataclasses.field(default_factory=dict, repr=False)  # of `programs`, by sizes of the inputs

    def __repr__(self) -> str:
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        labels = len(self.labels.get("label_names", ()))
        return f"exported.Model({', '.join(sorted(self.programs))}; {size:,} parameters; {labels:,} labels)"

    def embed(self, inputs, program="embed", *, words=None, weight=1.0):
        """Embeds pictures, pictures with words ("the same, but in red"), or whatever the program takes.

        Args:
          inputs: list of uint8 [h, w, 3] RGB arrays or paths of picture files, or one of them; or {column: values}, see
            `run`.
          program: name of the program.
          words: list of texts, one per picture, for a model of the task "edit"; "" for the picture alone.
          weight: how much words count: 0 gives the picture's own vector, 1 what the run searches by, 2 twice that.

        Returns:
          float32 [n, D]; of length 1 with words.

        Raises:
          InputError: something that is not a picture, with its position in the list; a column that is missing; or words
            for a model that does not compose them with pictures.
        """
        if words is not None:
            return self._edited(inputs, words, program, weight)
        found = self.run(program, inputs)
        if "embedding" not in found:
            raise InputError(f"the program {program!r} returns {', '.join(found)}, not an embedding")
        return found["embedding"]

    def embed_text(self, texts, program=""):
        """Embeds typed words, into the space of the gallery that they search.

        Args:
          texts: list of texts, or one.
          program: name of the program, one that reads a single column of text; "" for that of queries: "embed_text" or
            "embed_query".

        Returns:
          float32 [n, D].

        Raises:
          InputError: the model reads no texts, or was exported without its tokenizer.
        """
        known = [name for name in ("embed_text", "embed_query") if name in self.programs]
        if not program and not known:
            raise InputError(
                "the exported model embeds no words: export a run of 'text_query', 'text_picture' or 'edit'"
            )
        return self.embed(list(worded.listed(texts)), program or known[0])

    def _edited(self, pictures, words, program, weight):
        if "embed_edit" not in self.programs or program != "embed":
            there = ", ".join(sorted(self.programs))
            raise InputError(
                f"words beside pictures need a model of the task 'edit', without program; this one has {there}"
            )
        pictures, words, weight = worded.given(pictures, words, weight)
        return worded.mixed(self.run("embed_edit", {"image": pictures, "words": words}), weight)

    def program(self, side):
        """Returns the name of the program that embeds the "query" or the "gallery" of the run's search.

        That of queries is "embed" where they are composed of several columns.
        """
        name = self.about.get("sides", {}).get(side, "embed")
        return name if name in self.programs else "embed"

    def reads(self, program):
        """Returns the names of the columns that a program reads."""
        return [spec["name"] for spec in _specs(self.about, program) if spec["kind"] != "mask"]

    def stages(self) -> list[Stage]:
        """Returns the stages of the run's search that apply to new queries, the plain cosine first."""
        return of_export(self.search, self.whitening)

    def for_search(self, inputs, side="query", program=""):
        """Embeds as the run's search compared: whitened where it whitened, and of length 1.

        Args:
          inputs: as for `embed`.
          side: "query" or "gallery".
          program: name of the program; "" for the side's own, see `program`.

        Returns:
          float32 [n, D]; scalar products of the two sides are their scores.
        """
        return self.stages()[-1].vectors(self.embed(inputs, program or self.program(side)), side)

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
          inputs: list of pictures as for `embed`, or of texts for a program that reads them alone (one by itself is a
            list of one); or {column: values} for the columns in `about["inputs"]`: pictures; per row a list of
            pictures, as many or fewer than the column has; texts, for the columns in `about["texts"]`; `Ragged` or per
            row a list of ids from 0; or an array [n, ...].

        Returns:
          {name: array [n, ...]}.

        Raises:
          InputError: an unknown program, a column that is missing, results that are not finite, or what `embed` raises.
        """
        if program not in self.programs:
            raise InputError(
                f"the exported model has no program {program!r}{pairs.near(program, sorted(self.programs))}"
            )
        specs = _specs(self.about, program)
        reads = self.reads(program)
        only = reads[0] if len(reads) == 1 and reads[0] in self.about.get("texts", {}) else "image"
        given = inputs if isinstance(inputs, collections.abc.Mapping) else {only: inputs}
        missing = [spec["name"] for spec in specs if spec["kind"] != "mask" and spec["name"] not in given]
        if missing:
            raise InputError(f"the program {program} takes {missing[0]!r}{pairs.near(missing[0], sorted(given))}")
        one = [spec["name"] for spec in specs if spec["kind"] in ("pictures", "ragged")]
        given = {**given, **{name: worded.listed(given[name]) for name in one}}
        counts = {spec["name"]: len(given[spec["name"]]) for spec in specs if spec["kind"] != "mask"}
        count = max(counts.values())
        if len(set(counts.values())) > 1 or not count:
            listed = ", ".join(f"{name} {rows}" for name, rows in counts.items())
            raise InputError(f"the program {program} needs at least one row, and as many of every column: {listed}")
        batch = min(_LARGEST_BATCH, 1 << max(0, count - 1).bit_length())  # few sizes, few compilations
        for spec in specs:
            if spec["kind"] == "ragged":
                given = {**given, spec["name"]: self._ids(spec, given[spec["name"]])}
        found = []
        for start in range(0, count, batch):
            rows, arrays = range(start, min(start + batch, count)), {}
            for spec in specs:
                if spec["kind"] != "mask":
                    arrays |= self.filled(spec, given[spec["name"]], rows, batch)
            ordered = [arrays[spec["name"]] for spec in specs]
            out = self._compiled(program, ordered)(self.params, *ordered)
            found.append({name: np.asarray(value)[: len(rows)] for name, value in out.items()})
        out = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        for name, values in out.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values.reshape(count, -1)).all(1))[0])
                raise InputError(
                    f"the program {program!r} returns values of {name!r} that are not finite for row {row}: its input "
                    "is not finite either, or a text has more tokens than the network has positions"
                )
        return out

    def _ids(self, spec, rows):
        """Returns the `Ragged` ids of a column, of texts or of rows of ids."""
        name, how = spec["name"], self.about.get("texts", {}).get(spec["name"])
        known = self.tokenizer.size if self.tokenizer is not None and how is not None else 1 << 31
        if not isinstance(rows, Ragged):
            rows = list(rows)
            if any(isinstance(row, str) for row in rows):
                if strange := [row for row, text in enumerate(rows) if not isinstance(text, str)]:
                    raise InputError(
                        f"the column {name!r} has texts, and row {strange[0]} is not one: give texts alone"
                    )
                if self.tokenizer is None or how is None:
                    raise InputError(
                        f"the column {name!r} takes ids: the folder has no tokenizer for it; give lists of ids"
                    )
                texts = [terms.spoken(row) if how["typed"] else row for row in rows]
                return self.tokenizer.encode(texts, how["length"])
            rows = [_ids_of(row) for row in rows]
            if strange := [row for row, ids in enumerate(rows) if ids is None]:
                raise InputError(f"the column {name!r} takes texts or lists of ids, and row {strange[0]} is neither")
            rows = Ragged.of(rows, np.int64)
        if rows.values.dtype.kind not in "iu":
            raise InputError(f"the column {name!r} takes ids, whole numbers, and the rows are {rows.values.dtype}")
        if (wrong := np.flatnonzero((rows.values < 0) | (rows.values >= known))).size:
            row = int(np.searchsorted(rows.indptr, wrong[0], side="right")) - 1
            value = rows.values[wrong[0]]
            raise InputError(f"the column {name!r} takes ids from 0 to {known - 1:,}, and row {row} has {value}")
        return Ragged(rows.indptr, rows.values.astype(spec["dtype"]))

    def _compiled(self, program, arrays):
        """Returns a program compiled for arrays of these sizes; raises InputError where it would not fit in memory."""
        key = program, *((array.shape, str(array.dtype)) for array in arrays)
        if key not in self.compiled:
            try:
                made = self.programs[program].lower(self.params, *arrays).compile()
            except (ValueError, TypeError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
                raise InputError(
                    f"the program {program!r} cannot be compiled for {len(arrays[0])} rows ({first_line(error)}): "
                    f"{_REMEDY}"
                ) from error
            needs, there = made.memory_analysis(), _memory()
            needed = needs.temp_size_in_bytes + needs.output_size_in_bytes if needs else 0
            if needed > there:
                raise InputError(
                    f"the program {program!r} needs {needed / 2**30:,.1f} GiB for {len(arrays[0])} rows, and there are "
                    f"{there / 2**30:,.1f} GiB: give it fewer rows at a time, or smaller inputs"
                )
            self.compiled[key] = made
        return self.compiled[key]

    def filled(self, spec, column, rows, batch):
        """Returns the array of a column for a batch, and its mask; zeros after the last row.

        Args:
          spec: of the column, see `about["inputs"]`.
          column: its values, a row each.
          rows: which rows.
          batch: number of rows of the arrays.
        """
        name, shape = spec["name"], [batch, *spec["shape"][1:]]
        if spec["kind"] == "ragged":
            longest = max(1, *(len(column[row]) for row in rows))
            # few lengths, few compilations
            shape[1] = next((width for width in WIDTHS if width >= longest), 1 << (longest - 1).bit_length())
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
    return versions.read(folder, "config.json", _load)


def _load(folder) -> Model:
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no exported model: make one with `retrieval-jax export`")
    about = documents.read(folder / "config.json", dict, remedy=_REMEDY)
    if "programs" not in about or not isinstance(about.get("format"), int) or about["format"] > max(FORMATS.values()):
        raise InputError(f"{folder}/config.json is not that of an exported model, or is of a newer retrieval_jax")
    documents.check(about, _About, name=str(folder / "config.json"), remedy=_REMEDY)
    _check_input(folder / "config.json", about)
    for name in dict.fromkeys(["model.safetensors", "labels.json", *about["programs"].values(), *about["sha256"]]):
        digest = about["sha256"].get(name)
        if digest is None or not (folder / name).exists() or file_sha256(folder / name) != digest:
            raise InputError(f"{folder / name} is missing or damaged: copy the folder, or export, again")
    here = export.default_export_platform()
    if here not in about["platforms"]:
        raise InputError(
            f"{folder} was exported for {', '.join(about['platforms'])}, this machine is {here}: export "
            f"again with --platforms={here}, or set JAX_PLATFORMS"
        )
    tokenizer = _tokenizer(folder, about)
    params = _nested(folder / "model.safetensors", about["format"] == FORMATS["float16"])
    labels = documents.read(folder / "labels.json", _Labels, remedy=_REMEDY)
    files = {name: folder / file for name, file in about["programs"].items()}
    program_check.check(files.values())
    programs = {}
    for name, file in files.items():
        try:
            program = export.deserialize(bytearray(file.read_bytes()))
        except Exception as error:  # whatever a reader of another version raises
            made_by = about.get("versions", {}).get("jax")
            raise InputError(
                f"{file} was written by jax {made_by}, and jax {jax.__version__} cannot read it ({error}): export again"
            ) from error
        out = _check_signature(file, program, params, _specs(about, name))
        needed = {"embed": "embedding", "attributes": "probabilities"}.get(name, min(out))
        if needed not in out or (name == "attributes" and out[needed].shape[1:] != (len(labels["label_names"]),)):
            raise InputError(f"{file} does not return {needed!r}, or not one value per name in labels.json: {_REMEDY}")
        programs[name] = jax.jit(program.call)
    found = documents.read(folder / facts.SEARCH, _Search, remedy=_REMEDY) if facts.SEARCH in about["sha256"] else {}
    whitening = Whitening.load(folder / facts.WHITENING) if facts.WHITENING in about["sha256"] else None
    return Model(about, labels, params, programs, found, whitening, tokenizer)


def _tokenizer(folder, about):
    """Returns the tokenizer of a folder, None without one; raises InputError where it does not fit the programs."""
    if not about.get("texts"):
        return None
    ragged = {spec["name"] for name in about["programs"] for spec in _specs(about, name) if spec["kind"] == "ragged"}
    if strange := sorted(set(about["texts"]) - ragged):
        raise InputError(f"{folder}/config.json: no program takes ids of the text {short(strange[0])!r}: {_REMEDY}")
    from retrieval_jax.data import text  # not everyone reads text

    if text.FILE not in about["sha256"]:
        raise InputError(f"{folder / text.FILE} is missing, and programs read text: {_REMEDY}")
    token_files.check(documents.read(folder / text.FILE, dict, remedy=_REMEDY), folder / text.FILE)
    return text.load(folder / text.FILE)


def _ids_of(row):
    """Returns a list of whole numbers as int64 [n], None for anything else."""
    try:
        ids = np.asarray(row)
    except ValueError:  # lists of different lengths
        return None
    whole = ids.ndim == 1 and (ids.dtype.kind in "iu" or not ids.size)
    return ids.astype(np.int64) if whole else None


def _specs(about, program):
    """Returns what a program takes after the parameters, see `export.specs`."""
    return about.get("inputs", {}).get(program) or [
        {"name": "image", "kind": "pictures", "dtype": "uint8", "shape": [None, *about["input"]["image_size"], 3]}
    ]


def _check_input(file, about):
    """Raises InputError unless the pictures can be prepared as config.json says: tries it on a black one."""
    size = tuple(about["input"]["image_size"])
    try:
        if math.prod(size) > _MOST_PIXELS:
            raise InputError(f"image_size {size} has more than {_MOST_PIXELS:,} pixels")
        transforms.compose(about["input"]["transform"], size)(np.zeros((8, 9, 3), np.uint8))
    except Exception as error:  # whatever arguments of another type lead to
        raise InputError(f"{file}: pictures cannot be prepared ({short(str(error), 300)}): {_REMEDY}") from error


def _check_signature(file, program, params, specs):
    """Raises InputError unless a program takes the parameters and inputs, and returns arrays with a row for each."""
    remedy = "the files of the folder are not of one export: copy it, or export, again"
    columns = {spec["name"] for spec in specs if spec["kind"] != "mask"}
    for spec in specs:
        shape, kind = spec["shape"], spec["kind"]
        ragged = len(shape) == 2 and shape[1] is None
        owned = spec["name"].removesuffix("_mask") in columns if kind == "mask" else True
        fits = {"pictures": len(shape) in (4, 5) and shape[-1] == 3, "ragged": ragged}.get(kind, True)
        known = shape[1:2] * (not ragged) + shape[2:]
        if shape[0] is not None or None in known or math.prod(known) > 3 * _MOST_PIXELS or not (owned and fits):
            raise InputError(f"{file.parent}/config.json: the input {spec['name']!r} has the shape {shape}: {remedy}")
    if len({spec["name"] for spec in specs}) < len(specs) or not columns:
        raise InputError(f"{file.parent}/config.json: two inputs have one name, or there is none: {remedy}")
    if program.in_tree != jax.tree.structure(((params, *range(len(specs))), {})):
        raise InputError(f"{file} takes other parameters than model.safetensors has: {remedy}")
    leaves = [(str(leaf.dtype), leaf.shape) for leaf in jax.tree.leaves(params)]
    leaves += [(spec.get("dtype", "uint8"), spec["shape"]) for spec in specs]
    for (dtype, shape), aval in zip(leaves, program.in_avals, strict=True):
        if (dtype, list(shape)) != (str(aval.dtype), [side if isinstance(side, int) else None for side in aval.shape]):
            raise InputError(f"{file} takes {aval.str_short()} where the folder has {dtype} {list(shape)}: {remedy}")
    out = jax.tree.unflatten(program.out_tree, program.out_avals)
    flat = isinstance(out, dict) and out and all(hasattr(value, "shape") for value in out.values())
    if not flat or any(not value.ndim or isinstance(value.shape[0], int) for value in out.values()):
        raise InputError(f"{file} does not return arrays by name, with a row for each input: {remedy}")
    return out


def _memory():
    """Returns the bytes of memory of the device that programs run on."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _nested(file, halved):
    """Returns the parameters of a safetensors file as nested dicts; `halved`: of float16, which were float32."""
    params: dict = {}
    tensors = int8.restored(_tensors(file), file)
    for name, value in (float16.restored(tensors) if halved else tensors).items():
        *path, last = name.split("/")
        node = params
        for key in path:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if len(path) > documents.DEPTH or not isinstance(node, dict) or last in node:
            raise InputError(f"{file}: the parameter {short(name)!r} cannot be in a tree with the others: {_REMEDY}")
        node[last] = value
    return params


def _tensors(file):
    try:
        try:
            return safetensors.numpy.load_file(file)
        except (KeyError, TypeError, AttributeError):  # dtypes that NumPy lacks, such as bfloat16
            return safetensors.flax.load_file(file)  # which imports flax
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({short(str(error))}): {_REMEDY}") from error
