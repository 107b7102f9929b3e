"""The parts of ``trimtab simulate``: its table and its page."""
