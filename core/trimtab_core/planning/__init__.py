"""Planning: from a snapshot to replicas and weights, with reasons. Decide purely, act elsewhere."""
