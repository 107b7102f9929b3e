#!/usr/bin/env bash
# Makes the kind cluster of kind-config.yaml, gives its workers made-up GPUs, and prints how to run the cluster tests on it.
# Run it again to bring an existing cluster to the same state; `kind delete cluster --name trimtab` removes it.
set -euo pipefail
cd "$(dirname "$0")/.."
name=trimtab
need() {
  command -v "$1" >/dev/null || { echo "kind_up.sh: $1 is not on PATH; install it from $2" >&2; missing=1; }
}
missing=0
need kind https://kind.sigs.k8s.io/docs/user/quick-start/#installation
need docker https://docs.docker.com/engine/install/
need kubectl https://kubernetes.io/docs/tasks/tools/
if [ "$missing" -eq 1 ]; then
  echo "kind_up.sh: without kind, scripts/control_plane/build.sh gives the tests a control plane that needs only Go." >&2
  exit 2
fi
docker info >/dev/null 2>&1 || { echo "kind_up.sh: the Docker daemon does not answer; start it, then run this again" >&2; exit 2; }

if ! kind get clusters 2>/dev/null | grep -qx "$name"; then
  kind create cluster --config kind-config.yaml --wait 120s
fi
kubeconfig=$(mktemp -d)/kubeconfig
kind get kubeconfig --name "$name" >"$kubeconfig"
export KUBECONFIG=$kubeconfig

for node in $(kubectl get nodes -l trimtab.dev/fake-gpus -o name); do
  gpus=$(kubectl get "$node" -o 'jsonpath={.metadata.labels.trimtab\.dev/fake-gpus}')
  patch="[{\"op\": \"add\", \"path\": \"/status/capacity/nvidia.com~1gpu\", \"value\": \"$gpus\"}]"
  kubectl patch "$node" --subresource=status --type=json -p "$patch" >/dev/null
  echo "$node advertises $gpus x nvidia.com/gpu"
done

# The tests talk to pods at their own addresses: route each node's pods through the node (Linux; Docker Desktop hides them in a machine).
if [ "$(uname)" = Linux ] && [ "$(id -u)" -eq 0 ]; then
  ranges='{range .items[*]}{.spec.podCIDR}{" "}{.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'
  while read -r pods via; do ip route replace "$pods" via "$via"; done < <(kubectl get nodes -o "jsonpath=$ranges")
else
  echo "kind_up.sh: pods are routed from this machine only when this runs as root on Linux; tests that call pods will fail" >&2
fi
echo "run the cluster tests with: TRIMTAB_TEST_KUBECONFIG=$kubeconfig .venv/bin/pytest tests/cluster"
