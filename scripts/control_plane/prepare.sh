#!/usr/bin/env bash
# Prepares the cluster tests where this machine can run them: Debian packages and the control plane's binaries.
# Where it can't, says why; the tests then skip with the same reason.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
skip() {
  echo "cluster tests will be skipped: $*" >&2
  exit 0
}
[ -z "${TRIMTAB_TEST_KUBECONFIG:-}${KUBEBUILDER_ASSETS:-}" ] || exit 0
[ "$(uname -s)" = Linux ] || skip "they need Linux network namespaces"
[ "$(id -u)" -eq 0 ] || skip "they need root for network namespaces"
command -v go >/dev/null || [ -x "$("$here/build.sh" --where)/kube-apiserver" ] || skip "Go 1.26 or newer is needed to build the control plane"
if command -v apt-get >/dev/null; then "$here/debian.sh"; fi
"$here/build.sh" >/dev/null
