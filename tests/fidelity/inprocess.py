"""A kernel without sockets, in this process: ipykernel's own classes, a session that only notes messages.

The durable and the plain kernel are both made here, from the classes that the kernelspecs start; what differs from a real
kernel is only the transport (`NotedSession`), the two streams (which send at once, not from a thread) and the loop, which
runs while a cell runs. One process makes one kernel, since IPython's shell and comm manager are singletons: the nursery
forks a process for each.
"""

from __future__ import annotations

import asyncio
import builtins
import copy
import io
import logging
import sys
import threading
import uuid
from collections.abc import Sequence
from datetime import datetime
from json import dumps, loads  # bound now: notebooks of the corpus replace them in their module
from types import SimpleNamespace
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.jsonutil import json_clean
from jupyter_client.session import Session
from traitlets.config import Config

from durable_nb.notebook._kernel import DurableKernel
from tests.fidelity.probing import probe_in
from tests.notebook.outputs import OutputArea

Message = dict[str, Any]


class NotedSession(Session):
    """Sends nowhere: every message goes to one function."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.receiver: Any = None

    def send(  # type: ignore[override]
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
    ) -> Message:
        if isinstance(msg_or_type, dict):
            message = msg_or_type
        else:
            message = self.msg(msg_or_type, content=content, parent=parent, header=header, metadata=metadata)
        if self.receiver is not None:
            # Through JSON, as over the wire: what is not JSON fails here as it would there.
            self.receiver(loads(dumps(json_clean(copy.copy(message)), default=_as_text)))
        return message


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


class SentStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a kernel: each text is a message."""

    encoding = "UTF-8"  # type: ignore[assignment]
    errors = None

    def __init__(self, kernel: Any, name: str, number: int) -> None:
        self._kernel, self._number, self.name = kernel, number, name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            content = {"name": self.name, "text": text}
            parent = self._kernel.get_parent("shell")
            self._kernel.session.send(self._kernel.iopub_socket, "stream", content, parent=parent)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return False


class _Bare:
    """What both kernels need in order to live without channels."""

    answers: list[str]

    def _abort_queues(self, *_: Any) -> None:
        """No queue: a test sends one cell after the other."""

    def _input_request(self, prompt: str, ident: Any, parent: Any, password: bool = False) -> str:
        return self.answers.pop(0)


class BareDurableKernel(_Bare, DurableKernel):
    """The durable kernel without channels."""


class BarePlainKernel(_Bare, IPythonKernel):
    """The plain kernel without channels."""


class Shell:
    """One kernel in this process, and a front end's view of it."""

    def __init__(self, *, durable: bool, answers: Sequence[str] = ()) -> None:
        config = Config()
        config.HistoryManager.enabled = False
        config.ZMQInteractiveShell.colors = "nocolor"
        kind = BareDurableKernel if durable else BarePlainKernel
        main = SimpleNamespace(parent_thread=threading.main_thread(), manager=None)
        self.session = NotedSession(key=b"test", signature_scheme="hmac-sha256", username="user")
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.kernel = kind(
            config=config,
            session=self.session,
            shell_channel_thread=main,
            iopub_socket=SimpleNamespace(),
            log=logging.getLogger("kernel"),
        )
        self.kernel.answers = list(answers)
        self.shell = self.kernel.shell
        # As the application does when its start-up files have run: what is there now is nobody's.
        self.shell.user_ns_hidden.update(self.shell.user_ns)
        self.displays: dict[str, list[dict[str, Any]]] = {}
        self.session.receiver = self._take
        self._area: OutputArea | None = None
        self._parent = ""
        self._reply: Message | None = None
        sys.stdout, sys.stderr = SentStream(self.kernel, "stdout", 1), SentStream(self.kernel, "stderr", 2)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
        if "" not in sys.path:
            sys.path.insert(0, "")
        builtins.input = self.kernel.raw_input

    def _take(self, message: Message) -> None:
        if message.get("parent_header", {}).get("msg_id") != self._parent:
            return
        if message["header"]["msg_type"] == "execute_reply":
            self._reply = message
        elif self._area is not None:
            self._area.take(message)

    def run(self, source: str, *, cell_id: str | None = None, silent: bool = False, **more: Any) -> dict[str, Any]:
        """Run a cell as a front end's request does; returns what the front end has seen at its end."""
        content = {
            "code": source,
            "silent": silent,
            "store_history": not silent,
            "user_expressions": more.get("user_expressions", {}),
            "allow_stdin": bool(self.kernel.answers),
            "stop_on_error": True,
        }
        metadata = {"cellId": cell_id} if cell_id is not None else {}
        request = self.session.msg("execute_request", content, metadata=metadata)
        request["header"]["msg_id"] = self._parent = uuid.uuid4().hex
        self._area, self._reply = OutputArea(self.displays), None
        self.kernel.set_parent([b"test"], request)
        self.loop.run_until_complete(self.kernel.execute_request(None, [b"test"], request))
        assert self._reply is not None
        reply = self._reply["content"]
        return {
            "source": source,
            "status": reply["status"],
            "count": reply.get("execution_count"),
            "ename": reply.get("ename"),
            "evalue": reply.get("evalue"),
            "outputs": self._area.outputs,
            "durable": self._reply["metadata"].get("durable_nb") or {},
            "expressions": reply.get("user_expressions", {}),
        }

    def load_all(self) -> None:
        """Have every replayed value there, as a silent request would: what follows looks at the namespace itself."""
        hooks = getattr(self.shell, "_durable_nb_hooks", None)
        if hooks is not None:
            hooks.session.waiting.load_all()

    def value(self, code: str) -> str:
        """What a silent request finds: the `repr` of the last expression of `code`, or the error it raises."""
        builtins._probe = lambda text: probe_in(self.shell.user_ns, text)  # type: ignore[attr-defined]
        seen = self.run("", silent=True, user_expressions={"v": f"__import__('builtins')._probe({code!r})"})
        found = seen["expressions"]["v"]
        if found["status"] != "ok":
            return f"{found['ename']}: {found['evalue']}"
        return str(found["data"]["text/plain"])
