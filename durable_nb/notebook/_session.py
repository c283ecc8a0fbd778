"""The session: one kernel's picture of its notebook, and what happens to each cell.

A cell passes through these calls, all synchronous and all in the main thread:

- `prepare` finds out which cell it is;
- `plan` decides: replay, run, declare, track, refuse;
- a cell that runs is analysed (`analyse`) and pictured (`start`) before its statements run;
- its end is pictured and committed (`_commit.py`); a checkpoint is given back by `_replay.py`.

The shell (`_shell.py`) runs the statements in between. Whatever fails in here is told to the user as a warning and
makes the cell *not durable*; it never fails the user's cell.
"""

from __future__ import annotations

import ast
import functools
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from durable_nb.cells import (
    FileState,
    Ordinals,
    Tables,
    canonical,
    fingerprint,
    identity,
    opens_by_itself,
)
from durable_nb.events import EventKind
from durable_nb.exceptions import DurableExecutionsError, LeaseHeldError, LeaseLostError, StoreError, ValidationError
from durable_nb.notebook._attempts import Backoff
from durable_nb.notebook._buttons import Buttons
from durable_nb.notebook._capture import Tee
from durable_nb.notebook._cell import Cell, Request
from durable_nb.notebook._cell_files import CellFiles
from durable_nb.notebook._context import LazyContext
from durable_nb.notebook._errors import LostValueError, StaleFileError, error_info
from durable_nb.notebook._home import Home, Location, find_location, keep_small, open_home
from durable_nb.notebook._inputs import InputBook
from durable_nb.notebook._left import left_by, running_work
from durable_nb.notebook._past import Past
from durable_nb.notebook._plan import Plan, Planner
from durable_nb.notebook._records import Record, cell_event, operation_id
from durable_nb.notebook._remote_logs import present
from durable_nb.notebook._results import Results, owned_number
from durable_nb.notebook._rollback import Rollback
from durable_nb.notebook._spared import spared
from durable_nb.notebook._starts import Starts
from durable_nb.notebook._waiting import Waiting
from durable_nb.notebook._world import World, states_of
from durable_nb.running import enter_cell
from durable_nb.settings import STORE_DIRECTORY, Settings
from durable_nb.snapshot import Keyring, Tracker, note_starts, result_number

if TYPE_CHECKING:
    from durable_nb.notebook._remote import Cluster

_DATA_ONLY = frozenset(
    {
        "builtins",
        "collections",
        "datetime",
        "decimal",
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "sklearn",
        "torch",
        "xarray",
    }
)
"""Packages that never change an object they were not given; others keep what they made (`plt.plot` changes `fig`)."""


