"""Writes a trained model as a folder that serves without the training code; see `retrieval_jax.exported`.

    python -m retrieval_jax.export --workdir=runs/quickstart --out=served/quickstart

There is a program per predict function: "embed" for config.embed.predict_fn (that of the gallery where the task has no
such function), "attributes" where the task has it, and under its own name what config.search.query_from and
gallery_from name, and what reads typed words. --whitened adds "embed_whitened", the vectors of queries that the run's
whitened search compares. A network of text brings its tokenizer along, and one that learned into the space of another
run's pictures brings that run's network. Programs take any number of rows and are lowered for CPU, CUDA and TPU. The
result is read back and compared with the trained model on this machine before the folder gets its name; the difference
is recorded in its config.json. The folder also gets the vocabulary and, of a run that was searched with this
checkpoint, the whitening, the steps and the scores.

Longer than 400 lines: what is lowered, written, read back and compared belongs together.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("export")

import datetime
import os
import shutil

import jax
import numpy as np
from jax import export

from retrieval_jax import exported, inference, pairs, paths, programs
from retrieval_jax import workdir as workdirs
from retrieval_jax.data import info as info_lib
from retrieval_jax.data import text
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, documents, remote, versions
from retrieval_jax.models import pretrained
from retrieval_jax.models.layers import attention
from retrieval_jax.sharing import exportable, facts, folders, onnx_files, token_files
from retrieval_jax.views import host_size, with_views
from retrieval_jax.workdir import layout, provenance, sides

PLATFORMS = ("cpu", "cuda", "tpu")
# Largest difference of embeddings, relative to the longest vector: 0 on one platform; other batch sizes and platforms
# sum in another order.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 4e-3, "int8": 0.1}
_PROBES = 4  # rows of noise that the two are compared on


def run(
    workdir, out, *, step=None, which="ema", platforms=PLATFORMS, weights="float", onnx=False, whitened=False
) -> dict:
    """Exports a checkpoint.

    Args:
      workdir: the work directory of a training, or one that evaluate_checkpoints made (best, soup_greedy).
      out: local folder to write; an earlier export there is replaced.
      step: step of the checkpoint; None for the latest.
      which: "ema" (the moving average) or "params".
      platforms: platforms to lower for.
      weights: "float", "float16" or "int8": half or a quarter of the size, and other embeddings within TOLERANCE.
      onnx: write each program as an ONNX file as well, <program>.onnx.
      whitened: add the program "embed_whitened": the vectors of queries after the whitening of the run's search.

    Returns:
      config.json.

    Raises:
      InputError: nothing was trained there, `out` is something else, or the model cannot be lowered for a platform.
      RuntimeError: the exported model gives other embeddings than the trained one.
    """
    workdir, out = workdirs.as_path(workdir), paths.expanded(out)
    folders.check_replaceable(out)
    if onnx and weights != "float":
        raise InputError(f"--onnx and --weights={weights}: an ONNX file has the weights as they are; export twice")
    remote.pull(workdir)
    trained = inference.load(workdir, which, step)
    source = inference.learned_from(trained.config, workdir)
    pictures = inference.load(source) if source else None
    model = exportable.with_pictures(trained, pictures)
    config, task = model.config, model.task
    arguments, views = inference.test_arguments(config), config.embed.get("views", ())
    embeds = exportable.programs_of(config, task)
    functions, sizes = {}, {}
    for name, predict_fn in embeds.items():
        bare = inference.named(task.predict_fns, predict_fn)
        shown = () if name == exportable.EDIT else views  # words are composed with a picture as it is
        functions[name] = with_views(bare, shown, arguments["image_size"])
        sizes[name] = host_size(() if functions[name] is bare else views, arguments["image_size"])
    if "attributes" in task.predict_fns:
        functions["attributes"], sizes["attributes"] = task.predict_fns["attributes"], tuple(arguments["image_size"])
    stage = facts.whitened_stage(workdir, model.space, trained.config) if whitened else None
    if stage is not None:
        of_queries = exportable.side_program(sides.of(config)["query"], embeds, functions)
        functions[exportable.WHITENED] = exportable.whitened(functions[of_queries], stage)
        sizes[exportable.WHITENED] = sizes[of_queries]
    batch = _batch(workdir / "checkpoints" / "batch.json", functions)
    inputs = {name: specs(name, function, batch, sizes[name]) for name, function in functions.items()}
    read_as = exportable.texts(trained.config, functions) if trained.data_info.tokens else {}
    if read_as:  # what `exported.load` refuses, before anything is computed
        file = workdir / text.FOLDER / text.FILE
        token_files.check(documents.read(file, dict, remedy="restore it, or train again"), file)
    lowered_programs = {
        name: lowered(name, function, model.params, inputs[name], platforms) for name, function in functions.items()
    }
    dtype = str(config.train.get("dtype", "float32"))
    about = {
        "input": {
            "image_size": list(sizes["embed"]),
            "transform": workdirs.plain(arguments["transform"]),
            "dtype": "uint8",
            "layout": "NHWC",
            "colour": "RGB",
            "note": "0 to 255; the program normalises",
        },
        "inputs": inputs,
        "sides": {split: exportable.side_program(side, embeds, functions) for split, side in sides.of(config).items()},
        **({"texts": read_as} if read_as else {}),
        "outputs": {
            name: {key: [None, *value.shape[1:]] for key, value in _outputs(program).items()}
            for name, program in lowered_programs.items()
        },
        "dtype": dtype,
        "weights": weights,
        "space": model.space,
        **({"whitened": {"stage": stage.name, "version": stage.whitening.version()}} if stage is not None else {}),
        "checkpoint": {
            "workdir": workdir.name,
            "step": model.step,
            "which": which,
            "vocabulary_hash": model.data_info.vocabulary_hash,
        },
        "lowered_on": export.default_export_platform(),
        "created": _now().isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "data": facts.of_data(workdir, config),
        "initial_weights": _initial_weights(trained.config, *([pictures.config] if pictures else [])),
        "config": workdirs.plain(trained.config),
    }
    labels = {
        "label_names": list(model.data_info.label_names),
        "vocabulary_hash": model.data_info.vocabulary_hash,
        "category_names": [list(names) for names in model.data_info.category_names],
    }

    notes, tolerance = [], max(TOLERANCE.get(name, 0.0) for name in (weights, dtype))

    def fill(folder):
        notes[:] = facts.write(folder, workdir, model.space, trained.config)
        if read_as:
            shutil.copyfile(workdir / text.FOLDER / text.FILE, folder / text.FILE)
        if onnx:
            about["onnx"] = {
                name: onnx_files.convert(name, plain(function, inputs[name]), model.params, inputs[name], file)
                for name, function in functions.items()
                for file in [folder / f"{name}.onnx"]
            }
        exported.save(folder, model.params, lowered_programs, labels, about, weights)
        if about["lowered_on"] in platforms:
            served = exported.load(folder)
            difference = max(
                _difference(served.run(name, given)["embedding"], model.embed(columns, predict_fn))
                for name, predict_fn in embeds.items()
                if name != exportable.EDIT  # with words, below
                for given, columns in [_probes(inputs[name])]
            )
            difference = max(difference, _words_difference(served, trained))
            if stage is not None:
                given, columns = _probes(inputs[exportable.WHITENED])
                wanted = stage.vectors(model.embed(columns, embeds[of_queries]), "query")
                difference = max(difference, _difference(served.run(exportable.WHITENED, given)["embedding"], wanted))
            if not difference <= tolerance:
                raise RuntimeError(
                    f"the exported program differs from the trained model by {difference:.1e} of a "
                    f"vector's length, more than {tolerance:.0e}: nothing was written"
                )
            written = atomic.read_json(folder / "config.json")
            written["compared"] = {"rows": _PROBES, "difference": difference}
            if onnx:
                written["compared"]["onnx"] = _onnx_difference(folder, served, inputs, tolerance)
            atomic.write_json(folder / "config.json", written)

    versions.replace(out, "config.json", fill, keep=[layout.CLICK_LOG])
    written = atomic.read_json(out / "config.json")
    found = written.get("compared", {}).get("difference", "not compared here")
    print(
        f"export: step {model.step} ({which}) in {out}, for {', '.join(written['platforms'])}; difference from the "
        f"trained model: {found}",
        flush=True,
    )
    for note in notes:
        print(f"export: {note}", flush=True)
    return written


def _onnx_difference(folder, served, inputs, tolerance) -> float:
    """Returns the largest difference of the ONNX files from the programs; raises RuntimeError where it is too large."""
    differences = []
    for name, specs_ in inputs.items():
        given, _ = _probes(specs_)
        arrays = {}
        for spec in specs_:
            if spec["kind"] != "mask":
                arrays |= served.filled(spec, given[spec["name"]], range(_PROBES), _PROBES)
        wanted, found = served.run(name, given), onnx_files.run(folder / f"{name}.onnx", arrays)
        for key in wanted:
            flat = [value[key].reshape(_PROBES, -1).astype(np.float64) for value in (found, wanted)]
            differences.append(_difference(*flat))
    if not max(differences) <= tolerance:
        raise RuntimeError(
            f"the ONNX files differ from the programs by {max(differences):.1e} of a vector's length, more than "
            f"{tolerance:.0e}: nothing was written"
        )
    return max(differences)


def _words_difference(served, trained) -> float:
    """Returns the largest difference of typed words, alone and beside pictures; 0.0 of a network that reads none."""
    words, found = ["red shoes", "", "-striped in navy blue, please"], [0.0]
    if {"embed_text", "embed_query"} & set(trained.task.predict_fns):
        found.append(_difference(served.embed_text(words), trained.embed_text(words)))
    if "embed_edit" in trained.task.predict_fns:
        seen = list(np.random.default_rng(0).integers(0, 256, (len(words), 40, 30, 3), dtype=np.uint8))
        found.append(_difference(served.embed(seen, words=words), trained.embed(seen, words=words)))
    return max(found)


def _now() -> datetime.datetime:
    """Returns the time, or SOURCE_DATE_EPOCH (reproducible-builds.org), with which an export gives the same bytes."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return (
        datetime.datetime.fromtimestamp(int(given), datetime.UTC)
        if given.isdigit()
        else datetime.datetime.now(datetime.UTC)
    )


