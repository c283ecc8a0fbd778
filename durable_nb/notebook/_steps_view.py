"""A step as its cell shows it: live while it runs, a line of plain HTML in the end.

Marked cells and those that may be tried again have such a line; so has a cell whose durable calls wait, from the moment
in which it comes to the first of them (`_waits_view.py`).

Three displays, chosen by who looks:

- nobody (no cell id in the request: a runner): the final line alone, at once;
- a person, and the step is replayed: the final line as well;
- a person, and the step takes a while: a widget in the place of the line, exchanged for it again when the cell ends, so
  that no saved notebook holds a widget without a kernel.

The final line depends on the cell's source only (`durable_nb.widgets.final`) and always comes first, so all of these
leave the same outputs. It is not recorded with the checkpoint: a replay shows it afresh. (That of a cell that waits is
an output like others, recorded at its place: only the run can tell that the cell waits.)

A press of a button arrives in another thread (`_buttons.py`). It may end a wait, or send SIGINT to the main thread:
only while a body runs, which a lock guards, so that a press that comes too late interrupts nothing of ours.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from durable_nb.exceptions import DurableExecutionsError
from durable_nb.notebook._attempts import Backoff, pause
from durable_nb.notebook._cell import Cell
from durable_nb.notebook._errors import error_info
from durable_nb.notebook._once import DECISIONS_AFTER
from durable_nb.widgets.final import StepFacts, step_bundle

if TYPE_CHECKING:
    from durable_nb.notebook._plan import Plan
    from durable_nb.notebook._session import Session
    from durable_nb.widgets.steps import StepWidget

_runs = itertools.count(1)

_QUICK = 0.3
"""Seconds. A step that is done sooner shows no widget: it would only flicker, and costs the page more than the step."""

LIVE = {"durable_nb": {"live": True}}
"""Metadata of a live display. Our front end part leaves the widget out when the notebook is saved meanwhile."""

_TICK = 0.25
"""Seconds between two looks at what a checkpoint has written."""

_PATIENCE = 3.0
"""Seconds after which a body that was told to stop is said not to react."""

_DECIDED = {
    "succeeded": "Decided: it happened. Run the cell again to go on.",
    "again": "Decided: it may run once more. Run the cell.",
    "failed": "Decided: it failed.",
    "keep": "Decided: the recorded result stays. Run the cell again to go on.",
}


_UNDECIDED = {
    "interrupted": "Interrupted, and not decided yet: it may have happened.",
    "changed": "Done, but with other inputs: not decided yet.",
    "failed": "It counts as failed.",
}
"""What stays in the notebook while nobody has decided; no times, as ever."""


def shows_status(cell: Cell) -> bool:
    """Whether the cell leaves a status line: marked, tried again, or run elsewhere, and not quiet."""
    options = cell.options
    return cell.managed and not options.quiet and (cell.request.marked or options.retries or options.on is not None)


def facts_of(cell: Cell, *, waits: bool = False) -> StepFacts:
    """What the source says."""
    options = cell.options
    return StepFacts(
        waits=waits,
        label=cell.label,
        named=bool(options.name),
        attempts=_attempts_asked(cell),
        at_most_once=options.at_most_once,
        timeout=options.timeout,
        on=options.on,
    )


def _attempts_asked(cell: Cell) -> int:
    from durable_nb.notebook._attempts import PRESETS

    options = cell.options
    if not options.retries:
        return 1
    if options.retry is not None:
        return PRESETS[options.retry][0]
    return 3 if options.max_attempts is None else options.max_attempts


def show_final(session: Session, cell: Cell) -> None:
    """The final line by itself."""
    if shows_status(cell):
        _publish(session, cell, dict(step_bundle(facts_of(cell))))


def view_of(session: Session, cell: Cell, backoff: Backoff | None) -> StepView | None:
    """The view of a cell that is about to run; None for most."""
    if not shows_status(cell):
        return None
    return StepView(session, cell, backoff.max_attempts if backoff is not None else 1)


def _publish(
    session: Session,
    cell: Cell,
    data: dict[str, Any],
    display_id: str = "",
    *,
    update: bool = False,
    recorded: bool = False,
    live: bool = False,
) -> None:
    content: dict[str, Any] = {"data": data, "metadata": LIVE if live else {}}
    if display_id:
        content["transient"] = {"display_id": display_id}
    kind = "update_display_data" if update else "display_data"
    session.tee.show(kind, content, cell.request.parent, recorded=recorded)


class StepView:
    """The view of one run of a step; without a cell id it is the final line, and all else does nothing."""

    def __init__(self, session: Session, cell: Cell, attempts: int, *, waits: bool = False) -> None:
        self._session, self._cell = session, cell
        self._final = step_bundle(facts_of(cell, waits=waits))
        self._recorded = waits
        self._display_id = ""
        self._widget: StepWidget | None = None
        self._showing = threading.RLock()
        self._visible = self._closed = False
        self._timer: threading.Timer | None = None
        self._clock = time.monotonic()
        self._lock = threading.Lock()
        self._in_body = False
        self._task: asyncio.Task[Any] | None = None
        self.wake = threading.Event()
        """Ends a wait between attempts."""
        self.go_on: Callable[[], None] = lambda: None
        """Ends the wait of a durable call."""
        self.cancelled = False
        self.anew = False
        self.live = cell.request.cell_id is not None
        self._state: dict[str, Any] = {
            "run": next(_runs),
            "label": cell.label,
            "phase": "running",
            "attempt": cell.attempt,
            "attempts": attempts,
            "elapsed": 0.0,
            "left": None,
            "delay": None,
            "error": None,
            "waits": "",
            **({"on": cell.options.on} if cell.options.on else {}),
            "remark": "",
            "actions": ["cancel"],
        }
        self._written = session.bytes_written()

    # --- showing ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Show the final line; when somebody looks and the step takes a while, the widget in its place."""
        if self.live:
            self._display_id = uuid.uuid4().hex
        _publish(self._session, self._cell, dict(self._final), self._display_id, recorded=self._recorded)
        self._soon()

    def shown_again(self) -> None:
        """The cell's outputs were cleared for the next attempt, and the view with them."""
        with self._showing:
            self._visible = False
            _publish(self._session, self._cell, dict(self._final), self._display_id)
        self._soon()

    def _soon(self) -> None:
        if self.live:
            self._after(_QUICK, self._appear)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer = threading.Timer(seconds, call)
        self._timer.daemon = True
        self._timer.start()

    def _appear(self) -> None:
        """Put the widget in the place of the line; from any thread."""
        with self._showing:
            if self._visible or self._closed or not self.live:
                return
            if self._widget is None:
                from durable_nb.widgets.steps import StepWidget

                # Its channel is watched before a page can know of it: no press is too early.
                key = uuid.uuid4().hex
                self._session.buttons.listen(key, self._on_press)
                self._widget = StepWidget(key, self._stamped(), self._final)
            self._visible = True
            _publish(self._session, self._cell, self._widget.bundle(), self._display_id, update=True, live=True)

    def close(self) -> None:
        """Exchange the widget for the final line."""
        self._swap(self._final)

    def _swap(self, bundle: Mapping[str, str]) -> None:
        with self._showing:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            widget, self._widget = self._widget, None
            if widget is None:
                return
            self._session.buttons.forget(widget.comm_id)
            if self._visible:
                _publish(self._session, self._cell, dict(bundle), self._display_id, update=True)
            models = (widget.model_id, widget.layout.model_id)
            widget.layout.close()
            widget.close()
            self._session.tee.widgets.forget(*models)

    def _stamped(self) -> dict[str, Any]:
        written = self._session.bytes_written() - self._written
        return {**self._state, "elapsed": time.monotonic() - self._clock, "written": written}

    def _set(self, **changes: Any) -> None:
        with self._showing:
            self._state = {**self._state, **changes}
            if self._widget is not None:
                self._widget.state = self._stamped()

    # --- what happens ----------------------------------------------------------------------------------------------

    def running(self) -> None:
        """An attempt begins."""
        self.wake.clear()
        self.anew = False
        self._set(phase="running", attempt=self._cell.attempt, left=None, delay=None, actions=["cancel"])

    async def wait(self, due: float, error: BaseException | None) -> None:
        """Count down to the next attempt.

        Args:
            due: when it may start.
            error: what ended the last one; None when that was in another kernel.

        Raises:
            KeyboardInterrupt: somebody pressed Cancel.
        """
        left = max(due - time.time(), 0.0)
        attempt = self._cell.attempt if error is not None else self._cell.attempt - 1
        actions = ["retry", "anew", "cancel"] if attempt > 1 else ["retry", "cancel"]
        self._set(
            phase="waiting",
            attempt=attempt,
            left=left,
            delay=left,
            error=self._failure(error, attempt),
            actions=actions,
        )
        self._appear()
        await pause(due, in_loop=self._cell.request.in_loop, wake=self.wake)
        if self.cancelled:
            raise KeyboardInterrupt

    def _failure(self, error: BaseException | None, attempt: int) -> dict[str, Any] | None:
        if error is None:
            return None
        lines = str(error).strip().splitlines()
        info = error_info(error, self._session.world.is_user_file)
        return {
            "attempt": attempt,
            "line": f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__,
            "traceback": "".join([*info.traceback, *traceback.format_exception_only(error)]).strip(),
        }

    def waits(self, text: str, due: float | None, actions: list[str]) -> None:
        """The body has come to a durable call that waits.

        Args:
            text: for what.
            due: when it goes on by itself, if it does.
            actions: what may be done about it.
        """
        left = None if due is None else max(due - time.time(), 0.0)
        self._set(phase="sleeping", waits=text, left=left, delay=left, actions=actions)
        self._appear()

    def saving(self) -> None:
        """The body has ended, and its checkpoint is being written."""
        self._set(phase="saving", waits="", left=None, delay=None, actions=[])
        if self._visible:
            self._after(_TICK, self._tick)

    def _tick(self) -> None:
        with self._showing:
            if not self._closed:
                self._set()
                self._after(_TICK, self._tick)

    def goes_on(self) -> None:
        """The body waits no more."""
        self._set(phase="running", waits="", left=None, delay=None, actions=["cancel"])

    def enter_body(self) -> None:
        """From here on Cancel interrupts."""
        with self._lock:
            self._in_body, self._task = True, self._cell.task

    def leave_body(self) -> None:
        """The body has ended: Cancel interrupts nothing any more."""
        try:
            with self._lock:
                self._in_body, self._task = False, None
        except KeyboardInterrupt:  # pressed in the very moment in which the body ended: too late to stop anything
            self._in_body, self._task = False, None

    # --- presses, in another thread --------------------------------------------------------------------------------

    def _on_press(self, content: Mapping[str, Any]) -> None:
        if content.get("run") != self._state["run"]:
            return
        kind = content.get("kind")
        if kind == "cancel":
            self.cancel()
        elif kind == "go":
            self.go_on()
        elif kind in ("retry", "anew"):
            self.anew = kind == "anew"
            self.wake.set()
        elif kind in _DECIDED:
            threading.Thread(target=self._decide, args=(kind,), name="durable_nb decision", daemon=True).start()

    def cancel(self) -> None:
        """Stop the body or the count-down; from any thread."""
        with self._lock:
            self.cancelled = True
            self.wake.set()
            if not self._in_body:
                return
            task = self._task
            if task is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)
            else:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        self._set(phase="stopping", actions=[])
        timer = threading.Timer(_PATIENCE, self._does_not_react)
        timer.daemon = True
        timer.start()

    def _does_not_react(self) -> None:
        if self._in_body:
            self._set(phase="stuck")

    # --- a step that waits for a person ----------------------------------------------------------------------------

    def ask(self, plan: Plan) -> None:
        """Show that an at-most-once step needs a decision, with a button for each; the cell ends meanwhile."""
        answer = plan.verdict.answer if plan.verdict is not None else ""
        self._state |= {"phase": "refused", "remark": plan.reason, "actions": list(DECISIONS_AFTER.get(answer, ()))}
        self._final = step_bundle(facts_of(self._cell), remark=_UNDECIDED.get(answer, ""))
        self.live = self.live and bool(self._state["actions"])
        self.open()
        self._appear()

    def _decide(self, decision: str) -> None:
        try:
            self._session.decide(self._cell.options.name or "", decision)
        except DurableExecutionsError as exc:
            self._set(remark=str(exc))
            return
        self.decided(decision)

    def decided(self, decision: str) -> None:
        """A person has decided; the buttons go."""
        self._swap(step_bundle(facts_of(self._cell), remark=_DECIDED[decision]))
