#!/usr/bin/env bash
# All checks that need no running test, each with its name; stops at the end, not at the first finding.
# Usage: scripts/check.sh FOLDER...
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=()
run() {
  local name=$1
  shift
  printf '%-28s' "$name"
  if output=$("$@" 2>&1); then
    echo ok
  else
    echo FAILED
    printf '%s\n' "$output"
    failed+=("$name")
  fi
}
run "format (make format)" $bin/ruff format --check "$@"
run "lint" $bin/ruff check "$@"
run "types" $bin/mypy
run "import contracts" $bin/lint-imports
run "generated files (make gen)" scripts/gen.sh --check
run "no duplicate logic" $bin/pylint --disable=all --enable=duplicate-code --min-similarity-lines=8 \
  --ignore-imports=y --ignore-docstrings=y --ignore-signatures=y \
  core/trimtab_core operator/trimtab_operator router_sidecar/trimtab_router simulator/trimtab_sim cli/trimtab_cli
run "no unfinished marks" bash -c "! git grep -nE '\b(TO''DO|FIX''ME|XX''X|NotImplemented''Error)\b' -- '*.py' '*.sh'"
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