def _initial_weights(*configs) -> dict:
    """Returns what trainings started from, {"name", "licence"} of public weights, {"run"}, or {}; more as "beside"."""
    found = []
    for config in configs:
        given = config.train.model.get("pretrained") or {}
        if given.get("name"):
            try:
                licence = pretrained.info(given["name"], given.get("path") or None).licence
            except InputError:  # text networks have names of their own, and a file may be gone since
                licence = ""
            found.append({"name": given["name"], "licence": licence})
        elif config.train.get("init_from"):
            found.append({"run": str(config.train.init_from)})
        if weights := config.train.task_kwargs.get("weights"):  # of a network of text
            found.append({"name": str(weights), "licence": ""})
    return {**found[0], **({"beside": found[1:]} if found[1:] else {})} if found else {}


def specs(name, predict_fn, batch, size) -> list[dict]:
    """Returns what a program takes after the parameters, in order: dicts of name, kind, dtype and shape (None: any).

    Args:
      name: name of the program, for messages.
      predict_fn: `tasks.Predict`.
      batch: {column: array [1, ...]}, a batch of the training.
      size: (height, width) of pictures.

    Raises:
      InputError: a column that the batches of the training do not have, so that its shape is not known.
    """
    found = []
    for column in predict_fn.reads:
        if column not in batch:
            raise InputError(
                f"the program {name} reads the column {column!r}, which the batches of the training do not have"
                f"{pairs.near(column, sorted(batch))}"
            )
        value, mask, kind = batch[column], batch.get(f"{column}_mask"), "array"
        shape = [None, *value.shape[1:]]
        if mask is not None and value.dtype.kind == "f" and mask.shape == value.shape:
            mask = None  # vectors, all of one length: the mask only marks missing ones in training
        if value.dtype == np.uint8 and value.ndim in (4, 5) and value.shape[-1] == 3:
            kind, shape = "pictures", [*shape[:-3], *size, 3]
        elif mask is not None and value.ndim == 2 and mask.shape == value.shape:
            kind, shape = "ragged", [None, None]
        found.append({"name": column, "kind": kind, "dtype": str(value.dtype), "shape": shape})
        if mask is not None:
            shape = shape[: mask.ndim]
            found.append({"name": f"{column}_mask", "kind": "mask", "dtype": "bool", "shape": shape})
    return found


