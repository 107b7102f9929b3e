"""The parts of ``trimtab explain``: one account of a decision, from a file, a cluster or a simulation."""
