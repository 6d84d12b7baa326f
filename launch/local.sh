#!/usr/bin/env bash
# Runs an experiment on this machine; sets up .venv first, once:
#   ./launch/local.sh --config=configs/quickstart.py
#   RETRIEVAL_JAX_REQUIREMENTS   requirements-gpu.txt on an NVIDIA machine (default: requirements.txt, the CPU)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/setup.sh "${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
# XLA on a CPU allocates its scratch memory anew every step. In huge pages that is up to twice as fast (glibc >= 2.35).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
exec .venv/bin/python -m retrieval_jax.run "$@"
