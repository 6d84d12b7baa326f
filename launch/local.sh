#!/usr/bin/env bash
# Runs an experiment on this machine; sets up .venv first, once:
#   ./launch/local.sh --config=configs/quickstart.py
# Works from any folder; relative paths, and the default work directory runs/..., are those of that folder.
#   RETRIEVAL_JAX_REQUIREMENTS   requirements-gpu.txt on an NVIDIA machine (default: requirements.txt, the CPU)
set -euo pipefail
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"
"$checkout/launch/setup.sh" "${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
# XLA on a CPU allocates its scratch memory anew every step. In huge pages that is up to twice as fast (glibc >= 2.35).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
# This checkout's package, even where the present folder holds another one.
export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$checkout/.venv/bin/python" -m retrieval_jax.run "$@"
