#!/usr/bin/env bash
# Runs an experiment on Kubernetes (GKE) as a JobSet, on TPU slices or GPU machines:
#   export GKE_IMAGE=europe-docker.pkg.dev/project/images/retrieval_jax:1 GKE_SERVICE_ACCOUNT=trainer@project.iam...
#   ./launch/gke.sh build                            docker build and push of launch/Dockerfile
#   ./launch/gke.sh run mine --config=configs/<name>.py --workdir=gs://bucket/runs/<name>
#   ./launch/gke.sh logs mine
#   ./launch/gke.sh delete mine                      they save and exit
# --dry-run before the verb prints the commands, and what would be applied. The cluster has the JobSet controller
# (v0.6 or newer). A preempted pod saves and exits with code 75: the JobSet restarts without limit and resumes; after
# other failures it restarts three times.
#   GKE_KIND              tpu (default) or gpu: which launch/gke/jobset_<kind>.yaml
#   GKE_HOSTS             machines (default: 1), GKE_CHIPS chips or GPUs of each (default: tpu 4, gpu 8)
#   GKE_ACCELERATOR       of the node pool (default: tpu-v5-lite-podslice, nvidia-h100-80gb)
#   GKE_TOPOLOGY          of the TPU slice (default: 2x2)
#   GKE_SERVICE_ACCOUNT   Google service account that may read and write the bucket
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

dry=''
[[ ${1:-} != --dry-run ]] || { dry=yes; shift; }
run() { if [[ -n $dry ]]; then printf '%q ' "$@" && echo; else "$@"; fi; }

kind="${GKE_KIND:-tpu}"
[[ $kind == tpu || $kind == gpu ]] || fail "GKE_KIND is tpu or gpu, not $kind"
verb="${1:-}"
(($# == 0)) || shift
if [[ $verb != build ]]; then
  name="${1:-}"
  [[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
    fail "a name of small letters, digits and dashes? ./launch/gke.sh run mine --config=... --workdir=gs://..."
  shift
fi

# Text in double quotes, as YAML and JSON have it.
quoted() {
  local text="${1//\\/\\\\}"
  printf '"%s"' "${text//\"/\\\"}"
}

# Fills in the names in capitals between @ of a file.
fill() {
  local text key arguments=() argument
  for argument in "${options[@]}"; do arguments+=("$(quoted "$argument")"); done
  local -A values=(
    [NAME]="$name" [HOSTS]="${GKE_HOSTS:-1}" [TOPOLOGY]="${GKE_TOPOLOGY:-2x2}"
    [IMAGE]="${GKE_IMAGE:?set it to the image that build pushed}"
    [SERVICE_ACCOUNT]="${GKE_SERVICE_ACCOUNT:?set it to a Google service account that may write the bucket}"
    [ARGUMENTS]="[$(IFS=,; echo "${arguments[*]}")]"
  )
  if [[ $kind == tpu ]]; then
    values[CHIPS]="${GKE_CHIPS:-4}" values[ACCELERATOR]="${GKE_ACCELERATOR:-tpu-v5-lite-podslice}"
  else
    values[CHIPS]="${GKE_CHIPS:-8}" values[ACCELERATOR]="${GKE_ACCELERATOR:-nvidia-h100-80gb}"
  fi
  text="$(cat "$1")"
  for key in "${!values[@]}"; do text="${text//"@$key@"/"${values[$key]}"}"; done
  printf '%s\n' "$text"
}

case "$verb" in
  build)
    image="${GKE_IMAGE:?set it to a name in your registry}"
    run docker build --file launch/Dockerfile --build-arg "REQUIREMENTS=requirements-$kind.txt" --tag "$image" .
    run docker push "$image"
    ;;
  run)
    options=("$@")
    [[ $* != *[[:cntrl:]]* ]] || fail "a line break or tab in $(printf '%q ' "$@")"
    [[ " $* " == *" --config="* && " $* " == *" --workdir="*://* ]] ||
      fail "give --config=... and --workdir=gs://bucket/folder: pods do not see each other's disks, nor keep them"
    manifest="$(fill launch/gke/service_account.yaml && echo --- && fill "launch/gke/jobset_$kind.yaml")"
    run kubectl apply --filename=- <<<"$manifest"
    [[ -z $dry ]] || printf '%s\n' "$manifest"
    ;;
  logs) run kubectl logs --follow --prefix --max-log-requests=64 "--selector=jobset.sigs.k8s.io/jobset-name=$name" ;;
  delete) run kubectl delete jobset "$name" ;;
  *) fail "what? ./launch/gke.sh [--dry-run] build | run | logs | delete" ;;
esac
