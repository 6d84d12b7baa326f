#!/usr/bin/env bash
# Runs the tests on this machine, on the CPU; sets up .venv first, once. Arguments go to pytest;
# paths are relative to the checkout, whatever the current folder is:
#   ./launch/test.sh
#   ./launch/test.sh tests/workdir/test_workdir.py -k hash
#   ./launch/test.sh -m long        the tests that take minutes
#   ./launch/test.sh --dry-run      prints the commands instead
# Without arguments, two to four processes share the tests, by files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra files <<<"${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
# milvus-lite brings faiss-cpu, which breaks faiss-gpu: on a GPU its tests are skipped.
[[ ${files[0]} == *gpu* ]] || files+=(requirements-milvus.txt)
dry=
if [[ ${1:-} == --dry-run ]]; then
  dry=yes
  shift
fi
if (($# == 0)); then
  cores=$(nproc 2>/dev/null || echo 1)
  set -- -n "$((cores < 2 ? 1 : cores > 4 ? 4 : cores))" --dist loadfile
fi
if [[ $dry ]]; then
  printf '%q ' ./launch/setup.sh "${files[@]}" requirements-docs.txt requirements-dev.txt && echo
  printf '%q ' .venv/bin/python -m pytest "$@" && echo
  exit 0
fi
./launch/setup.sh "${files[@]}" requirements-docs.txt requirements-dev.txt
exec .venv/bin/python -m pytest "$@"
