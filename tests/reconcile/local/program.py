"""A tiny engine for runner tests: /health and /metrics with a count of requests that the test sets through a file.

python program.py PORT COUNT_FILE [READY_AFTER_SECONDS]
"""

from __future__ import annotations

import http.server
import pathlib
import sys
import time

STARTED = time.monotonic()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = time.monotonic() - STARTED >= float(sys.argv[3] if len(sys.argv) > 3 else 0)
        count = pathlib.Path(sys.argv[2]).read_text().strip() if pathlib.Path(sys.argv[2]).exists() else "0"
        page = f"vllm:num_requests_running{{}} {count}\nvllm:num_requests_waiting{{}} 0\n"
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(page.encode() if self.path == "/metrics" else b"ok")

    def log_message(self, *args: object) -> None:
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
