"""Programs compiled for a GPU: how their kernels are counted, and that the published steps move no more than before."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORD = json.loads((ROOT / "benchmarks" / "gpu_compiled.json").read_text())
MOST = 1.05  # times the bytes of the record
BARS = {"vit_large": 59, "beit_large": 52, "swin_large": 66}  # GB
# An interpreter with jax and its CUDA plug-ins of the record's version; by default the one that runs the tests.
PYTHON = os.environ.get("RETRIEVAL_JAX_GPU_PYTHON", sys.executable)
HLO = """
HloModule jit_f, is_scheduled=true

%fused_add (param_0: f32[4,8], param_1: f32[8]) -> f32[4,8] {
  %param_0 = f32[4,8]{1,0} parameter(0)
  ROOT %add.9 = f32[4,8]{1,0} add(%param_0, %param_0)
}

ENTRY %main (p0: f32[4,8], p1: bf16[8]) -> (f32[4,8], f32[4,8]) {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = bf16[8]{0} parameter(1)
  %wide = f32[8]{0} fusion(%p1), kind=kLoop, calls=%fused_convert, metadata={op_name="jit(f)/block3/convert"}
  %gemm = (f32[4,8]{1,0}, u8[16]{0}) custom-call(%p0, %wide), custom_call_target="__cublas$gemm"
  %first = f32[4,8]{1,0} get-tuple-element(%gemm), index=0
  %sum = f32[4,8]{1,0} fusion(%first, %wide), kind=kInput, calls=%fused_add
  %both = ((f32[4]{0}, f32[4]{0}), bf16[4,8]{1,0}) fusion(%gemm#0, /*index=1*/%p0), kind=kInput, calls=%fused_add
  %last = f32[4,8]{1,0} fusion(%both#1), kind=kLoop, calls=%fused_add
  ROOT %out = (f32[4,8]{1,0}, f32[4,8]{1,0}) tuple(%sum, %first)
}
"""


@pytest.fixture(scope="module")
def gpu_compiled():
    """The benchmark as a module, without running it."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("gpu_compiled", ROOT / "benchmarks" / "gpu_compiled.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_operands_and_results_of_every_kernel_count(gpu_compiled):
    found = gpu_compiled.kernels(HLO)
    assert [size for size, *_ in found] == [16 + 32, 128 + 32 + 144, 128 + 32 + 128, 128 + 128 + 96, 64 + 128]
    assert [kind for _, kind, _ in found] == [
        "fusion Loop",
        "custom-call __cublas$gemm",
        *["fusion Input"] * 2,
        "fusion Loop",
    ]
    assert "jit(f)/block/convert" in found[0][2]
    assert "1 x custom-call __cublas$gemm" in gpu_compiled.costliest(found, 5)


def test_the_target_is_an_h100(gpu_compiled):
    text = gpu_compiled.target()
    assert "core_count: 132\n" in text and "shared_memory_per_block_optin: 232448\n" in text
    assert "dnn_version_info { major: 9 minor: 12 patch: 0 }" in text


def test_the_record_is_below_the_bars():
    assert set(RECORD["steps"]) == {*BARS, "convnext_xlarge"}
    for name, most in BARS.items():
        assert RECORD["steps"][name]["gigabytes"] <= most, name


def missing() -> str:
    """Returns why nothing can be compiled for the GPU here, or ""."""
    code = "import jax, jax_plugins.xla_cuda13, jax_cuda13_plugin; print(jax.__version__)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    if done.returncode:
        return "needs jax-cuda13-plugin and jax-cuda13-pjrt: point RETRIEVAL_JAX_GPU_PYTHON at a Python that has them"
    version = done.stdout.strip()
    return "" if version == RECORD["jax"] else f"the record is of jax {RECORD['jax']}, and {PYTHON} has {version}"


@pytest.mark.long
@pytest.mark.parametrize("name", list(RECORD["steps"]))
def test_a_published_step_moves_no_more_bytes_than_before(name, tmp_path):
    if why := missing():
        pytest.skip(why)
    command = [PYTHON, str(ROOT / "benchmarks" / "gpu_compiled.py"), "--models", name, f"--out={tmp_path}/found.json"]
    done = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found, before = json.loads((tmp_path / "found.json").read_text())["steps"][name], RECORD["steps"][name]
    assert found["gigabytes"] <= MOST * before["gigabytes"], (
        f"{name} moves {found['gigabytes']} GB per step, and moved {before['gigabytes']}: undo what made it read or "
        f"write more, or record it: benchmarks/gpu_compiled.py --models {name} --out=benchmarks/gpu_compiled.json"
    )
