"""
The HTTP engine simulator: a server that a client cannot tell from vLLM 0.32 by shape, without a GPU.

Pure parts (no clock, no I/O): `tokens`, `book`, `answers`, `schema_values`, `timing`, `blocks`, `scheduler`,
`exposition`. Edges: `engine` (reads the clock, steps the scheduler), the `*_routes` modules (HTTP), `lifecycle`
(process and signals). Wire facts come from transcripts of vLLM 0.32.0 (kept under `tests/contract/golden_vllm`), not
from memory.
"""
