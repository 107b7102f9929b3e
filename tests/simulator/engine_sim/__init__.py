"""Tests of the HTTP engine simulator."""
