#!/usr/bin/env bash
# Makes .venv in the checkout and installs requirement files into it, once: launch/setup.sh requirements.txt [...]
# --dry-run before them says what would be made and installed.
#
# With uv if it is on the PATH, else with venv and pip. A file is installed again when its content changes; an
# interrupted set-up starts over; two at the same time wait for each other.
#   RETRIEVAL_JAX_PYTHON   the Python to use (default: python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${RETRIEVAL_JAX_PYTHON:-python3}"
# Like pip, uv trusts the certificates of this machine (of a company's proxy, say). Older versions: NATIVE_TLS.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS:-1}"
unfinished=.venv/.setup-unfinished # there from the first moment until .venv itself works
installed=.venv/.setup-installed   # one line per installed requirement file: its hash and name

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }
stamp() { printf '%s %s\n' "$(sha256sum <"$1" | cut -d' ' -f1)" "$1"; }
is_installed() { [[ -f $installed ]] && grep -qxF "$(stamp "$1")" "$installed"; }

check_python() {
  command -v "$python" >/dev/null ||
    fail "$python not found. On Debian or Ubuntu:" "apt-get install -y python3 python3-venv"
  check_version "$python"
}

check_version() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    fail "$("$1" --version) does not do: Python 3.11, 3.12 or 3.13 is needed." \
      "Set RETRIEVAL_JAX_PYTHON to one, for example RETRIEVAL_JAX_PYTHON=python3.12"
}

make_venv() {
  if [[ -e .venv && ! -e $unfinished ]]; then
    [[ -e $installed ]] || fail ".venv is there, but has no Python that runs, and launch/setup.sh did not make it." \
      "Remove it, then start again: rm -rf .venv"
  fi
  if ! command -v uv >/dev/null; then
    check_python
    # Debian ships Python without these two modules; python3-venv has them.
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
      fail "this Python cannot make virtual environments (and uv is not installed). On Debian or Ubuntu:" \
        "apt-get install -y python3-venv"
  fi
  rm -rf .venv && mkdir .venv && touch "$unfinished"
  if command -v uv >/dev/null; then
    uv venv --quiet --seed --allow-existing --python "${RETRIEVAL_JAX_PYTHON:->=3.11,<3.14}" .venv
  else
    "$python" -m venv .venv
  fi
  check_version .venv/bin/python # uv takes whatever RETRIEVAL_JAX_PYTHON names
  rm -f "$unfinished"
  : >"$installed"
}

install() {
  say "launch/setup.sh: installing $1 into .venv (a minute or two, once)"
  if command -v uv >/dev/null; then
    uv pip install --python .venv/bin/python -r "$1"
  else
    .venv/bin/python -m pip install --disable-pip-version-check -r "$1"
  fi
  # Lines of this file's earlier contents go, the line of the present one comes, in one rename.
  { grep -v " $1\$" "$installed" 2>/dev/null || true; stamp "$1"; } >"$installed.new"
  mv "$installed.new" "$installed"
}

dry=''
[[ ${1:-} != --dry-run ]] || { dry=yes; shift; }
(($#)) || fail "which requirements?" "launch/setup.sh requirements.txt"
for file in "$@"; do [[ -f $file ]] || fail "$file not found in $PWD"; done
if command -v flock >/dev/null; then
  exec 9<launch/setup.sh
  flock 9
fi
other="$(cut -d' ' -f2 "$installed" 2>/dev/null | grep -vxF -e "$1" -e requirements-milvus.txt -e requirements-dev.txt \
  -e requirements-docs.txt -e requirements-gcs.txt -e requirements-s3.txt -e requirements-clusters.txt \
  -e requirements-onnx.txt -e requirements-tracking.txt -e requirements-maps.txt -e requirements-ranking.txt || true)"
if [[ -n $dry ]]; then
  [[ -z $other && ! -e $unfinished && -e .venv ]] || echo "make $PWD/.venv"
  for file in "$@"; do is_installed "$file" || echo "install $PWD/$file"; done
  exit 0
fi
if [[ -n $other ]]; then
  # faiss-cpu and faiss-gpu in one environment break each other.
  say "launch/setup.sh: making .venv anew, because it was made from $other"
  make_venv
elif [[ -e $unfinished ]] || ! .venv/bin/python -c '' 2>/dev/null; then
  make_venv
fi
for file in "$@"; do is_installed "$file" || install "$file"; done
