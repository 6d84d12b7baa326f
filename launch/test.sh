#!/usr/bin/env bash
# Runs the tests on this machine, on the CPU; sets up .venv first, once. Arguments go to pytest;
# paths among them are those of the checkout, whatever the present folder is:
#   ./launch/test.sh
#   ./launch/test.sh tests/test_workdir.py -k hash
#   ./launch/test.sh -m long        the tests that take minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/setup.sh "${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}" requirements-dev.txt
exec .venv/bin/python -m pytest "$@"
