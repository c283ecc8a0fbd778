"""Between IPython and the session: where a cell is caught, and what is run in its place.

Every cell, sync or async, passes through `shell.run_cell_async`, which compiles it and then calls
`shell.run_ast_nodes`. Both are replaced on the instance, so that the durable kernel and `%load_ext` on a plain one are
the same code:

- `run_cell_async` takes the magic's line off a `%%durable_step` cell, so that the body is what IPython compiles, shows
  in tracebacks and keeps in `In`;
- `run_ast_nodes` is where the cell would run. Here the session decides: the statements run, in one or more attempts, or
  the checkpoint is given back instead of them. History, prompts, events and hooks stay IPython's own.

The cell ends in `kernel.do_execute`, after the post-execute hooks (inline figures are shown there): only then is it
committed, and only then does the reply go out.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from durable_nb.cells import MagicCall, StepOptions, as_magic, parse_comment, parse_line_statement, parse_tags
from durable_nb.exceptions import StepTimeoutError, ValidationError
from durable_nb.notebook._attempts import attempt, backoff_of, held_traceback, pause
from durable_nb.notebook._audits import Audits
from durable_nb.notebook._badge import Badges
from durable_nb.notebook._cell import Cell, Marked, Report, Request, marked, message_id
from durable_nb.notebook._commit import Committer
from durable_nb.notebook._errors import (
    CannotTravelError,
    ExecutorError,
    LostValueError,
    StepInterruptedError,
    WorkerLostError,
)
from durable_nb.notebook._interrupts import deferred_interrupts, held_interrupts
from durable_nb.notebook._line import LineStep
from durable_nb.notebook._plan import Plan
from durable_nb.notebook._replay import CannotReplayError, replay
from durable_nb.notebook._session import Session

_COMM = ("comm_open", "comm_msg", "comm_close")
_LOOKING = ("do_complete", "do_inspect", "do_debug_request")
_BLIND_COMMANDS = frozenset({"debugInfo", "initialize", "disconnect"})
"""What a front end asks of the debugger before anybody debugs."""
_PATCHED = ("run_cell_async", "run_ast_nodes", "should_run_async")


class ShellHooks:
    """Catches the cells of one shell for one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shell, self.kernel = session.shell, session.kernel
        self._committer = Committer(session)
        self._audits = Audits(session)
        self._badges = Badges(session)
        self._pending: Request | None = None
        self._running: Cell | None = None
        self._reports: dict[str, Report] = {}
        self._asking: Any = None
        """The view of a step that waits for a decision."""
        self._original = {name: getattr(self.shell, name) for name in _PATCHED}
        self._do_execute = self.kernel.do_execute
        self._finish_metadata = self.kernel.finish_metadata
        self._getpass = self.kernel.getpass
        self._held = ExitStack()
        self._pause: float = getattr(self.kernel, "_execute_sleep", 0.0)
        """Seconds that ipykernel sleeps before each reply, for the outputs to be there before it."""
        self._looking = {name: getattr(self.kernel, name) for name in _LOOKING}

    def install(self) -> None:
        """Put the hooks in place."""
        for name in _PATCHED:
            setattr(self.shell, name, getattr(self, name))
        self.kernel.do_execute = self.do_execute
        self.kernel.finish_metadata = self.finish_metadata
        for name in _COMM:
            self.kernel.shell_handlers[name] = self._outside(self.kernel.shell_handlers[name])
        self.kernel.getpass = self.getpass
        for name in _LOOKING:
            setattr(self.kernel, name, getattr(self, name))
        self._badges.install()
        # The shell puts `get_ipython` among the builtins for each cell and takes it out again. Each time that undoes
        # what the interpreter has learnt about the uses of builtins in all modules; so it stays while we are here.
        self._held.enter_context(self.shell.builtin_trap)
        self.session.waits = self._badges.waits

    def remove(self) -> None:
        """Take them away."""
        for name in _PATCHED:
            self.shell.__dict__.pop(name, None)
        for name in ("do_execute", "finish_metadata", "getpass", *_LOOKING):
            self.kernel.__dict__.pop(name, None)
        for name in _COMM:
            self.kernel.shell_handlers[name] = self.kernel.shell_handlers[name].__wrapped__
        self._sleep(self._pause)
        self._held.close()
        self.session.waits = None
        self._badges.remove()

    def getpass(self, *args: Any, **keywords: Any) -> Any:
        """Ask for a password as ever, and remember that the cell knows one: nothing of it is stored."""
        if self._running is not None:
            self._running.asked_secret = True
        return self._getpass(*args, **keywords)

    def do_complete(self, code: str, cursor_pos: int | None) -> Any:
        """Complete as ever; the names that can be meant are there."""
        self.session.waiting.completing(code, len(code) if cursor_pos is None else cursor_pos)
        return self._looking["do_complete"](code, cursor_pos)

    def do_inspect(self, code: str, *args: Any, **keywords: Any) -> Any:
        """Inspect as ever; the names that can be meant are there."""
        self.session.waiting.inspecting(code)
        return self._looking["do_inspect"](code, *args, **keywords)

    async def do_debug_request(self, msg: Any) -> Any:
        """Answer a debugger, which looks at what it likes."""
        if msg.get("command") not in _BLIND_COMMANDS:
            self.session.waiting.end()
        return await self._looking["do_debug_request"](msg)

    def line_step(self, line: str) -> Any:
        """`%durable_step` inside a larger cell: the statement is a step of its own, unless its cell is one already."""
        options, statement = parse_line_statement(line)
        outer = self._running
        request = Request(
            raw=line,
            body=statement,
            transformed=self.shell.transform_cell(statement),
            options=options,
            marked=True,
            cell_id=None,
            in_loop=False,
            parent=self.kernel.get_parent("shell"),
        )
        return LineStep(self.session, self._committer, self.shell, outer, request).run()

    def _outside(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """A handler of messages that run the user's callbacks between cells, or while an async cell awaits."""

        @functools.wraps(handler)
        def handle(*args: Any, **keywords: Any) -> Any:
            if not self.session.buttons.is_ours(args[-1] if args else None):
                self.session.note_outside()
                self.session.waiting.load_all()
            return handler(*args, **keywords)

        return handle

    # --- around a cell ---------------------------------------------------------------------------------------------

    async def do_execute(self, code: str, silent: bool, *args: Any, **keywords: Any) -> Any:
        """Run a request; when its cell was a step, end it before the reply goes out."""
        waiting = self.session.waiting
        if silent or not _in_main_thread() or self._running is not None:
            self.session.note_outside()
            waiting.beside(code)
            self._sleep(self._pause)
            return await self._do_execute(code, silent, *args, **keywords)
        if _expressions(args, keywords):  # evaluated after the cell, by IPython
            waiting.end()
        try:
            return await self._do_execute(code, silent, *args, **keywords)
        finally:
            self._end()

    def _end(self) -> None:
        cell, self._running, self._pending = self._running, None, None
        if cell is None:
            self._sleep(self._pause)
            return
        view = cell.view if cell.view is not self._asking else None
        self.session.leave(cell)
        with deferred_interrupts():
            report = cell.report or self._ended(cell)
            cell.report = report
            if view is not None:
                view.close()
            self.session.ended(cell)
            self._tell(self._badges.ended, cell)
            if cell.managed or self.session.every_cell:
                self._reports[message_id(cell.request.parent)] = report
            self._sleep(self._pause - (time.perf_counter() - self.session.tee.last_sent))

    def _sleep(self, seconds: float) -> None:
        """Have ipykernel sleep for what is left of its pause: a step's outputs are sent before it is committed."""
        rest = max(seconds, 0.0)
        if rest != getattr(self.kernel, "_execute_sleep", rest):
            self.kernel._execute_sleep = rest

    def _ended(self, cell: Cell) -> Report:
        """The report of a cell whose statements ran."""
        try:
            if cell.view is not None:
                cell.view.saving()
            if cell.raised:
                return self._committer.failed(cell, cell.error)
            return self._committer.finish(cell)
        except Exception as exc:  # noqa: BLE001 - our own fault: it costs the checkpoint, never the user's cell
            self.session.fault(cell, exc)
            return Report("not_durable", f"durable_nb failed on it: {type(exc).__name__}: {exc}")

    def finish_metadata(self, parent: Any, metadata: dict[str, Any], reply_content: Any) -> dict[str, Any]:
        """Add the report to the reply's metadata."""
        found: dict[str, Any] = self._finish_metadata(parent, metadata, reply_content)
        report = self._reports.pop(message_id(parent), None)
        if report is not None:
            found["durable_nb"] = report.as_metadata()
        return found

    # --- IPython's own calls ---------------------------------------------------------------------------------------

    def should_run_async(self, raw_cell: str, **keywords: Any) -> bool:
        """Decide by the body: the magic's line is no Python."""
        step = marked(raw_cell)
        if step is None:
            return self._awaits(raw_cell, keywords)
        if step.options is not None and step.options.on is not None:  # the worker awaits; here nothing does
            return False
        try:
            transformed = self.shell.transform_cell(step.body)
        except SyntaxError:  # the user's, shown when the cell is compiled
            return False
        return _may_await(transformed) and bool(
            self._original["should_run_async"](step.body, transformed_cell=transformed)
        )

    def _awaits(self, raw_cell: str, keywords: dict[str, Any]) -> bool:
        """IPython's own answer, which it finds by compiling the cell, three times a cell; most cells need no asking."""
        if not _may_await(keywords.get("transformed_cell")) or self._goes_elsewhere(raw_cell):
            return False
        return bool(self._original["should_run_async"](raw_cell, **keywords))

    def _goes_elsewhere(self, raw_cell: str) -> bool:
        """Whether a cell without a magic asks for a cluster: the worker awaits then."""
        try:
            options = parse_comment(raw_cell) if self.session.every_cell else None
        except ValidationError:  # told when the cell is run
            return False
        return options is not None and options.on is not None

    async def run_cell_async(
        self, raw_cell: str, store_history: bool = False, silent: bool = False, *args: Any, **keywords: Any
    ) -> Any:
        """Note what was asked, and hand IPython the body."""
        original = self._original["run_cell_async"]
        if silent or self._running is not None or self._pending is not None or not _in_main_thread():
            return await original(raw_cell, store_history, silent, *args, **keywords)
        step = marked(raw_cell)
        if step is not None:
            try:
                keywords["transformed_cell"] = self.shell.transform_cell(step.body)
            except SyntaxError:
                keywords["transformed_cell"] = step.body  # IPython compiles it and shows the error at its line
            keywords["preprocessing_exc_tuple"] = None
        transformed = keywords.get("transformed_cell")
        try:
            options = self._options(raw_cell, step, keywords.get("cell_meta"))
        except ValidationError as exc:
            from IPython.core.error import UsageError

            return await self._refuse_options(raw_cell, store_history, UsageError(f"durable_nb: {exc}"), keywords)
        self.session.storing_history = store_history
        self._pending = Request(
            raw=raw_cell,
            body=step.body if step else raw_cell,
            transformed=transformed if isinstance(transformed, str) else raw_cell,
            options=options,
            marked=step is not None,
            cell_id=keywords.get("cell_id"),
            # A tag may have said where it runs: then the kernel has made a task, in which nothing is awaited.
            in_loop=options.on is None
            and self.should_run_async(
                raw_cell,
                transformed_cell=transformed,
                preprocessing_exc_tuple=keywords.get("preprocessing_exc_tuple"),
            ),
            parent=self.kernel.get_parent("shell") if hasattr(self.kernel, "get_parent") else self.shell.parent_header,
        )
        try:
            return await original(raw_cell, store_history, silent, *args, **keywords)
        finally:
            self._pending = None

    def _options(self, raw_cell: str, step: Marked | None, meta: Any) -> StepOptions:
        if step is not None:
            if step.options is None:
                raise step.error or ValidationError("the options of %%durable_step are wrong")
            return step.options
        if not self.session.every_cell:
            return StepOptions()
        tags = meta.get("tags", []) if isinstance(meta, dict) else []
        return StepOptions().merged(parse_tags(tags)).merged(parse_comment(raw_cell))

    async def _refuse_options(
        self, raw_cell: str, store_history: bool, error: Exception, keywords: dict[str, Any]
    ) -> Any:
        """Bad options: one line on stderr, an error reply, and nothing has run."""

        async def refuse(*_: Any, result: Any = None, **__: Any) -> bool:
            return _show(self.shell, result, error)

        keywords["transformed_cell"], keywords["preprocessing_exc_tuple"] = "pass\n", None
        self.shell.run_ast_nodes = refuse
        try:
            return await self._original["run_cell_async"](raw_cell, store_history, False, **keywords)
        finally:
            self.shell.run_ast_nodes = self.run_ast_nodes

    async def run_ast_nodes(self, nodelist: list[ast.stmt], cell_name: str, *args: Any, **keywords: Any) -> Any:
        """Run the statements, or give a checkpoint back instead."""
        original = self._original["run_ast_nodes"]
        request, self._pending = self._pending, None
        if request is None or self._running is not None or only_manages(nodelist):
            return await original(nodelist, cell_name, *args, **keywords)

        async def run() -> bool:
            # IPython appends to the list for some settings, so that each attempt gets its own.
            return bool(await original(list(nodelist), cell_name, *args, **keywords))

        result = keywords.get("result")
        if self._asking is not None:
            self._asking.close()
            self._asking = None
        try:
            with held_interrupts() as held:
                cell = self.session.prepare(request, ast.Module(list(nodelist), []))
                self._running = cell
                cell.filename = cell_name
                backoff = backoff_of(request.options, self.shell.user_ns)
                plan = cell.plan = self.session.plan(cell)
        except ValidationError as exc:
            from IPython.core.error import UsageError

            self._running = None
            return _show(self.shell, result, UsageError(f"durable_nb: {exc}"))
        except Exception as exc:  # noqa: BLE001 - our own fault never keeps the user's cell from running
            self._running = None
            self.session.fault(None, exc)
            if request.options.on is not None:  # it does not run here instead
                return _show(
                    self.shell, result, CannotTravelError(str(request.options.name), request.options.on, str(exc))
                )
            if request.options.at_most_once:  # it may have run already: what cannot be decided is not run
                refusal = Plan("refuse", f"whether it was started cannot be known ({exc})")
                return _show(self.shell, result, StepInterruptedError.of(request.options.name or "", refusal))
            return await run()
        if held.came:
            return self._interrupted(cell, result, KeyboardInterrupt())
        if plan.kind == "replay":
            replayed = self._replay(cell, plan, result)
            if replayed is not None:
                return replayed
        elif plan.kind == "refuse":
            return self._refuse(cell, plan, result)
        return await self._run(cell, plan, run, result, backoff)

    def _interrupted(self, cell: Cell, result: Any, stop: BaseException) -> bool:
        """End a cell that somebody stopped before its first statement."""
        cell.report = Report("failed", "it was interrupted before it started", attempt=cell.attempt)
        return _stopped(self.shell, result, stop)

    # --- replay, refuse, run ---------------------------------------------------------------------------------------

    def _replay(self, cell: Cell, plan: Plan, result: Any) -> bool | None:
        """Give the checkpoint back. None: it cannot be, and the cell has to run."""
        if plan.record is None:  # a person said that an at-most-once step happened; there is nothing to give back
            from durable_nb.notebook._steps_view import show_final

            show_final(self.session, cell)
            cell.report = Report("replayed", plan.reason)
            return False
        try:
            with deferred_interrupts():
                cell.report = replay(self.session, cell, plan.record)
        except CannotReplayError as exc:
            if cell.options.at_most_once:
                return self._refuse(cell, Plan("refuse", f"it is done, and {exc}", verdict=plan.verdict), result)
            if plan.record.runs_again is None:
                self.session.warn(f"cell {cell.label!r} runs again: {exc}")
            cell.reason = str(exc)
            return None
        self._audits.consider(cell)
        return False

    def _refuse(self, cell: Cell, plan: Plan, result: Any) -> bool:
        """An at-most-once step that needs a decision: say why and what to type."""
        self._ask(cell, plan)
        error = StepInterruptedError.of(cell.options.name or cell.label, plan)
        cell.report = Report("failed", str(error), difference=plan.difference, decision=True)
        return _show(self.shell, result, error)

    def _ask(self, cell: Cell, plan: Plan) -> None:
        """Show the decision that a step needs; its buttons act until the next cell runs."""
        from durable_nb.notebook._steps_view import view_of

        if cell.view is not None:  # it was shown already, and is refused only now
            cell.view.close()
            return
        cell.view = self._asking = view_of(self.session, cell, None)
        if self._asking is not None:
            self._asking.ask(plan)

    async def _run(self, cell: Cell, plan: Plan, run: Callable[[], Awaitable[bool]], result: Any, backoff: Any) -> bool:
        """Run the statements in as many attempts as the strategy allows."""
        session = self.session
        try:
            with held_interrupts() as held:
                session.analyse(cell)
                resumed = session.resume(cell, plan, backoff)
            if held.came:
                raise KeyboardInterrupt
            view = cell.view = self._view(cell, backoff)
            if view is not None:
                view.open()
            if resumed is not None:
                await _wait(cell, resumed, None)
            run = self._elsewhere(cell, result) or run
            with held_interrupts() as held:
                session.start(cell, plan)
            if held.came:
                raise KeyboardInterrupt
        except (KeyboardInterrupt, asyncio.CancelledError) as stop:
            return self._interrupted(cell, result, stop)
        except (LostValueError, CannotTravelError, ExecutorError) as exc:
            cell.report = Report("failed", str(exc), attempt=cell.attempt)
            return _show(self.shell, result, exc)
        except Exception as exc:  # noqa: BLE001 - our own fault never keeps the user's cell from running
            if cell.options.at_most_once:
                return self._refuse(cell, Plan("refuse", str(exc), verdict=plan.verdict), result)
            session.fault(cell, exc)
            session.leave(cell)
            reason = f"durable_nb failed on it: {type(exc).__name__}: {exc}"
            if cell.options.on is not None:  # but not here instead of there
                cell.report = Report("failed", reason, attempt=cell.attempt)
                return _show(self.shell, result, CannotTravelError(cell.label, cell.options.on, reason))
            cell.report = Report("not_durable", reason)
            return await run()
        session.tee.begin(message_id(cell.request.parent))
        self._tell(self._badges.started, cell)
        run = _watched(cell, run)
        if view is not None:
            view.running()
        if backoff is None and cell.options.timeout is None:
            return self._note(cell, await run(), result)
        return await self._attempts(cell, plan, run, result, backoff)

    def _elsewhere(self, cell: Cell, result: Any) -> Callable[[], Awaitable[bool]] | None:
        """The body of a cell that runs on a cluster; None for all others."""
        if cell.options.on is None:
            return None
        from durable_nb.notebook._remote import Trip

        trip = Trip(self.session, cell)
        return lambda: trip.run(result)

    def _tell(self, tell: Callable[[Cell], None], cell: Cell) -> None:
        """Tell the pages that look, if any."""
        self.session.current = None if cell.report is not None else cell
        if (cell.request.cell_id is None and self.session.changed is None) or not cell.managed:
            return
        try:
            if cell.request.cell_id is not None:
                tell(cell)
            if self.session.changed is not None:
                self.session.changed()
        except Exception as exc:  # noqa: BLE001 - our own fault never costs the user's cell anything
            self.session.fault(None, exc)

    def _view(self, cell: Cell, backoff: Any) -> Any:
        """What the cell shows of itself; only cells that are marked or may be tried again do."""
        if not (cell.request.marked or cell.options.retries or cell.options.on):
            return None
        from durable_nb.notebook._steps_view import view_of

        return view_of(self.session, cell, backoff)

    def _note(self, cell: Cell, raised: bool, result: Any) -> bool:
        cell.raised = raised
        cell.error = _error_of(result)
        cell.shown_result = getattr(result, "result", None) is not None
        if cell.shown_result:
            self.session.results.take(cell.operation, self.session.result_number())
        return raised

    async def _attempts(
        self, cell: Cell, plan: Plan, run: Callable[[], Awaitable[bool]], result: Any, backoff: Any
    ) -> bool:
        session, in_loop = self.session, cell.request.in_loop
        rollback = session.rollback(cell) if backoff is not None else None
        if backoff is not None and not session.storing_history:
            session.tee.hold()  # nbval, which does not take outputs away again: it sees the last attempt's only
        while True:
            with held_traceback(self.shell) as show_traceback:
                # On a cluster the time begins when the body does.
                seconds = cell.options.timeout if cell.options.on is None else None
                raised, timed_out = await attempt(run, cell.label, seconds, in_loop=in_loop)
            error = _error_of(result)
            if timed_out and isinstance(error, asyncio.CancelledError):  # how a task is stopped
                error = result.error_in_exec = StepTimeoutError(cell.label, cell.options.timeout or 0.0)
            if not raised or error is None:
                session.tee.release()
                return self._note(cell, raised, result)
            blocked = None
            if (
                backoff is not None
                and rollback is not None
                and result.error_before_exec is None
                and not _is_final(cell, error)
                and backoff.allows(error, cell.attempt)
            ):
                blocked = rollback.undo()
                if blocked is None:
                    due = time.time() + backoff.delay(cell.attempt)
                    if await self._wait_for_next(cell, plan, error, due, backoff, result):
                        continue
                    session.tee.release()
                    return self._note(cell, True, result)
            session.tee.release()
            show_traceback(error)
            if blocked is not None:
                session.warn(f"cell {cell.label!r} is not tried again: {blocked}")
            return self._note(cell, True, result)

    async def _wait_for_next(
        self, cell: Cell, plan: Plan, error: BaseException, due: float, backoff: Any, result: Any
    ) -> bool:
        """Record the failed attempt, count down, start the next; False when an interrupt ended it."""
        session = self.session
        session.attempt_failed(cell, error, due)
        view = cell.view
        if (view is None or not view.live) and not session.tee.is_holding:
            session.tell_retry(cell, error, due, backoff.max_attempts)
        try:
            await _wait(cell, due, error)
        except BaseException as stop:  # noqa: BLE001 - KeyboardInterrupt or CancelledError: shown as the cell's own end
            _stopped(self.shell, result, stop)
            return False
        result.error_in_exec = None
        cell.attempt = 1 if view is not None and view.anew else cell.attempt + 1
        if session.tee.is_holding:
            session.tee.drop()
        else:
            session.tee.clear(cell.request.parent)
            if view is not None:
                view.shown_again()
        if view is not None:
            view.running()
        self._tell(self._badges.started, cell)
        session.attempt_started(cell, plan)
        return True


def _is_final(cell: Cell, error: BaseException) -> bool:
    """Whether another attempt on the cluster is no cure, or would be a second beginning."""
    if isinstance(error, CannotTravelError | ExecutorError):
        return True
    return cell.options.at_most_once and isinstance(error, WorkerLostError)


def _may_await(transformed: object) -> bool:
    """Whether Python text has one of the words without which nothing awaits; True when it is not known."""
    return not isinstance(transformed, str) or "await" in transformed or "async" in transformed


def _watched(cell: Cell, run: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """The body, during which the Cancel button of the cell's view interrupts; the view may come while it runs."""

    async def body() -> bool:
        cell.task = asyncio.current_task() if cell.request.in_loop else None
        if cell.view is not None:
            cell.view.enter_body()
        try:
            return await run()
        finally:
            if cell.view is not None:
                cell.view.leave_body()

    return body


async def _wait(cell: Cell, due: float, error: BaseException | None) -> None:
    """Wait for the next attempt, which a button may bring about or call off."""
    if cell.view is None:
        await pause(due, in_loop=cell.request.in_loop)
    else:
        await cell.view.wait(due, error)


def _error_of(result: Any) -> BaseException | None:
    if result is None:
        return None
    found: BaseException | None = result.error_before_exec or result.error_in_exec
    return found


def _show(shell: Any, result: Any, error: Exception) -> bool:
    """End the cell with this error, shown in its own words."""
    if result is not None:
        result.error_in_exec = error
    shell.showtraceback((type(error), error, None))
    return True


def _stopped(shell: Any, result: Any, stop: BaseException) -> bool:
    """End the cell because somebody asked to stop; no frame of ours says anything about that."""
    result.error_in_exec = stop
    shell.showtraceback((type(stop), stop, None), exception_only=True)
    return True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _expressions(args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The `user_expressions` of a request, as `do_execute` gets them."""
    return keywords.get("user_expressions") or (args[1] if len(args) > 1 else None)


def only_manages(nodelist: list[ast.stmt]) -> bool:
    """A cell of nothing but `%durable …` lines manages steps, and is none."""
    calls: list[MagicCall | None] = [as_magic(node.value) if isinstance(node, ast.Expr) else None for node in nodelist]
    return bool(calls) and all(call is not None and call.name == "durable" for call in calls)