def lowered(name, predict_fn, params, inputs, platforms):
    """Exports a predict function for any number of rows.

    Args:
      name: name of the program, for messages.
      predict_fn: `tasks.Predict`.
      params: pytree of arrays or their shapes.
      inputs: of `specs`.
      platforms: platforms to lower for.

    Returns:
      `jax.export.Exported` of (params, one array per input) -> {name: [B, ...]}.

    Raises:
      InputError: it cannot be lowered for a platform, or not for any number of rows.
    """

    program = plain(predict_fn, inputs)
    lengths = [f"length_{spec['name']}" for spec in inputs if spec["kind"] == "ragged"]
    symbols = dict(zip(["batch", *lengths], export.symbolic_shape(", ".join(["batch", *lengths])), strict=True))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    columns = []
    for spec in inputs:
        length = symbols.get(f"length_{spec['name'].removesuffix('_mask')}")
        shape = [symbols["batch"], *(length if size is None else size for size in spec["shape"][1:])]
        columns.append(jax.ShapeDtypeStruct(shape, spec["dtype"]))
    before = jax.config.jax_traceback_in_locations_limit
    try:
        # Without the paths and lines of this machine: the same network gives the same bytes, wherever it is exported.
        jax.config.update("jax_traceback_in_locations_limit", 0)
        with attention.portable():
            made = export.export(jax.jit(program), platforms=tuple(platforms))(shapes, *columns)
    except Exception as error:
        text = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"the program {name} cannot be exported for {', '.join(platforms)}: {text[0]}; give fewer "
            f"--platforms, such as {export.default_export_platform()}"
        ) from error
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)
    if problem := programs.problem(made):
        raise InputError(
            f"the program {name} cannot be served: {problem}. Folders of exported models are read from anyone, so "
            "only operations of networks are run from them; compute the rest in what the model is served by"
        )
    return made


