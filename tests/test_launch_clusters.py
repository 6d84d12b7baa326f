"""The scripts for clusters, on a PATH where srun, sbatch, gcloud, kubectl and docker only record their calls."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / "launch" / "slurm.sbatch", ROOT / ".ci" / "run"]
TOOLS = ("bash", "dirname", "cat", "mktemp", "rm", "git", "env", "sleep", "gzip", "tar")
TPU = {"TPU_NAME": "mine", "TPU_ZONE": "us-east5-b", "TPU_TYPE": "v5litepod-64"}
GKE = {"GKE_IMAGE": "registry/image:1", "GKE_SERVICE_ACCOUNT": "trainer@project.iam.gserviceaccount.com"}
OPTIONS = ("--config=configs/a b.py", '--config.search.steps=(("whitening", {}),)', "--workdir=gs://bucket/run")

# Writes its words, its standard input and what it sees of our settings, then ends as FAKE_<name> says.
STAND_IN = r"""#!/bin/bash
name="${0##*/}"
{ printf '%s\037' "$name" "$@"; printf '\036'; } >>"$CALLS"
[[ $name != kubectl || $* != *filename=-* ]] || cat >"$CALLS.applied"
[[ $name != srun ]] || env | grep -E '^(RETRIEVAL_JAX|SRUN|PYTHON)' >"$CALLS.env"
code="FAKE_${name%.*}"
eval "${!code:-exit 0}"
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder with launch/ (whose setup.sh records too) and a bin/ of stand-ins."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "bin").mkdir()
    for tool in (*TOOLS, "grep"):
        (folder / "bin" / tool).symlink_to(shutil.which(tool))
    for tool in ("srun", "sbatch", "scontrol", "gcloud", "kubectl", "docker"):
        (folder / "bin" / tool).write_text(STAND_IN)
        (folder / "bin" / tool).chmod(0o755)
    (folder / "launch" / "setup.sh").write_text(STAND_IN)
    for words in ("init -q .", "add -A launch", "-c user.name=a -c user.email=a@b commit -qm a"):
        subprocess.run(["git", *words.split()], cwd=folder, check=True)
    return folder


def environment(checkout, **env):
    return {"PATH": str(checkout / "bin"), "HOME": str(checkout), "CALLS": str(checkout / "calls"), **env}


def start(checkout, script, *words, **env):
    return subprocess.run(
        [str(checkout / "launch" / script), *words],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(checkout, **env),
    )


