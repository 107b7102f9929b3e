"""Trimtab core: the pure rules. No I/O, no clock, no environment; everything comes in as arguments."""
