#!/usr/bin/env bash
# Writes every generated file, or with --check says which are not current (then run `make gen`).
set -euo pipefail
cd "$(dirname "$0")/.."
for script in scripts/gen_*.py; do
  .venv/bin/python "$script" "$@"
done
