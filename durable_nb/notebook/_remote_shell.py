"""The process in which the body of a cell runs on a cluster: a shell like the kernel's, for one cell.

It takes the parcel in, makes the namespace, the process's state and the import path what they are in the kernel, and
says what is missing before the first instruction of the body. The body then runs as a cell of IPython does, in the main
thread; what it shows is sent while it runs. In the end the same pictures are taken as in the kernel: which names
changed, which files and variables were read. What cannot come back is named.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib
import importlib.util
import io
import mmap
import os
import pickle
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import comm
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets import Type
from traitlets.config import Config

from durable_nb.abc import Buffer
from durable_nb.cells import Tables, opens_by_itself
from durable_nb.exceptions import DurableExecutionsError
from durable_nb.notebook._errors import Shown
from durable_nb.notebook._left import left_by, running_work
from durable_nb.notebook._remote_logs import described, make_handlers, present
from durable_nb.notebook._remote_nursery import bring_up
from durable_nb.notebook._remote_parcel import ERROR, Answer, Parcel
from durable_nb.notebook._results import Results
from durable_nb.notebook._world import World
from durable_nb.running import running_remotely
from durable_nb.snapshot import (
    Group,
    Luggage,
    Map,
    ProcessState,
    StoredBuffers,
    Tracker,
    check_round_trip,
    default_filename,
    note_starts,
    pack,
    scan,
    unpack,
)

_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG`."""
_PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty"})
_TEXT = 1 << 14
"""Characters that wait for more at most."""
_TEXT_SECONDS = 0.05
_MANY = 10
"""Errors that led to an error are sent as far as this."""


class RefusedError(Exception):
    """The body is not begun; says why."""


# --- what the body shows ---------------------------------------------------------------------------------------------


class Out:
    """Where frames go: see `_remote_relay`. Neighbouring texts of one stream that come quickly are one frame."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()
        self._texts: list[str] = []
        self._size, self._stream = 0, ""
        self._some = threading.Event()
        threading.Thread(target=self._in_time, name="durable_nb output", daemon=True).start()

    def send(self, *frame: Any) -> None:
        """Send one frame; from any thread."""
        with self._lock:
            self._flush()
            self._write(frame)

    def text(self, stream: str, text: str) -> None:
        """Send what is written to a stream, soon; from any thread."""
        with self._lock:
            if stream != self._stream:
                self._flush()
                self._stream = stream
            self._texts.append(text)
            self._size += len(text)
            if self._size > _TEXT:
                self._flush()
        self._some.set()

    def flush(self) -> None:
        """Send what waits."""
        with self._lock:
            self._flush()

    def _in_time(self) -> None:
        while self._some.wait():
            self._some.clear()
            time.sleep(_TEXT_SECONDS)
            with self._lock:
                self._flush()

    def _flush(self) -> None:
        if self._texts:
            texts, self._texts, self._size = "".join(self._texts), [], 0
            self._write(("stream", self._stream, texts))

    def _write(self, frame: tuple[Any, ...]) -> None:
        data = pickle.dumps(frame)
        view = memoryview(len(data).to_bytes(4, "big") + data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def close(self) -> None:
        """Nothing more is said."""
        with self._lock:
            self._flush()
            self._descriptor = os.open(os.devnull, os.O_WRONLY)  # for threads that go on until the process ends


_out: Out
"""This process's; IPython makes its hooks by itself."""


class _Stream(io.TextIOBase):
    """`sys.stdout` and `sys.stderr` of the body."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name: str, number: int) -> None:
        self.name, self._number = f"<{name}>", number
        self._kind = name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            _out.text(self._kind, text)
        return len(text)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """What is written goes by itself, and soon; now it goes at once."""
        _out.flush()

    def fileno(self) -> int:
        return self._number


class _Publisher(DisplayPublisher):
    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *_: Any,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **__: Any,
    ) -> None:
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        _out.send("show", "update_display_data" if update else "display_data", content)

    def clear_output(self, wait: bool = False) -> None:
        _out.send("show", "clear_output", {"wait": wait})


class _Hook(DisplayHook):
    def write_output_prompt(self) -> None: ...

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        _out.send("show", "execute_result", {"data": format_dict, "metadata": md_dict or {}})

    def finish_displayhook(self) -> None:
        self._is_active = False

    def log_output(self, format_dict: dict[str, Any]) -> None: ...


class _Shell(InteractiveShell):
    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)

    def showtraceback(self, *_: Any, **__: Any) -> None:
        """The kernel shows it, with the lines of its own cells."""

    def ask_exit(self) -> None:
        raise RuntimeError("exit and quit end the kernel, and a cell on a cluster has none")

    def enable_gui(self, gui: Any = None) -> None: ...


def make_shell(folder: str) -> Any:
    """The shell of this process, which leaves no trace in the user's profile: it has one of its own in a folder."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.banner1 = ""
    config.InteractiveShell.ipython_dir = folder
    return _Shell.instance(config=config)


