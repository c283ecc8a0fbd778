"""`%%durable_step --on dask://…`: the body of a cell runs on a cluster.

What travels is what a checkpoint would hold: the names that the cell may read, each with its whole group, so that names
which share an object arrive sharing it. Nothing outside of a group refers to what is in it, so that what comes back can
take the place of what went: a group that the body changed comes back whole, and all its names are bound to it. That is
how a replay gives values back, and the cell then ends as if its statements had run here: pictured, recorded, stored.

What cannot be had there, or could not be given back, is refused before the body begins, with one line.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
import pickle
import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from IPython.core import interactiveshell

from durable_nb.abc import Buffer
from durable_nb.cells import as_magic, output_name
from durable_nb.exceptions import CannotTravelError as PlainCannotTravelError
from durable_nb.exceptions import ExecutorError as PlainExecutorError
from durable_nb.exceptions import StepTimeoutError
from durable_nb.exceptions import WorkerLostError as PlainWorkerLostError
from durable_nb.notebook._cell import Cell, magics_of
from durable_nb.notebook._commit import FORMATTING, SHELL
from durable_nb.notebook._errors import CannotTravelError, ExecutorError, NotBegunError, WorkerLostError
from durable_nb.notebook._interrupts import deferred_interrupts, raised_interrupts
from durable_nb.notebook._remote_logs import described, in_words, make_handlers
from durable_nb.notebook._remote_nursery import MOST_PARTS
from durable_nb.notebook._remote_parcel import Answer, Parcel
from durable_nb.notebook._remote_relay import RemoteCell
from durable_nb.notebook._replay import follow_results
from durable_nb.snapshot import (
    EARLIER,
    PART_BYTES,
    Group,
    Luggage,
    ProcessState,
    blobs_needed,
    earlier_number,
    pack,
    result_number,
    started_in,
    unpack,
    whole_state,
)

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session

_HISTORY = frozenset({"In", "_ih", "_dh", "_i", "_ii", "_iii"})
"""Names of the shell that stay where it is."""

_FROM_THE_START = ("MPLBACKEND", "PYTHONHASHSEED")
"""Variables that a process has to have when it begins to be as the kernel is."""

_NO_PART = frozenset({"<sys.path>", "<environ>", "<registered>"})
"""Parts of the process's state that travel in another way, or are refused."""

_PLOTTING = frozenset({"matplotlib", "pylab", "seaborn", "pandas"})


class Cluster:
    """A cluster as one session uses it: its connection, and the large values that stay there.

    Args:
        place: as `--on` names it.
    """

    def __init__(self, place: str) -> None:
        from durable_nb.distributed.dask import DaskExecutor

        self.place = place
        self.executor: DaskExecutor = DaskExecutor(place, kept=None)
        self._held: dict[str, tuple[tuple[str, str], ...]] = {}
        """Per part: the names whose value it belongs to, and their versions."""

    def connect(self) -> None:
        """Raises `ExecutorError` when no scheduler answers."""
        self.executor.connect()

    def hold(self, part: Buffer, versions: Iterable[tuple[str, str]]) -> None:
        """This part stays on the cluster while these names have these versions."""
        self._held[self.executor.key_of(part)] = tuple(versions)

    def release(self, parts: Iterable[Buffer]) -> None:
        """A cell has ended: what was sent for it and belongs to no value is not needed any more."""
        keys = [self.executor.key_of(part) for part in parts]
        self.executor.let_go([key for key in keys if key not in self._held])

    def tidy(self, still: Callable[[str, str], bool]) -> None:
        """Let go of what belongs to no present value."""
        gone = [key for key, names in self._held.items() if not all(still(*one) for one in names)]
        for key in gone:
            del self._held[key]
        if gone:
            self.executor.let_go(gone)

    def close(self) -> None:
        """Let go of everything."""
        self.executor.let_go(list(self._held))
        self._held.clear()


