#!/usr/bin/env bash
# Runs an experiment on this machine; sets up .venv first, once:
#   ./launch/local.sh --config=configs/quickstart.py
#   RETRIEVAL_JAX_REQUIREMENTS   requirements-gpu.txt on an NVIDIA machine (default: requirements.txt, the CPU)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/setup.sh "${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
exec .venv/bin/python -m retrieval_jax.run "$@"
