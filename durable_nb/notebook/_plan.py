"""Replay or run: the decision for one cell, and its reason in words.

Nothing is run or written here. A record is valid when every input it had has the same version now (`_inputs.py`);
where that is in doubt, the cell runs. The recorded inputs are all that has to be asked: which names and code a cell
reaches follows from its source and from the functions among its inputs, so as long as these are equal nothing can
have come to it. Hence a cell that is replayed is never analysed, and the values it would read are not even loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from durable_nb._dataclass import dataclass
from durable_nb.cells import (
    Difference,
    Input,
    Reason,
    compare,
    explain,
    first_difference,
    is_declarative,
    session_magic,
    source_diff,
)
from durable_nb.exceptions import StoreError
from durable_nb.notebook._cell import Cell
from durable_nb.notebook._home import Home
from durable_nb.notebook._inputs import InputBook
from durable_nb.notebook._once import Verdict
from durable_nb.notebook._records import Record
from durable_nb.notebook._world import states_of

Kind = Literal["replay", "run", "declare", "track", "refuse"]

_NAMELESS = (
    "step {name!r} is at most once, and nobody told which notebook this is ({count} in the store have such a step): "
    "set DURABLE_NB_EXECUTION or use %durable use NAME first"
)

_BLIND = "step {name!r} is at most once, and whether it was started cannot be known: no store could be opened"

NEVER_RAN = "there is no checkpoint of it yet"

_HISTORY = 50
"""How many past records of one cell are tried: editing back and forth still hits."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a cell."""

    kind: Kind
    reason: str
    record: Record | None = None
    difference: tuple[str, ...] = ()
    verdict: Verdict | None = None


class Planner:
    """Decides for the cells of one session."""

    def __init__(
        self,
        book: InputBook,
        home: Callable[[], Home | None],
        last_source: Callable[[Cell], str | None],
        lost_files: Callable[[Record], str | None],
    ) -> None:
        self._book, self._home, self._last_source, self._files = book, home, last_source, lost_files

    def plan(self, cell: Cell) -> Plan:
        """What to do with a prepared cell."""
        options = cell.options
        home = self._home()
        if not cell.managed:
            return Plan("track", "it is not a durable step")
        if (
            not cell.request.marked
            and not options.name
            and options.on is None
            and (is_declarative(cell.tree) or session_magic(cell.tree))
        ):
            return Plan("declare", "it only declares: running it is cheaper than storing it")
        if home is None and options.at_most_once:
            return Plan("refuse", _BLIND.format(name=options.name))
        if home is None:
            return Plan("run", "there is no store")
        if options.at_most_once:
            return self._at_most_once(cell, home)
        records = self._records(cell, home)
        if options.force:
            return Plan("run", "it was asked to run (--force)")
        if options.mode == "always":
            return Plan("run", "it is marked to run always")
        return self._ordinary(cell, records)

    def _records(self, cell: Cell, home: Home) -> list[Record]:
        return home.cells.candidates(cell.operation)[:_HISTORY]

    def _ordinary(self, cell: Cell, records: list[Record]) -> Plan:
        nearest: Record | None = None
        untrusted = False
        for record in records:
            if not record.stored.trusted:
                untrusted = True
                continue
            difference = self.differs(cell, record)
            if difference is None:
                lost = self._files(record)
                if lost is not None:
                    return Plan("run", lost, record)
                if record.runs_again is not None:
                    return Plan("run", record.runs_again, record)
                return Plan("replay", "nothing it depends on has changed", record)
            nearest = nearest or record
        if nearest is not None:
            reason = self._explained(cell, nearest)
            return Plan("run", reason.text, nearest, reason.diff)
        if untrusted:
            return Plan("run", "its checkpoint was not signed with your key (see durable-nb trust)")
        return self._never_ran(cell)

    def _never_ran(self, cell: Cell) -> Plan:
        source = self._last_source(cell)
        if source is None or source == cell.request.body:
            return Plan("run", NEVER_RAN)
        return Plan("run", "its source was edited", difference=source_diff(source, cell.request.body))

    def differs(self, cell: Cell, record: Record) -> Difference | None:
        """The first input of the record that has another version now; None when it is valid."""
        return first_difference(record.inputs, self._lookup(cell))

    def _differs_from_outside(self, cell: Cell, record: Record) -> Difference | None:
        """A difference that the step did not make itself: a payment that appends to its own log stays the same."""
        files = {state.key: state.version for state in states_of(record.files)}
        own: dict[tuple[str, str], str] = {}
        if record.runs_again is None:
            own |= {("name", name): version for name, version in record.versions()}
        for difference in compare(record.inputs, self._lookup(cell)):
            item = difference.current
            if item.kind in ("file", "missing") and self._disk(item.key) == files.get(item.key):
                continue
            if own.get((item.kind, item.key)) != item.version:
                return difference
        return None

    def _disk(self, key: str) -> str:
        world = self._book.world
        assert world is not None
        return world.ledger.digest(world.ledger.path(key))

    def _lookup(self, cell: Cell) -> Callable[[Input], Input]:
        source = self._book.of_source(cell.canonical)

        def current(item: Input) -> Input:
            return source.get((item.kind, item.key)) or self._book.current(item)

        return current

    def _explained(self, cell: Cell, record: Record) -> Reason:
        return explain(record.inputs, self._lookup(cell), source_before=record.source, source_now=cell.request.body)

    def _at_most_once(self, cell: Cell, home: Home) -> Plan:
        name = cell.options.name
        assert name is not None
        once = home.once
        if home.is_anonymous:
            known = home.steps_called(name)
            if len(known) != 1:
                return Plan("refuse", _NAMELESS.format(name=name, count=len(known)))
            once = known[0]
        try:
            verdict = once.judge(name, lambda record: self._differs_from_outside(cell, record))
        except StoreError as exc:
            return Plan("refuse", f"step {name!r} is at most once, and its history cannot be read: {exc}")
        if verdict.answer == "replay":
            return Plan("replay", "it is done: at-most-once steps do not run again", verdict.record, verdict=verdict)
        if verdict.answer == "changed":
            assert verdict.record is not None
            reason = self._explained(cell, verdict.record)
            return Plan("refuse", reason.text, verdict.record, reason.diff, verdict)
        if verdict.answer == "run" and home.is_anonymous:
            return Plan("refuse", _NAMELESS.format(name=name, count=1))
        if verdict.answer == "run":
            return Plan("run", "it was not started yet", verdict=verdict)
        if verdict.answer == "empty":
            return Plan("replay", verdict.why, verdict=verdict)
        return Plan("refuse", verdict.why, verdict=verdict)


__all__ = ["Plan", "Planner"]
