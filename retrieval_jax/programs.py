"""Checks what the programs of an exported model could do, before anything in them is compiled or run.

A program is StableHLO. Nearly all of its operations are arithmetic, but a custom call runs any function that is
registered in the process, with arguments of the program's choice: one of a Python callback jumps to an address. So
operations, custom calls and sizes are compared with a list of what exported networks need.

The readers of JAX and MLIR are not made for files of strangers: 2 of 400 modules with changed bytes crashed or hung
them (jax 0.10). `check` therefore reads the files in a process of its own, which has limits of time and memory:

    python -m retrieval_jax.programs FILE ...     prints {FILE: what is wrong with it, "" for nothing} as JSON
"""

import collections
import json
import math
import os
import pathlib
import re
import resource
import subprocess
import sys
from collections.abc import Iterable

from retrieval_jax.errors import InputError, first_line, short

# A check of sizes, which JAX evaluates before it compiles. No network here needs another custom call.
CUSTOM_CALLS = {"shape_assertion"}
OPERATIONS = {
    *("builtin.module", "func.call", "func.func", "func.return"),
    *(
        f"stablehlo.{name}"
        for name in """
        abs add and atan2 batch_norm_inference bitcast_convert broadcast broadcast_in_dim case cbrt ceil cholesky clamp
        compare complex composite concatenate constant convert convolution cosine count_leading_zeros custom_call divide
        dot dot_general dynamic_broadcast_in_dim dynamic_conv dynamic_gather dynamic_iota dynamic_pad dynamic_reshape
        dynamic_slice dynamic_update_slice einsum exponential exponential_minus_one fft floor gather get_dimension_size
        if imag iota is_finite log log_plus_one logistic map maximum minimum multiply negate not optimization_barrier or
        pad popcnt power real real_dynamic_slice reduce reduce_precision reduce_window remainder reshape return reverse
        rng_bit_generator round_nearest_afz round_nearest_even rsqrt scatter select select_and_scatter shift_left
        shift_right_arithmetic shift_right_logical sign sine slice sort sqrt subtract tan tanh torch_index_select
        transpose triangular_solve while xor
        """.split()
    ),
}
# Attributes of the compiler that a module and its functions may carry; others can place data, or hold further programs.
_ATTRIBUTES = {
    *("jax.global_constant", "jax.result_info", "jax.uses_shape_polymorphism"),
    *("mhlo.num_partitions", "mhlo.num_replicas"),
}
_MOST_BYTES = 4 << 30  # of one value, for one row; the largest of the networks here has 0.15 GiB
_MOST_OPERATIONS = 1_000_000
_SECONDS, _MEMORY = 120, 16 << 30  # of the process that reads programs


def check(files: Iterable[pathlib.Path]) -> None:
    """Checks programs in a process of its own.

    Args:
      files: local files that `jax.export.Exported.serialize` wrote.

    Raises:
      InputError: a file cannot be read, or its program could do what a network need not do.
    """
    files = [str(file) for file in files]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "retrieval_jax.programs", *files],
            capture_output=True,
            env=environment,
            timeout=_SECONDS,
        )
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except (subprocess.TimeoutExpired, ValueError):
        found = {}
    for file in files:
        problem = found.get(file, "reading it crashes or takes too long")
        if problem:
            raise InputError(f"{file} is not run: {problem}. Export the model again with `retrieval-jax export`")


def problem(program) -> str:
    """Returns what a program has that an exported network need not have, "" for nothing.

    Args:
      program: `jax.export.Exported`.
    """
    from jax.extend.mlir import ir
    from jax.interpreters import mlir

    if program.nr_devices != 1 or program.ordered_effects or program.unordered_effects:
        return f"it wants {program.nr_devices} devices or has effects beside its results"
    with mlir.make_ir_context(), ir.Location.unknown():
        return _module_problem(ir.Module.parse(program.mlir_module()).operation)


