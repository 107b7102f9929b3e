"""The parts of ``trimtab demo``: load, measurement, live view and report."""
