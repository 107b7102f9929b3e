#!/usr/bin/env bash
# Makes or updates .venv from the hash-pinned lists. Usage: scripts/venv.sh local|dev
# `local` is what the demo needs; `dev` adds the operator's libraries and the checkers.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?usage: scripts/venv.sh local|dev}
list=requirements/$kind.txt
want=$(cat "$list" pyproject.toml | sha256sum | cut -c1-16)
for made in "$kind" dev; do
  if [ -f ".venv/.made-$made" ] && [ "$(cat ".venv/.made-$made")" = "$(cat "requirements/$made.txt" pyproject.toml | sha256sum | cut -c1-16)" ]; then
    exit 0
  fi
done
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Trimtab needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Set PYTHON=/path/to/python3.11." >&2
  exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "installing the $kind libraries into .venv ..." >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$list"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
echo "$want" > ".venv/.made-$kind"
