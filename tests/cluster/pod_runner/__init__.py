"""A small stand-in for kubelets: runs the pods that the scheduler bound to its made nodes as local processes.

It registers nodes with GPU capacity and keeps them Ready (nodes.py), gives each pod a network namespace and an address (network.py),
makes Service addresses and names work (services.py, dns.py), runs containers with volumes, environment, probes, hooks, grace periods
and restarts (pod.py, container.py, sandbox.py, volumes.py, environment.py, probes.py), and writes what happens into the pods' status
(status.py). Images are a table from names to local programs (images.py).

Left out, because no test of ours needs it: image pulls, users and security contexts, resource limits and eviction, persistent volumes,
grpc probes, logs and exec through the API server (read the log files instead), IPv6, renewal of tokens within the hour.
"""
