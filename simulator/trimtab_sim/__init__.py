"""The simulators: discrete events for the planner, and a vLLM-shaped HTTP server for everything else."""