def plain(predict_fn, inputs):
    """Returns a predict function as (params, one array per input) -> {name: [B, ...]}, in float32.

    Args:
      predict_fn: `tasks.Predict`.
      inputs: of `specs`.
    """

    def program(params, *columns):
        out = dict(predict_fn(params, {spec["name"]: column for spec, column in zip(inputs, columns, strict=True)}))
        out.pop("space", None)  # a name, not an array
        return jax.tree.map(lambda x: x.astype("float32") if x.dtype in ("bfloat16", "float16") else x, out)

    return program


def _batch(file, functions):
    """Returns a batch of the training; that of pictures alone, where nothing else is read, needs no file."""
    image = {"image": np.zeros((1, 1, 1, 3), np.uint8), "type": np.zeros(1, np.int32)}  # one item of an outfit
    if file.exists() or any(function.reads != ("image",) for function in functions.values()):
        return {**image, **info_lib.zero_batch(file)}  # pictures are read by more than learns from them
    return image


def _probes(inputs):
    """Returns rows of noise for the inputs of a program: as `exported.Model.run` takes them, and `inference.Model`."""
    rng, served, trained = np.random.default_rng(0), {}, {}
    for spec in inputs:
        name, shape = spec["name"], [_PROBES, *spec["shape"][1:]]
        if spec["kind"] == "pictures":
            images = list(rng.integers(0, 256, (int(np.prod(shape[:-3])), *shape[-3:]), dtype=np.uint8))
            rows = np.arange(len(images)).reshape(shape[:-3])
            served[name] = images if rows.ndim == 1 else [[images[i] for i in row] for row in rows]
            masked = any(other["name"] == f"{name}_mask" for other in inputs)
            trained[name] = Pictures(images, rows) if masked else images
        elif spec["kind"] == "ragged":  # 0 and 1 are ids of every vocabulary
            served[name] = trained[name] = Ragged.of(
                [rng.integers(0, 2, length) for length in range(_PROBES)], spec["dtype"]
            )
        elif spec["kind"] == "array":
            served[name] = trained[name] = rng.integers(0, 2, shape).astype(spec["dtype"])
    return served, trained


def _difference(found, wanted) -> float:
    """Returns the largest difference of two sets of embeddings, relative to the longest vector."""
    return float(np.abs(found - wanted).max() / max(np.linalg.norm(wanted, axis=1).max(), 1e-12))


def _outputs(program):
    return jax.tree.unflatten(program.out_tree, program.out_avals)


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    run(
        given.workdir,
        given.out,
        step=given.step,
        which=given.which,
        platforms=tuple(given.platforms),
        weights=given.weights,
        onnx=given.onnx,
        whitened=given.whitened,
    )
