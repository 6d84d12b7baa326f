#!/usr/bin/env bash
# Runs an experiment in N processes on this machine that train and embed together, as on N machines:
#   ./launch/local_processes.sh 2 --config=configs/quickstart.py
#   ./launch/local_processes.sh --dry-run 2 --config=...      prints the commands instead
# On an NVIDIA machine each process gets its share of the GPUs. SIGTERM and Ctrl-C reach all of them (they save
# and stop); when one fails, the others are stopped and its exit code is this script's: 75 means "start me again".
#   RETRIEVAL_JAX_REQUIREMENTS   as for local.sh
#   RETRIEVAL_JAX_GRACE          seconds between SIGTERM and SIGKILL (default: 120)
set -euo pipefail
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"
python="$checkout/.venv/bin/python"
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

dry=''
[[ ${1:-} != --dry-run ]] || { dry=yes; shift; }
count="${1:-}"
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "how many processes? ./launch/local_processes.sh 2 --config=configs/quickstart.py"
shift
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "bash 5.1 or newer is needed, this is $BASH_VERSION"

read -ra requirements <<<"${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
gpus=()
if [[ ${JAX_PLATFORMS:-} != cpu ]] && command -v nvidia-smi >/dev/null; then
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
  else
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
  fi
  ((${#gpus[@]} % count == 0)) || fail "${#gpus[@]} GPUs cannot be shared equally by $count processes"
fi

if [[ -n $dry ]]; then
  printf '%q ' "$checkout/launch/setup.sh" "${requirements[@]}" && echo
  port=PORT
else
  "$checkout/launch/setup.sh" "${requirements[@]}"
  port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
fi
export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1

# Children of a script ignore Ctrl-C, so that they too are sent SIGTERM for it.
pids=()
watchdog=''
stop() {
  ((${#pids[@]})) || return 0
  kill -s TERM "${pids[@]}" 2>/dev/null || true
  [[ -z $watchdog ]] || return 0
  # A read that nobody answers: a sleep would outlive this script.
  { read -rt "${RETRIEVAL_JAX_GRACE:-120}" _ <> <(:) || true; kill -s KILL "${pids[@]}"; } >/dev/null 2>&1 &
  watchdog=$!
}
trap stop TERM INT HUP

share=$((${#gpus[@]} / count))
for ((rank = 0; rank < count; rank++)); do
  settings=("RETRIEVAL_JAX_DISTRIBUTED=127.0.0.1:$port,$count,$rank")
  if ((share)); then
    own="$(IFS=,; echo "${gpus[*]:rank * share:share}")"
    settings+=("CUDA_VISIBLE_DEVICES=$own")
  fi
  if [[ -n $dry ]]; then
    printf '%q ' env "${settings[@]}" "$python" -m retrieval_jax.run "$@" && echo
  else
    env "${settings[@]}" "$python" -m retrieval_jax.run "$@" &
    pids+=($!)
  fi
done
[[ -z $dry ]] || exit 0

first=0
while ((${#pids[@]})); do
  sleep 0.2 # `wait -n` loses processes that end together
  for i in "${!pids[@]}"; do
    kill -s 0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    unset "pids[i]"
    if ((code && !first)); then
      first=$code
      if ((${#pids[@]})); then
        echo "launch/local_processes.sh: a process ended with $code, the others are stopped" >&2
        stop
      fi
    fi
  done
done
[[ -z $watchdog ]] || kill "$watchdog" 2>/dev/null || true
exit "$first"