class Session:
    """What durable_nb knows in one kernel.

    Args:
        shell: the interactive shell whose namespace is the notebook's.
        kernel: the kernel around it.
        every_cell: True in the durable kernel: every cell is a step, not only the marked ones.
        settings: store, execution, key and limits.
    """

    lets_wait = True
    """Whether replayed values may wait to be loaded."""

    def __init__(self, shell: Any, kernel: Any, *, every_cell: bool, settings: Settings) -> None:
        self.shell, self.kernel, self.settings = shell, kernel, settings
        self.every_cell = every_cell
        self.enabled = True
        self.storing_history = True
        self.tee = Tee(kernel, settings.output_limit)
        self.buttons = Buttons(kernel)
        self.tracker = Tracker(
            shell.user_ns, hidden=shell.user_ns_hidden, filename_for=CellFiles(shell.compile).name_of
        )
        self.results = Results(shell, self.tracker)
        self.ordinals = Ordinals()
        self.done: list[Cell] = []
        self.current: Cell | None = None
        """The cell that runs now."""
        self.changed: Callable[[], None] | None = None
        """Called when a cell begins, is tried again or ends, while a board is shown."""
        self.waits: Callable[[Cell, str], None] | None = None
        """Called when a cell's durable calls come to a wait, with what for, and when they go on."""
        self.home: Home | None = None
        self.no_home: str | None = None
        self._use: str | None = None
        self._told: set[str] = set()
        self._outside = False
        self._loose = False
        self._user_ran = False
        """Whether a thread or task of the user's ran when the cell was planned."""
        self._forced: set[str] = set()
        self._past: Past | None = None
        self._rows_written = 0
        self._location: Location | None = None
        self._world: World | None = None
        self.waiting = Waiting(
            self.tracker, self._line_magics, self._callbacks, self.warn, self._user_runs, self._is_user_file
        )
        self.book = InputBook(self.tracker)
        self._starts = Starts(self._write_start)
        self._clusters: dict[str, Cluster] = {}
        self.own_handlers: list[logging.Handler] = []
        """Of loggers: those that were there before the first cell."""
        self.planner = Planner(self.book, lambda: self.home, self._last_source, self._lost_files)

    # --- the store -------------------------------------------------------------------------------------------------

    @property
    def world(self) -> World:
        """Files, modules and environment around the notebook; found out when the first cell runs."""
        if self._world is None:
            self.own_handlers = present()
            note_starts()  # only now: starting a kernel draws random numbers of its own
            try:
                self._location = find_location(self.shell.user_ns, self.settings)
                project, store = self._location.project, self._location.files_of_store(self.settings)
            except ValidationError as exc:
                self.no_home = str(exc)
                self.warn(f"nothing will be saved: {exc}")
                project, store = Path.cwd(), Path.cwd() / STORE_DIRECTORY
            key = Keyring(self.settings.key).sign(b"environment", "derive")
            self._world = self.book.world = World(project, store, key, self._before_read)
            if self.lets_wait:
                self.waiting.begin()
        return self._world

    @property
    def notebook_path(self) -> Path | None:
        """The file of this notebook; None when nobody told."""
        _ = self.world
        notebook = self._location.notebook if self._location is not None else None
        return notebook.path if notebook is not None else None

    def open(self) -> None:
        """Open the store of this notebook; without one, cells run and are not durable."""
        world = self.world
        if self.home is not None or self.no_home is not None or self._location is None:
            return
        try:
            self.home = open_home(self._location, self.settings, use=self._use)
            for record in self.home.cells.with_files():
                world.ledger.remember(states_of(record.files), owner=record.event.operation_id)
            keep_small(self.home.store, self.settings, self.warn)
        except (DurableExecutionsError, OSError) as exc:
            self.close()
            self.no_home = str(exc)
            self.warn(f"nothing will be saved: {exc}")

    def use(self, name: str | None) -> None:
        """Write to the execution of this name from now on."""
        self.waiting.load_all()  # this session's share in the store ends here
        self.close()
        self._use = name
        self.open()

    def close(self) -> None:
        """Let the store go."""
        self._starts.record_now()  # of a cell that runs now: it began in this execution
        home, self.home, self.no_home = self.home, None, None
        self._past = None
        if home is not None:
            home.close()

    def remove(self) -> None:
        """Leave the kernel as it was before."""
        self._starts.close()
        self.waiting.end()
        self.close()
        for cluster in self._clusters.values():
            cluster.close()
        self.buttons.remove()
        self.results.remove()
        self.tee.remove()

    def warn(self, text: str) -> None:
        """Tell the user once per text; never part of a cell's recorded output."""
        if text not in self._told:
            self._told.add(text)
            with self.tee.muted():
                print(f"durable_nb: {text}", file=sys.stderr, flush=True)

    # --- before ----------------------------------------------------------------------------------------------------

    def prepare(self, request: Request, tree: ast.Module) -> Cell:
        """Find out what the cell is and what it may read."""
        world = self.world
        self.results.begin()
        managed = self.enabled and request.options.mode != "off" and (request.marked or self.every_cell)
        cell = Cell(request=request, tree=tree, position=len(self.done), managed=managed)
        if managed:
            self.open()
        # The shell has parsed the text; transformers of trees, if there are any, have changed what came of it.
        parsed = None if self.shell.ast_transformers else tree
        cell.canonical = canonical(request.transformed, request.body, parsed)
        cell.identity = identity(cell.canonical, request.options.name)
        cell.ordinal = self.ordinals.next(cell.identity, request.cell_id)
        cell.operation = operation_id(cell.identity, cell.ordinal)
        if request.options.at_most_once and self.home is not None:
            cell.operation = self.home.once.operation(request.options.name or "")
        world.modules.notice()
        return cell

    def plan(self, cell: Cell) -> Plan:
        """Decide what to do with the cell."""
        self._user_ran = self._user_runs()
        if self.outside_ran() or self._loose or self._user_ran:
            self.waiting.load_all()
            self.tracker.invalidate(None)
        self.book.look_again()
        if cell.identity in self._forced:
            self._forced.discard(cell.identity)
            plan = Plan("run", "you asked for it (%durable rerun)")
        else:
            plan = self.planner.plan(cell)
        cell.reason, cell.difference = plan.reason, plan.difference
        cell.declared = plan.kind == "declare"
        return plan

    def analyse(self, cell: Cell) -> None:
        """Find out what the cell may read, load it, and take the versions of that as they are before it runs.

        Raises:
            LostValueError: a value that the cell may read cannot be loaded.
        """
        cell.reads = self.waiting.analysed(cell.tree, declares=cell.declared)
        cell.inputs.update(self.book.of_source(cell.canonical).values())
        if cell.managed:
            cell.inputs.update(self.book.of_names(cell.reads))
            cell.inputs.update(self.book.of_figures(cell.reads))

    def _last_source(self, cell: Cell) -> str | None:
        """The source this cell had before an edit: by the front end's id, else the one most like it at its place."""
        if self.home is None:
            return None
        if self._past is None:
            self._past = Past(self.home.cells.completed())
        return self._past.source(cell.request.cell_id, cell.position, cell.request.body)

    def start(self, cell: Cell, plan: Plan) -> None:
        """Take the picture before the run, and record that it starts."""
        assert cell.reads is not None
        read = self.tracker.bindings() if cell.reads.everything is not None else cell.reads.names
        cell.dirty = tuple(sorted(name for name in read if self.tracker.version(name).kind == "dirty"))
        cell.doubtful = self.book.of_doubtful(cell.reads)
        cell.spared = spared(cell.tree, cell.reads, self.tracker)
        cell.before = self.tracker.before(self.touched(cell))
        cell.threads_before = running_work() if self._user_ran else frozenset()  # of others' work nothing is asked
        self._record_start(cell, plan)
        cell.clock = time.perf_counter()
        cell.modules_before = self.world.module_states(cell.reads.modules)
        cell.tables_before = Tables(cell.reads.paths)
        values = self.values_of(cell.reads.names)
        engines = opens_by_itself(cell.reads.modules)
        ledger = self.world.ledger
        cell.foreseen = ledger.foresee(cell.reads.literals, values, engines=engines)
        for path in cell.foreseen.versions:  # a library in C opens files unseen: what it may open is put back before
            self._bring_back(ledger.key(path))
        self._enter(cell)
        cell.folder = self.world.environment.cwd()
        self.world.observer.begin()

    def values_of(self, names: Iterable[str]) -> dict[str, object]:
        """The values that these names have now; a name that has none is left out."""
        namespace = self.shell.user_ns
        return {name: namespace[name] for name in names if name in namespace}

    def _enter(self, cell: Cell) -> None:
        """Make `durable_nb.context` the cell's: what it does durably is recorded under the cell and its inputs."""
        home = self.home
        if not cell.managed or cell.declared or home is None or not self.owned(home):
            return
        cell.holds_steps = True
        cell.context = LazyContext(
            home.store,
            home.record.execution_id,
            home.ownership.lease,
            lambda: cell.inside,
            on_use=self._starts.record_now,
            on_wait=functools.partial(self._told_of_wait, cell),
            on_event=self._told_of_event,
        )
        cell.leave_context = enter_cell(cell.context)

    def _told_of_wait(self, cell: Cell, waiting: Any) -> None:
        """A durable call of the cell waits; from any thread."""
        from durable_nb.notebook._waits_view import show_wait

        try:
            show_wait(self, cell, waiting)
            self._told_of_event(None)
        except Exception as exc:  # noqa: BLE001 - our own fault never costs the user's cell anything
            self.fault(None, exc)

    def _told_of_event(self, _event: Any) -> None:
        """Something was recorded in a cell; from any thread."""
        if self.changed is not None:
            self.changed()

    def leave(self, cell: Cell) -> None:
        """The cell's statements have ended: its context ends with them."""
        self._starts.end()
        context, leave, cell.context, cell.leave_context = cell.context, cell.leave_context, None, None
        if leave is not None:
            leave()
        if context is not None:
            try:
                context.close()
            except StoreError as exc:
                self.warn(f"durable calls of cell {cell.label!r} were not all recorded: {exc}")

    def touched(self, cell: Cell) -> frozenset[str]:
        """Names whose values the cell may change: what it can reach, and what packages it calls may have kept."""
        reads = cell.reads
        assert reads is not None
        if reads.everything is not None:
            return frozenset(self.tracker.bindings())
        keepers = {module.partition(".")[0] for module in reads.modules} - _DATA_ONLY
        names = set(reads.names | reads.binds)
        if keepers:
            names.update(name for name, value in self.tracker.bindings().items() if _package_of(value) in keepers)
        return frozenset(names) - cell.spared

    def _record_start(self, cell: Cell, plan: Plan) -> None:
        home = self.home
        if home is None or plan.kind != "run":
            return
        if not self.owned(home):
            if cell.options.at_most_once:
                raise LeaseHeldError(home.record.name, home.ownership.holder or "another kernel")
            return
        cell.started = time.time()
        if cell.options.at_most_once:
            assert plan.verdict is not None
            assert cell.options.name is not None
            home.once.start(
                cell.options.name,
                rounds=plan.verdict.round,
                attempt=cell.attempt,
                label=cell.label,
                lease=home.ownership.lease,
                details=self.details(cell),
            )
        elif cell.options.retries:  # the attempts are counted
            self._write_start(cell)
        else:
            self._starts.begin(cell)

    def _write_start(self, cell: Cell) -> None:
        home = self.home
        assert home is not None
        event = cell_event(
            cell.operation,
            EventKind.STARTED,
            cell.started,
            name=cell.options.name,
            attempt=cell.attempt,
            details=self.details(cell),
        )
        self.write(home, [event], durable=False)

    def owned(self, home: Home) -> bool:
        """Whether this kernel may write; says once who holds the execution otherwise."""
        if home.ownership.ensure():
            return True
        self.warn(
            f"{home.record.name} is in use by {home.ownership.holder}: cells replay and run here, but are not saved",
        )
        return False

    def write(self, home: Home, events: Iterable[Any], *, durable: bool = True, refs: Iterable[str] = ()) -> None:
        try:
            rows = list(events)
            home.cells.write(rows, lease=home.ownership.lease, durable=durable, refs=list(refs))
            self._rows_written += sum(len(row.payload or b"") for row in rows)
        except LeaseLostError:
            home.ownership.lost()
            raise

    def bytes_written(self) -> int:
        """Bytes of values, outputs and files that this session has written, those being written included."""
        return self._rows_written + (self.home.store.blobs.written if self.home is not None else 0)

    def details(self, cell: Cell) -> dict[str, Any]:
        options = cell.options
        return {
            "label": cell.label,
            "source": cell.request.body,
            "identity": cell.identity,
            "ordinal": cell.ordinal,
            "position": cell.position,
            **({"at_most_once": True} if options.at_most_once else {}),
            **({"max_attempts": options.max_attempts} if options.max_attempts is not None else {}),
            **({"on": options.on} if options.on else {}),
            **({"cell_id": cell.request.cell_id} if cell.request.cell_id else {}),
        }

    def cluster(self, place: str) -> Cluster:
        """The cluster that `--on` names; not connected yet."""
        if place not in self._clusters:
            from durable_nb.notebook._remote import Cluster

            self._clusters[place] = Cluster(place)
        return self._clusters[place]

    # --- files -----------------------------------------------------------------------------------------------------

    def _lost_files(self, record: Record) -> str | None:
        """Why a writer cannot be replayed as the disk is; what can be put back is put back.

        After a replayed cell its files are as after a run, since a later cell that would overwrite them may have been
        removed. Only for a file too large to be kept a newer state of the notebook's own counts as good enough.
        """
        ledger, kept = self.world.ledger, record.files.get("blobs", {})
        for state in states_of(record.files):
            if ledger.digest(ledger.path(state.key)) == state.version:
                continue
            problem = ledger.problem([state]) if ledger.is_foreign(state.key) else None
            if problem is not None:
                return problem
            if not self._put_back(state, kept.get(state.key)) and ledger.is_newest(state):
                return f"the file {state.key}, which it wrote, is not as it left it, and is too large to be put back"
        return None

    def _put_back(self, state: FileState, address: str | None) -> bool:
        home = self.home
        return home is not None and self.world.restore_state(state, address, home.store.blobs)

    def _before_read(self, path: str) -> None:
        """A cell that runs is about to read a file: it must find what belongs at its place in the notebook."""
        key = self.world.ledger.key(path)
        if not self._bring_back(key):
            raise StaleFileError(key, self._label_of(self.world.ledger.owner(key)))

    def _bring_back(self, key: str) -> bool:
        """Make a file what belongs at this place; False when it holds something else and cannot be put back."""
        ledger, home = self.world.ledger, self.home
        if home is None or not ledger.stale(key):
            return True
        owner, wanted = ledger.owner(key), ledger.current(key)
        if owner is None:  # what was there before the notebook's first run is gone: a plain run reads the disk as well
            ledger.adopt(key)
            return True
        for record in home.cells.candidates(owner):
            if not record.stored.trusted:  # a stranger's record names bytes as it likes
                continue
            for state in states_of(record.files):
                address = record.files.get("blobs", {}).get(key)
                if (state.key, state.version) == (key, wanted) and self._put_back(state, address):
                    return True
        return False

    def _label_of(self, operation: str | None) -> str:
        return next((cell.label for cell in reversed(self.done) if cell.operation == operation), "an earlier cell")

    # --- attempts --------------------------------------------------------------------------------------------------

    def resume(self, cell: Cell, plan: Plan, backoff: Backoff | None) -> float | None:
        """Take up the count of attempts where a dead kernel left it; returns when the next one may start.

        Only attempts at the same cell with the same names count: after an edit the count starts anew.
        """
        if plan.verdict is not None:
            cell.attempt = plan.verdict.attempt
            return plan.verdict.due
        home = self.home
        if backoff is None or home is None:
            return None
        events = [stored.event for stored in home.cells.events(cell.operation)]
        # By their time: what was copied from another store may come later in the journal and be older.
        events = sorted((event for event in events if event.kind is not EventKind.NOTE), key=lambda event: event.at)
        while events and events[-1].kind is EventKind.STARTED:
            events.pop()  # an attempt without an end is made again, under its own number
        last = events[-1] if events else None
        if (
            last is None
            or last.kind is not EventKind.RETRY_SCHEDULED
            or last.details.get("static") != static_mark(cell)
        ):
            return None
        cell.attempt = min(last.attempt + 1, backoff.max_attempts)
        return last.due

    def attempt_started(self, cell: Cell, plan: Plan) -> None:
        """Record that the next attempt begins."""
        self.results.begin()
        self._record_start(cell, plan)
        self.world.observer.end()
        self.world.observer.begin()
        cell.clock = time.perf_counter()

    def attempt_failed(self, cell: Cell, error: BaseException, due: float) -> None:
        """Commit the attempt that failed and the time of the next one."""
        home = self.home
        if home is None or not self.owned(home):
            return
        event = cell_event(
            cell.operation,
            EventKind.RETRY_SCHEDULED,
            time.time(),
            name=cell.options.name,
            attempt=cell.attempt,
            error=error_info(error, self.world.is_user_file),
            due=due,
            details={**self.details(cell), "static": static_mark(cell)},
        )
        try:
            self.write(home, [event])
        except StoreError as exc:
            self.warn(f"a failed attempt of cell {cell.label!r} was not recorded: {exc}")

    def tell_retry(self, cell: Cell, error: BaseException, due: float, attempts: int) -> None:
        """One line while the cell counts down; the next attempt takes it away."""
        left = max(due - time.time(), 0.0)
        with self.tee.muted():
            print(
                f"durable_nb: attempt {cell.attempt} of {attempts} failed ({type(error).__name__}: {error}); "
                f"next in {left:.1f} s",
                file=sys.stderr,
                flush=True,
            )

    def rollback(self, cell: Cell) -> Rollback:
        """What undoes an attempt; taken before the first one."""
        return Rollback(self.tracker, self.touched(cell), cell.before, self.home.store.blobs if self.home else None)

    # --- values that wait to be loaded -------------------------------------------------------------------------------

    def _line_magics(self) -> Collection[str]:
        magics: Mapping[str, Any] = self.shell.magics_manager.magics["line"]
        return magics.keys()

    def _callbacks(self) -> list[Any]:
        return [call for calls in self.shell.events.callbacks.values() for call in calls]

    def _user_runs(self) -> bool:
        return left_by(frozenset(), self.world.is_user_file) is not None

    def _is_user_file(self, filename: str) -> bool:
        return self.world.is_user_file(filename)

    def lost_value(self, cell: Cell, record: Record, name: str, error: Exception) -> LostValueError:
        """The error of a value that cannot be loaded any more; its cell runs the next time, here and elsewhere."""
        why = str(error).partition("\n")[0] or type(error).__name__
        if not isinstance(error, MemoryError):  # then the checkpoint is good
            self.force(cell.identity)
            try:
                self._mark_lost(record, why)
            except (DurableExecutionsError, OSError) as exc:
                self.warn(f"that the checkpoint of cell {cell.label!r} is damaged could not be recorded: {exc}")
        return LostValueError(name, cell.label, why)

    def _mark_lost(self, record: Record, why: str) -> None:
        home = self.home
        if home is None or not self.owned(home):
            return
        event = record.event
        # `lost` is so in this store only: a copy to another one leaves it out.
        details = {**event.details, "runs_again": f"its checkpoint cannot be read: {why}", "lost": True}
        mark = cell_event(
            event.operation_id,
            EventKind.SUCCEEDED,
            time.time(),
            name=event.name,
            attempt=event.attempt,
            details=details,
        )
        self.write(home, [mark])

    # --- results: Out[n] under the number of this session -----------------------------------------------------------

    def result_number(self) -> int:
        """The number that the running cell's result has (nbval's cells do not move the count)."""
        return int(self.shell.execution_count) - (1 if self.storing_history else 0)

    def results_of(self, changed: Iterable[str]) -> dict[str, str]:
        """Which cell each result among the changed names belongs to: numbers differ from session to session."""
        owners = self.results.owners()
        found: dict[str, str] = {}
        for name in changed:
            number = result_number(name)
            if number is not None and number in owners:
                found[name] = owners[number]
        return found

    def renumbered(self, cell: Cell, results: Mapping[str, str]) -> dict[str, str | None]:
        """Recorded results to their names in this session; None for one that has no number here."""
        found: dict[str, str | None] = {}
        for name, owner in results.items():
            number = owned_number(owner, cell.operation, self.result_number())
            if number is None:
                number = self.results.number_of(owner)
            found[name] = None if number is None else f"Out[{number}]"
        return found

    # --- the end of a cell -----------------------------------------------------------------------------------------

    def ended(self, cell: Cell) -> None:
        """Remember the cell for `%durable` and for the next ones."""
        self.done.append(cell)
        cell.number = self.result_number() if self.storing_history else None
        self._loose = (
            not cell.left_nothing
            and cell.threads_before is not None
            and left_by(cell.threads_before, self.world.is_user_file) is not None
        )
        self.results.tidy()
        for cluster in self._clusters.values():
            cluster.tidy(self.tracker.still)

    def note_outside(self) -> None:
        """Code ran outside the cells (a silent request, a subshell, a comm): values are looked at again.

        Called from any thread.
        """
        self._outside = True

    def outside_ran(self) -> bool:
        """Whether code ran outside the cells since the last question."""
        ran, self._outside = self._outside, False
        return ran

    def decide(self, name: str, decision: str) -> str:
        """A person's decision about an at-most-once step; returns what follows from it.

        Raises:
            ValidationError: the decision does not fit, or another kernel has the notebook.
        """
        home = self.home
        if home is None:
            raise ValidationError(self.no_home or "there is no store")
        if not home.ownership.ensure():
            raise ValidationError(f"{home.record.name} is in use by {home.ownership.holder}: decide there")
        return home.once.resolve(name, decision, lease=home.ownership.lease)

    def force(self, identity: str) -> None:
        """Run this cell the next time, whatever is recorded. Known by its source: not every client sends cell ids."""
        self._forced.add(identity)

    def fault(self, cell: Cell | None, error: Exception) -> None:
        """A fault of ours: say so, with where, and let the user's cell be."""
        self.waiting.end()
        self.tracker.invalidate(None)
        place = traceback.extract_tb(error.__traceback__)[-1]
        label = f"cell {cell.label!r}" if cell is not None else "this cell"
        self.warn(
            f"{label} is not durable, because durable_nb itself failed "
            f"({type(error).__name__}: {error}, {Path(place.filename).name}:{place.lineno}); please report it",
        )
        if os.environ.get("DURABLE_NB_DEBUG"):
            traceback.print_exception(error)


def _package_of(value: object) -> str:
    return (getattr(type(value), "__module__", None) or "").partition(".")[0]


def static_mark(cell: Cell) -> str:
    """The cell and the names it reads, as one digest: what attempts are counted under."""
    return fingerprint(cell.inputs)
