#!/usr/bin/env bash
# The search page, its API and Milvus in containers on this machine, for a finished run:
#   ./launch/compose.sh up --workdir=runs/shop --data=/shops/mine       http://127.0.0.1:8000/
#   ./launch/compose.sh search --workdir=runs/shop --data=/shops/mine --config=shop.py     puts the gallery into Milvus
#   ./launch/compose.sh logs | down
# --dry-run before the verb prints the commands instead. The page asks for a password: the token in <workdir>.token,
# which `up` makes where there is none. --data is the folder that the run's config names as its catalogue.
#   RETRIEVAL_JAX_PORT           of the page on this machine (default: 8000)
#   RETRIEVAL_JAX_TOKEN_FILE     another file for the token
#   RETRIEVAL_JAX_IMAGE, RETRIEVAL_JAX_MILVUS_IMAGE    other images
set -euo pipefail
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

dry=''
[[ ${1:-} != --dry-run ]] || { dry=yes; shift; }
verb="${1:-}"
(($# == 0)) || shift
run='' data='' options=()
for word in "$@"; do
  case "$word" in
    --workdir=*) run="${word#*=}" ;;
    --data=*) data="${word#*=}" ;;
    *) options+=("$word") ;;
  esac
done
compose=(docker compose --file "$(cd "$(dirname "${BASH_SOURCE[0]}")" >/dev/null && pwd)/compose.yaml")

# Prints NAME=value words of a command, and runs it.
call() {
  local variables=("RETRIEVAL_JAX_RUN=$run" "RETRIEVAL_JAX_DATA=$data" "RETRIEVAL_JAX_TOKEN_FILE=$token"
    "RETRIEVAL_JAX_USER=$(id -u):$(id -g)")
  if [[ -n $dry ]]; then printf '%q ' env "${variables[@]}" "$@" && echo; else env "${variables[@]}" "$@"; fi
}

if [[ $verb == up || $verb == search ]]; then
  [[ -n $run && -n $data ]] || fail "give --workdir=<a finished run> and --data=<the folder of its catalogue>"
  [[ -f $run/config.json ]] || fail "$run holds no run: retrieval-jax run makes one"
  [[ -d $data ]] || fail "--data=$data is not a folder"
  run="$(cd "$run" >/dev/null && pwd -P)" data="$(cd "$data" >/dev/null && pwd -P)"
  [[ $run$data != *[:\$]* ]] || fail "Docker takes no : or \$ in the path of a folder: $run, $data"
else
  run=/nothing data=/nothing # not needed to stop or to read logs, but the file names them
fi
token="${RETRIEVAL_JAX_TOKEN_FILE:-$run.token}"

case "$verb" in
  up)
    ((${#options[@]} == 0)) || fail "up takes --workdir and --data alone, not ${options[0]}"
    if [[ -z $dry && ! -s $token ]]; then
      (umask 077 && head -c 24 /dev/urandom | base64 >"$token")
    fi
    call "${compose[@]}" up --build --detach --wait page milvus
    echo "the page: http://127.0.0.1:${RETRIEVAL_JAX_PORT:-8000}/  (any user name; the password is in $token)"
    ;;
  search)
    [[ " ${options[*]} " == *" --config="* ]] || fail "search needs --config=<that of the run>"
    call "${compose[@]}" run --rm search search "${options[@]}" "--workdir=$run" --config.search.index=milvus
    ;;
  logs) call "${compose[@]}" logs --follow ;;
  down) call "${compose[@]}" down ;;
  *) fail "what? ./launch/compose.sh [--dry-run] up | search | logs | down" ;;
esac
