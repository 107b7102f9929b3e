"""Scenarios that put a price on decisions: their schema, traces, runs, targets, tables and pictures."""
