"""A kernel's way through a notebook in which nothing runs: `python -m durable_nb.notebook._dry_run`.

The cells come as JSON on stdin, the answer goes to stdout (see `durable_nb.foresight`). It is the session of a real
kernel with four differences:

- it has no channels: what a replay would show goes nowhere;
- it owns nothing: no lease is taken and no event is written;
- a cell that would run is not run, and what it would change counts as *unknown* (`ForeseenBook`);
- a cell that would run although its inputs are the same (it cannot be stored, or sets something up) is expected to make
  the same again, so that its readers are replayed, as lineage does it in a real run.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from jupyter_client.session import Session as Wire
from traitlets.config import Config

from durable_nb.cells import (
    Difference,
    Input,
    analyse,
    compare,
    digest,
    fingerprint,
    is_declarative,
    session_magic,
)
from durable_nb.events import EventKind
from durable_nb.exceptions import StoreError, StoreMissingError
from durable_nb.foresight import Cause
from durable_nb.notebook._cell import Cell, Report
from durable_nb.notebook._home import Home
from durable_nb.notebook._inputs import InputBook
from durable_nb.notebook._magics import DurableMagics
from durable_nb.notebook._plan import NEVER_RAN, Plan, Planner
from durable_nb.notebook._records import Record
from durable_nb.notebook._session import Session
from durable_nb.notebook._shell import ShellHooks, only_manages
from durable_nb.notebook._world import states_of
from durable_nb.runtime import is_store, open_store
from durable_nb.settings import Settings, StoreUrl

_UNKNOWN = "?"
"""The version of what a cell that was left out would have made; equal to no recorded one."""


@dataclass
class Effects:
    """What cells that were left out would have changed: kind and key of inputs to the label of the cell."""

    unknown: dict[tuple[str, str], str] = field(default_factory=dict)
    same: set[tuple[str, str]] = field(default_factory=set)
    """Would be made again as they were recorded."""

    def made(self, places: Iterable[tuple[str, str]]) -> None:
        """These are known again."""
        for place in places:
            self.unknown.pop(place, None)
            self.same.discard(place)


class ForeseenBook(InputBook):
    """Versions in a kernel that left some cells out."""

    def __init__(self, tracker: Any, effects: Effects) -> None:
        super().__init__(tracker)
        self._effects = effects

    def current(self, item: Input) -> Input:
        """A recorded input with its present version; unknown when a cell that was left out makes it."""
        effects, place = self._effects, (item.kind, item.key)
        if item.kind == "everything" and any(kind == "name" for kind, _ in effects.unknown):
            return Input(item.kind, item.key, _UNKNOWN, next(iter(effects.unknown.values())))
        if place in effects.unknown:
            return Input(item.kind, item.key, _UNKNOWN, effects.unknown[place])
        if place in effects.same or (item.kind == "everything" and effects.same):
            return item
        return super().current(item)


class DrySession(Session):
    """A session that owns nothing and warns nobody."""

    lets_wait = False

    def __init__(self, shell: Any, kernel: Any, *, every_cell: bool) -> None:
        super().__init__(shell, kernel, every_cell=every_cell, settings=Settings.from_environment())
        self.effects = Effects()
        self.book = ForeseenBook(self.tracker, self.effects)
        self.planner = Planner(self.book, lambda: self.home, self._last_source, self._lost_files)
        self.cell_id: str | None = None
        self.is_new = False
        """There is no store yet; a run makes one."""

    def open(self) -> None:
        """Open the store when there is one; a plan makes none."""
        world = self.world
        place = self._location.store if self._location is not None else None
        if self.home is None and place is not None and not self._is_made(place):
            self.no_home = f"there is no store at {place} yet"
            self.is_new = True
            return
        assert world is not None
        super().open()

    def _is_made(self, place: Path | StoreUrl) -> bool:
        """Whether there is a store: one on a server has to be asked."""
        if isinstance(place, StoreUrl):
            try:
                open_store(place, settings=self.settings, create=False).close()
            except StoreMissingError:
                return False
            except StoreError:
                return True  # the caller meets it again, and tells it
        return is_store(place)

    def owned(self, home: Home) -> bool:  # noqa: ARG002 - the question is answered for all
        """Nothing is written."""
        return False

    def warn(self, text: str) -> None:
        """Nobody listens: reasons are in the answer."""

    def declares(self, cell: Cell) -> bool:
        """Whether a cell that is no step can be run here all the same."""
        return is_declarative(cell.tree) or session_magic(cell.tree)

    def _last_source(self, cell: Cell) -> str | None:  # noqa: ARG002 - asked of the id in the file
        """What this cell was at its last completed run, as far as the id in the notebook's file tells."""
        home, cell_id = self.home, self.cell_id
        if home is None or cell_id is None:
            return None
        found = None
        for stored in home.store.journal.read(home.record.execution_id):
            details = stored.event.details
            if stored.event.kind is EventKind.SUCCEEDED and details.get("cell_id") == cell_id:
                found = str(details.get("source", ""))
        return found


