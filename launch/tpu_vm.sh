#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU VM: one host, or all hosts of a pod slice. In this order:
#   export TPU_NAME=mine TPU_ZONE=us-east5-b TPU_TYPE=v5litepod-64
#   ./launch/tpu_vm.sh create
#   ./launch/tpu_vm.sh setup        copies the committed checkout and makes .venv; run it again after a new commit
#   ./launch/tpu_vm.sh run --config=configs/<name>.py --workdir=gs://bucket/runs/<name>
#   ./launch/tpu_vm.sh logs         follows the first host, ends when the run does, with its exit code
#   ./launch/tpu_vm.sh stop         SIGTERM to all hosts: they save and exit
#   ./launch/tpu_vm.sh delete
# --dry-run before the verb prints the commands. After a slice was preempted (TPU_SPOT=1): delete, create, setup, and
# the same run command resumes from its last checkpoint.
#   TPU_NAME, TPU_ZONE, TPU_TYPE   name, zone and accelerator type
#   TPU_VERSION                    runtime (default: v2-alpha-tpuv5-lite for v5litepod, else tpu-ubuntu2204-base)
#   TPU_PROJECT, TPU_SPOT=1        project, and cheaper machines that may be preempted
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

dry=''
[[ ${1:-} != --dry-run ]] || { dry=yes; shift; }
run() { if [[ -n $dry ]]; then printf '%q ' "$@" && echo; else "$@"; fi; }

verb="${1:-}"
(($# == 0)) || shift
name="${TPU_NAME:?set it to the name of the TPU VM}"
place=("--zone=${TPU_ZONE:?set it to a zone with TPUs}" ${TPU_PROJECT:+"--project=$TPU_PROJECT"})
gcloud=(gcloud compute tpus tpu-vm)
on() { run "${gcloud[@]}" ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"; }

case "$verb" in
  create)
    type="${TPU_TYPE:?set it to an accelerator type, such as v5litepod-64}"
    case "$type" in v5litepod*) runtime=v2-alpha-tpuv5-lite ;; *) runtime=tpu-ubuntu2204-base ;; esac
    run "${gcloud[@]}" create "$name" "${place[@]}" "--accelerator-type=$type" "--version=${TPU_VERSION:-$runtime}" \
      ${TPU_SPOT:+--spot} --scopes=https://www.googleapis.com/auth/cloud-platform
    ;;
  setup)
    archive="$(mktemp -d)"
    trap 'rm -rf "$archive"' EXIT
    git archive --format=tar.gz --output="$archive/retrieval_jax.tar.gz" HEAD
    run "${gcloud[@]}" scp "$archive/retrieval_jax.tar.gz" "$name:retrieval_jax.tar.gz" "${place[@]}" --worker=all
    on all "mkdir -p retrieval_jax && tar -xzf retrieval_jax.tar.gz -C retrieval_jax &&
      { command -v uv >/dev/null || python3 -c 'import ensurepip, venv' || sudo apt-get install -y python3-venv; } &&
      retrieval_jax/launch/setup.sh requirements-tpu.txt requirements-gcs.txt"
    ;;
  run)
    [[ " $* " == *" --config="* ]] || fail "which experiment? ./launch/tpu_vm.sh run --config=... --workdir=gs://..."
    [[ " $* " == *" --workdir=gs://"* ]] ||
      fail "give --workdir=gs://bucket/folder: hosts do not see each other's disks, which go with the TPU VM"
    # All hosts start within moments of each other; the exit code stays behind in a file for `logs`.
    on all "cd retrieval_jax && rm -f run.code && { RETRIEVAL_JAX_DISTRIBUTED=auto nohup setsid bash -c \
      '.venv/bin/python -m retrieval_jax.run \"\$@\" & echo \$! >run.pid; wait \$!; echo \$? >run.code' \
      run $(printf '%q ' "$@") >run.log 2>&1 </dev/null & }"
    ;;
  logs)
    on 0 "cd retrieval_jax && touch run.log && { tail -n +1 -F run.log & } &&
      until [ -s run.code ]; do sleep 2; done; sleep 1; kill %1 \$! 2>/dev/null; exit \$(cat run.code)"
    ;;
  stop) on all "kill -TERM \$(cat retrieval_jax/run.pid)" ;;
  delete) run "${gcloud[@]}" delete "$name" "${place[@]}" --quiet ;;
  *) fail "what? ./launch/tpu_vm.sh [--dry-run] create | setup | run | logs | stop | delete" ;;
esac
