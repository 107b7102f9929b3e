"""Transcripts of a real vLLM 0.32.0 on a CPU, as they were taken, and the tools that replay and compare them."""
