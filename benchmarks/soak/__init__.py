"""The parts of the router's soak: engines that count exactly, clients with a log, turmoil, and the audit."""
