"""HTTP servers on loopback for the time of a test."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler], *, daemon_threads: bool = False) -> Iterator[str]:
    """The address of a server on a free port; daemon threads are not waited for in the end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = daemon_threads
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """The address of a server that answers each GET, told its path with the query, with a status and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        wbufsize = 65536  # one packet per answer: two would wait for a delayed acknowledgement

        def do_GET(self) -> None:
            status, data = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as address:
        yield address
