"""A model hub on loopback that serves one folder, with the routes huggingface_hub asks for."""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class FakeHub:
    """Serves `folder` and `extra` files as the repository `name`; a context manager."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, name: str, folder: Path, extra: Mapping[str, bytes]) -> None:
        self._name = name
        self._files = {file.name: file.read_bytes() for file in folder.iterdir()} | dict(extra)
        self.served: set[str] = set()
        self.sent: Counter[str] = Counter()  # bytes of each file's bodies
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """What HF_ENDPOINT takes."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, bytes, str]:
        """Status, body and ETag of a request path."""
        path = path.partition("?")[0]
        if path.startswith(f"/api/models/{self._name}/tree/"):
            files = [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in self._files.items()
            ]
            return 200, json.dumps(files).encode(), ""
        if path.startswith(f"/api/models/{self._name}"):
            siblings = [{"rfilename": name} for name in self._files]
            info = {"id": self._name, "sha": self.commit, "siblings": siblings}
            return 200, json.dumps(info).encode(), ""
        prefix = f"/{self._name}/resolve/{self.commit}/"
        name = path.removeprefix(prefix)
        if path.startswith(prefix) and name in self._files:
            self.served.add(name)
            return 200, self._files[name], _etag(self._files[name])
        return 404, b"{}", ""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._send(with_body=False)

            def do_GET(self) -> None:
                self._send(with_body=True)

            def _send(self, *, with_body: bool) -> None:
                status, body, etag = hub.answer(self.path)
                asked = RANGE.fullmatch(self.headers.get("Range", ""))
                if status == 200 and asked:
                    status, body = 206, body[int(asked[1]) : int(asked[2]) + 1]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Repo-Commit", hub.commit)
                if etag:
                    self.send_header("ETag", f'"{etag}"')
                self.end_headers()
                if with_body:
                    if etag:
                        hub.sent[self.path.rpartition("/")[2]] += len(body)
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
