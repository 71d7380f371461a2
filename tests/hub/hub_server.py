"""A Hub on the loopback interface: the part of the protocol that a snapshot download uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves one public repository, ``org/model``, of `files`; ``org/gated`` asks for access, ``org/broken`` fails."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[HubServer]:
    server = HubServer(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        self.server.requests.append(f"{self.command} {self.path}")

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/model/tree/"):
            self._send_tree()
        elif path.startswith("/api/models/org/model"):
            revision = path.removeprefix("/api/models/org/model").removeprefix("/revision/")
            self._send_info(revision)
        elif path.startswith("/org/model/resolve/"):
            self._send_file(path.split("/", 5)[5], with_body)
        elif path.startswith("/api/models/org/gated"):
            self._refuse(403, "GatedRepo")
        elif path.startswith("/api/models/org/broken"):
            self._refuse(500, "")
        else:
            self._refuse(404, "RepoNotFound")

    def _send_info(self, revision: str) -> None:
        if revision not in ("", "main", "v1", COMMIT):
            self._refuse(404, "RevisionNotFound")
            return
        siblings = [{"rfilename": name} for name in self.server.files]
        body = json.dumps({"_id": "1", "id": "org/model", "sha": COMMIT, "siblings": siblings, "tags": []}).encode()
        self._send(200, {"Content-Type": "application/json"}, body)

    def _send_tree(self) -> None:
        """What huggingface_hub from 1.0 on asks for; before, the siblings did."""
        rows = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in self.server.files.items()
        ]
        self._send(200, {"Content-Type": "application/json"}, json.dumps(rows).encode())

    def _send_file(self, name: str, with_body: bool) -> None:
        content = self.server.files[name]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(200, headers, content, with_body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code} if code else {}, b"{}")

    def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)
