"""Random histories on several stores, copied in any order and cut off anywhere: nothing is lost, woven, doubled or begun
twice because of a copy, and in the end the stores agree."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_nb.abc import Markers
from durable_nb.events import Event, EventKind, OperationType, Status, StoredEvent
from durable_nb.exceptions import StepInterruptedError, ValidationError
from durable_nb.journal import JournalWrapper
from durable_nb.notebook._once import OnceSteps
from durable_nb.notebook._records import CellJournal, cell_event
from durable_nb.runtime import Store
from durable_nb.snapshot import MemoryBlobStore
from durable_nb.transfer import transfer
from durable_nb.transfer._merge import identity_of
from tests.property.transfer_model import CLOCK, cell, memory_store, notebook, step

SOAK = bool(os.environ.get("DURABLE_NB_SOAK"))
SIDES = st.sampled_from("abh")
CELLS = st.sampled_from(["load", "fit", "plot"])
FAILURES = (EventKind.FAILED, EventKind.RETRY_SCHEDULED)
NAME = "n.ipynb"


class CutError(Exception):
    """The copy was killed here."""


class Cut:
    """Counts the writes of a copy, and ends it at one of them."""

    def __init__(self, after: int | None) -> None:
        self.left = after

    def write(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise CutError


def cut_off(store: Store, cut: Cut) -> Store:
    """The store, whose writes may end."""

    class Journal(JournalWrapper):
        def create(self, *args: Any, **facts: Any) -> Any:
            cut.write()
            return self.inner.create(*args, **facts)

        def append(self, execution_id: str, events: Any, **facts: Any) -> int:
            if events:
                cut.write()
            return self.inner.append(execution_id, events, **facts)

        def update(self, *args: Any, **facts: Any) -> None:
            cut.write()
            self.inner.update(*args, **facts)

    class Blobs(MemoryBlobStore):
        def put(self, data: Any) -> str:
            cut.write()
            return super().put(data)

    class Marks(Markers):
        def claim(self, *args: Any) -> bool:
            cut.write()
            return store.markers.claim(*args)

        read = store.markers.read  # type: ignore[assignment]
        called = store.markers.called  # type: ignore[assignment]
        of = store.markers.of  # type: ignore[assignment]
        clear = store.markers.clear  # type: ignore[assignment]

    blobs = Blobs()
    assert isinstance(store.blobs, MemoryBlobStore)
    blobs._blobs = store.blobs._blobs
    return replace(store, journal=Journal(store.journal), blobs=blobs, markers=Marks())


class Team:
    """Two people and a hub. What each knows of the at-most-once step `pay` is kept beside, as a model."""

    def __init__(self) -> None:
        self.stores = {name: memory_store(name) for name in "abh"}
        self.execution = {
            name: notebook(store, NAME, cells=["1", "2"]) for name, store in self.stores.items() if name != "h"
        }
        self.before: dict[str, dict[str, list[StoredEvent]]] = {name: {} for name in self.stores}
        self.knows: dict[str, int] = dict.fromkeys(self.stores, 0)
        """How many starts of `pay` a store has been told of, by its own kernel or by copies."""
        self.rights: dict[str, int] = dict.fromkeys(self.stores, 0)
        """Whether a further start was allowed in this very store."""

    # --- what kernels do -------------------------------------------------------------------------------------------

    def write(self, side: str, *events: Event, refs: tuple[str, ...] = ()) -> None:
        self.stores[side].journal.append(self.execution[side], events, payload_refs=refs)

    def run_a_cell(self, side: str, which: str, large: bool) -> None:
        self.write(side, cell(which, EventKind.STARTED))
        text = f"{side} {next(CLOCK)}".encode()
        address = self.stores[side].blobs.put(text)
        if large:  # the manifest is a blob itself, which names another one
            outer = self.stores[side].blobs.put(b"manifest of " + address.encode())
            event = cell(which, details={"label": which, "payload_blob": outer})
            self.write(side, event, refs=(address, outer))
        else:
            self.write(side, cell(which, payload=b"blob " + address.encode()), refs=(address,))

    def fail_a_cell(self, side: str, which: str, kind: EventKind) -> None:
        self.write(side, cell(which, EventKind.STARTED), cell(which, kind))

    def go_on_with_steps(self, side: str, count: int) -> None:
        """Steps of a cell, each resting on the one before: what a kernel finds recorded it goes on from."""
        for number in range(1, count + 1):
            found = self.stores[side].journal.read_operation(self.execution[side], f"s{number}")
            if not found:
                last = self.chain(side)
                self.write(side, step(f"s{number}", "run of fit", payload=f"{last} > {side}{next(CLOCK)}".encode()))

    def chain(self, side: str) -> str:
        steps = [
            stored.event.payload or b""
            for stored in self.stores[side].journal.read(self.execution[side])
            if stored.event.type is OperationType.STEP
        ]
        return steps[-1].decode() if steps else ""

    def run_a_handler(self, side: str, name: str, ends: bool) -> None:
        journal = self.stores[side].journal
        record = journal.create(name, kind="handler", at=float(next(CLOCK)), details={"handler": "shop:order"})
        if record.status.is_terminal:
            return
        own = record.execution_id

        def event(kind: EventKind, payload: bytes) -> Event:
            at = float(next(CLOCK))
            return Event(operation_id=own, kind=kind, type=OperationType.EXECUTION, name=name, at=at, payload=payload)

        if not list(journal.read(own)):
            journal.append(own, [event(EventKind.STARTED, b"{}")], due=1.0)
        journal.append(own, [step(f"t{next(CLOCK)}", own, payload=side.encode())])
        if ends:
            result = event(EventKind.SUCCEEDED, f"{side} {next(CLOCK)}".encode())
            journal.append(own, [result], status=Status.SUCCEEDED, due=None)

    # --- a step that must not happen twice -------------------------------------------------------------------------

    def once(self, side: str) -> tuple[OnceSteps, CellJournal]:
        store = self.stores[side]
        cells = CellJournal(store.journal, store.blobs, self.execution[side], None)
        return OnceSteps(cells, store.markers, NAME), cells

    def pay(self, side: str, ends: EventKind | None) -> None:
        steps, cells = self.once(side)
        verdict = steps.judge("pay", lambda record: None)
        if verdict.answer != "run":
            return
        if self.knows[side]:
            assert self.rights[side] > 0, "a body begins again, and nobody here has allowed it"
            self.rights[side] = 0
        details: dict[str, object] = {"at_most_once": True}
        try:
            steps.start("pay", rounds=verdict.round, attempt=verdict.attempt, label="pay", lease=None, details=details)
        except StepInterruptedError:
            return
        self.knows[side] += 1
        if ends is not None:
            at = float(next(CLOCK))
            facts: dict[str, Any] = {"name": "pay", "attempt": verdict.attempt, "details": details}
            cells.write([cell_event(steps.operation("pay"), ends, at, **facts)], lease=None)
            self.rights[side] = int(ends is EventKind.RETRY_SCHEDULED)

    def let_it_run_again(self, side: str) -> None:
        steps, _ = self.once(side)
        with contextlib.suppress(ValidationError):  # nobody has begun it, or it is allowed to begin already
            steps.resolve("pay", "again", lease=None)
            self.rights[side] = 1

    # --- copies ----------------------------------------------------------------------------------------------------

    def copy(self, start: str, end: str, after: int | None) -> None:
        if start == end:
            return
        before = len(self.markers(end))
        try:
            transfer(self.stores[start], cut_off(self.stores[end], Cut(after)))
            told = self.knows[start]
        except CutError:
            told = self.knows[start] if len(self.markers(end)) > before else 0
        self.knows[end] = max(self.knows[end], told)
        if end == "h" and "h" not in self.execution and (found := self.stores["h"].journal.find(NAME)) is not None:
            self.execution["h"] = found.execution_id

    def markers(self, side: str) -> list[Any]:
        return list(self.stores[side].markers.of(NAME))

    # --- what always holds -----------------------------------------------------------------------------------------

    def all_events(self, side: str) -> Iterator[tuple[str, list[StoredEvent]]]:
        for record in self.stores[side].journal.executions():
            yield record.execution_id, list(self.stores[side].journal.read(record.execution_id))

    def nothing_that_was_there_is_lost_or_changed(self) -> None:
        for side, known in self.before.items():
            now = dict(self.all_events(side))
            for execution, events in known.items():
                assert now[execution][: len(events)] == events
            self.before[side] = now

    def nothing_is_doubled(self) -> None:
        for side in self.stores:
            for _, events in self.all_events(side):
                counts = Counter(identity_of(stored) for stored in events)
                assert all(count == 1 for count in counts.values())

    def every_blob_that_a_row_names_is_there(self) -> None:
        for store in self.stores.values():
            assert all(store.blobs.has(address) for address in store.journal.blob_refs())

    def no_chain_of_steps_is_woven_of_two(self) -> None:
        for side in self.execution:
            last = ""
            for stored in self.stores[side].journal.read(self.execution[side]):
                if stored.event.type is OperationType.STEP:
                    text = (stored.event.payload or b"").decode()
                    assert text.startswith(f"{last} > ")
                    last = text

    def a_handler_has_one_result_and_is_whole(self) -> None:
        for store in self.stores.values():
            for record in store.journal.executions():
                if record.kind == "handler":
                    events = [stored.event for stored in store.journal.read(record.execution_id)]
                    own = [event.kind for event in events if event.operation_id == record.execution_id]
                    assert own in ([], [EventKind.STARTED], [EventKind.STARTED, EventKind.SUCCEEDED])
                    assert record.status.is_terminal == (len(own) == 2)
                    sides = {event.payload for event in events if event.type is OperationType.STEP}
                    assert len(sides) <= 1

    def agree(self) -> None:
        """After everybody has pushed and pulled: nothing is left to copy, and everybody has all runs of ordinary cells."""
        for source, target in ("ah", "bh", "ha", "hb"):
            self.copy(source, target, None)
        for source, target in ("ah", "bh", "ha", "hb"):
            again = transfer(self.stores[source], self.stores[target])
            assert sum(copied.records + copied.markers + copied.blobs for copied in again.executions) == 0
        runs = [
            {
                identity_of(stored)
                for stored in self.stores[side].journal.read(self.execution[side])
                if stored.event.kind is EventKind.SUCCEEDED and stored.event.operation_id in ("load", "fit", "plot")
            }
            for side in self.execution
        ]
        assert all(each == runs[0] for each in runs)


SIDE = st.sampled_from("ab")
ACTIONS = st.one_of(
    st.tuples(st.just("run_a_cell"), SIDE, CELLS, st.booleans()),
    st.tuples(st.just("fail_a_cell"), SIDE, CELLS, st.sampled_from(FAILURES)),
    st.tuples(st.just("go_on_with_steps"), SIDE, st.integers(1, 3)),
    st.tuples(st.just("run_a_handler"), SIDE, st.sampled_from(["order-1", "order-2"]), st.booleans()),
    st.tuples(st.just("pay"), SIDE, st.sampled_from([None, EventKind.SUCCEEDED, *FAILURES])),
    st.tuples(st.just("let_it_run_again"), SIDE),
    st.tuples(st.just("copy"), SIDES, SIDES, st.none() | st.integers(0, 12)),
    st.tuples(st.just("copy"), SIDES, SIDES, st.none()),
)


@settings(
    max_examples=5000 if SOAK else 200,
    deadline=None,
    database=None,
    derandomize=not SOAK,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(ACTIONS, min_size=10, max_size=40))
def test_copies_between_three_stores_lose_weave_double_and_begin_nothing(actions: list[tuple[Any, ...]]) -> None:
    team = Team()
    for name, *arguments in actions:
        getattr(team, name)(*arguments)
        team.nothing_that_was_there_is_lost_or_changed()
        team.nothing_is_doubled()
        team.every_blob_that_a_row_names_is_there()
        team.no_chain_of_steps_is_woven_of_two()
        team.a_handler_has_one_result_and_is_whole()
    team.agree()
