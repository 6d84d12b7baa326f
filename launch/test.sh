#!/usr/bin/env bash
# Runs the tests on this machine, on the CPU; sets up .venv first, once. Arguments go to pytest;
# paths are relative to the checkout, whatever the current folder is:
#   ./launch/test.sh
#   ./launch/test.sh tests/workdir/test_workdir.py -k hash
#   ./launch/test.sh -m long        the tests that take minutes
#   ./launch/test.sh --dry-run      prints the commands instead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra files <<<"${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
# milvus-lite brings faiss-cpu, which breaks faiss-gpu: on a GPU its tests are skipped.
[[ ${files[0]} == *gpu* ]] || files+=(requirements-milvus.txt)
if [[ ${1:-} == --dry-run ]]; then
  shift
  printf '%q ' ./launch/setup.sh "${files[@]}" requirements-dev.txt && echo
  printf '%q ' .venv/bin/python -m pytest "$@" && echo
  exit 0
fi
./launch/setup.sh "${files[@]}" requirements-dev.txt
exec .venv/bin/python -m pytest "$@"
