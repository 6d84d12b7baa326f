"""Writes a trained model as a folder that serves without the training code; see `retrieval_jax.exported`.

    python -m retrieval_jax.export --workdir=runs/quickstart --out=served/quickstart

Programs take any number of pictures and are lowered for CPU, CUDA and TPU. What was written is read back and compared
with the trained model on this machine before the folder gets its name; the difference found stands in its config.json.
"""

if __name__ == "__main__":  # before the imports, which take seconds: --help answers at once
    from retrieval_jax.__main__ import start

    start("export")

import datetime
import pathlib

import jax
import numpy as np
from jax import export

from retrieval_jax import exported, inference
from retrieval_jax import workdir as workdirs
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic, remote
from retrieval_jax.files.atomic import replace_folder
from retrieval_jax.views import host_size, with_views
from retrieval_jax.workdir import provenance

PLATFORMS = ("cpu", "cuda", "tpu")
# Share of the longest vector by which embeddings may differ: 0 is what one platform gives; other batch sizes and other
# platforms add in another order.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 4e-3}
_PROBES = 4  # pictures of noise that the comparison is made on


def run(workdir, out, *, step=None, which="ema", platforms=PLATFORMS) -> dict:
    """Exports a checkpoint.

    Args:
      workdir: the work directory of a training; a folder of evaluate_checkpoints (best, soup_greedy) is one too.
      out: local folder to write; an earlier export there is replaced.
      step: of the checkpoint; None for the latest.
      which: "ema" (the moving average) or "params".
      platforms: to lower for.

    Returns:
      config.json.

    Raises:
      InputError: nothing was trained there, `out` is something else, or the model cannot be lowered for a platform.
      RuntimeError: the exported model gives other embeddings than the trained one.
    """
    workdir, out = workdirs.as_path(workdir), pathlib.Path(out)
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_export(out))):
        raise InputError(f"--out={out} exists and is no exported model: give another folder, or delete it")
    remote.pull(workdir)
    model = inference.load(workdir, which, step)
    config, task = model.config, model.task
    arguments = inference.test_arguments(config)
    views = config.embed.get("views", ())
    size = host_size(views, arguments["image_size"])
    functions = {
        "embed": with_views(inference.named(task.predict_fns, config.embed.predict_fn), views, arguments["image_size"])
    }
    if "attributes" in task.predict_fns and tuple(size) == tuple(arguments["image_size"]):  # both read one picture
        functions["attributes"] = task.predict_fns["attributes"]
    programs = {name: _lowered(name, function, model.params, size, platforms) for name, function in functions.items()}
    probes = np.random.default_rng(0).integers(0, 256, (_PROBES, *size, 3), dtype=np.uint8)
    dtype = str(config.train.get("dtype", "float32"))
    about = {
        "input": {
            "image_size": list(size),
            "transform": workdirs.plain(arguments["transform"]),
            "dtype": "uint8",
            "layout": "NHWC",
            "colour": "RGB",
            "note": "0 to 255; mean and deviation are the program's business",
        },
        "outputs": {
            name: {key: [None, *value.shape[1:]] for key, value in _outputs(program).items()}
            for name, program in programs.items()
        },
        "dtype": dtype,
        "space": f"{task.space}:{workdirs.stage_hash(config, 'train')}/{model.step}",
        "checkpoint": {
            "workdir": workdir.name,
            "step": model.step,
            "which": which,
            "vocabulary_hash": model.data_info.vocabulary_hash,
        },
        "lowered_on": export.default_export_platform(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "config": workdirs.plain(config),
    }
    labels = {
        "label_names": list(model.data_info.label_names),
        "vocabulary_hash": model.data_info.vocabulary_hash,
        "category_names": [list(names) for names in model.data_info.category_names],
    }

    def fill(folder):
        exported.save(folder, model.params, programs, labels, about)
        if about["lowered_on"] in platforms:
            found, wanted = exported.load(folder).embed(list(probes)), model.embed(list(probes))
            difference = float(np.abs(found - wanted).max() / np.linalg.norm(wanted, axis=1).max())
            if not difference <= TOLERANCE.get(dtype, 0.0):
                raise RuntimeError(
                    f"the exported program differs from the trained model by {difference:.1e} of a "
                    f"vector's length, more than {TOLERANCE.get(dtype, 0.0):.0e}: nothing was written"
                )
            written = atomic.read_json(folder / "config.json")
            written["compared"] = {"pictures": _PROBES, "difference": difference}
            atomic.write_json(folder / "config.json", written)

    replace_folder(out, fill)
    written = atomic.read_json(out / "config.json")
    said = written.get("compared", {}).get("difference", "not compared here")
    print(
        f"export: step {model.step} ({which}) in {out}, for {', '.join(written['platforms'])}; difference to the "
        f"trained model: {said}",
        flush=True,
    )
    return written


def _lowered(name, predict_fn, params, size, platforms):
    """Exports a predict function for any number of pictures."""

    def program(params, images):
        out = dict(predict_fn(params, {"image": images}))
        out.pop("space", None)  # a name, no array
        return jax.tree.map(lambda x: x.astype("float32") if x.dtype in ("bfloat16", "float16") else x, out)

    (batch,) = export.symbolic_shape("batch")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    pictures = jax.ShapeDtypeStruct((batch, *size, 3), np.uint8)
    try:
        return export.export(jax.jit(program), platforms=tuple(platforms))(shapes, pictures)
    except Exception as error:
        text = str(error).splitlines() or [type(error).__name__]
        raise InputError(
            f"the program {name} cannot be exported for {', '.join(platforms)}: {text[0]}; give fewer "
            f"--platforms, such as {export.default_export_platform()}"
        ) from error


def _outputs(program):
    return jax.tree.unflatten(program.out_tree, program.out_avals)


def _is_export(folder):
    return (folder / "config.json").exists() and "programs" in atomic.read_json(folder / "config.json")


def main(given) -> None:
    """Runs the command line.

    Args:
      given: its options, as `retrieval_jax.__main__` parses them.
    """
    run(given.workdir, given.out, step=given.step, which=given.which, platforms=tuple(given.platforms))
