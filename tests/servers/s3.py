"""A real S3 API server for tests: moto's, in a process of its own, and a front that does to requests what is drawn.

What `Bucket.draw` names for a request: `500` and `503` (answered so and not passed on), `slow`, `refused` (the connection is
closed instead of an answer), `unknown` (it is done, and answered with 500), `cut` (it is done, and the connection is closed
in the middle of the answer), `stale` (an object is read as it was before it was written: it is not there).
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

LIMIT = 120.0
_SERVE = "from moto.server import main; import sys; main(sys.argv[1:])"


class Bucket:
    """One bucket, and what goes wrong with it."""

    url = "s3://blobs/team"

    def __init__(self, port: int) -> None:
        self.port = port
        self.failing = 0
        """How many of the next requests are answered with 500."""
        self.seconds = 0.0
        """How long each answer takes."""
        self.requests = 0
        self.draw: Callable[[str], str | None] = lambda _: None
        """What happens to the next request, by its method."""
        self._front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Front", (_Front,), {"bucket": self}))
        self._front.daemon_threads = True
        threading.Thread(target=self._front.serve_forever, name="s3 front", daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a client of the bucket."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._front.server_address[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "mine",
            "AWS_REGION": "us-east-1",
        }

    def close(self) -> None:
        """Take no more requests."""
        self._front.shutdown()
        self._front.server_close()


class _Front(http.server.BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.bucket.requests += 1
        time.sleep(self.bucket.seconds)
        fault = self.bucket.draw(self.command)
        if self.bucket.failing > 0:
            self.bucket.failing -= 1
            fault = "500"
        if fault == "slow":
            time.sleep(0.2)
        if fault in ("500", "503"):
            self._answer(int(fault), [], b"<Error><Code>InternalError</Code></Error>")
        elif fault == "refused":
            self.close_connection = True
        elif fault == "stale" and self.command in ("GET", "HEAD"):
            self._answer(404, [], b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._ask(body, fault)

    def _ask(self, body: bytes, fault: str | None) -> None:
        server = http.client.HTTPConnection("127.0.0.1", self.bucket.port, timeout=LIMIT)
        with contextlib.closing(server):
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            data = answer.read()
        if fault == "unknown":
            self._answer(500, [], b"<Error><Code>InternalError</Code></Error>")
        else:
            self._answer(answer.status, answer.getheaders(), data, torn=fault == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - as the base class has them

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, torn: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if torn else data)
        if torn:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def started() -> Iterator[Bucket]:
    """A server with an empty bucket."""
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip("moto, which serves S3 here, is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-c", _SERVE, "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT
        while True:
            assert process.poll() is None, "moto has ended"
            assert time.monotonic() < deadline
            try:
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)) as client:
                    client.request("PUT", "/blobs")
                    assert client.getresponse().status == 200
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        bucket = Bucket(port)
        try:
            yield bucket
        finally:
            bucket.close()
    finally:
        process.kill()
        process.wait()
