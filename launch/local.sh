#!/usr/bin/env bash
# Runs an experiment on this machine; sets up .venv first, once:
#   ./launch/local.sh --config=configs/quickstart.py
#   ./launch/local.sh --dry-run --config=...         prints the commands instead
# Works from any folder; relative paths, and the default work directory runs/..., are relative to that folder.
#   RETRIEVAL_JAX_REQUIREMENTS   requirements-gpu.txt on an NVIDIA machine (default: requirements.txt, the CPU);
#                                several in one text: "requirements-gpu.txt requirements-s3.txt"
set -euo pipefail
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"
read -ra requirements <<<"${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
if [[ ${1:-} == --dry-run ]]; then
  shift
  printf '%q ' "$checkout/launch/setup.sh" "${requirements[@]}" && echo
  printf '%q ' "$checkout/.venv/bin/python" -m retrieval_jax.run "$@" && echo
  exit 0
fi
"$checkout/launch/setup.sh" "${requirements[@]}"
# This checkout's package, even if the current folder holds another one.
export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$checkout/.venv/bin/python" -m retrieval_jax.run "$@"
