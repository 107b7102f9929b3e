"""Local mode: the cluster port as a process runner on one machine, without Kubernetes."""
