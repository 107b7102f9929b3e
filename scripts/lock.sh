#!/usr/bin/env bash
# Writes requirements/*.txt: every version with its hashes, no index address. Run after a change of dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/pip-compile --quiet --allow-unsafe --strip-extras --generate-hashes --no-emit-index-url
  --no-emit-find-links --no-emit-trusted-host --no-header --build-deps-for editable)
"${compile[@]}" --extra local --output-file requirements/local.txt pyproject.toml
"${compile[@]}" --extra all --extra dev --constraint requirements/local.txt --output-file requirements/dev.txt pyproject.toml
