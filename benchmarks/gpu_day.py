"""Measures everything that needs a GPU in one command, the most informative first, within a deadline.

    python benchmarks/gpu_day.py --out=$OUT [--seconds=540]            on a machine with one NVIDIA GPU, bare but for
                                                                       jax, flax, optax, torch and timm
    python benchmarks/gpu_day.py --out=/tmp/day --small                the same stages in minutes on a CPU: a rehearsal

Each stage is a process with a limit. It prints JSON lines, and each goes to results.jsonl the moment it is printed,
with the name of its stage; the rest of its output goes to log.txt. A stage that too little time is left for, or whose
packages are missing, is skipped with the reason. At the limit a stage is ended, and what it printed until then stays.
programs.tar gets the optimised programs of our steps. Python packages as wheels in --wheels are unpacked and used.

    ceilings    memory bandwidth and bfloat16 FLOP/s of the device
    attention   cuDNN's attention against the plain form: values, gradients, milliseconds
    steps       complete training steps of the four published networks, ours and timm's under torch.compile
    kernels     milliseconds of every kernel of our steps, from traces of `steps`
    before      our transformers without cuDNN's attention
    tests       the tests of layers whose form depends on the backend
    depthwise   ConvNeXt-XL's convolutions, four forms
    search      exact search of 270,336 x 2,048
    products    products of every width of the networks
    update      clipping, AdamW and moving average alone
    flags       our steps with one XLA flag at a time
    loop        the training loop against its bare step
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
# Accepted by jaxlib 0.11.2, which ends a process over a flag that it does not know; in order of their promise.
FLAGS = (
    "--xla_gpu_enable_triton_gemm=false",
    "--xla_gpu_enable_command_buffer=",
    "--xla_gpu_cudnn_gemm_fusion_level=2",
    "--xla_gpu_force_conv_nchw=true",
    "--xla_gpu_experimental_enable_conv_fusion=true",
)
SLOW = 6  # times the limits, where a rehearsal shares two cores with other work
NETWORKS = ("vit_large", "beit_large", "swin_large", "convnext_xlarge")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A process to run.

    Attributes:
      name: of the stage.
      seconds: its limit.
      least: seconds that must be left for it to start.
      command: its arguments after the interpreter.
      needs: packages without which it is skipped.
      environment: further variables.
      result: JSON file that it writes; its content becomes a result when it ends.
    """

    name: str
    seconds: float
    least: float
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    result: str = ""


def stages(work: pathlib.Path, small: bool, torch_python: str) -> list[Stage]:
    """Returns all stages in their order.

    Args:
      work: folder for their files.
      small: whether to shrink everything.
      torch_python: interpreter with torch and timm.
    """
    tiny = ("--small",) if small else ()

    def parts(name, *more):
        return (f"{HERE}/gpu_parts.py", name, *more)

    def steps(name, seconds, *more):
        seconds *= SLOW if small else 1
        own = (f"--out={work}/{name}.json", f"--deadline={seconds - 10}", f"--torch-python={torch_python}",
               *((f"--compile-limit={seconds / 2}", f"--limit={seconds / 4}") if small else ()))  # fmt: skip
        return (f"{HERE}/published_steps.py", *tiny, *own, *more)

    rows = ("--rows=2048", "--queries=64", "--dim=32", "--k=10", "--centres=64") if small else (
        "--rows=270336", "--queries=10000", "--dim=2048", "--peak=790")  # fmt: skip
    tests = [f"{HERE.parent}/tests/models/layers/test_{name}.py" for name in ("attention", "norm", "positions")]
    rounds = ("--rounds=1",) if small else ("--rounds=3", "--compile-limit=180")
    keep = (f"--profile={work}/trace", f"--programs={work}/programs")
    found = [
        Stage("ceilings", 45, 20, parts("ceilings", *tiny)),
        Stage("attention", 75, 30, parts("attention", *tiny)),
        Stage("steps", 330, 60, steps("steps", 330, *rounds, *keep)),
        Stage("kernels", 30, 10, parts("kernels", f"--trace={work}/trace"), environment=(("JAX_PLATFORMS", "cpu"),)),
        Stage("before", 120, 60, steps("before", 120, "--rounds=1", "--systems", "ours", "--attention=xla", "--models",
                                       *NETWORKS[:3])),
        Stage("tests", 90, 45, ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib",
                                *tests), needs=("pytest",),
              environment=(("JAX_DEFAULT_MATMUL_PRECISION", "highest"),)),
        Stage("depthwise", 60, 25, (f"{HERE}/depthwise.py", "--accelerator", "--rounds=3", *tiny,
                                    f"--out={work}/depthwise.json"), result=f"{work}/depthwise.json"),
        Stage("search", 120, 60, (f"{HERE}/exact_search.py", "--accelerator", "--rounds=2", *rows,
                                  f"--out={work}/search.json"), needs=("msgspec",), result=f"{work}/search.json"),
        Stage("products", 45, 20, parts("products", *tiny)),
        Stage("update", 30, 15, parts("update", *tiny)),
    ]  # fmt: skip
    for flag in () if small else FLAGS:
        models = ("convnext_xlarge",) if "conv" in flag else ("vit_large", "convnext_xlarge")
        name = "flag " + flag.strip("-")
        found.append(
            Stage(
                name,
                100,
                60,
                steps(flag.strip("-=").partition("=")[0], 100, "--rounds=1", "--systems", "ours", "--models", *models),
                environment=(("XLA_FLAGS", flag),),
            )  # fmt: skip
        )
    loop = ("--rounds=1", "--steps=16", "--batch-size=16", "--size=32", "--variant=micro", "--row=loop") if small else (
        "--rounds=2", "--steps=60", "--batch-size=256", "--size=224", "--variant=tiny")  # fmt: skip
    needs = ("msgspec", "ml_collections", "grain", "array_record", "tensorboardX", "simplejpeg", "polars", "matplotlib")
    return [*found, Stage("loop", 180, 90, (f"{HERE}/loop_overhead.py", *loop), needs=needs)]