class DryHooks(ShellHooks):
    """Catches the cells and lets none run but those that only declare."""

    session: DrySession

    def __init__(self, session: DrySession) -> None:
        super().__init__(session)
        self.row: dict[str, Any] = {}

    async def run_ast_nodes(self, nodelist: list[ast.stmt], cell_name: str, *args: Any, **keywords: Any) -> Any:
        """Note what `%durable` lines are for, which act, and leave them out."""
        if only_manages(nodelist):
            self._pending = None
            self.row = {"action": "manage", "reason": "it manages steps"}
            return False
        return await super().run_ast_nodes(nodelist, cell_name, *args, **keywords)

    def _replay(self, cell: Cell, plan: Plan, result: Any) -> bool | None:
        found = super()._replay(cell, plan, result)
        if found is False:
            record = plan.record
            self.row = {"action": "replay", "reason": plan.reason, "seconds": record.seconds if record else None}
            if record is not None:
                self.session.effects.made(_effects_of(record))
        return found

    def _refuse(self, cell: Cell, plan: Plan, result: Any) -> bool:  # noqa: ARG002 - no error is shown
        waits = self._only_unknown(cell, plan)
        self._leave_out(cell, plan)
        if self.session.is_new:  # nothing has ever run: there is nothing to decide
            self.row = {"action": "run", "cause": "new", "reason": self._why(cell)}
            cell.report = Report("not_durable", plan.reason)
            return False
        self.row = {
            "action": "decide",
            "sure": not waits,
            "reason": plan.reason if not waits else _reason(waits),
            "difference": list(plan.difference),
        }
        cell.report = Report("not_durable", plan.reason)
        return False

    async def _run(self, cell: Cell, plan: Plan, run: Callable[[], Awaitable[bool]], result: Any, backoff: Any) -> bool:
        session = self.session
        if plan.kind == "declare" or (plan.kind == "track" and session.declares(cell) and cell.options.on is None):
            raised = await super()._run(cell, plan, run, result, backoff)
            assert cell.reads is not None
            session.effects.made(("name", name) for name in cell.reads.binds)
            reason = plan.reason if plan.kind == "declare" else "it only declares"
            self.row = {"action": "declare", "reason": reason}
            return raised
        unknown, cause = self._only_unknown(cell, plan), self._cause(cell, plan)
        self._leave_out(cell, plan)
        record = plan.record
        self.row = {
            "action": "run" if cell.managed else "ordinary",
            "cause": cause,
            "sure": not unknown,
            "reason": _reason(unknown) if unknown else self._why(cell),
            "difference": [] if unknown else list(plan.difference),
            "seconds": record.seconds if record is not None else None,
        }
        cell.report = Report("not_durable", plan.reason)
        return False

    def _cause(self, cell: Cell, plan: Plan) -> Cause:
        record = plan.record
        if not cell.managed or cell.options.mode == "always":
            return ""
        if record is None:
            return "new" if plan.reason in (NEVER_RAN, "there is no store") else "changed"
        again = record.runs_again is not None and self.session.planner.differs(cell, record) is None
        return "not storable" if again else "changed"

    def _why(self, cell: Cell) -> str:
        return cell.reason if self.session.home is not None else (self.session.no_home or cell.reason)

    def _only_unknown(self, cell: Cell, plan: Plan) -> list[Difference]:
        """The differences, when all of them are about what cells that were left out would make."""
        if plan.record is None or plan.record.runs_again is not None:
            return []
        found = list(compare(plan.record.inputs, self.session.planner._lookup(cell)))
        return found if all(each.current.version == _UNKNOWN for each in found) else []

    def _leave_out(self, cell: Cell, plan: Plan) -> None:
        """What the cell would change is unknown, or would be as it was."""
        session = self.session
        effects = session.effects
        cell.reads = analyse(cell.tree, self.shell.user_ns, session.tracker.functions_of)
        places = {("name", name) for name in cell.reads.binds | cell.reads.deletes}
        record = plan.record
        if record is not None and record.runs_again is None:
            places |= set(_effects_of(record))
        effects.made(places)
        if record is not None and record.runs_again is not None and session.planner.differs(cell, record) is None:
            effects.same |= places
            self._set_up(cell, record)
            return
        for place in places:
            effects.unknown[place] = cell.label
        for target in cell.reads.set_up:
            effects.unknown["setup", target.partition(".")[0]] = cell.label

    def _set_up(self, cell: Cell, record: Record) -> None:
        """A set-up cell runs every time, with the same effect while its inputs are the same."""
        assert cell.reads is not None
        mark = fingerprint(record.inputs)
        for target in cell.reads.set_up:
            module = target.partition(".")[0]
            self.session.book.setups[module] = digest(self.session.book.setups.get(module, ""), mark)


