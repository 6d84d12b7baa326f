"""Exported programs as ONNX files, for whatever runs those: parameters inside, any number of rows."""

from __future__ import annotations

import contextlib
import importlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from retrieval_jax.errors import InputError, first_line

MOST_BYTES = 1_900_000_000  # of parameters: a protobuf has at most 2 GiB
OPSET = 21  # onnxruntime 1.20 (2024) reads it


def convert(
    name: str, program: Callable, params: Any, inputs: Sequence[Mapping[str, Any]], file: pathlib.Path
) -> list[str]:
    """Writes a program as one ONNX file.

    Args:
      name: of the program, for messages.
      program: (params, *arrays) -> {name: [B, ...]}.
      params: pytree of arrays, which become constants.
      inputs: of `export.specs`; the file takes them by name.
      file: to write.

    Returns:
      The names of the outputs.

    Raises:
      InputError: the converter is not installed, or cannot convert the program.
    """
    jax2onnx, onnx = _library("jax2onnx"), _library("onnx")
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    if size > MOST_BYTES:
        raise InputError(f"--onnx: the parameters have {size:,} bytes, and an ONNX file has at most {MOST_BYTES:,}")
    shapes = []
    for spec in inputs:
        sides = ["B" if at == 0 else f"L_{spec['name'].removesuffix('_mask')}" for at in range(len(spec["shape"]))]
        shape = jax.export.symbolic_shape(
            ",".join(side if known is None else str(known) for side, known in zip(sides, spec["shape"], strict=True)),
            **({"scope": shapes[0].shape[0].scope} if shapes else {}),
        )
        shapes.append(jax.ShapeDtypeStruct(shape, np.dtype(spec.get("dtype", "uint8"))))
    outputs = sorted(jax.eval_shape(lambda *arrays: program(params, *arrays), *shapes))

    def listed(*arrays):
        found = program(params, *arrays)
        return tuple(found[key] for key in outputs)

    names = [spec["name"] for spec in inputs]
    try:
        with _quiet():
            made = jax2onnx.to_onnx(
                listed, shapes, model_name=name, opset=OPSET, input_names=names, output_names=outputs
            )
        onnx.save(made, str(file))
    except Exception as error:  # whatever the converter raises for an operation that it does not know
        raise InputError(
            f"--onnx: the program {name} cannot be converted ({type(error).__name__}: {first_line(error)}); export "
            "without --onnx"
        ) from error
    return outputs


def run(file: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs an ONNX file with onnxruntime on the CPU.

    Args:
      file: of `convert`.
      arrays: the inputs by name; further ones are left out.

    Returns:
      {name: array}.
    """
    onnxruntime = _library("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = {one.name: arrays[one.name] for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"--onnx needs {name}, which is not installed ({error}): pip install --no-deps -r requirements-onnx.txt"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter's remarks on single shapes from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
