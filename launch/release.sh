#!/usr/bin/env bash
# Makes the released checkpoint from nothing but this checkout: trains the quickstart, exports it and packs it as one file.
#   ./launch/release.sh                     release/quickstart.tar, and release/quickstart.tar.sha256
#   ./launch/release.sh --dry-run           prints the commands instead
#   RETRIEVAL_JAX_RELEASE=folder            where to write (default: release, in the checkout)
#   RETRIEVAL_JAX_REQUIREMENTS              as for local.sh, such as requirements-gpu.txt
# The quickstart's catalogue is drawn by a program of this repository, so the checkpoint may be passed on under the same
# licence. Started again, it resumes or skips what is complete and packs the same bytes. Trained anew on the same machine,
# the weights are the same; only the name of the run (in config.json) differs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${RETRIEVAL_JAX_RELEASE:-release}"
read -ra files <<<"${RETRIEVAL_JAX_REQUIREMENTS:-requirements.txt}"
retrieval_jax=(.venv/bin/python -m retrieval_jax)
commands=(
  "$(printf '%q ' ./launch/setup.sh "${files[@]}")"
  "$(printf '%q ' "${retrieval_jax[@]}" run --config=configs/quickstart.py --workdir="$out/run")"
  "$(printf '%q ' "${retrieval_jax[@]}" export --workdir="$out/run" --out="$out/quickstart")"
  "$(printf '%q ' "${retrieval_jax[@]}" hub pack "$out/quickstart" "$out/quickstart.tar" --licence=apache-2.0)"
)
if [[ ${1:-} == --dry-run ]]; then
  printf '%s\n' "${commands[@]}"
  exit 0
fi
# The time of the commit in place of the clock's: it is written into the folder.
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH
for command in "${commands[@]}"; do
  eval "$command"
done
