"""What the program of a stranger may not do."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from retrieval_jax import programs
from retrieval_jax.errors import InputError


def made(function, **kwargs):
    (batch,) = export.symbolic_shape("batch")
    rows = jax.ShapeDtypeStruct((batch, 8), np.float32)
    return export.export(jax.jit(function), platforms=("cpu",), **kwargs)(rows)


def custom(target, **attributes):
    def function(rows):
        return jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(rows.shape, np.float32))(rows, **attributes)

    return made(function, disabled_checks=[export.DisabledSafetyCheck.custom_call(target)])


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: jax.nn.gelu(rows @ jnp.ones((8, 3)), approximate=False),
        lambda rows: jax.lax.top_k(jnp.sort(rows), 3),
        lambda rows: jax.lax.fori_loop(0, 3, lambda _, x: x * 2, rows).astype(jnp.bfloat16),
        lambda rows: jax.lax.reduce_window(rows, -jnp.inf, jax.lax.max, (1, 2), (1, 2), "VALID"),
        lambda rows: rows + jax.random.normal(jax.random.key(0), (8,)),
        lambda rows: jax.lax.cond(rows.sum() > 0, jnp.sin, jax.jit(jnp.cos), rows),
    ],
)
def test_what_networks_are_made_of_is_run(function):
    assert programs.problem(made(function)) == ""


@pytest.mark.parametrize(
    "target", ["xla_ffi_python_cpu_callback", "xla_python_cpu_callback", "lapack_sgesdd_ffi", "Sharding", "unknown"]
)
def test_custom_calls_are_refused(target):
    attributes = {"index": np.uint64(0x4141414141414141)} if "callback" in target else {}
    assert f"a custom call of {target!r}" in programs.problem(custom(target, **attributes))


def test_so_are_those_that_hide_in_loops_and_functions():
    target = "xla_ffi_python_cpu_callback"

    @jax.jit
    def inner(x):
        return jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(x.shape, x.dtype))(x)

    def function(rows):
        return jax.lax.fori_loop(0, 3, lambda _, x: jax.lax.cond(x.sum() > 0, inner, jnp.sin, x), rows)

    program = made(function, disabled_checks=[export.DisabledSafetyCheck.custom_call(target)])
    assert "a custom call of 'xla_ffi_python_cpu_callback'" in programs.problem(program)


def test_values_that_no_machine_holds_are_refused():
    for function in (
        lambda rows: rows + jnp.zeros((10**6, 10**6)).sum(),
        lambda rows: rows + jnp.sort(jnp.zeros((2, 10**9)))[0, 0],
    ):
        assert "of more than 4 GiB" in programs.problem(made(function))


MODULE = """
module @jit_f attributes {{mhlo.num_partitions = 1 : i32, mhlo.num_replicas = {replicas}}} {{
  func.func public @main(%arg0: tensor<8xf32>{argument}) -> tensor<8xf32> {{
    %0 = call @f(%arg0) : (tensor<8xf32>) -> tensor<8xf32>
    {body}
    return %0 : tensor<8xf32>
  }}
  func.func private @f(%arg0: tensor<8xf32>) -> tensor<8xf32> {{
    {inner}
  }}
}}
"""


class Program:
    """Stands for an `Exported` with a module of one's own."""

    nr_devices, ordered_effects, unordered_effects = 1, (), ()

    def __init__(self, replicas="1 : i32", argument="", body="", inner="return %arg0 : tensor<8xf32>"):
        self.text = MODULE.format(replicas=replicas, argument=argument, body=body, inner=inner)

    def mlir_module(self):
        return self.text


@pytest.mark.parametrize(
    "changed, message",
    [
        ({}, ""),
        ({"replicas": "4 : i32"}, "mhlo.num_replicas is 4"),
        ({"argument": ' {mhlo.sharding = "{replicated}"}'}, "the attribute 'mhlo.sharding'"),
        ({"argument": " {tf.aliasing_output = 0 : i32}"}, "the attribute 'tf.aliasing_output'"),
        (
            {"inner": "%0 = call @f(%arg0) : (tensor<8xf32>) -> tensor<8xf32>\n return %0 : tensor<8xf32>"},
            "call each other in a circle",
        ),
        ({"body": "%1 = stablehlo.after_all : !stablehlo.token"}, "operation stablehlo.after_all"),
        (
            {
                "body": '%1 = stablehlo.create_token : !stablehlo.token\n"stablehlo.send"(%0, %1) '
                "{channel_handle = #stablehlo.channel_handle<handle = 1, type = 2>, is_host_transfer = true} : "
                "(tensor<8xf32>, !stablehlo.token) -> !stablehlo.token"
            },
            "operation stablehlo.(send|create_token)",
        ),
        (
            {"body": '%1 = stablehlo.composite "other.f" %0 {decomposition = @f} : (tensor<8xf32>) -> tensor<8xf32>'},
            "composite operation 'other.f'",
        ),
        (
            {
                "body": "%1 = stablehlo.add %0, %0 "
                '{mhlo.frontend_attributes = {_xla_compute_type = "host"}} : tensor<8xf32>'
            },
            "the attribute 'mhlo.frontend_attributes'",
        ),
        ({"body": "%1 = stablehlo.constant dense<0.0> : tensor<1000000x1000000xf32>"}, "more than 4 GiB"),
    ],
)
def test_operations_and_attributes_that_networks_do_not_need_are_refused(changed, message):
    found = programs.problem(Program(**changed))
    assert re.search(message, found) if message else not found


def test_files_are_read_in_a_process_that_may_crash(tmp_path):
    good, bad, cut = tmp_path / "good", tmp_path / "bad", tmp_path / "cut"
    good.write_bytes(made(jnp.sin).serialize())
    programs.check([good])
    bad.write_bytes(custom("lapack_sgesdd_ffi").serialize())
    with pytest.raises(InputError, match="bad is not run: it has a custom call of 'lapack_sgesdd_ffi'"):
        programs.check([good, bad])
    for content in (b"", good.read_bytes()[:-500], b"\xff" * 1000, bytes(5000)):
        cut.write_bytes(content)
        with pytest.raises(InputError, match="cut is not run: it cannot be read"):
            programs.check([cut])
    cut.write_bytes(made(jnp.sin).serialize(vjp_order=1))
    with pytest.raises(InputError, match="it holds derivatives"):
        programs.check([cut])


def test_a_crash_or_a_hang_is_a_refusal(tmp_path, monkeypatch):
    for words in (["false"], ["sh", "-c", "kill -SEGV $$"], ["echo", "{"], ["sleep", "9"]):
        run = programs.subprocess.run
        monkeypatch.setattr(
            programs.subprocess,
            "run",
            lambda _, words=words, run=run, **given: run(words, **(given | {"timeout": 0.5})),
        )
        with pytest.raises(InputError, match="crashes or takes too long"):
            programs.check([tmp_path / "a"])
        monkeypatch.undo()


def test_calls_that_multiply_are_counted_as_a_compiler_writes_them_out():
    twice = collections.Counter
    calls = {f"f{i}": twice({f"f{i + 1}": 2}) for i in range(30)}
    assert programs._written_out(calls, collections.Counter({f"f{i}": 1 for i in range(31)})) == 2**31 - 1
    assert programs._written_out({"a": twice("b"), "b": twice("a")}, collections.Counter("ab")) is None
    assert programs._written_out({}, collections.Counter({"main": 5})) == 5
