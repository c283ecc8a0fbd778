"""The kernel's side of the badge by each cell: what became of it, told to the pages that look.

A page with our front end part opens a channel (a comm of target `durable_nb`); for a page that has not, which cannot be
told from one that is about to, the kernel opens one when a request carries a cell id. A page that connects later, after
a reload, is told everything at once. Without a cell id nothing here is ever called.

Messages to the page: `{"kind": "cells", "cells": [...]}`, `{"kind": "plan", "rows": [...]}` and
`{"kind": "answer", "request": 3, "error": ...}`. Messages from it are presses and arrive in the channel thread
(`_buttons.py`); each is answered from a thread of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from durable_nb.exceptions import DurableExecutionsError, ValidationError
from durable_nb.notebook._buttons import TARGET
from durable_nb.notebook._cell import Cell
from durable_nb.notebook._execution import locate
from durable_nb.notebook._once import DECISIONS_AFTER

if TYPE_CHECKING:
    from durable_nb.notebook._session import Session

_STATES = {
    "executed": "durable",
    "replayed": "replayed",
    "declared": "declared",
    "not_durable": "not_storable",
    "failed": "failed",
}


class Badges:
    """Tells front ends about cells."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._comms: list[Any] = []
        self._asked = False
        self._cells: dict[str, dict[str, Any]] = {}
        self._last: dict[str, Cell] = {}
        self._lock = threading.RLock()

    def install(self) -> None:
        """Be there for pages that open a channel."""
        self._session.kernel.comm_manager.register_target(TARGET, self._opened)

    def remove(self) -> None:
        """Close the channels."""
        manager = self._session.kernel.comm_manager
        if TARGET in manager.targets:
            manager.unregister_target(TARGET, self._opened)
        for comm in self._comms:
            comm.close()
        self._comms.clear()

    # --- cells -----------------------------------------------------------------------------------------------------

    def started(self, cell: Cell) -> None:
        """The cell runs, or tries again."""
        cell_id = cell.request.cell_id
        if cell_id is None:
            return
        self._open()
        self._last[cell_id] = cell
        before = self._cells.get(cell_id, {})
        actions = ["cancel"] if cell.view is not None else []
        now = {"id": cell_id, "state": "running", "attempt": cell.attempt, "actions": actions}
        self._tell({**before, **_facts(cell), **now})

    def waits(self, cell: Cell, text: str) -> None:
        """A durable call inside the cell waits, for what `text` says; empty: it goes on. From any thread."""
        cell_id = cell.request.cell_id
        if cell_id is None or cell.report is not None:
            return
        actions = ["cancel"] if cell.view is not None else []
        now = {"id": cell_id, "state": "waiting" if text else "running", "attempt": cell.attempt, "actions": actions}
        self._tell({**self._cells.get(cell_id, {}), **_facts(cell), **now, "reason": text})

    def ended(self, cell: Cell) -> None:
        """The cell has ended."""
        cell_id, report = cell.request.cell_id, cell.report
        if cell_id is None or report is None:
            return
        self._last[cell_id] = cell
        self._open()
        self._tell(
            {
                **_facts(cell),
                "id": cell_id,
                "state": "refused" if report.decision else _STATES[report.status],
                "attempt": report.attempt,
                "reason": report.reason,
                "difference": list(report.difference or cell.difference),
                "seconds": report.seconds,
                "saved": report.saved_seconds,
                "bytes": report.nbytes,
                "at": _stored_at(cell),
                "reads": sorted(_reads(cell)),
                "writes": sorted(_writes(cell)),
                "actions": self._actions(cell),
            }
        )

    def _actions(self, cell: Cell) -> list[str]:
        report = cell.report
        assert report is not None
        if report.decision:
            answer = cell.plan.verdict.answer if cell.plan is not None and cell.plan.verdict is not None else ""
            return list(DECISIONS_AFTER.get(answer, ()))
        if cell.options.at_most_once or report.status not in ("executed", "replayed"):
            return []
        return ["rerun"]

    def _tell(self, info: dict[str, Any]) -> None:
        with self._lock:
            self._cells[info["id"]] = info
            self._send({"kind": "cells", "cells": [info]})

    # --- channels --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Offer a channel to the page that sent a cell, once."""
        if self._comms or self._asked:
            return
        self._asked = True
        from comm import create_comm

        self._keep(create_comm(target_name=TARGET, data={"kind": "hello"}))

    def _opened(self, comm: Any, _message: Any) -> None:
        self._keep(comm)
        with self._lock:
            comm.send({"kind": "cells", "cells": list(self._cells.values())})

    def _keep(self, comm: Any) -> None:
        with self._lock:
            self._comms.append(comm)
        comm.on_close(lambda _: self._closed(comm))
        self._session.buttons.listen(comm.comm_id, self._on_message)

    def _closed(self, comm: Any) -> None:
        with self._lock:
            if comm in self._comms:
                self._comms.remove(comm)
        self._session.buttons.forget(comm.comm_id)

    def _send(self, data: dict[str, Any]) -> None:
        with self._lock:
            for comm in self._comms:
                comm.send(data)

    # --- presses, in another thread --------------------------------------------------------------------------------

    def _on_message(self, data: Mapping[str, Any]) -> None:
        threading.Thread(target=self._answer, args=(dict(data),), name="durable_nb badge", daemon=True).start()

    def _answer(self, data: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"kind": "answer", "request": data.get("request"), "error": None}
        try:
            self._do(data)
        except DurableExecutionsError as exc:
            answer["error"] = str(exc)
        self._send(answer)

    def _do(self, data: Mapping[str, Any]) -> None:
        kind = data.get("kind")
        if kind == "plan":
            self._plan(data.get("cells"))
            return
        session = self._session
        cell = self._last.get(str(data.get("id")))
        if cell is None:
            raise ValidationError("this kernel has not run that cell")
        if kind == "rerun":
            session.force(cell.identity)
        elif kind == "cancel" and cell.view is not None:
            cell.view.cancel()
        elif kind == "decide" and cell.options.name is not None:
            session.decide(cell.options.name, str(data.get("decision")))
            if cell.view is not None:
                cell.view.decided(str(data.get("decision")))

    def _plan(self, cells: Any) -> None:
        """What Run All would do with the cells as the page has them, for badges before anything has run."""
        from durable_nb.foresight import foresee

        notebook = locate(self._session.shell.user_ns, os.environ)
        if notebook is None or not isinstance(cells, list):
            return
        rows = foresee(notebook.path, cells, every_cell=self._session.every_cell or None)
        told = [
            {
                "id": row.cell_id,
                "action": row.action,
                "cause": row.cause,
                "sure": row.sure,
                "reason": row.reason,
                "seconds": row.seconds,
            }
            for row in rows
        ]
        self._send({"kind": "plan", "rows": told})


def _reads(cell: Cell) -> Iterable[str]:
    """Names whose values the cell depends on."""
    if cell.reads is not None:
        return cell.reads.names
    record = cell.plan.record if cell.plan is not None else None
    return record.inputs.of("name") if record is not None else ()


def _writes(cell: Cell) -> Iterable[str]:
    """Names that the cell bound or changed."""
    record = cell.plan.record if cell.plan is not None else None
    if cell.reads is None and record is not None and record.runs_again is None:
        return [name for name, _ in record.versions()]
    return cell.wrote


def _stored_at(cell: Cell) -> float:
    """When the result was made: long ago for a replayed cell."""
    record = cell.plan.record if cell.plan is not None else None
    replayed = cell.report is not None and cell.report.status == "replayed"
    return float(record.event.at) if replayed and record is not None else time.time()


def _facts(cell: Cell) -> dict[str, Any]:
    on = {"on": cell.options.on} if cell.options.on else {}
    return {"label": cell.label, "source": cell.request.raw, "marked": cell.request.marked, **on}