class Trip:
    """One cell's way to a cluster and back; built before the cell counts as started.

    Args:
        session: of the kernel.
        cell: analysed, not started.

    Raises:
        CannotTravelError: something that the cell needs cannot be had there.
        ExecutorError: no scheduler answers.
    """

    def __init__(self, session: Session, cell: Cell) -> None:
        assert cell.options.on is not None
        assert cell.reads is not None
        self._session, self._cell, self._place = session, cell, cell.options.on
        self._refuse_what_stays()
        self._blobs = Luggage()
        self._cluster = session.cluster(self._place)
        try:
            self._cluster.connect()
        except PlainExecutorError as exc:
            raise ExecutorError(exc.place, exc.why) from exc
        parcel = self._packed()
        head = pickle.dumps(parcel, protocol=5)
        self._parts: list[Buffer] = [self._blobs.packed[address] for address in parcel.blobs]
        if len(head) >= PART_BYTES:
            self._parts.append(head)
            head = b""
        if len(self._parts) > MOST_PARTS:
            raise self._refused(f"it reads {len(self._parts)} large values, and {MOST_PARTS} can travel at once")
        environ = {name: os.environ[name] for name in _FROM_THE_START if name in os.environ}
        self._call = RemoteCell(head, cell.label, self._place, environ)
        self._heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def _refused(self, why: str) -> CannotTravelError:
        return CannotTravelError(self._cell.label, self._place, why)

    # --- what goes -------------------------------------------------------------------------------------------------

    def _refuse_what_stays(self) -> None:
        """Refuse what belongs to this process and its shell."""
        cell, reads = self._cell, self._cell.reads
        assert reads is not None
        allowed = set()
        for node in ast.walk(cell.tree):
            call = as_magic(node)
            if call is not None and call.form not in ("system", "getoutput"):
                sign = "%%" if call.form == "cell" else "%"
                raise self._refused(f"{sign}{call.name} belongs to the shell here: put it into a cell of its own")
            if call is not None:
                allowed.add(node.func.value.func)  # type: ignore[attr-defined]
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Name) and node not in allowed:
                if node.id == "get_ipython":
                    raise self._refused("get_ipython() is the shell here, which does not travel")
                if node.id in _HISTORY:
                    raise self._refused(f"{node.id} is the history of the shell here, which does not travel")
        if reads.set_up:
            raise self._refused(f"it sets {reads.set_up[0]}, which would stay on the worker: set it in a cell here")

    def _refuse_changed(self, reached: Iterable[str]) -> None:
        """Refuse what reaches a module that is not what importing it makes."""
        for name in sorted({"builtins", SHELL, *(name.partition(".")[0] for name in reached)}):
            if name in self._session.book.setups:
                raise self._refused(
                    f"an earlier cell has changed {name}, and such a change does not travel: make it in a module that "
                    "the workers import, or run this cell here"
                )

    def _packed(self) -> Parcel:
        session, cell, tracker = self._session, self._cell, self._session.tracker
        reads = cell.reads
        assert reads is not None
        names, unders = self._names()
        tracker.before(names)  # looks at each of them
        groups = list(self._groups(names))
        manifest = pack(tracker, groups, self._blobs)
        for problem in manifest["problems"]:
            raise self._refused(
                f"{problem['path']} ({problem['type']}) cannot travel: {problem['why']}; make it inside the cell, or "
                "do without it there"
            )
        self._hold(manifest)
        travelling = {name for group in groups for name in group.names}
        needed = {top for name in reads.modules if _is_found(top := name.partition(".")[0])}
        state, process = whole_state(needed)
        self._logs, others = described(session.own_handlers)
        if others:
            session.warn(f"what cells log {told(self._place)} does not reach {in_words(others)}, which stays here")
        for name, part in process.items():
            if "again" in part and name != "<logging>":
                raise self._refused(f"what an earlier cell did does not travel: {part['again']}")
        reached = frozenset(reads.modules).union(*(tracker.modules_of(name) for name in travelling))
        self._refuse_changed(reached)
        packed = self._blobs.packed
        world = session.world
        return Parcel(
            label=cell.label,
            place=self._place,
            source=cell.request.body,
            filename=cell.filename,
            number=session.result_number(),
            manifest=manifest,
            order=[name for name in tracker.bindings() if name in travelling],
            results=unders,
            filenames=dict(self._filenames(manifest)),
            blobs=[address for address, data in packed.items() if memoryview(data).nbytes >= PART_BYTES],
            small={a: bytes(data) for a, data in packed.items() if memoryview(data).nbytes < PART_BYTES},
            reads=dataclasses.replace(reads, functions=(), classes=()),
            spared=cell.spared,
            needed=sorted(needed),
            code=dict(world.modules.versions(reached)),
            process={name: part for name, part in process.items() if name not in _NO_PART},
            logs=self._logs,
            environ=state.values.get("<environ>") or {},
            magics=[
                (call.name, call.line)
                for done in session.done
                for call in magics_of(done.tree)
                if call.form == "line" and call.name in FORMATTING
            ],
            started_in=started_in(),
            paths=[entry for entry in sys.path if entry == "" or world.places.is_local_source(f"{entry}/module.py")],
            project=str(world.places.project),
            store=str(world.store),
            stale=world.ledger.stale_paths(),
            key=world.key,
        )

    def _names(self) -> tuple[set[str], dict[str, str]]:
        """The names that travel, and which results `_`, `__` and `___` are."""
        tracker, reads = self._session.tracker, self._cell.reads
        assert reads is not None
        bound = tracker.bindings()
        wanted = set(bound) if reads.everything is not None else {*reads.names, *reads.deletes}
        unders = {}
        found = set()
        results = tracker.bound.results()
        for name in (*wanted, *(("_", "__", "___") if reads.everything is not None else ())):
            real = output_name(name, tracker.namespace, results)
            if real in bound:
                found.add(real)
                if name in ("_", "__", "___") and real != name:
                    unders[name] = real
        if any(module.partition(".")[0] in _PLOTTING for module in reads.modules):
            found.update(name for name in bound if name.startswith("Figure["))
        return found, unders

    def _groups(self, names: Iterable[str]) -> Iterator[Group]:
        from durable_nb.sdk._engine import CellContextProxy

        tracker = self._session.tracker
        for name in sorted(names):
            value = tracker.value(name)
            if isinstance(value, CellContextProxy):
                raise self._refused(
                    f"{name} is durable_nb.context, which records here: make durable calls in a cell here"
                )
            kind = type(value)
            if kind.__name__ == "Client" and kind.__module__.partition(".")[0] == "distributed":
                raise self._refused(
                    f"{name} ({kind.__module__}.Client) cannot travel: it is a connection of this process"
                )
            group = tracker.group_of(name)
            if group is not None:
                yield group

    def _filenames(self, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for reference in manifest["sources"].values():
            data = reference["inline"] if "inline" in reference else self._blobs.get(reference["blob"])
            key = hashlib.blake2b(data, digest_size=16).hexdigest()
            yield key, self._session.tracker.filename_for(data.decode("utf-8", "surrogatepass"))

    def _hold(self, manifest: Mapping[str, Any]) -> None:
        tracker = self._session.tracker
        for group in manifest["groups"]:
            for address, _ in blobs_needed(group):
                part = self._blobs.packed[address]
                if memoryview(part).nbytes >= PART_BYTES:
                    self._cluster.hold(part, [(name, tracker.version(name).text) for name in group["names"]])

    # --- there -----------------------------------------------------------------------------------------------------

    async def run(self, result: Any) -> bool:
        """As `run_ast_nodes`: run the body, show its outputs, bind what it did; True when it raised."""
        shell = self._session.shell
        try:
            try:
                answer, large = self._fetched()
            finally:
                self._cluster.release(self._parts)
            with deferred_interrupts():
                error = self._taken(answer, large, result)
        except BaseException as stop:  # noqa: BLE001 - shown as the cell's own end; our frames say nothing about it
            result.error_in_exec = stop
            shell.showtraceback((type(stop), stop, None), exception_only=isinstance(stop, KeyboardInterrupt))
            return True
        if error is None:
            return False
        result.error_in_exec = error
        shell.showtraceback((type(error), error, error.__traceback__), running_compiled_code=True)
        return True

    def _fetched(self) -> tuple[Answer, list[Buffer]]:
        """Send the body, show what it says, and wait for its end."""
        cell = self._cell
        cell.elsewhere = None
        while not self._heard.empty():
            self._heard.get()
        try:
            future = self._cluster.executor.submit(
                self._call,
                self._parts,
                name=task_name(cell.label),
                once=cell.options.at_most_once,
                hear=self._heard.put,
            )
            future.add_done_callback(lambda _: self._heard.put(None))
            try:
                with raised_interrupts():
                    self._listen()
                head, large = future.result()
            except BaseException:
                future.cancel()
                raise
        except PlainCannotTravelError as exc:
            raise NotBegunError(cell.label, self._place, exc.why) from exc
        except PlainExecutorError as exc:
            raise ExecutorError(exc.place, exc.why) from exc
        except PlainWorkerLostError as exc:
            raise WorkerLostError(exc.step, exc.place, exc.why) from exc
        answer: Answer = pickle.loads(head)
        if answer.refused is not None:
            raise NotBegunError(cell.label, self._place, answer.refused)
        return answer, large

    def _listen(self) -> None:
        """Show what comes until the call has ended.

        Raises:
            StepTimeoutError: the body takes too long; the time it waits for a worker does not count.
        """
        seconds = self._cell.options.timeout
        until: float | None = None
        beginnings: list[str] = []
        while True:
            try:
                message = self._heard.get(timeout=None if until is None else max(until - time.monotonic(), 0.001))
            except queue.Empty:
                assert seconds is not None
                raise StepTimeoutError(self._cell.label, seconds) from None
            if message is None:
                return
            beginning, frames = pickle.loads(message)
            if beginning not in beginnings:
                if beginnings:
                    self._begins_again()
                beginnings.append(beginning)
                until = None
            elif beginning != beginnings[-1]:
                continue  # of a worker that was given up, and is still there
            for frame in frames:
                if frame[0] == "body":
                    until = None if seconds is None else time.monotonic() + seconds
                else:
                    self._show(*frame)

    def _begins_again(self) -> None:
        session, cell = self._session, self._cell
        if not session.tee.is_holding:
            session.tee.clear(cell.request.parent)
            if cell.view is not None:
                cell.view.shown_again()
        with session.tee.muted():
            print(f"durable_nb: a worker was lost; the cell begins again {told(self._place)}", file=sys.stderr)

    def _show(self, kind: str, *facts: Any) -> None:
        if kind == "stream":
            name, text = facts
            getattr(sys, name).write(text)
            return
        shown, content = facts
        if shown == "execute_result":
            content = {**content, "execution_count": self._session.result_number()}
        self._session.tee.publish(shown, content, self._cell.request.parent)

    # --- back ------------------------------------------------------------------------------------------------------

    def _taken(self, answer: Answer, large: list[Buffer], result: Any) -> BaseException | None:
        """Bind what came back; returns the error that the body ended with.

        Raises:
            CannotTravelError: what the body did cannot come back; nothing was bound.
        """
        session, cell, tracker = self._session, self._cell, self._session.tracker
        cell.elsewhere = answer
        if not answer.raised:
            self._refuse_what_is_left(answer)
        blobs = Luggage({**self._blobs.packed, **answer.small, **dict(zip(answer.blobs, large, strict=True))})
        values = unpack(answer.manifest, tracker, blobs)
        error = self._error(answer, values)
        lost = ProcessState.restore(answer.manifest["process"])
        if lost and not answer.raised:
            raise self._refused(f"what it changed cannot be brought back: {lost[0]}")
        for name, text in answer.environ.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
        make_handlers(one for one in answer.logs if one not in self._logs)
        for name in answer.manifest["deleted"]:
            tracker.unbind(name)
        self._bind(answer, values, result)
        if answer.lost:
            with session.tee.muted():
                print(f"durable_nb: what the cell did to {', '.join(answer.lost)} stays on the worker", file=sys.stderr)
        session.waiting.settle()
        self._warn_of_versions(answer)
        return error

    def _refuse_what_is_left(self, answer: Answer) -> None:
        if answer.stays is not None:
            raise self._refused(f"{answer.stays}, which stays on the worker: do that in a cell here")
        for problem in answer.manifest["problems"]:
            raise self._refused(
                f"{problem['path']} ({problem['type']}) cannot come back: {problem['why']}; keep it inside the cell "
                "(delete the name), or make it in a cell here"
            )

    def _bind(self, answer: Answer, values: dict[str, Any], result: Any) -> None:
        """Bind the names as the body itself would have: the end of the cell finds out what is new."""
        session, tracker = self._session, self._session.tracker
        number = session.result_number()
        own = [earlier_number(number, back) for back in range(EARLIER, 0, -1)] if answer.has_result else []
        shown = [
            values.pop(name) for each in (*own, number) if answer.has_result and (name := f"Out[{each}]") in values
        ]
        for name in [*answer.order, *values]:
            if name in values:
                tracker.bind(name, values.pop(name))
        if any(result_number(name) is not None for group in answer.manifest["groups"] for name in group["names"]):
            follow_results(session)
        hook = session.shell.displayhook
        for value in shown:
            hook.update_user_ns(value)
        if shown:
            result.result = shown[-1]

    def _error(self, answer: Answer, values: dict[str, Any]) -> BaseException | None:
        """The error of the body, with those that led to it."""
        from durable_nb.sdk._errors import Failure, rebuild

        errors: list[BaseException] = []
        for item in answer.chain:
            error = values.pop(item["name"], None) if item["name"] else None
            if not isinstance(error, BaseException):
                error = rebuild(Failure.from_json(item["failure"], trusted=True))
            # As a body here is run by a frame of the shell's, which IPython leaves out.
            rows = [(str(interactiveshell.__file__), "run_code", 1, 1)] if not errors else []
            errors.append(error.with_traceback(_trace([*rows, *item["trace"]])))
        for item, error, reason in zip(answer.chain, errors, errors[1:], strict=False):
            if item["link"] == "cause":
                error.__cause__ = reason
            else:
                error.__context__ = reason
            error.__suppress_context__ = item["suppressed"]
        return errors[0] if errors else None

    def _warn_of_versions(self, answer: Answer) -> None:
        for item in answer.code:
            here = self._session.world.version("dist", item.key) if item.kind == "dist" else item.version
            if here != item.version:
                self._session.warn(
                    f"the workers have {item.key} {item.version}, and this kernel has {here}: cells that use it there "
                    "run again each time"
                )


def _is_found(module: str) -> bool:
    """Whether a module is loaded here and came from somewhere; some packages make modules by themselves."""
    found = sys.modules.get(module)
    return found is not None and getattr(found, "__spec__", None) is not None and module != "__main__"


def told(place: str) -> str:
    """Where a cell runs, in a line about it."""
    return f"on {place}"


def task_name(label: str) -> str:
    """What Dask's dashboard calls the cell: it groups tasks by what stands before the last dash."""
    return "".join(sign if sign.isalnum() or sign in "_.()[]=" else " " for sign in label).strip() or "cell"


class _MakerError(Exception):
    """Raised to have a frame."""


def _trace(rows: Sequence[tuple[str, str, int, int]]) -> TracebackType | None:
    """A traceback whose entries have these files, names, first lines and lines; their frames hold nothing else."""
    made: TracebackType | None = None
    raiser = _MakerError()
    for filename, name, first, line in reversed(rows):
        stub = compile("\n" * max(line - first, 0) + "raise make", filename, "exec")
        try:
            code = stub.replace(co_name=name, co_qualname=name, co_firstlineno=first)
            exec(code, {"make": raiser.with_traceback(None)})  # noqa: S102 - our own
        except _MakerError as exc:
            entry = exc.__traceback__.tb_next if exc.__traceback__ is not None else None
            if entry is not None:
                made = TracebackType(made, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return made


def problem_of(session: Session, cell: Cell) -> str | None:
    """Why a cell that ran on a cluster cannot be given back; None when it can."""
    answer: Answer | None = cell.elsewhere
    if answer is None:
        return None
    ledger = session.world.ledger
    for path, version in answer.written.items():
        if ledger.digest(path) != version:
            return f"it wrote {path} on a worker, and this machine does not have that file as it is there"
    return None


__all__ = ["Cluster", "Trip", "problem_of", "task_name", "told"]
