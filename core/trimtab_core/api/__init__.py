"""The Kubernetes API types, one package a version. The only source of the CRDs."""
