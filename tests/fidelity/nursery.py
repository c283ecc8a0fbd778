"""Forked kernels: tens of milliseconds for a Run All, each in a process of its own that may be killed.

A nursery is one process with all heavy imports done and no thread running. It forks a child for each job; the child makes
a kernel (`inprocess.Shell`), runs the cells, writes what it saw to a file after each one (so that what a killed child
had shown is known), and ends. Jobs and answers are pickles over the nursery's own pipes.

    with Nursery(needs=("numpy",)) as nursery:
        seen = nursery.run(Job(cells=("x = 1", "x"), folder=folder, durable=True, kill=Kill("after", 0)))
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
"""Seconds after which a child is taken to hang: a failure of the test, never a measurement."""


@dataclass(frozen=True, slots=True)
class Job:
    """One kernel's life."""

    cells: tuple[str, ...]
    folder: Path
    durable: bool
    store: Path | None = None
    kill: Any = None
    faults: Any = None
    """A `StoreFaults` for this kernel's store."""
    probes: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    answers: tuple[str, ...] = ()
    ids: bool = False
    """Whether cell ids are sent, `cell-0`, `cell-1`…"""
    cell_ids: tuple[str | None, ...] | None = None
    name: str = "notebook.ipynb"
    seed: int = 20_251_130
    """What unseeded generators start from (a fresh kernel takes it from the system): none that a notebook may choose."""
    stop_on_error: bool = True
    portrait: bool = True
    each: bool = False
    """Draw each name by itself, so that one that differs does not change the texts of the others."""
    tell_modules: bool = False


@dataclass(slots=True)
class Seen:
    """What a front end and a probe have seen of one kernel's life."""

    cells: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, dict[str, str]] = field(default_factory=dict)
    probes: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    points: int = 0
    points_failed: int = 0
    point_names: list[str] = field(default_factory=list)
    statements: dict[int, int] = field(default_factory=dict)
    status: int = 0
    log: str = ""
    modules: list[str] = field(default_factory=list)

    @property
    def statuses(self) -> list[str]:
        return [str(cell["durable"].get("status")) for cell in self.cells]


def _read(pipe: BinaryIO) -> Any:
    head = pipe.read(4)
    if len(head) < 4:
        raise EOFError
    return pickle.loads(pipe.read(struct.unpack("!I", head)[0]))


def _write(pipe: BinaryIO, value: Any) -> None:
    data = pickle.dumps(value)
    pipe.write(struct.pack("!I", len(data)) + data)
    pipe.flush()


