"""Routing: the table that the operator writes and routers read, and the pure steps of one request's choice."""
