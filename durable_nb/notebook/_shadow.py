"""The process of a shadow audit: `python -m durable_nb.notebook._shadow` (see `_audits`).

Theory. A replay is right when running the cell would have given the same. To know, a process of its own goes through
the cells of the session as a fresh kernel would (`_dry_run`: checkpoints are given back, declarations run), down to the
one under audit. There it runs the cell, draws the names that the checkpoint holds, gives the checkpoint back over them,
and draws them again. What differs is what the cell does not do twice: a clock, a draw, a service, or a defect of ours.

Never audited: at-most-once cells, cells that wrote files, and cells that use the network or start processes; what the
analysis did not see of that, the audit's process refuses when it happens, and there is no verdict.

Invariant: this process owns nothing and writes nothing. The cells come as JSON on stdin, the verdict goes to stdout.
"""

from __future__ import annotations

import ast
import asyncio
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from durable_nb.cells import analyse
from durable_nb.exceptions import DurableExecutionsError
from durable_nb.notebook._cell import Cell
from durable_nb.notebook._dry_run import DryHooks, DrySession, _kernel, _send
from durable_nb.notebook._magics import DurableMagics
from durable_nb.notebook._plan import Plan
from durable_nb.notebook._world import states_of
from durable_nb.testing._portrait import portraits

_FORBIDDEN = frozenset({"network", "process"})
_REFUSED = frozenset(
    {
        "socket.connect",
        "socket.bind",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "os.forkpty",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.truncate",
        "shutil.rmtree",
    }
)


class AuditRefusedError(DurableExecutionsError):
    """Raised inside an audited cell that does more than compute."""


class _Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a kernel without channels: each text is a message, for the record of outputs."""

    encoding = "UTF-8"

    def __init__(self, kernel: Any, name: str) -> None:
        self._kernel, self._name = kernel, name

    def write(self, text: str) -> int:
        if text:
            content = {"name": self._name, "text": text}
            self._kernel.session.send(None, "stream", content, parent=self._kernel.get_parent("shell"))
        return len(text)

    def writable(self) -> bool:
        return True


class ShadowSession(DrySession):
    """A session that gives checkpoints back and owns nothing."""


class ShadowHooks(DryHooks):
    """Goes through the cells; the last one is run and compared."""

    def __init__(self, session: ShadowSession) -> None:
        super().__init__(session)
        self.target = False
        self.verdict: dict[str, Any] = {"verdict": "none", "reason": "the cell would not be replayed here"}
        self._execute: Callable[[], Awaitable[bool]] | None = None

    async def run_ast_nodes(self, nodelist: list[ast.stmt], cell_name: str, *args: Any, **keywords: Any) -> Any:
        """Remember how the last cell would run."""
        if not self.target or self._running is not None:
            return await super().run_ast_nodes(nodelist, cell_name, *args, **keywords)
        original, request, self._pending = self._original["run_ast_nodes"], self._pending, None
        if request is None:
            return False
        session = self.session
        cell = session.prepare(request, ast.Module(list(nodelist), []))
        plan = session.plan(cell)
        reason = self._not_for_audit(cell, plan)
        if reason is not None:
            self.verdict = {"verdict": "none", "reason": reason}
            return False

        async def run() -> bool:
            return bool(await original(list(nodelist), cell_name, *args, **keywords))

        await self._compare(cell, plan, run)
        return False

    def _not_for_audit(self, cell: Cell, plan: Plan) -> str | None:
        if plan.kind != "replay" or plan.record is None or plan.record.runs_again is not None:
            return "the cell would not be replayed here"
        if cell.options.at_most_once:
            return "it runs at most once"
        if states_of(plan.record.files):
            return "it writes files"
        reads = analyse(cell.tree, self.shell.user_ns, self.session.tracker.functions_of)
        forbidden = sorted(_FORBIDDEN & reads.uses)
        return f"it uses {forbidden[0]}" if forbidden else None

    async def _compare(self, cell: Cell, plan: Plan, run: Callable[[], Awaitable[bool]]) -> None:
        record = plan.record
        assert record is not None
        manifest = record.manifest
        names = [
            name for group in manifest["names"]["groups"] for name in group["names"] if not name.startswith("Out[")
        ]
        tee = self.session.tee
        tee.begin(cell.request.parent.get("header", {}).get("msg_id", ""))
        with _only_computing() as refused:
            failed = await run()
        outputs, _ = tee.end()
        if refused:
            self.verdict = {"verdict": "none", "reason": f"it uses {refused[0]}"}
            return
        live = self._drawn(names)
        super()._replay(cell, plan, None)
        stored = self._drawn(names)
        differs = [name for name in names if live.get(name) != stored.get(name)]
        if failed:
            differs.insert(0, "end: it fails")
        elif outputs != manifest["outputs"]:
            differs.append("output")
        self.verdict = {"verdict": "different" if differs else "equal", "differs": differs}

    def _drawn(self, names: Iterable[str]) -> dict[str, str]:
        namespace = self.shell.user_ns
        return portraits({name: namespace[name] for name in names if name in namespace})


class _only_computing:  # noqa: N801 - used as a context manager only
    """While it is open, events that reach outside raise, and are noted."""

    def __enter__(self) -> list[str]:
        self._noted: list[str] = []
        self._open = True
        sys.addaudithook(self._look)
        return self._noted

    def __exit__(self, *_: object) -> None:
        self._open = False  # an audit hook cannot be removed

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._open:
            return
        writes = event == "open" and isinstance(arguments[1], str) and any(sign in arguments[1] for sign in "wax+")
        if event in _REFUSED or writes:
            self._noted.append(event)
            raise AuditRefusedError(f"an audited cell must not use {event}")


def audit_last(cells: Iterable[str]) -> dict[str, Any]:
    """Go through the cells and audit the last one."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    kernel = _kernel()
    session = ShadowSession(kernel.shell, kernel, every_cell=True)
    hooks = ShadowHooks(session)
    hooks.install()
    kernel.shell.register_magics(DurableMagics(kernel.shell, hooks))
    *before, last = cells
    for source in before:
        loop.run_until_complete(_send(kernel, hooks, source, {}))
    hooks.target = True
    sys.stdout, sys.stderr = _Stream(kernel, "stdout"), _Stream(kernel, "stderr")
    loop.run_until_complete(_send(kernel, hooks, last, {}))
    session.close()
    return hooks.verdict


def main() -> None:
    """Answer the task on stdin; what the cell prints goes nowhere."""
    task = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        if "" not in sys.path:
            sys.path.insert(0, "")
        json.dump(audit_last(task["cells"]), answer)


if __name__ == "__main__":
    main()