# --- taking the parcel in --------------------------------------------------------------------------------------------


def mapped(descriptor: int) -> Map | bytes:
    """The private memory of a handed-over file."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return b""
    return Map(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


class Files(Luggage):
    """Blobs that were handed over as files: mapped anew for each reader."""

    def __init__(self, files: Mapping[str, int], small: Mapping[str, Buffer]) -> None:
        super().__init__({**small, **{address: memoryview(mapped(one)) for address, one in files.items()}})
        self._files = files

    def map(self, address: str) -> memoryview:
        if address in self._files:
            return memoryview(mapped(self._files[address]))
        return super().map(address)


class Body:
    """The cell in this process."""

    def __init__(self, parcel: Parcel, files: Mapping[str, int]) -> None:
        self.parcel = parcel
        self.blobs = Files(files, parcel.small)
        folder = os.fspath(Path.cwd() / "ipython")  # the process was started in a folder of its own
        self.in_place = Path(parcel.started_in).is_dir()
        if self.in_place:
            os.chdir(parcel.started_in)
        self._import_paths()
        self.shell = make_shell(folder)
        self.tracker = Tracker(self.shell.user_ns, hidden=self.shell.user_ns_hidden, filename_for=self._filename_for)
        self.buffers = StoredBuffers()
        self.results = Results(self.shell, self.tracker)
        self.handlers = present()
        note_starts()
        project = Path(parcel.project)
        self.world = World(project, Path(parcel.store), parcel.key, self._before_read)

    def _import_paths(self) -> None:
        """The kernel's own entries first, as far as they are here."""
        own = [entry for entry in self.parcel.paths if entry == "" or Path(entry).is_dir()]
        sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own and entry != "")]

    def _filename_for(self, source: str) -> str:
        key = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self.parcel.filenames.get(key) or default_filename(source)

    def _before_read(self, path: str) -> None:
        if path in self.parcel.stale:
            raise RefusedFileError(path)

    def unpack(self) -> None:
        """Make everything what it is in the kernel.

        Raises:
            RefusedError: something is missing here.
        """
        parcel, tracker = self.parcel, self.tracker
        for name in parcel.needed:
            self._import(name)
        self._compare_code()
        try:
            values = unpack(parcel.manifest, tracker, self.blobs, self.buffers)
        except ModuleNotFoundError as exc:
            raise RefusedError(_missing(str(exc.name))) from exc
        except Exception as exc:
            raise RefusedError(f"a worker cannot load what it reads: {type(exc).__name__}: {exc}") from exc
        for name in [*parcel.order, *(name for name in values if name not in set(parcel.order))]:
            tracker.bind(name, values[name])
        self._bind_underscores()
        for name, text in parcel.environ.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
        for name, line in parcel.magics:
            with capture_output():
                self.shell.run_line_magic(name, line)
        process = {key: part for key, part in parcel.process.items() if key != "<cwd>" or self.in_place}
        lost = ProcessState.restore(process)
        make_handlers(parcel.logs)
        if lost:
            raise RefusedError(f"a worker cannot be made what the kernel is: {lost[0]}")

    def _import(self, name: str) -> None:
        try:
            if name in sys.modules or importlib.util.find_spec(name) is not None:
                return
        except (ImportError, ValueError):
            pass
        raise RefusedError(_missing(name))

    def _compare_code(self) -> None:
        for name in self.parcel.code:
            try:
                importlib.import_module(name)
            except Exception as exc:
                raise RefusedError(
                    f"a worker cannot import {name}: {type(exc).__name__}: {exc}; it has to work there as it does here"
                ) from exc
        self.world.modules.notice()
        found = self.world.modules.versions(self.parcel.code)
        for name, version in self.parcel.code.items():
            if found.get(name) != version:
                raise RefusedError(
                    f"the module {name} of a worker is not the one that this kernel has loaded: bring both to the same "
                    "state (and restart the kernel), or define what the cell needs in the notebook"
                )

    def _bind_underscores(self) -> None:
        hook, hidden = self.shell.displayhook, self.shell.user_ns_hidden
        for name, result in self.parcel.results.items():
            value = self.tracker.value(result)
            self.shell.user_ns[name] = hidden[name] = value
            setattr(hook, name, value)

    # --- running it ------------------------------------------------------------------------------------------------

    def run(self) -> Answer:
        """Run the body; what it did."""
        parcel, tracker, shell = self.parcel, self.tracker, self.shell
        reads = parcel.reads
        touched = frozenset(parcel.order) - parcel.spared
        before = tracker.before(touched)
        modules, tables = self.world.module_states(reads.modules), Tables(reads.paths)
        work = running_work()
        environ = dict(os.environ)
        values = {name: shell.user_ns[name] for name in reads.names if name in shell.user_ns}
        foreseen = self.world.ledger.foresee(reads.literals, values, engines=opens_by_itself(reads.modules))
        shell.execution_count = parcel.number
        shell.compile.get_code_name = lambda *_: parcel.filename
        self.results.begin()
        _out.send("body")
        clock = time.perf_counter()
        self.world.observer.begin()
        with running_remotely(parcel.label):
            result = shell.run_cell(parcel.source, store_history=True)
        _flush_programs()
        observed = self.world.observer.end()
        answer = Answer(seconds=time.perf_counter() - clock)
        now = dict(os.environ)
        answer.environ = {n: now.get(n) for n in {*environ, *now} if environ.get(n) != now.get(n)}
        error = result.error_before_exec or result.error_in_exec
        answer.raised = error is not None
        if error is None and result.result is not None:
            answer.has_result = True
            self.results.take("result", parcel.number)
        if error is not None:
            answer.chain = self._errors(error)
        after = ProcessState.capture()
        delta = tracker.after(
            before,
            touched,
            fingerprint="remote",
            nonce=uuid.uuid4().hex,
            binds=reads.certain if error is None else (),
            read=None if reads.everything is not None else reads.names,
            process=after,
        )
        process = {key: part for key, part in delta.process.items() if key != "<environ>"}
        answer.logs, others = described(self.handlers)
        if others:
            answer.stays = f"it gave a logger the {others[0]}"
        answer.stays = answer.stays or self._stays(process, modules, tables, work)
        answer.manifest = pack(
            tracker, delta.groups, self.blobs, deleted=delta.deleted, process=process, buffers=self.buffers
        )
        answer.order = [name for name in shell.user_ns if any(name in group.names for group in delta.groups)]
        self._note_world(answer, observed, foreseen)
        if answer.raised:
            self._leave_out(answer)
        packed = self.blobs.packed
        answer.small = {address: bytes(data) for address, data in packed.items() if len(memoryview(data)) < 1 << 20}
        answer.blobs = [address for address in packed if address not in answer.small]
        return answer

    def _errors(self, error: BaseException) -> list[dict[str, Any]]:
        return Errors(self.tracker, self.parcel.filename).taken(error)

    def _stays(self, process: dict[str, Any], modules: Any, tables: Tables, work: Any) -> str | None:
        """What the body did that only this process knows of."""
        reads = self.parcel.reads
        changed = [*self.world.changed_modules(modules, reads.modules), *tables.changed()]
        if changed:
            return f"it set {changed[0]}"
        left = left_by(work, self.world.is_user_file)
        if left is not None:
            return left
        for name, part in process.items():
            if "again" in part and name != "<logging>":
                return str(part["again"])
        if "<cwd>" in process and not self.in_place:
            return "it changed the working directory"
        return None

    def _note_world(self, answer: Answer, observed: Any, foreseen: Any) -> None:
        """What was read, and what that was worth here."""
        reads, world = self.parcel.reads, self.world
        namespace = self.shell.user_ns
        values = {name: namespace[name] for name in reads.names | reads.binds if name in namespace}
        world.ledger.settle(observed, foreseen, reads.literals, values)
        reached = frozenset(reads.modules).union(*(self.tracker.modules_of(name) for name in self.parcel.order))
        answer.code = list(world.code(reached))
        answer.seen = list(world.seen(observed, ()))
        answer.observed = observed
        answer.written = {path: world.ledger.digest(path) for path in observed.written}
        observed.env.clear()  # the digests are made: values stay here

    def _leave_out(self, answer: Answer) -> None:
        """A body that failed gives back what it can."""
        manifest = dict(answer.manifest)
        answer.lost = [f"{one['path']} ({one['type']})" for one in manifest["problems"]]
        manifest["groups"] = [group for group in manifest["groups"] if group.get("segments") is not None]
        answer.manifest = manifest


