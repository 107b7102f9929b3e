"""Observers: adapters from Kubernetes, Prometheus and direct scraping to the ports of ``reconcile``."""
