"""Real kernels for tests: start one, run cells, see what a front end would see, kill it, start the next.

A `Kernel` speaks the Jupyter protocol over its own sockets, without an event loop and without a kernel manager: the
test owns the process (and so its death), and every wait ends at a message or at the end of the process, never at a
guess. IPC sockets are used, since parallel test workers would race for TCP ports.

    with Kernel(bench) as kernel:                        # spec "durable_nb"; spec="python3" is the oracle
        result = kernel.run("x = 1; print(x)")
        assert result.stdout == "1\\n" and result.durable["status"] == "executed"
        pending = kernel.execute("print('go', flush=True); import time; time.sleep(60)")
        pending.wait_for("go")
        kernel.kill()

    run_all(bench, ["x = 1", "print(x)"], kill_after=0)  # a whole Run All in one call; see also `oracle`

Whether a cell was replayed is in `result.durable` (the reply's metadata). Runners that drop that metadata (papermill,
`jupyter execute`, nbval) are told apart by a cell whose output differs at each run, such as `print(uuid.uuid4())`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.session import Session

from tests.notebook.outputs import OutputArea, stream_text

LIMIT = 120.0
"""Seconds after which a wait is a failure. Generous, because machines are shared; no test measures time by it."""

CellIds = Sequence[str | None] | Literal["auto"] | None
"""`None`: as runners, which send none. `"auto"`: `cell-0`, `cell-1`… as JupyterLab. Or one per cell."""


class KernelDiedError(AssertionError):
    """Raised by a wait when the kernel's process ended first."""


class KernelTimeoutError(AssertionError):
    """Raised by a wait that took longer than `LIMIT`."""


