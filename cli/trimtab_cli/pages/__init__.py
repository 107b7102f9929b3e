"""Pages that tell of runs: one file each, with plots, that needs nothing else."""