def _effects_of(record: Record) -> Iterable[tuple[str, str]]:
    """What a recorded run changed, as kind and key of inputs."""
    names = record.manifest["names"]
    for name, _ in record.versions():
        yield "name", name
    for name in names["deleted"]:
        yield "name", name
    for key in names["process"]:
        yield "process", key
    for state in states_of(record.files):
        for kind in ("file", "missing"):
            yield kind, state.key


def _reason(differences: list[Difference]) -> str:
    first = differences[0]
    what = {"name": first.key, "file": f"the file {first.key}"}.get(first.kind, f"{first.key} ({first.kind})")
    return f"it reads {what}, which {first.current.origin!r} makes anew"


# --- a kernel without channels ---------------------------------------------------------------------------------------


class _Silent(Wire):
    """Makes messages and sends none."""

    def send(  # type: ignore[override]
        self,
        stream: Any,  # noqa: ARG002 - nothing is sent
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        **_: Any,
    ) -> Any:
        return msg_or_type if isinstance(msg_or_type, dict) else self.msg(msg_or_type, content=content, parent=parent)


def _kernel() -> Any:
    config = Config()
    config.HistoryManager.enabled = False
    main = SimpleNamespace(parent_thread=threading.main_thread(), manager=None)
    return IPythonKernel(  # type: ignore[no-untyped-call]
        config=config,
        session=_Silent(key=b"", signature_scheme="hmac-sha256", username="plan"),
        shell_channel_thread=main,
        iopub_socket=SimpleNamespace(),
        log=logging.getLogger("durable_nb.plan"),
    )


def plan_cells(cells: Iterable[Mapping[str, Any]], *, every_cell: bool) -> list[dict[str, Any]]:
    """Go through the cells; one row for each."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    kernel = _kernel()
    session = DrySession(kernel.shell, kernel, every_cell=every_cell)
    hooks = DryHooks(session)
    hooks.install()
    kernel.shell.register_magics(DurableMagics(kernel.shell, hooks))
    rows = []
    for number, cell in enumerate(cells, start=1):
        source = str(cell["source"])
        session.cell_id, hooks.row = cell.get("id"), {}
        if not source.strip():
            hooks.row = {"action": "declare", "reason": "it is empty"}
        elif "%load_ext durable_nb" in source and source.strip().startswith("%load_ext"):
            hooks.row = {"action": "declare", "reason": "it loads the extension"}
        else:
            loop.run_until_complete(_send(kernel, hooks, source, cell.get("metadata") or {}))
        label = session.done[-1].label if session.done else ""
        rows.append(_row(number, cell, hooks.row, label))
    session.close()
    return rows


async def _send(kernel: Any, hooks: DryHooks, source: str, metadata: Mapping[str, Any]) -> None:
    request = kernel.session.msg("execute_request", {"code": source}, metadata=dict(metadata))
    kernel.set_parent([b"plan"], request)
    await hooks.do_execute(source, False, True, None, False, cell_meta=dict(metadata), cell_id=None)


def _row(number: int, cell: Mapping[str, Any], found: Mapping[str, Any], label: str) -> dict[str, Any]:
    lines = [line.strip() for line in str(cell["source"]).splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "(empty cell)")
    if not found:  # IPython had an error to show before the cell would have run
        found = {"action": "run", "cause": "new", "reason": "it is not valid Python, and will fail"}
        label = first
    elif found.get("action") == "manage" or not label:
        label = first
    return {
        "number": number,
        "cell_id": cell.get("id"),
        "label": label,
        "sure": True,
        "difference": [],
        "seconds": None,
        **found,
    }


def main() -> None:
    """Answer the task on stdin. What imports print goes nowhere: only the answer is written to stdout."""
    task = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        sys.stdout = nowhere
        if "" not in sys.path:
            sys.path.insert(0, "")
        json.dump(plan_cells(task["cells"], every_cell=bool(task["every_cell"])), answer)


if __name__ == "__main__":
    main()