def run(stage: Stage, seconds: float, environment: dict, write, log) -> dict:
    """Runs a stage.

    Args:
      stage: what to run.
      seconds: after which it is ended.
      environment: of the process, without the stage's own variables.
      write: takes each line of JSON that it prints.
      log: text file for everything else.

    Returns:
      seconds and status ("ended at its limit" or the exit status).
    """
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *stage.command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**environment, **dict(stage.environment)},
        start_new_session=True,  # with the processes that it starts, so that none is left behind
    )

    def forward():
        for line in process.stdout:
            try:
                value = json.loads(line) if line.startswith("{") else None
            except ValueError:
                value = None
            if value is None:
                log.write(f"{stage.name}: {line}")
                log.flush()
            else:
                write({"stage": stage.name, "result": value})

    reader = threading.Thread(target=forward, daemon=True)
    reader.start()
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = f"ended at its limit of {seconds:.0f} s"
        process.terminate()  # it ends what it started in sessions of their own
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reader.join(5)
    return {"seconds": round(time.monotonic() - start, 1), "status": status}


def about() -> dict:
    """Returns what the machine is."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        gpu = ""
    versions = {}
    for name in ("jax", "jaxlib", "torch", "timm", "flax", "optax"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "gpu": gpu or "none",
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
    }


def unpacked(wheels: pathlib.Path | None, work: pathlib.Path) -> list[str]:
    """Unpacks wheels into a folder, and returns what to put on PYTHONPATH."""
    files = sorted(wheels.glob("*.whl")) if wheels else []
    for file in files:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(work / "packages")
    return [str(work / "packages")] if files else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, help="folder for results.jsonl, log.txt, programs.tar"
    )
    parser.add_argument("--seconds", type=float, default=540, help="after which nothing runs any more")
    parser.add_argument("--stages", nargs="+", help="only these; flag names them all")
    parser.add_argument("--wheels", type=pathlib.Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has torch and timm")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a rehearsal on a CPU")
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, (given.out / "log.txt").open("a") as log:
        work = pathlib.Path(folder)
        results = (given.out / "results.jsonl").open("a")

        def write(value: dict):
            results.write(json.dumps(value) + "\n")
            results.flush()
            os.fsync(results.fileno())
            print(json.dumps(value)[:300], flush=True)

        path = [*unpacked(given.wheels, work), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        sys.path[:0] = path[:1]
        environment = {
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_COMPILATION_CACHE_DIR": str(work / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            **({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"} if given.small else {}),
            "PYTHONPATH": os.pathsep.join(path),
        }
        write({"stage": "about", "result": about()})
        for stage in stages(work, given.small, given.torch_python):
            if given.stages and stage.name.partition(" ")[0] not in given.stages:
                continue
            left = end - time.monotonic() - 5  # for the last files
            missing = [name for name in stage.needs if importlib.util.find_spec(name) is None]
            if missing or left < stage.least:
                why = f"without {', '.join(missing)}" if missing else f"{left:.0f} s left, {stage.least:.0f} needed"
                write({"stage": stage.name, "skipped": why})
                continue
            limit = stage.seconds * (SLOW if given.small else 1)
            ended = run(stage, min(limit, left), environment, write, log)
            if stage.result and pathlib.Path(stage.result).is_file():
                write({"stage": stage.name, "result": json.loads(pathlib.Path(stage.result).read_text())})
            write({"stage": stage.name, "ended": ended})
            if (work / "programs").is_dir():
                with tarfile.open(given.out / "programs.tar", "w") as archive:
                    archive.add(work / "programs", "programs")
        results.close()


if __name__ == "__main__":
    main()
