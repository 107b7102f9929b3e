"""Tests of the router: a real one in this process, between scripted engines and a raw client, all on loopback.

engines.py has the engines, wire.py the client, scene.py puts a router between them.
"""
