"""Caching: what may be answered again, and under which key. Pure; stores live in the router."""
