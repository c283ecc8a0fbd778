"""A real S3 API server for tests: moto's, in a process of its own, and a front that answers 500 or slowly when told."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
        bucket = self

        class Front(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                bucket.requests += 1
                time.sleep(bucket.seconds)
                if bucket.failing > 0:
                    bucket.failing -= 1
                    self._answer(500, [], b"<Error><Code>InternalError</Code></Error>")
                    return
                server = http.client.HTTPConnection("127.0.0.1", bucket.port, timeout=LIMIT)
                with contextlib.closing(server):
                    server.request(self.command, self.path, body, dict(self.headers))
                    answer = server.getresponse()
                    data = answer.read()
                    self._answer(answer.status, answer.getheaders(), data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - as the base class has them

            def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = {name.lower(): value for name, value in headers}.get("content-length")
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        self._front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
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