def _module_problem(module) -> str:
    calls: dict[str, collections.Counter[str]] = {}
    own: collections.Counter[str] = collections.Counter()  # operations of each function
    waiting, count = [(module, "")], 0
    while waiting:
        operation, function = waiting.pop()
        operation, count = operation.operation, count + 1
        if count > _MOST_OPERATIONS:
            return f"it has more than {_MOST_OPERATIONS:,} operations"
        attributes = {name if isinstance(name, str) else name.name for name in operation.attributes}
        if operation.name == "func.func":
            function = _text(operation, "sym_name")
        own[function] += 1
        if wrong := _operation_problem(operation, attributes):
            return wrong
        called = {"func.call": "callee", "stablehlo.composite": "decomposition"}.get(operation.name)
        if called:
            calls.setdefault(function, collections.Counter())[_text(operation, called)] += 1
        for region in operation.regions:
            for block in region.blocks:
                waiting += [(one, function) for one in block.operations]
    written_out = _written_out(calls, own)
    if written_out is None:
        return "its functions call each other in a circle"
    if written_out > _MOST_OPERATIONS:
        return f"it has more than {_MOST_OPERATIONS:,} operations where its calls are written out"
    return ""


def _operation_problem(operation, attributes: set[str]) -> str:
    name = operation.name
    if name not in OPERATIONS and not name.startswith("chlo."):
        return f"it has the operation {short(name)}, which networks do not need"
    if name == "stablehlo.custom_call":
        target = _text(operation, "call_target_name")
        if target not in CUSTOM_CALLS or attributes & {"called_computations", "backend_config"}:
            return f"it has a custom call of {short(target)!r}, which would run code that is not in the program"
    if name == "stablehlo.composite" and not _text(operation, "name").startswith("chlo."):
        return f"it has the composite operation {short(_text(operation, 'name'))!r}, which networks do not need"
    for attribute in sorted(attributes):
        text = str(operation.attributes[attribute])
        named = {attribute} if "." in attribute else set()
        if attribute in ("arg_attrs", "res_attrs"):
            named = set(re.findall(r"([\w.]+) = ", text))
        if unknown := named - _ATTRIBUTES:
            return f"it has the attribute {short(min(unknown))!r}, which networks do not need"
        if attribute in ("mhlo.num_partitions", "mhlo.num_replicas") and text != "1 : i32":
            return f"{attribute} is {short(text)}, not 1"
    for result in operation.results:
        size = _bytes(str(result.type))
        if size is None or size > _MOST_BYTES:
            return (
                f"{name} makes a {short(str(result.type))}, of more than {_MOST_BYTES >> 30} GiB or of an unknown kind"
            )
    return ""


def _text(operation, attribute: str) -> str:
    """Returns a text attribute, or the name of a symbol, without its quotes."""
    try:
        return str(operation.attributes[attribute]).removeprefix("@").strip('"')
    except KeyError:
        return ""


def _bytes(kind: str) -> int | None:
    """Returns the bytes of a value by the text of its type, a dimension that is known later as 1; None for no array."""
    match = re.fullmatch(r"tensor<((?:(?:\?|\d+)x)*)(complex<)?[a-z]+(\d*)\w*>?(?:, #stablehlo\.bounds<.*>)?>", kind)
    if match is None:
        return None
    sides = [int(side) for side in match[1].split("x") if side not in ("", "?")]
    width = max(1, int(match[3] or 64) // 8) * (2 if match[2] else 1)
    return math.prod(sides) * width


def _written_out(calls: dict[str, collections.Counter[str]], own: collections.Counter[str]) -> int | None:
    """Returns the operations of the largest function where every call stands for what it calls, as a compiler does it.

    Args:
      calls: {function: how often it calls others}; emptied.
      own: operations of each function.

    Returns:
      None if functions call each other in a circle.
    """
    while leaves := [name for name, called in calls.items() if not called.keys() & calls.keys()]:
        for name in leaves:
            own[name] += sum(own[called] * times for called, times in calls[name].items())
        for name in leaves:
            del calls[name]
    return None if calls else max(own.values(), default=0)


def _read(file: str) -> str:
    """Returns what is wrong with a file."""
    from jax import export

    try:
        program = export.deserialize(bytearray(pathlib.Path(file).read_bytes()))
        return "it holds derivatives, which nothing here uses" if program.has_vjp() else problem(program)
    except Exception as error:  # neither JAX's reader nor MLIR's checks what it reads
        return f"it cannot be read ({first_line(error)})"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps({file: _read(file) for file in sys.argv[1:]}))
