"""Stands between clients and a PostgreSQL server, on a unix socket, and does to connections what networks do.

It counts the messages of the protocol in both directions and cuts every connection at a chosen one: before it is passed
on, so that the client cannot know whether the server has seen or done anything. `pause` lets nothing through and closes
nothing, as a network that is gone.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

_ASKS = (b"S", b"H")
"""The end of a statement or a pipeline, and the flush in the middle of one: for both together a client waits once."""


class Proxy:
    """Passes on to a server's socket.

    Args:
        server: the socket of the server.
    """

    def __init__(self, server: Path) -> None:
        self._server = server
        self.folder = Path(tempfile.mkdtemp(prefix="dnb-px-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._servers: set[socket.socket] = set()
        """Those of `_open` that lead to the server."""
        self._notice: threading.Timer | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self.seen = 0
        """Messages that came through since `cut_at` was called."""
        self.round_trips = 0
        """How often a client has asked for answers, for which it waits before it goes on."""
        self._cut_at: int | None = None
        self._for_good = False
        self.has_cut = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.close()
        self.resume()
        self.cut()
        shutil.rmtree(self.folder, ignore_errors=True)

    def cut_at(self, number: int | None, *, for_good: bool = False) -> None:
        """Cut all connections instead of passing on the message of this number, counted from 1 and from now; once.

        Args:
            number: of the message; None only counts.
            for_good: take no new connections either: none can slip in between the cut and a later `refuse`.
        """
        with self._lock:
            self.seen, self._cut_at, self._for_good, self.has_cut = 0, number, for_good, False

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            chosen, self._open = self._open, set()
        _shut(chosen)

    def refuse(self) -> None:
        """Cut all connections and take no new ones."""
        self._listener.close()
        (self.folder / ".s.PGSQL.5432").unlink(missing_ok=True)
        self.cut()

    def pause(self, *, noticed_after: float | None = None) -> None:
        """Let nothing through.

        Args:
            noticed_after: seconds after which the server finds its clients gone, as keepalive does over TCP. They do
                not hear of it before `resume`.
        """
        self._flowing.clear()
        if noticed_after is not None:
            with self._lock:
                chosen = set(self._servers)
            self._notice = threading.Timer(noticed_after, _shut, [chosen])
            self._notice.start()

    def resume(self) -> None:
        """Let everything through that has waited."""
        if self._notice is not None:
            self._notice.cancel()
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
                self._servers.add(server)
            for source, target, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=(source, target, is_client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_client: bool) -> None:
        stream = source.makefile("rb")
        greets = is_client  # the first message has no letter
        before = b""
        try:
            while True:
                kind = b"" if greets else stream.read(1)
                greets = False
                size = stream.read(4)
                if len(size) < 4:
                    break
                body = stream.read(int.from_bytes(size, "big") - 4)
                self._flowing.wait()
                if is_client and (kind == b"Q" or (kind in _ASKS and before not in _ASKS)):
                    with self._lock:
                        self.round_trips += 1
                before = kind
                if self._is_last():
                    if self._for_good:
                        self.refuse()
                    else:
                        self.cut()
                    break
                target.sendall(kind + size + body)
        except (OSError, ValueError):
            pass
        finally:
            self._flowing.wait()  # an end is not heard either
            _shut((source, target))
            with self._lock:
                self._open -= {source, target}
                self._servers -= {source, target}
            with contextlib.suppress(OSError):
                stream.close()
                source.close()

    def _is_last(self) -> bool:
        with self._lock:
            self.seen += 1
            if self._cut_at is None or self.seen < self._cut_at or self.has_cut:
                return False
            self.has_cut = True
            return True


def _shut(chosen: Iterable[socket.socket]) -> None:
    for one in chosen:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