class RefusedFileError(Shown, DurableExecutionsError):
    """Raised in a body that opens a file which does not hold what belongs at this place of the notebook."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} does not hold what an earlier cell wrote at this place: run the cell that writes it again"


class Errors:
    """An error and those that led to it, on their way to the kernel.

    Each is an item of the answer: `name` under which the error itself comes back as a value, or `failure`, its record,
    where it cannot; `trace`, the frames; `link` to the next one (`cause` or `context`).
    """

    def __init__(self, tracker: Tracker, filename: str) -> None:
        self._tracker, self._filename = tracker, filename

    def taken(self, error: BaseException) -> list[dict[str, Any]]:
        """The items; their errors are bound to names that travel with the rest."""
        from durable_nb.sdk._errors import capture

        found: list[dict[str, Any]] = []
        now: BaseException | None = error
        while now is not None and len(found) < _MANY:
            item: dict[str, Any] = {"name": None, "trace": self._trace(now.__traceback__), "link": None}
            item["failure"] = capture(now).to_json()
            item["suppressed"] = now.__suppress_context__
            trace, now.__traceback__ = now.__traceback__, None  # frames hold the whole process
            if self._travels(now):
                item["name"] = ERROR.format(len(found))
                self._tracker.bind(item["name"], now)
            del trace
            found.append(item)
            following = now.__cause__ if now.__cause__ is not None else now.__context__
            if following is not None:
                item["link"] = "cause" if now.__cause__ is not None else "context"
            now.__cause__ = now.__context__ = None
            now = following
        return found

    def _travels(self, error: BaseException) -> bool:
        try:
            found = scan([("error", error)], self._tracker.definitions)
            if found.problems:
                return False
            self._tracker.bind(name := ERROR.format("x"), error)
            try:
                group = Group((name,), scan([(name, error)], self._tracker.definitions))
                return not check_round_trip(group, self._tracker)
            finally:
                self._tracker.unbind(name)
        except Exception:  # noqa: BLE001 - constructors of user code; the record of the error remains
            return False

    def _trace(self, trace: TracebackType | None) -> list[tuple[str, str, int, int]]:
        """File, function, its first line and the line, of each frame from the cell on."""
        while trace is not None and trace.tb_frame.f_code.co_filename != self._filename:
            trace = trace.tb_next
        rows = []
        while trace is not None:
            code = trace.tb_frame.f_code
            rows.append((code.co_filename, code.co_name, code.co_firstlineno, trace.tb_lineno))
            trace = trace.tb_next
        return rows


def _missing(name: str) -> str:
    return (
        f"the workers have no module {name.partition('.')[0]}: install it there, or define what the cell needs in the "
        "notebook"
    )


# --- the process -----------------------------------------------------------------------------------------------------


def nurse() -> None:
    """Be the process that others are forked from: see `_remote_nursery`."""
    bring_up(serve)


def serve(descriptors: Sequence[int]) -> None:
    """Run the cell that these descriptors hand over, and end."""
    global _out
    answer_file, life, frames, head, *blobs = descriptors
    _die_with_the_worker(life)
    _out = Out(frames)
    parcel: Parcel = pickle.loads(mapped(head))
    sys.stdout, sys.stderr = _Stream("stdout", 1), _Stream("stderr", 2)
    sys.addaudithook(_before_programs)
    _nobody_answers(parcel.place)
    try:
        answer, large = _answered(parcel, dict(zip(parcel.blobs, blobs, strict=True)))
    except KeyboardInterrupt:
        os._exit(130)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    head_bytes = pickle.dumps(answer)
    with os.fdopen(answer_file, "wb") as file:
        pickle.dump([len(head_bytes), *(len(memoryview(data).cast("B")) for data in large)], file)
        for data in (head_bytes, *large):
            file.write(data)
    _out.close()
    os._exit(0)  # threads of the body end here, whatever they do


def _answered(parcel: Parcel, files: Mapping[str, int]) -> tuple[Answer, list[Buffer]]:
    try:
        body = Body(parcel, files)
        body.unpack()
    except RefusedError as exc:
        return Answer(refused=str(exc)), []
    answer = body.run()
    return answer, [body.blobs.packed[address] for address in answer.blobs]


def _flush_programs() -> None:
    """Send what code in C, and what writes past `sys.stdout`, has printed so far."""
    import ctypes

    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _before_programs(event: str, _: Any) -> None:
    """A program is about to be started: what was printed before comes before what it prints."""
    if event in _PROGRAMS:
        _out.flush()


def _nobody_answers(place: str) -> None:
    def ask(*_: Any, **__: Any) -> Any:
        raise StdinNotImplementedError(
            f"a cell that runs on {place} has nobody to ask: ask in a cell of its own, and read the answer here"
        )

    def widget(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"a cell that runs on {place} has no kernel behind it: make widgets in a cell here")

    import getpass

    builtins.input = ask
    getpass.getpass = ask
    comm.create_comm = widget


def _die_with_the_worker(life: int) -> None:
    """End when the other end of the pipe is closed: the worker is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(life, 1)
        os._exit(1)

    threading.Thread(target=watch, name="durable_nb life", daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):  # also when the body is in code that never lets go
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


__all__ = ["nurse", "serve"]
