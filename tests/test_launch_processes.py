"""launch/local_processes.sh with real processes: signals, exit codes, GPUs, and a training by two that is one's."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Stands for a trainer: says its rank, ends as its rank's line of $BEHAVIOUR says; for anything but the run, Python.
TRAINER = """#!/bin/bash
[[ $1 == -m ]] || exec {python} "$@"
shift 2
IFS=, read -r address count rank <<<"$RETRIEVAL_JAX_DISTRIBUTED"
echo "$address $count ${{CUDA_VISIBLE_DEVICES:-}} $*" >"$LOGS/$rank"
eval "$(sed -n "$((rank + 1))p" <<<"$BEHAVIOUR")"
"""
WAITS = "trap 'echo saved >>$LOGS/$rank; exit {}' TERM; sleep 30 >/dev/null 2>&1 & wait"


def make_checkout(folder, python):
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "launch" / "setup.sh").write_text("#!/bin/bash\n")
    for name in ("retrieval_jax", "configs"):
        (folder / name).symlink_to(ROOT / name)
    file = folder / ".venv" / "bin" / "python"
    file.parent.mkdir(parents=True)
    file.write_text(python)
    file.chmod(0o755)
    return folder


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "logs").mkdir()
    return make_checkout(tmp_path / "a checkout", TRAINER.format(python=sys.executable))


def start(checkout, count, behaviour, **env):
    env = {
        "JAX_PLATFORMS": "cpu",
        **os.environ,
        "LOGS": str(checkout.parent / "logs"),
        "BEHAVIOUR": "\n".join(behaviour),
        "RETRIEVAL_JAX_GRACE": "2",
        **env,
    }
    return subprocess.Popen(
        [str(checkout / "launch" / "local_processes.sh"), str(count), "--config=a b.py"],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def logs(checkout, count):
    """Returns what each process wrote, once all of them did."""
    files = [checkout.parent / "logs" / str(rank) for rank in range(count)]
    deadline = time.monotonic() + 20
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [file.read_text().splitlines() for file in files]


def test_every_process_has_a_rank_and_all_succeed(checkout):
    job = start(checkout, 3, ["exit 0"] * 3)
    assert job.communicate(timeout=20)[1] == "" and job.returncode == 0
    lines = [log[0].split(" ", 2) for log in logs(checkout, 3)]
    assert len({address for address, *_ in lines}) == 1 and lines[0][0].startswith("127.0.0.1:")
    assert [(count, rest.strip()) for _, count, rest in lines] == [("3", "--config=a b.py")] * 3


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_and_they_save(checkout, sent):
    job = start(checkout, 2, [WAITS.format(75)] * 2)
    logs(checkout, 2)
    time.sleep(0.3)
    job.send_signal(sent)
    job.communicate(timeout=20)
    assert job.returncode == 75
    assert [log[1:] for log in logs(checkout, 2)] == [["saved"], ["saved"]]


def test_the_first_that_fails_gives_the_exit_code_and_the_rest_are_stopped(checkout):
    job = start(checkout, 3, [WAITS.format(75), "sleep 1; exit 9", WAITS.format(75)])
    _, err = job.communicate(timeout=20)
    assert job.returncode == 9 and "a process ended with 9" in err
    assert [log[1:] for log in logs(checkout, 3)] == [["saved"], [], ["saved"]]


def test_one_that_does_not_hear_is_killed_after_the_grace_period(checkout):
    job = start(checkout, 2, ["sleep 0.5; exit 3", "trap '' TERM; exec sleep 30 >/dev/null 2>&1"])
    started = time.monotonic()
    job.communicate(timeout=25)
    assert job.returncode == 3 and time.monotonic() - started < 15


def test_a_signal_that_nobody_hears_kills_after_the_grace_period(checkout):
    job = start(checkout, 2, ["trap '' TERM; exec sleep 30 >/dev/null 2>&1"] * 2)
    logs(checkout, 2)
    time.sleep(0.3)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=15)
    assert job.returncode == 137


def test_a_killed_process_is_a_failure_too(checkout):
    job = start(checkout, 2, ["sleep 0.5; kill -KILL $$", WAITS.format(75)])
    job.communicate(timeout=20)
    assert job.returncode == 137


@pytest.mark.parametrize(
    "env, shares",
    [({}, ["0,1", "2,3"]), ({"CUDA_VISIBLE_DEVICES": "5,3"}, ["5", "3"]), ({"JAX_PLATFORMS": "cpu"}, ["", ""])],
)
def test_gpus_are_shared_out(checkout, env, shares):
    smi = checkout / "nvidia-smi"
    smi.write_text("#!/bin/bash\nprintf '%s\\n' 0 1 2 3\n")
    smi.chmod(0o755)
    env = {"PATH": f"{checkout}:{os.environ['PATH']}", "JAX_PLATFORMS": "", "CUDA_VISIBLE_DEVICES": "", **env}
    job = start(checkout, 2, ["exit 0"] * 2, **env)
    assert job.communicate(timeout=20)[1] == ""
    assert [log[0].split(" ")[2] for log in logs(checkout, 2)] == shares
    if not shares[0].isdigit() and shares[0]:
        job = start(checkout, 3, ["exit 0"] * 3, **env)
        assert "4 GPUs cannot be shared equally by 3" in job.communicate(timeout=20)[1] and job.returncode == 1


def test_a_number_is_asked_for(checkout):
    done = subprocess.run(
        [str(checkout / "launch" / "local_processes.sh"), "--config=x"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "how many processes" in done.stderr


@pytest.mark.long
def test_two_processes_walk_the_whole_way_and_train_as_one_does(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    losses, vectors = {}, {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        done = subprocess.run(
            [
                str(checkout / "launch" / "local_processes.sh"),
                str(count),
                f"--config={ROOT}/configs/quickstart.py:runlocal",
                f"--workdir={folder}",
            ],
            text=True,
            capture_output=True,
            timeout=560,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("report: runs") == 1, done.stdout  # the second process does not
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        losses[count] = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
        vectors[count] = json.loads((folder / "metrics.json").read_text())["stages"]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)  # sums in another order
    assert [stage["num_scored"] for stage in vectors[1]] == [stage["num_scored"] for stage in vectors[2]]
