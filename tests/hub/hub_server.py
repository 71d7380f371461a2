"""A Hub on the loopback interface: what Hugging Face and ModelScope answer, and how networks and servers fail."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "master", "v1", COMMIT)


@dataclass(frozen=True)
class Answer:
    """How a request for a file is answered: as it should be, but for what is named here.

    `cut` closes the connection after so many bytes, `stall` goes silent after them until the client has gone. `drip`
    sends one byte, waits so many seconds, and so on; `drips_before` does that with ``100 Continue`` before the answer.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    whole: bool = False
    shift: int = 0
    cut: int | None = None
    stall: int | None = None
    content: bytes | None = None
    drip: float | None = None
    drips_before: float | None = None


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> tuple[int, int] | None:
        """First byte and the one behind the last, as asked for."""
        if "Range" not in self.headers:
            return None
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), int(last) + 1

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class HubServer(ThreadingHTTPServer):
    """Serves one public model, ``org/model``, of `files`; ``org/gated`` asks for access, ``org/broken`` fails.

    `answers` are taken one by one by the GET requests for a file. Weights are redirected to `cdn`, another server,
    if there is one. `statuses` are what the next requests to the API get, `api_body`, with `api_headers` and
    `api_answer`, what all of them get; `change` alters the documents that they get otherwise. Where `redirect` returns
    an address, that is the answer to a request of any kind.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.answers: dict[str, deque[Answer]] = {}
        self.statuses: deque[tuple[int, dict[str, str]]] = deque()
        self.cdn: HubServer | None = None
        self.cdn_refuses_once: set[str] = set()
        self.hash_of: dict[str, str] = {}
        self.etags: dict[str, str] = {}
        self.partial_status = 206
        self.api_body: bytes | None = None
        self.api_answer: Answer | None = None
        self.api_headers: dict[str, str] = {}
        self.change: Callable[[Any], object] = lambda document: None
        self.redirect: Callable[[Request], str | None] = lambda request: None
        self.seen: list[Request] = []
        self.connections = 0
        self.stalled = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def requests(self) -> list[str]:
        return [str(request) for request in self.seen]

    def gets(self, name: str) -> list[Request]:
        """The requests for the content of a file."""
        return [request for request in self.seen if request.method == "GET" and _file_of(request.path) == name]

    def sha256(self, name: str) -> str:
        return self.hash_of.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def blob(self, name: str) -> str:
        content = self.files[name]
        return self.hash_of.get(name) or hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is none of the server's faults."""


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[HubServer]:
    server = HubServer(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _file_of(path: str) -> str | None:
    parts = urlsplit(path)
    if parts.path.startswith("/org/model/resolve/"):
        return parts.path.split("/", 5)[5]
    if parts.path == "/api/v1/models/org/model/repo":
        return parse_qs(parts.query)["FilePath"][0]
    return parts.path.removeprefix("/cdn/") if parts.path.startswith("/cdn/") else None


def _is_lfs(name: str) -> bool:
    return name.endswith(".safetensors") or name == "tokenizer.json"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        request = Request(self.command, self.path, dict(self.headers))
        self.server.seen.append(request)
        path = urlsplit(self.path).path
        if (target := self.server.redirect(request)) is not None:
            self._send(302, {"Location": target}, b"")
        elif (name := _file_of(self.path)) is not None:
            self._send_file(name, request, moved=path.startswith("/cdn/"))
        elif self.server.statuses:
            status, headers = self.server.statuses.popleft()
            self._send(status, headers, b"{}")
        elif self.server.api_body is not None:
            self._send(200, self.server.api_headers, self.server.api_body, self.server.api_answer)
        elif path.startswith("/api/models/org/model/tree/"):
            self._send_json(self._tree())
        elif path.startswith("/api/models/org/model"):
            self._send_info(path.removeprefix("/api/models/org/model").removeprefix("/revision/"))
        elif path.startswith("/api/models/org/gated"):
            self._send(403, {"X-Error-Code": "GatedRepo"}, b"{}")
        elif path.startswith("/api/models/org/broken"):
            self._send(500, {}, b"{}")
        elif path.startswith("/api/v1/models/org/model/"):
            self._send_modelscope(path.removeprefix("/api/v1/models/org/model/"))
        else:
            self._send(404, {"X-Error-Code": "RepoNotFound"}, b'{"Code": 10010205001, "Message": "no such model"}')

    def _send_info(self, revision: str) -> None:
        if revision not in ("", *REVISIONS):
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
            return
        siblings = [{"rfilename": row["path"], **row, "blobId": row["oid"]} for row in self._tree()]
        for sibling in siblings:
            if "lfs" in sibling:
                sibling["lfs"] = {**sibling["lfs"], "sha256": sibling["lfs"]["oid"]}
        self._send_json({"_id": "1", "id": "org/model", "sha": COMMIT, "siblings": siblings, "tags": []})

    def _tree(self) -> list[dict]:
        rows = []
        for name, content in self.server.files.items():
            row = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            if _is_lfs(name):
                row["lfs"] = {"oid": self.server.sha256(name), "size": len(content), "pointerSize": 135}
            else:
                row["oid"] = self.server.blob(name)
            rows.append(row)
        return rows

    def _send_modelscope(self, path: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        revision = (query.get("Ref") or query.get("Revision") or [""])[0]
        if revision and revision not in REVISIONS:
            self._send(404, {}, b'{"Code": 10010205001, "Message": "no such revision", "Success": false}')
        elif path == "commits":
            self._send_json({"Code": 200, "Data": {"Commit": [{"Id": COMMIT, "ShortId": COMMIT[:8]}]}, "Success": True})
        elif path == "revisions":
            revisions = {"Branches": [{"Revision": "master", "CreatedAt": 0}], "Tags": []}
            self._send_json({"Code": 200, "Data": {"RevisionMap": revisions}, "Success": True})
        else:
            rows = [
                {"Path": name, "Name": name, "Type": "blob", "Size": len(content), "Sha256": self.server.sha256(name)}
                for name, content in self.server.files.items()
            ]
            rows.append({"Path": "original", "Name": "original", "Type": "tree", "Size": 0, "Sha256": ""})
            files = [{**row, "Revision": COMMIT, "IsLFS": False} for row in rows]
            self._send_json({"Code": 200, "Data": {"Files": files, "LatestCommitter": {"Id": ""}}, "Success": True})

    def _send_file(self, name: str, request: Request, moved: bool) -> None:
        server = self.server
        if name not in server.files:
            self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        etag = server.etags.get(name) or (server.sha256(name) if _is_lfs(name) else server.blob(name))
        headers: dict[str, str | None] = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        if server.cdn is not None and _is_lfs(name) and not moved:
            headers |= {"Location": f"{server.cdn.url}/cdn/{name}?signature={len(server.seen)}"}
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(server.files[name]))}
            self._send(302, headers, b"")
            return
        queue = server.answers.get(name) if request.method == "GET" else None
        answer = queue.popleft() if queue else Answer()
        self._send_content(name, request, answer, headers)

    def _send_content(self, name: str, request: Request, answer: Answer, headers: dict[str, str | None]) -> None:
        content = answer.content if answer.content is not None else self.server.files[name]
        status, body = 200, content
        if answer.status is not None:
            status, body = answer.status, b""
        elif request.range is not None and not answer.whole:
            begin, end = (edge + answer.shift for edge in request.range)
            status, body = self.server.partial_status, content[begin:end]
            headers["Content-Range"] = f"bytes {begin}-{min(end, len(content)) - 1}/{len(content)}"
            if begin >= len(content):
                status, body, headers["Content-Range"] = 416, b"", f"bytes */{len(content)}"
        self._send(status, {**headers, **answer.headers}, body, answer)

    def _send_json(self, document: object) -> None:
        self.server.change(document)
        self._send(200, {"Content-Type": "application/json"}, json.dumps(document).encode(), self.server.api_answer)

    def _send(self, status: int, headers: Mapping[str, str | None], body: bytes, answer: Answer | None = None) -> None:
        if answer is not None and answer.drips_before is not None:
            self._drip(itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), answer.drips_before)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer is not None and answer.drip is not None:
            self._drip((body[place : place + 1] for place in range(len(body))), answer.drip)
            return
        stop = None if answer is None else answer.cut if answer.cut is not None else answer.stall
        self.wfile.write(body if stop is None else body[:stop])
        if answer is not None and answer.stall is not None:
            self.wfile.flush()
            self.server.stalled.set()
            self.connection.settimeout(60)
            with suppress(OSError):
                self.rfile.read(1)  # returns once the client has hung up
        if stop is not None:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _drip(self, parts: Iterable[bytes], seconds: float) -> None:
        with suppress(OSError):  # until the client has gone
            for part in parts:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(seconds)
