#!/usr/bin/env bash
# Builds kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and etcd from their Go modules, once, outside the tree.
# Usage: scripts/control_plane/build.sh            builds what is missing and prints the folder (about 5 minutes on 2 cores)
#        scripts/control_plane/build.sh --where    prints the folder and builds nothing
# The versions stand in kubernetes/go.mod and etcd/go.mod. TRIMTAB_CACHE moves the cache (default: ~/.cache/trimtab).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version_of() { awk -v module="$2" '$1 == module && $2 ~ /^v[0-9]/ {print $2; exit}' "$here/$1/go.mod"; }
kubernetes=$(version_of kubernetes k8s.io/kubernetes)
etcd=$(version_of etcd go.etcd.io/etcd/server/v3)
# The locked dependencies are part of the key, so that a changed one never meets an old binary.
recipe=$(cat "$here"/{kubernetes,etcd}/go.{mod,sum} | sha256sum | cut -c1-8)
cache=${TRIMTAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/trimtab}
target=$cache/control-plane/$kubernetes-etcd-$etcd-$recipe
case ${1:-} in
  --where) echo "$target"; exit 0 ;;
  "") ;;
  *) echo "unknown argument '$1'; usage: $0 [--where]" >&2; exit 2 ;;
esac

say() { echo "control plane: $*" >&2; }
check_go() {
  command -v go >/dev/null || {
    say "Go is not on PATH; install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder of ready binaries."
    exit 2
  }
  local found
  # Asked inside the module: Go 1.21 and newer fetch the toolchain that go.mod names.
  found=$(cd "$here/kubernetes" && go env GOVERSION 2>&1) || { say "go does not run here: $found"; exit 2; }
  if [ "$(printf '%s\n' go1.26 "$found" | sort -V | head -n1)" != go1.26 ]; then
    say "Kubernetes $kubernetes needs Go 1.26 or newer; found $found ($(command -v go)). Install it from https://go.dev/dl."
    exit 2
  fi
}

build() {  # build MODULE_FOLDER PACKAGE BINARY [LDFLAGS]
  local out=$target/$3 started=$SECONDS
  [ -x "$out" ] && return
  say "building $3 ..."
  (cd "$here/$1" && CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" nice go build -trimpath -ldflags "-s -w ${4:-}" -o "$scratch/$3" "$2")
  mv "$scratch/$3" "$out"
  say "$3 is ready after $((SECONDS - started)) s"
}

programs=(kube-apiserver kube-controller-manager kube-scheduler kubectl)
missing() { for name in etcd "${programs[@]}"; do [ -x "$target/$name" ] || return 0; done; return 1; }
if missing; then
  check_go
  mkdir -p "$target"
  exec 9>"$target/.lock"
  flock 9  # a second build waits here and then finds everything done
  scratch=$(mktemp -d "$target/.building.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  major=${kubernetes#v} minor=${kubernetes#v*.}
  stamp=
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamp+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=${major%%.*} -X $package.gitMinor=${minor%%.*}"
    stamp+=" -X $package.gitTreeState=clean"
  done
  build etcd go.etcd.io/etcd/server/v3 etcd
  for name in "${programs[@]}"; do build kubernetes "k8s.io/kubernetes/cmd/$name" "$name" "$stamp"; done
fi
echo "$target"
