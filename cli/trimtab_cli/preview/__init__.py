"""The parts of ``trimtab plan``: what an edit of manifests would change, simulated or planned from live demand."""