def calls(checkout):
    file = checkout / "calls"
    return [call.split("\037")[:-1] for call in file.read_text().split("\036")[:-1]] if file.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script):
    found = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("shellcheck is not installed: pip install -r requirements-dev.txt")
    done = subprocess.run([found, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "script, words, shown",
    [
        ("local.sh", ["--config=x"], "-m retrieval_jax.run --config=x"),
        ("test.sh", ["-k", "hash"], "-m pytest -k hash"),
        ("local_processes.sh", ["2", "--config=x"], "RETRIEVAL_JAX_DISTRIBUTED=127.0.0.1:PORT\\,2\\,1"),
        ("slurm.sbatch", ["--config=x"], "srun --wait=300"),
        ("tpu_vm.sh", ["create"], "gcloud compute tpus tpu-vm create mine"),
        ("tpu_vm.sh", ["setup"], "gcloud compute tpus tpu-vm scp"),
        ("tpu_vm.sh", ["run", *OPTIONS], "gcloud compute tpus tpu-vm ssh mine"),
        ("gke.sh", ["build"], "docker push registry/image:1"),
        ("gke.sh", ["run", "mine", *OPTIONS], "kubectl apply --filename=-"),
        ("gke.sh", ["delete", "mine"], "kubectl delete jobset mine"),
    ],
)
def test_dry_run_shows_the_commands_and_calls_nothing(checkout, script, words, shown):
    done = start(checkout, script, "--dry-run", *words, **TPU, **GKE)
    assert done.returncode == 0 and shown in done.stdout, done.stdout + done.stderr
    assert calls(checkout) == []


def test_every_script_has_a_dry_run():
    assert not [script.name for script in SCRIPTS[:-1] if "--dry-run" not in script.read_text()]


# ------------------------------------------------------------------------------------------------------------ Slurm


def test_slurm_submits_itself_and_asks_for_a_signal_and_another_turn(checkout):
    done = start(checkout, "slurm.sbatch", *OPTIONS)
    assert done.returncode == 0, done.stderr
    script = str(checkout / "launch" / "slurm.sbatch")
    assert calls(checkout) == [["sbatch", f"--export=ALL,RETRIEVAL_JAX_CHECKOUT={checkout}", script, *OPTIONS]]
    text = (ROOT / "launch" / "slurm.sbatch").read_text()
    asked = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--signal=B:TERM@300", "--requeue", "--open-mode=append"} <= set(asked)
    tasks = next(word for word in asked if word.startswith("--ntasks-per-node=")).partition("=")[2]
    assert f"--gpus-per-node={tasks}" in asked  # a task a GPU; --gpus-per-task would hide the GPUs from JAX


def slurm_job(checkout, srun, **env):
    """Runs the script as Slurm does: a copy elsewhere, in a job."""
    copy = checkout / "spool"
    shutil.copy(checkout / "launch" / "slurm.sbatch", copy)
    return subprocess.Popen(
        [str(copy), *OPTIONS],
        cwd="/",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(
            checkout, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(checkout), SLURM_CPUS_PER_TASK="12", FAKE_srun=srun, **env
        ),
    )


@pytest.mark.parametrize("code, requeued", [(0, False), (75, True), (1, False), (2, False)])
def test_slurm_goes_back_into_the_queue_for_exit_code_75_alone(checkout, code, requeued):
    job = slurm_job(checkout, f"exit {code}")
    out, err = job.communicate(timeout=20)
    assert job.returncode == (0 if requeued else code), err
    made = calls(checkout)
    assert made[0] == ["setup.sh", "requirements-gpu.txt"]
    assert made[1] == ["srun", "--wait=300", str(checkout / ".venv/bin/python"), "-m", "retrieval_jax.run", *OPTIONS]
    assert made[2:] == ([["scontrol", "requeue", "7"]] if requeued else [])
    seen = (checkout / "calls.env").read_text()
    assert "RETRIEVAL_JAX_DISTRIBUTED=auto" in seen and "SRUN_CPUS_PER_TASK=12" in seen


def test_a_job_of_an_array_takes_the_arguments_of_its_number(checkout):
    (checkout / "array").mkdir()
    (checkout / "array" / "3").write_text("".join(f"{word}\n" for word in OPTIONS))
    words = ("--dry-run", f"--arguments={checkout / 'array'}")
    done = start(checkout, "slurm.sbatch", *words, SLURM_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    last = shlex.split(done.stdout.splitlines()[-2])
    assert done.returncode == 0 and tuple(last[-3:]) == OPTIONS and "retrieval_jax.run" in last, done.stderr
    done = start(checkout, "slurm.sbatch", *words, SLURM_JOB_ID="7")
    assert done.returncode != 0 and "--arguments is for the jobs of an array" in done.stderr


@pytest.mark.parametrize("code, requeued", [(75, True), (143, True), (0, False)])
def test_slurm_hands_the_signal_on_and_waits_for_the_save(checkout, code, requeued):
    saving = (
        f'trap \'sleep 1; echo saved >>"$CALLS.saved"; exit {code}\' TERM; echo up >"$CALLS.up"; '
        "sleep 60 >/dev/null 2>&1 & wait"
    )
    job = slurm_job(checkout, saving)
    deadline = time.monotonic() + 30
    while not (checkout / "calls.up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=20)
    assert (checkout / "calls.saved").read_text() == "saved\n"
    assert job.returncode == 0, err
    assert (calls(checkout)[-1] == ["scontrol", "requeue", "7"]) == requeued


def test_slurm_does_not_miss_the_queue_because_of_one_who_does_not_listen(checkout):
    job = slurm_job(
        checkout, "trap '' TERM; echo up >\"$CALLS.up\"; exec sleep 15 >/dev/null 2>&1", RETRIEVAL_JAX_GRACE="1"
    )
    deadline = time.monotonic() + 10
    while not (checkout / "calls.up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    out, err = job.communicate(timeout=12)
    assert calls(checkout)[-1] == ["scontrol", "requeue", "7"], out + err


# ---------------------------------------------------------------------------------------------------------- TPU VM


def test_tpu_vm_from_create_to_delete(checkout):
    for words in (["create"], ["setup"], ["run", *OPTIONS], ["logs"], ["stop"], ["delete"]):
        done = start(checkout, "tpu_vm.sh", *words, **TPU, TPU_PROJECT="p", TPU_SPOT="1")
        assert done.returncode == 0, done.stderr
    made = calls(checkout)
    assert all(call[:4] == ["gcloud", "compute", "tpus", "tpu-vm"] for call in made)
    assert all("--zone=us-east5-b" in call and "--project=p" in call for call in made)
    verbs = [call[4] for call in made]
    assert verbs == ["create", "scp", "ssh", "ssh", "ssh", "ssh", "delete"]
    assert {"--accelerator-type=v5litepod-64", "--version=v2-alpha-tpuv5-lite", "--spot"} <= set(made[0])
    assert made[1][6] == "mine:retrieval_jax.tar.gz" and "--worker=all" in made[1]
    commands = [call[-1].removeprefix("--command=") for call in made if call[4] == "ssh"]
    assert "setup.sh requirements-tpu.txt requirements-gcs.txt" in commands[0]
    assert ["--worker=all", "--worker=all", "--worker=0", "--worker=all"] == [call[-2] for call in made[2:6]]


def test_tpu_vm_commands_do_on_a_host_what_they_say(checkout, tmp_path):
    """Runs the command lines for the hosts here, with a Python that tells what it was given."""
    for words in (["run", *OPTIONS], ["logs"], ["stop"]):
        assert start(checkout, "tpu_vm.sh", *words, **TPU).returncode == 0
    run, logs, stop = [call[-1].removeprefix("--command=") for call in calls(checkout)]
    python = tmp_path / "home" / "retrieval_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/bash\nprintf '%s\\n' \"$RETRIEVAL_JAX_DISTRIBUTED\" \"$@\"\ntrap 'exit 75' TERM\n"
        "echo up; sleep 30 >/dev/null 2>&1 & wait\n"
    )
    python.chmod(0o755)
    started = time.monotonic()
    subprocess.run(["bash", "-c", run], cwd=tmp_path / "home", check=True, timeout=30)
    assert time.monotonic() - started < 10  # it goes on without us
    log = python.parents[2] / "run.log"
    while not (log.exists() and "up" in log.read_text()) and time.monotonic() < started + 20:
        time.sleep(0.05)
    assert log.read_text().splitlines() == ["auto", "-m", "retrieval_jax.run", *OPTIONS, "up"]
    follower = subprocess.Popen(
        ["bash", "-c", logs],
        cwd=tmp_path / "home",
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    subprocess.run(["bash", "-c", stop], cwd=tmp_path / "home", check=True, timeout=30)
    out, err = follower.communicate(timeout=20)
    assert follower.returncode == 75 and "--workdir=gs://bucket/run" in out, err


def test_tpu_vm_refuses_a_work_directory_on_a_disk_that_goes_with_the_machine(checkout):
    done = start(checkout, "tpu_vm.sh", "run", "--config=x", "--workdir=runs/x", **TPU)
    assert done.returncode == 1 and "--workdir=gs://" in done.stderr and calls(checkout) == []
    done = start(checkout, "tpu_vm.sh", "create", TPU_NAME="mine")
    assert done.returncode == 1 and "TPU_ZONE" in done.stderr


# -------------------------------------------------------------------------------------------------------------- GKE


def validate(documents):
    jsonschema = pytest.importorskip("jsonschema", reason="pip install -r requirements-dev.txt")
    for document in documents:
        name = {"JobSet": "jobset", "ServiceAccount": "service_account"}[document["kind"]]
        schema = json.loads((ROOT / "tests" / "schemas" / f"{name}.json").read_text())
        jsonschema.Draft7Validator(schema).validate(document)


@pytest.mark.parametrize("kind, resource", [("tpu", "google.com/tpu"), ("gpu", "nvidia.com/gpu")])
def test_gke_applies_a_service_account_and_a_job_set_that_a_server_would_take(checkout, kind, resource):
    yaml = pytest.importorskip("yaml", reason="pip install -r requirements-dev.txt")
    options = (*OPTIONS, r"--config.name=a\b")
    done = start(checkout, "gke.sh", "run", "mine", *options, GKE_KIND=kind, GKE_HOSTS="4", **GKE)
    assert done.returncode == 0, done.stderr
    assert calls(checkout) == [["kubectl", "apply", "--filename=-"]]
    text = (checkout / "calls.applied").read_text()
    assert (
        start(checkout, "gke.sh", "--dry-run", "run", "mine", *options, GKE_KIND=kind, GKE_HOSTS="4", **GKE).stdout
        == f"kubectl apply --filename=- \n{text}"
    )
    account, jobs = list(yaml.safe_load_all(text))
    validate([account, jobs])
    assert account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"] == GKE["GKE_SERVICE_ACCOUNT"]
    job = jobs["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert job["parallelism"] == job["completions"] == 4 and job["backoffLimit"] == 0
    box = pod["containers"][0]
    assert box["args"] == list(options) and box["image"] == GKE["GKE_IMAGE"] and "command" not in box
    assert box["resources"]["limits"] == {resource: 4 if kind == "tpu" else 8}
    env = {entry["name"]: entry.get("value") for entry in box["env"]}
    assert env["RETRIEVAL_JAX_DISTRIBUTED"] == ("auto" if kind == "tpu" else "mine-workers-0-0.mine:8482,4,$(RANK)")
    # Asked to be started again, it is, however often; the rule of the set names what the rule of the job gives.
    rules = job["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"] == {"containerName": box["name"], "operator": "In", "values": [75]}
    assert jobs["spec"]["failurePolicy"]["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"


def test_the_schemas_see_a_mistake(checkout):
    yaml = pytest.importorskip("yaml", reason="pip install -r requirements-dev.txt")
    jsonschema = pytest.importorskip("jsonschema")
    start(checkout, "gke.sh", "run", "mine", *OPTIONS, **GKE)
    text = (checkout / "calls.applied").read_text()
    for right, wrong in (
        ("backoffLimit: 0", "backOffLimit: 0"),
        ("parallelism: 1", "parallelism: one"),
        ("restartPolicy: Never", "restart: Never"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: 'no'"),
        ("action: RestartJobSetAndIgnoreMaxRestarts", "action: Again"),
    ):
        assert right in text
        with pytest.raises(jsonschema.ValidationError):
            validate(yaml.safe_load_all(text.replace(right, wrong)))


@pytest.mark.parametrize(
    "words, env, said",
    [
        (["run", "Mine", "--config=x", "--workdir=gs://b/r"], GKE, "small letters"),
        (["run", "mine", "--config=x", "--workdir=runs/x"], GKE, "--workdir=gs://"),
        (["run", "mine", "--config=x\n- b", "--workdir=gs://b/r"], GKE, "line break"),
        (["run", "mine", "--config=x", "--workdir=gs://b/r"], {}, "GKE_IMAGE"),
        (["run", "mine", "--config=x", "--workdir=gs://b/r"], {**GKE, "GKE_KIND": "cpu"}, "tpu or gpu"),
        ([], GKE, "small letters"),
    ],
)
def test_gke_refuses(checkout, words, env, said):
    done = start(checkout, "gke.sh", *words, **env)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert calls(checkout) == []


def test_gke_builds_the_image_of_its_kind_and_deletes(checkout):
    start(checkout, "gke.sh", "build", GKE_KIND="gpu", **GKE)
    start(checkout, "gke.sh", "logs", "mine", **GKE)
    start(checkout, "gke.sh", "delete", "mine", **GKE)
    build, push, logs, delete = calls(checkout)
    assert build == [
        "docker",
        "build",
        "--file",
        "launch/Dockerfile",
        "--build-arg",
        "REQUIREMENTS=requirements-gpu.txt",
        "--tag",
        "registry/image:1",
        ".",
    ]
    assert push == ["docker", "push", "registry/image:1"]
    assert logs[:2] == ["kubectl", "logs"] and "--selector=jobset.sigs.k8s.io/jobset-name=mine" in logs
    assert delete == ["kubectl", "delete", "jobset", "mine"]


def test_the_image_holds_what_it_copies_and_hears_the_signal():
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    for name in ("requirements-gcs.txt", "requirements-s3.txt", "requirements.txt"):
        assert (ROOT / name).exists() and any(name in line for line in lines)
    assert 'ENTRYPOINT ["tini", "--", "python", "-m", "retrieval_jax.run"]' in lines
    assert os.access(ROOT / ".dockerignore", os.R_OK)
