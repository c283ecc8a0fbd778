"""What `%durable` does: status, reasons, history, and the decisions of a person. One method per verb."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from durable_nb.amounts import duration, moment, size
from durable_nb.exceptions import ValidationError
from durable_nb.history import History, OperationView, first_line
from durable_nb.notebook._cell import Cell
from durable_nb.notebook._home import Home
from durable_nb.notebook._once import DECISIONS
from durable_nb.notebook._text import table

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session
    from durable_nb.sdk._once import Begun


class Manager:
    """Answers for one session; prints, and returns nothing."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- looking ---------------------------------------------------------------------------------------------------

    def do_status(self, arguments: Sequence[str]) -> None:
        """The cells of this session and where they are kept, or another execution (a handler's) by its name."""
        from durable_nb.notebook._board_view import show_board

        self._session.open()
        show_board(self._session, " ".join(arguments) or None, f"{self._where()}{self._size()}")

    def do_plan(self, arguments: Sequence[str]) -> None:
        """What Run All would do on a fresh kernel, as the notebook was last saved."""
        from durable_nb.foresight import foresee
        from durable_nb.notebook._plan_view import show_plan

        _none(arguments)
        self._session.open()
        path = self._session.notebook_path
        if path is None:
            raise ValidationError("nobody told which notebook this is; ask with: durable-nb plan NOTEBOOK")
        show_plan(foresee(path, every_cell=self._session.every_cell or None))

    def do_why(self, arguments: Sequence[str]) -> None:
        """Why a cell was replayed or run."""
        if arguments:
            cell = self._cell(" ".join(arguments))
        elif self._session.done:
            cell = self._session.done[-1]
        else:
            raise ValidationError("no cell has been run in this session yet")
        print(f"{_status(cell)}: {cell.label}")
        print(f"  because {_reason(cell)}")
        for line in cell.difference:
            print(f"  {line}")

    def do_history(self, arguments: Sequence[str]) -> None:
        """What was recorded, for one step or for all."""
        home = self._home()
        view = History(home.store.journal).find(home.record.name)
        operations = view.operations if view is not None else ()
        if arguments:
            which = " ".join(arguments)
            operations = tuple(op for op in operations if _means(op, which))
            if not operations:
                raise ValidationError(f"nothing is recorded for {which!r}")
        rows = [
            (
                moment(attempt.started_at),
                attempt.status.value.lower(),
                str(attempt.number),
                duration(attempt.seconds),
                op.label,
                str(attempt.error or ""),
            )
            for op in operations
            if op.is_cell
            for attempt in op.attempts
        ]
        print(
            table(("started", "status", "attempt", "seconds", "cell", "error"), rows)
            if rows
            else "nothing is recorded yet"
        )

    def do_verify(self, arguments: Sequence[str]) -> None:
        """Check every stored byte that a checkpoint names."""
        from durable_nb.maintenance import check

        _none(arguments)
        found = check(self._home().store)
        for finding in found.findings:
            print(finding)
        print(f"{'all right' if found.good else 'NOT all right'}: {found.records} records, {found.blobs} blobs")

    def do_gc(self, arguments: Sequence[str]) -> None:
        """Remove what no checkpoint needs; old checkpoints go when a limit is set."""
        from durable_nb.maintenance import budget_of, collect, store_size

        _none(arguments)
        store = self._home().store
        self._session.waiting.load_all()
        done = collect(store, budget_of(self._session.settings))
        now = size(store_size(store))
        print(f"{done.records} records and {done.blobs} blobs went; the store has {now}")
        if done.waiting:
            print(f"{done.waiting} blobs go when no other process has the store open, or in an hour")

    # --- acting ----------------------------------------------------------------------------------------------------

    def do_rerun(self, arguments: Sequence[str]) -> None:
        """Run a cell the next time, whatever is recorded."""
        cell = self._cell(_one(arguments, "rerun STEP"))
        if cell.options.at_most_once:
            raise ValidationError(f"{cell.label!r} is at most once: use %durable resolve {cell.label} --again")
        self._session.force(cell.identity)
        print(f"{cell.label!r} runs the next time its cell is run")

    def do_forget(self, arguments: Sequence[str]) -> None:
        """Remove what is recorded for a step, or for the whole notebook. Markers of at-most-once steps stay."""
        home = self._home()
        if not home.ownership.ensure():
            raise ValidationError(f"{home.record.name} is in use by {home.ownership.holder}: forget there")
        if list(arguments) == ["--all"]:
            view = History(home.store.journal).find(home.record.name)
            operations = [op.operation_id for op in view.operations] if view is not None else []
        else:
            operations = [self._operation(home, _one(arguments, "forget STEP | --all"))]
        self._session.waiting.load_all()
        gone = sum(home.store.journal.forget(home.record.execution_id, operation) for operation in operations)
        print(f"{gone} records removed")

    def do_resolve(self, arguments: Sequence[str]) -> None:
        """Decide about an at-most-once step."""
        decisions = [word[2:] for word in arguments if word.startswith("--")]
        names = [word for word in arguments if not word.startswith("--")]
        if len(names) != 1 or len(decisions) != 1:
            raise ValidationError(
                "usage: %durable resolve NAME " + " | ".join(f"--{decision}" for decision in DECISIONS)
            )
        home = self._home()
        if any(one.name == names[0] for one in self._begun_inside(home)):
            if not home.ownership.ensure():
                raise ValidationError(f"{home.record.name} is in use by {home.ownership.holder}: decide there")
            from durable_nb.sdk._once import resolve

            lease = home.ownership.lease
            means = resolve(home.store.journal, home.record.execution_id, names[0], decisions[0], lease=lease)
            print(f"{names[0]!r}: {means}")
            return
        print(self._session.decide(names[0], decisions[0]))

    def _begun_inside(self, home: Home) -> list[Begun]:
        """At-most-once `context.step`s inside cells that wait for a decision."""
        from durable_nb.sdk._once import undecided

        return undecided(home.store.journal, home.record.execution_id)

    def do_use(self, arguments: Sequence[str]) -> None:
        """Write to the execution of this name from now on."""
        self._session.use(_one(arguments, "use NAME"))
        print(self._where())

    def do_on(self, arguments: Sequence[str]) -> None:
        """Make cells durable again."""
        _none(arguments)
        self._session.enabled = True
        print("cells are durable")

    def do_off(self, arguments: Sequence[str]) -> None:
        """Leave cells alone until `%durable on`."""
        _none(arguments)
        self._session.enabled = False
        print("cells are ordinary until %durable on")

    # --- finding ---------------------------------------------------------------------------------------------------

    def _where(self) -> str:
        home = self._session.home
        if home is None:
            return f"not durable: {self._session.no_home or 'no cell has needed the store yet'}"
        held = "" if home.ownership.ensure() else f"; held by {home.ownership.holder}, nothing is saved here"
        place, here = home.store.place, Path.cwd()
        shown = place.relative_to(here) if place.is_relative_to(here) else home.store.label
        return f"{home.record.name} in {shown} (named by {home.named_by}){held}"

    def _size(self) -> str:
        """What the store takes, beside its limit where there is one."""
        home = self._session.home
        if home is None:
            return ""
        from durable_nb.maintenance import store_size

        limit = self._session.settings.store_limit
        return f"; the store has {size(store_size(home.store))}{f' of {limit}' if limit else ''}"

    def _home(self) -> Home:
        self._session.open()
        if self._session.home is None:
            raise ValidationError(self._session.no_home or "there is no store")
        return self._session.home

    def _cell(self, which: str) -> Cell:
        """The last run of the cell that `which` means."""
        for cell in reversed(self._session.done):
            if which in (cell.options.name, _prompt(cell).strip("[]")):
                return cell
        for cell in reversed(self._session.done):
            if first_line(cell.request.body).startswith(which):
                return cell
        raise ValidationError(f"no cell of this session is called {which!r}; %durable status lists them")

    def _operation(self, home: Home, which: str) -> str:
        try:
            return self._cell(which).operation
        except ValidationError:
            view = History(home.store.journal).find(home.record.name)
            for op in reversed(view.operations if view is not None else ()):
                if _means(op, which):
                    return op.operation_id
            raise


def _means(op: OperationView, which: str) -> bool:
    return op.name == which or op.label.startswith(which)


def _prompt(cell: Cell) -> str:
    return f"[{cell.number}]" if cell.number is not None else ""


def _status(cell: Cell) -> str:
    return cell.report.status.replace("_", " ") if cell.report is not None else "running"


def _reason(cell: Cell) -> str:
    return cell.report.reason if cell.report is not None else cell.reason


def _seconds(cell: Cell) -> float | None:
    return cell.report.seconds if cell.report is not None else None


def _none(arguments: Iterable[str]) -> None:
    if list(arguments):
        raise ValidationError(f"takes no argument, got {' '.join(arguments)!r}")


def _one(arguments: Sequence[str], usage: str) -> str:
    if not arguments:
        raise ValidationError(f"usage: %durable {usage}")
    return " ".join(arguments)