class Nursery:
    """The side of a nursery that asks for kernels."""

    def __init__(self, needs: tuple[str, ...] = ()) -> None:
        self.needs = needs
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="dnb-nursery-", ignore_cleanup_errors=True)
        home = self._home.name
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JPY_", "PYTEST_", "DURABLE_NB_", "COV_"))}
        env |= {
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",  # bytecode knows its module's age in whole seconds only, and edits are quick
            "IPYTHONDIR": f"{home}/ipython",
            "JUPYTER_DATA_DIR": f"{home}/data",
            "JUPYTER_CONFIG_DIR": f"{home}/config",
            "JUPYTER_RUNTIME_DIR": f"{home}/runtime",
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "MPLCONFIGDIR": f"{home}/mpl",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        env.pop("PYTHONPATH", None)
        command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.fidelity.nursery import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, home, *self.needs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=home,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait(timeout=30)
            assert process.stdout is not None
            process.stdout.close()
            self._home.cleanup()

    def run(self, job: Job) -> Seen:
        """Let a forked kernel live this job, and return what was seen."""
        process = self._process
        assert process is not None, "the nursery is closed"
        assert process.stdin is not None
        assert process.stdout is not None
        _write(process.stdin, job)
        seen = _read(process.stdout)
        assert isinstance(seen, Seen)
        return seen


# --- inside the nursery's process ----------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each job until the pipe is closed."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    home = Path(sys.argv[1])
    for module in ("tests.fidelity.inprocess", "tests.fidelity.kills", "durable_nb.runtime", *sys.argv[2:]):
        importlib.import_module(module)
    _warm(home)
    # What every kernel looks up once, and finds the same: where the loaded packages count, who installed them, and for
    # the first traceback the files of all modules.
    importlib.import_module("durable_nb.snapshot._counters").COUNTERS.read()
    importlib.import_module("durable_nb.cells").Distributions().versions({"no_such_package"})
    inspect.getmodule(sys._getframe())
    gc.collect()
    gc.freeze()  # memory that the children share stays shared
    # What the children are to find: a path without the tests' folder, so that nothing of theirs is local code.
    sys.path.remove(str(ROOT))
    while True:
        try:
            job = _read(requests)
        except EOFError:
            return
        _write(answers, _fork(job, home))


def _warm(home: Path) -> None:
    """Import all that a kernel's life imports: a first child lives it and tells."""
    folder = home / "warm"
    folder.mkdir()
    for durable in (True, False):
        job = Job(
            cells=("x = [1]", "print(x)\nx", "%%bash\ntrue", "undefined"),
            folder=folder,
            store=folder / "store",
            durable=durable,
            tell_modules=True,
        )
        for name in _fork(job, home).modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _fork(job: Job, home: Path) -> Seen:
    handle, name = tempfile.mkstemp(dir=home)
    log_handle, log = tempfile.mkstemp(dir=home)
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            os.dup2(log_handle, 1)
            os.dup2(log_handle, 2)
            _live(job, handle)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc(file=os.fdopen(2, "w", closefd=False))
        finally:
            os._exit(status)
    os.close(handle)
    os.close(log_handle)
    status = _wait(child)
    seen = Seen(status=status)
    for part in _parts(Path(name)):
        if "cell" in part:
            seen.cells.append(part["cell"])
        else:
            for key, value in part.items():
                setattr(seen, key, value)
    seen.log = Path(log).read_text(errors="replace")[-4000:]
    Path(name).unlink()
    Path(log).unlink()
    return seen


def _wait(child: int) -> int:
    """The child's exit status; what it started dies with it."""
    handle = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([handle], [], [], LIMIT)
        if not ready:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _parts(path: Path) -> list[Any]:
    found = []
    with path.open("rb") as file:
        while True:
            try:
                found.append(_read(file))
            except EOFError:
                return found


def _live(job: Job, handle: int) -> None:
    """A kernel's life in the forked child."""
    import random

    from durable_nb.notebook import _starts
    from tests.fidelity.inprocess import Shell
    from tests.fidelity.kills import Killer

    out = os.fdopen(handle, "wb")
    os.chdir(job.folder)
    os.environ["JPY_SESSION_NAME"] = str(job.folder / job.name)
    if job.store is not None:
        os.environ["DURABLE_NB_STORE"] = str(job.store)
    os.environ.update(dict(job.env))
    random.seed(job.seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed(job.seed)
    shell = Shell(durable=job.durable, answers=job.answers)
    if job.faults is not None or job.kill is not None:
        _starts.MOMENT = 0.0  # points are counted in one run and met in another: both have to write the same
    if job.faults is not None:
        job.faults.install()
        job.faults.watch_replies(shell.session)
    killer = Killer(job.kill)
    killer.install(shell.shell)
    for number, source in enumerate(job.cells):
        killer.begin(number)
        cell_id = f"cell-{number}" if job.ids else job.cell_ids[number] if job.cell_ids else None
        seen = shell.run(source, cell_id=cell_id)
        _write(out, {"cell": seen})
        killer.end(number)
        if seen["status"] != "ok" and job.stop_on_error:
            break
    state = {}
    if job.portrait:
        from durable_nb.testing._portrait import portraits, whole

        shell.load_all()
        state = {"each": portraits(shell.shell.user_ns)} if job.each else whole(shell.shell.user_ns)
    probes = {code: shell.value(code) for code in job.probes}
    _write(
        out,
        {
            "state": state,
            "probes": probes,
            "finished": True,
            "points": killer.passed,
            "points_failed": 0 if job.faults is None else int(job.faults.fired),
            "point_names": killer.names if job.faults is None else job.faults.names,
            "statements": killer.statements,
            "modules": sorted(sys.modules) if job.tell_modules else [],
        },
    )
    out.flush()
