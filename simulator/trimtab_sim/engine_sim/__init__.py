"""
The HTTP engine simulator: a server that a client cannot tell from vLLM 0.32 by shape, without a GPU.

Pure parts (no clock, no I/O): `tokens`, `book`, `answers`, `schema_values`, `tools`, `timing`, `blocks`, `scheduler`,
`faults`, `exposition`, `metrics`. Edges: `engine` (asks the clock, steps the scheduler), the `*_route` modules (HTTP),
`lifecycle` (process and signals). Wire facts come from transcripts of vLLM 0.32.0, kept in
`tests/contract/golden_vllm`, not from memory.

Errors, each translated where the next layer begins:

    settings.SettingsError, faults.FaultError     a flag or a fault is written wrong           -> usage, or 400
    lifecycle.StartError                          the address cannot be used                   -> usage
    schema_values.SchemaError                     no value meets a schema                      -> protocol.ApiError
    engine.Engine{Busy,Closed,Dead}Error          the engine takes or keeps no request         -> protocol.ApiError
    protocol.ApiError                             any answer that is no success
        protocol.ValidationError                  the body has the wrong shape
    streaming.CutError                            a fault drops the connection
"""