def clean_environment(**more: str | None) -> dict[str, str]:
    """This process's environment without what would tell a kernel where it runs. None removes a variable."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JPY_", "PYTEST_", "DURABLE_NB_", "COV_"))}
    for key, value in more.items():
        if value is None:
            env.pop(key, None)
        else:
            env[key] = value
    return env


@dataclass
class Bench:
    """A folder for one test: where notebooks, their data and the store live. `env` is added to every kernel's."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.private.mkdir(parents=True, exist_ok=True)

    @property
    def private(self) -> Path:
        """IPython's and Jupyter's per-user folders of this test: profiles, history, the signing key."""
        return self.root.with_name(self.root.name + "-user")

    @property
    def store(self) -> Path:
        return self.root / ".durable"

    def environment(self, **more: str | None) -> dict[str, str]:
        user = str(self.private)
        base: dict[str, str | None] = {
            "IPYTHONDIR": f"{user}/ipython",
            "JUPYTER_DATA_DIR": f"{user}/data",
            "JUPYTER_CONFIG_DIR": f"{user}/config",
            "JUPYTER_RUNTIME_DIR": f"{user}/runtime",
            "MPLBACKEND": None,
            **self.env,
            **more,
        }
        return clean_environment(**base)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def notebook(self, name: str, cells: Sequence[str | Mapping[str, Any]], *, kernel: str = "durable_nb") -> Path:
        """Write a notebook. A cell is its source, or a mapping with `source`, `cell_type`, `metadata`, `id`."""
        found = []
        for index, cell in enumerate(cells):
            given = {"source": cell} if isinstance(cell, str) else dict(cell)
            made = {"id": f"cell-{index}", "cell_type": "code", "metadata": {}, **given}
            if made["cell_type"] == "code":
                made = {"execution_count": None, "outputs": [], **made}
            found.append(made)
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        book = {"cells": found, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
        return self.write(name, json.dumps(book, indent=1))


@dataclass
class CellResult:
    """What a front end has seen of one cell."""

    source: str
    status: str
    """`ok`, `error` or `aborted`."""
    execution_count: int | None
    outputs: list[dict[str, Any]]
    """Notebook format, in their final state when the cell ended (later display updates change them in place)."""
    metadata: dict[str, Any]
    ename: str | None = None
    evalue: str | None = None
    traceback: list[str] = field(default_factory=list)
    comms: list[dict[str, Any]] = field(default_factory=list)

    @property
    def durable(self) -> dict[str, Any]:
        """`metadata["durable_nb"]` of the reply; empty in a plain kernel."""
        return dict(self.metadata.get("durable_nb") or {})

    @property
    def verdict(self) -> str | None:
        """`replayed`, `executed`, `declared`, `not_durable`, `failed`; None in a plain kernel."""
        verdict = self.durable.get("status")
        return None if verdict is None else str(verdict)

    @property
    def stdout(self) -> str:
        return stream_text(self.outputs, "stdout")

    @property
    def stderr(self) -> str:
        return stream_text(self.outputs, "stderr")

    @property
    def result(self) -> str | None:
        """text/plain of the cell's last expression."""
        found = [o["data"].get("text/plain") for o in self.outputs if o["output_type"] == "execute_result"]
        return found[-1] if found else None

    def expect_ok(self) -> Self:
        if self.status != "ok":
            lines = "\n".join(self.traceback) or f"{self.ename}: {self.evalue}"
            raise AssertionError(f"cell {self.status}\n{self.source}\n{lines}\n{self.stderr}")
        return self


class Pending:
    """A cell that was sent and may still run."""

    def __init__(self, kernel: Kernel, msg_id: str, source: str) -> None:
        self._kernel = kernel
        self.msg_id, self.source = msg_id, source
        self.area = OutputArea(kernel.displays)
        self.reply: dict[str, Any] | None = None
        self.idle = False
        self.comms: list[dict[str, Any]] = []

    @property
    def done(self) -> bool:
        return self.idle and self.reply is not None

    def wait_for(self, text: str, *, stream: str = "stdout") -> Self:
        """Until the cell has written `text` to a stream."""
        self._kernel._until(lambda: text in stream_text(self.area.outputs, stream) or self.done, f"output {text!r}")
        if text not in stream_text(self.area.outputs, stream):
            raise AssertionError(f"the cell ended without writing {text!r}: {self.area.outputs}")
        return self

    def wait_started(self) -> Self:
        """Until the kernel has begun to execute the cell."""
        self._kernel._until(lambda: self.msg_id in self._kernel.busy or self.done, "busy")
        return self

    def ended_within(self, seconds: float) -> bool:
        """Whether the cell ends in this time; for a test that acts again when it does not."""
        deadline = time.monotonic() + seconds
        while not self.done and time.monotonic() < deadline:
            self._kernel._pump(0.05)
        return self.done

    def result(self) -> CellResult:
        self._kernel._until(lambda: self.done, f"the end of {self.source!r}")
        assert self.reply is not None
        content = self.reply["content"]
        return CellResult(
            source=self.source,
            status=content["status"],
            execution_count=content.get("execution_count"),
            outputs=self.area.outputs,
            metadata=self.reply["metadata"],
            ename=content.get("ename"),
            evalue=content.get("evalue"),
            traceback=content.get("traceback") or [],
            comms=self.comms,
        )


class Kernel:
    """One kernel process and the front end's side of its sockets."""

    def __init__(
        self,
        bench: Bench,
        *,
        spec: str = "durable_nb",
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        notebook: str | Path | None = None,
        extension: bool = False,
    ) -> None:
        """
        Args:
            notebook: told to the kernel as JupyterLab does (`JPY_SESSION_NAME`); None says nothing, as runners do.
            extension: run `%load_ext durable_nb` first (silently), for `spec="python3"`.
        """
        self.bench, self.spec = bench, spec
        self.cwd = cwd or bench.root
        session_name = None if notebook is None else str(bench.root / notebook)
        self._env = bench.environment(**{"JPY_SESSION_NAME": session_name, **dict(env or {})})
        self._extension = extension
        self._pending: dict[str, Pending] = {}
        self._replies: dict[str, dict[str, Any]] = {}
        self.displays: dict[str, list[dict[str, Any]]] = {}
        self.busy: set[str] = set()
        self.late: list[dict[str, Any]] = []
        """Output messages whose cell had already ended, or that belong to no cell."""
        self._answers: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self.process is not None, "the kernel was not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What the process wrote to its own stderr (not to a cell)."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start the process and wait until both its channels answer."""
        # Socket paths have a limit of about 100 characters, which a test's own folder exceeds.
        self._sockets = tempfile.TemporaryDirectory(prefix="dnb-", ignore_cleanup_errors=True)
        folder = Path(self._sockets.name)
        self._log = folder / "log"
        info = {
            "transport": "ipc",
            "ip": str(folder / "k"),
            **{f"{name}_port": n for n, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), start=1)},
            "key": uuid.uuid4().hex,
            "signature_scheme": "hmac-sha256",
            "kernel_name": self.spec,
        }
        connection = folder / "connection.json"
        connection.touch(mode=0o600)
        connection.write_text(json.dumps(info), encoding="utf-8")
        spec = KernelSpecManager().get_kernel_spec(self.spec)
        argv = [part.replace("{connection_file}", str(connection)) for part in spec.argv]
        argv[0] = sys.executable
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=self.cwd,
                env={**self._env, **spec.env, "JPY_PARENT_PID": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._session = Session(key=str(info["key"]).encode())
        self._context = zmq.Context()
        self._shell = self._connect(zmq.DEALER, info, "shell")
        self._control = self._connect(zmq.DEALER, info, "control")
        self._stdin = self._connect(zmq.DEALER, info, "stdin", wait=True)
        self._iopub = self._connect(zmq.SUB, info, "iopub")
        self._poller = zmq.Poller()
        for socket in (self._shell, self._control, self._stdin, self._iopub):
            self._poller.register(socket, zmq.POLLIN)
        self._wait_ready()
        if self._extension:
            self.run("%load_ext durable_nb", silent=True).expect_ok()

    def _connect(self, kind: int, info: Mapping[str, Any], channel: str, *, wait: bool = False) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = 10  # ms; the kernel's end appears some time after this one
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            # One identity for shell and stdin: the kernel sends its question to whoever sent the cell.
            socket.setsockopt(zmq.IDENTITY, self._session.bsession)
        connected = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) if wait else None
        socket.connect(f"ipc://{info['ip']}-{info[f'{channel}_port']}")
        if connected is not None:
            # A question that the kernel asks before this end is connected is dropped, and nobody answers it.
            deadline = time.monotonic() + LIMIT
            while not connected.poll(50):
                self._check(deadline, f"connection to the {channel} channel")
            socket.disable_monitor()
            connected.close()
        return socket

    def _wait_ready(self) -> None:
        # A subscription takes effect some time after `connect`: ask until the status of an answer arrives.
        asked: set[str] = set()
        deadline = time.monotonic() + LIMIT
        while not asked & self.busy:
            if not asked or not asked - set(self._replies):
                asked.add(self._send(self._shell, "kernel_info_request", {}))
            self._check(deadline, "the kernel's first answer")
            self._pump(0.05)
        self._until(lambda: asked <= set(self._replies), "the answers to kernel_info_request")
        self.late.clear()

    def kill(self) -> None:
        """SIGKILL: nothing of the process runs any more when this returns."""
        assert self.process is not None
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def interrupt(self) -> None:
        """What the stop button does."""
        os.kill(self.pid, signal.SIGINT)

    def restart(self, *, kill: bool = False) -> None:
        """A fresh process in the same place; `kill` makes the end of the old one a SIGKILL."""
        self.close(kill=kill)
        self.displays.clear()
        self.start()

    def close(self, *, kill: bool = False) -> None:
        """End the process, politely unless `kill`, and free everything. A second call does nothing."""
        process = self.process
        if process is not None and process.poll() is None:
            if not kill and hasattr(self, "_control"):
                self._send(self._control, "shutdown_request", {"restart": False})
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    kill = True
            if process.poll() is None:
                # Children of the kernel are in its session; they must not outlive the test either.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.process = None
        self._pending.clear()
        self._replies.clear()
        self.busy.clear()
        if hasattr(self, "_context"):
            self._context.destroy(linger=0)
            del self._context, self._control
        if hasattr(self, "_sockets"):
            self._sockets.cleanup()

    # --- cells --------------------------------------------------------------------------------------------------

    def execute(
        self,
        source: str,
        *,
        cell_id: str | None = None,
        cell_meta: Mapping[str, Any] | None = None,
        silent: bool = False,
        store_history: bool | None = None,
        stop_on_error: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        answers: Sequence[str] = (),
        subshell: str | None = None,
    ) -> Pending:
        """Send a cell and return at once.

        Args:
            cell_id: as JupyterLab sends it; None as runners do.
            cell_meta: further message metadata; JupyterLab sends the whole cell metadata, tags included.
            answers: for `input()`, in order.
            subshell: id that `create_subshell` gave.
        """
        self._answers.extend(answers)
        content = {
            "code": source,
            "silent": silent,
            "store_history": (not silent) if store_history is None else store_history,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": bool(answers),
            "stop_on_error": stop_on_error,
        }
        metadata = dict(cell_meta or {})
        if cell_id is not None:
            metadata |= {"cellId": cell_id, "deletedCells": [], "recordTiming": False, "trusted": True}
        msg = self._session.msg("execute_request", content, metadata=metadata)
        if subshell is not None:
            msg["header"]["subshell_id"] = subshell
        pending = Pending(self, msg["header"]["msg_id"], source)
        self._pending[pending.msg_id] = pending
        self._session.send(self._shell, msg)
        return pending

    def run(self, source: str, **options: Any) -> CellResult:
        """Send a cell and wait for its end; see `execute` for the options. An error is a result, not an exception."""
        return self.execute(source, **options).result()

    def run_all(
        self, cells: Sequence[str], *, cell_ids: CellIds = None, stop_on_error: bool = True
    ) -> list[CellResult]:
        """Cells one after the other, as a front end's Run All: stops after the first error."""
        results = []
        for source, cell_id in zip(cells, _ids(cells, cell_ids), strict=True):
            results.append(self.run(source, cell_id=cell_id))
            if stop_on_error and results[-1].status != "ok":
                break
        return results

    def value(self, expression: str) -> str:
        """`repr` of an expression in the user's namespace, asked silently: no cell, no step, no history."""
        pending = self.execute("", silent=True, user_expressions={"v": f"repr({expression})"})
        pending.result()
        assert pending.reply is not None
        answer = pending.reply["content"]["user_expressions"]["v"]
        if answer["status"] != "ok":
            return f"{answer['ename']}: {answer['evalue']}"
        return str(eval(answer["data"]["text/plain"]))

    def request(
        self, msg_type: str, content: Mapping[str, Any] | None = None, *, control: bool = False
    ) -> dict[str, Any]:
        """Any other request (complete, inspect, history…; on control: create_subshell…); its content."""
        msg_id = self._send(self._control if control else self._shell, msg_type, dict(content or {}))
        self._until(lambda: msg_id in self._replies, f"the reply to {msg_type}")
        return dict(self._replies.pop(msg_id)["content"])

    def send_comm(self, comm_id: str, data: Mapping[str, Any]) -> str:
        """A widget's message to the kernel (a click, a changed value). Returns at once."""
        return self._send(self._shell, "comm_msg", {"comm_id": comm_id, "data": dict(data)})

    def create_subshell(self) -> str:
        return str(self.request("create_subshell_request", control=True)["subshell_id"])

    # --- messages -----------------------------------------------------------------------------------------------

    def _send(self, socket: zmq.Socket[bytes], msg_type: str, content: dict[str, Any]) -> str:
        msg = self._session.msg(msg_type, content)
        self._session.send(socket, msg)
        return str(msg["header"]["msg_id"])

    def _check(self, deadline: float, what: str) -> None:
        if not self.alive:
            code = None if self.process is None else self.process.returncode
            raise KernelDiedError(f"the kernel ended ({code}) before {what}\n{self.log}")
        if time.monotonic() > deadline:
            raise KernelTimeoutError(f"no {what} in {LIMIT:g} s\n{self.log}")

    def _until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            if not self._pump(0.1):
                self._check(deadline, what)

    def _pump(self, seconds: float) -> bool:
        """Handle what has arrived; True when there was something."""
        ready = dict(self._poller.poll(int(seconds * 1000)))
        # IOPub first, so that a reply is never handled before the output that was sent ahead of it.
        for socket, handle in (
            (self._iopub, self._on_iopub),
            (self._stdin, self._on_stdin),
            (self._shell, self._on_reply),
            (self._control, self._on_reply),
        ):
            if socket in ready:
                handle(self._receive(socket))
        return bool(ready)

    def _receive(self, socket: zmq.Socket[bytes]) -> dict[str, Any]:
        _, frames = self._session.feed_identities(socket.recv_multipart())
        return dict(self._session.deserialize(frames))

    def _on_reply(self, msg: dict[str, Any]) -> None:
        parent = msg["parent_header"].get("msg_id", "")
        pending = self._pending.get(parent)
        if pending is None:
            self._replies[parent] = msg
            return
        pending.reply = msg
        self._forget_when_done(pending)

    def _on_stdin(self, msg: dict[str, Any]) -> None:
        if not self._answers:
            raise AssertionError(f"the kernel asked {msg['content']!r} and the test has no answer left")
        self._session.send(self._stdin, "input_reply", {"value": self._answers.pop(0)}, parent=msg)

    def _on_iopub(self, msg: dict[str, Any]) -> None:
        parent = (msg.get("parent_header") or {}).get("msg_id", "")
        kind = msg["header"]["msg_type"]
        if kind == "status" and msg["content"]["execution_state"] == "busy":
            self.busy.add(parent)
        pending = self._pending.get(parent)
        if pending is None:
            if not OutputArea(self.displays).take(msg):
                return
            self.late.append(msg)
        elif kind == "status":
            pending.idle = msg["content"]["execution_state"] == "idle"
            self._forget_when_done(pending)
        elif kind.startswith("comm_"):
            pending.comms.append(msg)
        else:
            pending.area.take(msg)

    def _forget_when_done(self, pending: Pending) -> None:
        if pending.done:
            del self._pending[pending.msg_id]


# --- whole notebooks -------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A Run All and what was asked afterwards."""

    cells: list[CellResult]
    probes: dict[str, str] = field(default_factory=dict)
    killed: bool = False

    @property
    def verdicts(self) -> list[str | None]:
        return [cell.verdict for cell in self.cells]

    @property
    def outputs(self) -> list[list[dict[str, Any]]]:
        return [cell.outputs for cell in self.cells]

    @property
    def stdout(self) -> list[str]:
        return [cell.stdout for cell in self.cells]

    @property
    def visible(self) -> tuple[list[Any], dict[str, str]]:
        """All that must be equal between a durable run and the oracle: outputs, counts, status and probes."""
        seen = [(c.status, c.execution_count, c.ename, c.evalue, c.outputs) for c in self.cells]
        return seen, self.probes


def _ids(cells: Sequence[str], cell_ids: CellIds) -> list[str | None]:
    if cell_ids is None:
        return [None] * len(cells)
    if cell_ids == "auto":
        return [f"cell-{n}" for n in range(len(cells))]
    return list(cell_ids)


def run_all(
    bench: Bench,
    cells: Sequence[str],
    *,
    probes: Sequence[str] = (),
    kill_after: int | None = None,
    kill_inside: tuple[int, str] | None = None,
    cell_ids: CellIds = None,
    stop_on_error: bool = True,
    **kernel: Any,
) -> Run:
    """One fresh kernel, all cells in order, then the probes.

    Args:
        probes: expressions whose `repr` is asked at the end (not after a kill).
        kill_after: index of the cell after whose reply the kernel gets SIGKILL.
        kill_inside: (index, text): SIGKILL as soon as that cell has written the text to stdout.
        kernel: options of `Kernel`.
    """
    results: list[CellResult] = []
    with Kernel(bench, **kernel) as process:
        for index, (source, cell_id) in enumerate(zip(cells, _ids(cells, cell_ids), strict=True)):
            pending = process.execute(source, cell_id=cell_id)
            if kill_inside is not None and index == kill_inside[0]:
                pending.wait_for(kill_inside[1])
                process.kill()
                return Run(results, killed=True)
            results.append(pending.result())
            if index == kill_after:
                process.kill()
                return Run(results, killed=True)
            if stop_on_error and results[-1].status != "ok":
                break
        return Run(results, {probe: process.value(probe) for probe in probes})


def oracle(bench: Bench, cells: Sequence[str], *, probes: Sequence[str] = (), **kernel: Any) -> Run:
    """The same cells in the plain kernel, with the same hash seed."""
    env = {"PYTHONHASHSEED": "0", **(kernel.pop("env", None) or {})}
    return run_all(bench, cells, probes=probes, spec="python3", env=env, **kernel)


@contextmanager
def kernels(bench: Bench, count: int, **options: Any) -> Iterator[list[Kernel]]:
    """Several kernels at once, for tests of two owners."""
    started: list[Kernel] = []
    try:
        for _ in range(count):
            started.append(Kernel(bench, **options))
            started[-1].start()
        yield started
    finally:
        for kernel in started:
            kernel.close()
