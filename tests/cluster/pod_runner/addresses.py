"""The address plan of a test cluster. Nothing here is routed anywhere outside the cluster's own network namespace."""

HOST = "10.244.0.1"  # the control plane, the DNS responder and processes that tests start beside the pods
POD_PREFIX = "10.244."  # pods: 10.244.1.1 ... 10.244.255.254
NODE_PREFIX = "10.245."  # a made node's InternalIP; pods with hostNetwork share HOST
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"  # the first address of SERVICE_CIDR is always default/kubernetes
GATEWAY = "169.254.1.1"  # every pod's next hop: the address of the host's end of its link
API_SERVER_PORT = 6443
API_SERVER_URL = f"https://{HOST}:{API_SERVER_PORT}"
CLUSTER_DOMAIN = "cluster.local"
