"""One statement as a step: `%durable_step` inside a larger cell.

In a cell that is a step already the statement belongs to it: it is only tried again as its options say. In any other
cell it is looked up, replayed or run, and stored like a cell of its own.
"""

from __future__ import annotations

import ast
import time
from typing import TYPE_CHECKING, Any

from durable_nb.exceptions import ValidationError
from durable_nb.notebook._attempts import Watchdog, backoff_of, pause_here
from durable_nb.notebook._cell import Cell, Request, message_id
from durable_nb.notebook._errors import StepInterruptedError
from durable_nb.notebook._plan import Plan
from durable_nb.notebook._replay import CannotReplayError, replay

if TYPE_CHECKING:
    from durable_nb.notebook._commit import Committer
    from durable_nb.notebook._session import Session


class LineStep:
    """Runs one statement; its value is the value of the magic."""

    def __init__(
        self, session: Session, committer: Committer, shell: Any, outer: Cell | None, request: Request
    ) -> None:
        self._session, self._committer, self._shell = session, committer, shell
        self._outer, self._request = outer, request
        try:
            self._tree = ast.parse(request.transformed)
        except SyntaxError as exc:
            raise ValidationError(f"%durable_step {request.body}: {exc.msg}") from exc

    def run(self) -> Any:
        """Replay or run the statement."""
        session = self._session
        backoff = backoff_of(self._request.options, self._shell.user_ns)
        if self._outer is not None and self._outer.managed:
            return self._attempts(self._outer, None, backoff)
        session.world.observer.end()  # what follows looks at files itself; the outer cell is not stored
        cell = session.prepare(self._request, self._tree)
        plan = session.plan(cell)
        if plan.kind == "refuse":
            raise StepInterruptedError.of(cell.label, plan)
        if plan.kind == "replay" and plan.record is not None:
            try:
                cell.report = replay(session, cell, plan.record, at_once=True)  # in the middle of a cell
            except CannotReplayError as exc:
                cell.reason = str(exc)
            else:
                session.ended(cell)
                return self._take_value(cell)
        return self._fresh(cell, plan, backoff)

    def _take_value(self, cell: Cell) -> Any:
        """The value of an expression, which travels under a name of ours."""
        value = self._shell.user_ns.get(_value_name(cell))
        self._session.tracker.unbind(_value_name(cell))
        return value

    def _fresh(self, cell: Cell, plan: Plan, backoff: Any) -> Any:
        from durable_nb.notebook._steps_view import show_final

        session = self._session
        show_final(session, cell)  # as a replay does
        session.analyse(cell)
        session.start(cell, plan)
        session.tee.begin(message_id(cell.request.parent))
        try:
            value = self._attempts(cell, plan, backoff)
        except BaseException as exc:
            cell.report = self._committer.failed(cell, exc)
            raise
        finally:
            session.leave(cell)
        if value is not None:
            self._shell.user_ns[_value_name(cell)] = value
        cell.report = self._committer.finish(cell)
        session.ended(cell)
        if value is not None:
            self._take_value(cell)
        return value

    def _attempts(self, cell: Cell, plan: Plan | None, backoff: Any) -> Any:
        session, attempt = self._session, 1
        rollback = session.rollback(cell) if backoff is not None and plan is not None else None
        while True:
            try:
                return self._once(cell)
            except Exception as exc:
                if backoff is None or not backoff.allows(exc, attempt):
                    raise
                blocked = rollback.undo() if rollback is not None else None
                if blocked is not None:
                    session.warn(f"{cell.label!r} is not tried again: {blocked}")
                    raise
                due = time.time() + backoff.delay(attempt)
                session.tell_retry(cell, exc, due, backoff.max_attempts)
                pause_here(due)
                attempt += 1
                if plan is not None:
                    cell.attempt = attempt

    def _once(self, cell: Cell) -> Any:
        timeout = self._request.options.timeout
        if timeout is None:
            return self._execute()
        with Watchdog(cell.label, timeout):
            return self._execute()

    def _execute(self) -> Any:
        body, namespace = list(self._tree.body), self._shell.user_ns
        last = body[-1] if body and isinstance(body[-1], ast.Expr) else None
        if last is not None:
            del body[-1]
        name = self._shell.compile.cache(self._request.transformed, self._shell.execution_count)
        if body:
            exec(compile(ast.Module(body, []), name, "exec"), namespace)  # noqa: S102 - the user's own statement
        if last is None:
            return None
        return eval(compile(ast.Expression(last.value), name, "eval"), namespace)  # noqa: S307 - as above


def _value_name(cell: Cell) -> str:
    return f"_durable_value_{cell.operation[:12]}"
