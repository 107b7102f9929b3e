"""A small HTTP server for pods in tests: says who it is, waits, shows files and variables, and drains when asked to end.

Usage: server.py PORT [--tls CERTIFICATE KEY]. It prints one line for each thing that happens to it.
"""

import argparse
import http.server
import json
import os
import pathlib
import signal
import socket
import ssl
import threading
import time
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /who, /env, /file?path=, /note?text=, /slow, /healthy, /break, /metrics; POST anything: an admission review, refused."""

    broken = threading.Event()
    ending = threading.Event()  # SIGTERM has come

    def do_GET(self) -> None:
        """Answer one of the paths above."""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/who":
            self.reply(json.dumps({"host": socket.gethostname(), "client": self.client_address[0]}))
        elif url.path == "/env":
            self.reply(json.dumps(dict(os.environ)))
        elif url.path == "/file":
            path = pathlib.Path(query["path"])
            self.reply(path.read_text() if path.exists() else "", 200 if path.exists() else 404)
        elif url.path == "/note":
            print(query["text"], flush=True)
            self.reply("noted")
        elif url.path == "/slow":
            print("slow request begins", flush=True)
            self.ending.wait()
            time.sleep(1)
            print("slow request ends", flush=True)
            self.reply("done")
        elif url.path == "/break":
            self.broken.set()
            self.reply("broken from now on")
        elif url.path == "/metrics":
            self.reply("# TYPE test_requests_total counter\ntest_requests_total 7\n")
        else:
            self.reply("", 500 if self.broken.is_set() else 200)

    def do_POST(self) -> None:
        """Refuse an AdmissionReview."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = {"code": 403, "message": "refused by the test webhook"}
        response = {"uid": review["request"]["uid"], "allowed": False, "status": status}
        self.reply(json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))

    def reply(self, text: str, status: int = 200) -> None:
        """Send a whole answer."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Stay quiet: what matters is printed where it happens."""


class Server(http.server.ThreadingHTTPServer):
    """Waits for requests in flight when it is closed."""

    daemon_threads = False


def main() -> None:
    """Serve until SIGTERM, then finish what is in flight."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", nargs=2)
    chosen = parser.parse_args()
    server = Server(("", chosen.port), Handler)
    if chosen.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*chosen.tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)

    def end(_number: int, _frame: object) -> None:
        print("SIGTERM", flush=True)
        Handler.ending.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    print("serving", flush=True)
    server.serve_forever()
    server.server_close()
    print("drained", flush=True)


if __name__ == "__main__":
    main()
