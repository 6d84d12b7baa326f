#!/usr/bin/env bash
# Builds the docs site in build/docs, from the Markdown pages and the docstrings; sets up .venv first, once:
#   ./launch/docs.sh               then open build/docs/index.html: no server and no network are needed
#   ./launch/docs.sh --dry-run     prints the commands instead
# A warning is an error. Further arguments go to sphinx-build, such as -E to read every page again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra files <<<"${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
build=(-m sphinx -c docs --builder html --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees)
if [[ ${1:-} == --dry-run ]]; then
  shift
  printf '%q ' ./launch/setup.sh "${files[@]}" requirements-docs.txt && echo
  printf '%q ' .venv/bin/python "${build[@]}" "$@" . build/docs && echo
  exit 0
fi
./launch/setup.sh "${files[@]}" requirements-docs.txt
# The reference is read from this checkout's package, on the CPU.
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
.venv/bin/python "${build[@]}" "$@" . build/docs
echo "build/docs/index.html"
