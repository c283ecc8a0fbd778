"""`context.wait`: let time pass, without holding anything.

The deadline is recorded at the start, so it survives the process. The end is deferred: it follows from the deadline,
and a crash that loses it loses nothing.
"""

from __future__ import annotations

from durable_nb.events import EventKind
from durable_nb.exceptions import ValidationError
from durable_nb.sdk._local import Wake
from durable_nb.sdk.constants import MAX_WAIT_SECONDS
from durable_nb.sdk.operation._frame import Frame


def check_seconds(seconds: int) -> None:
    """Raise when a wait is shorter or longer than is allowed."""
    if not 1 <= seconds <= MAX_WAIT_SECONDS:
        raise ValidationError(f"duration must be at least 1 second and at most {MAX_WAIT_SECONDS}, not {seconds}")


def wait(frame: Frame, seconds: int) -> None:
    """Return when `seconds` have passed since the first run came here."""
    with frame.waiting():
        _wait(frame, seconds)


def _wait(frame: Frame, seconds: int) -> None:
    state = frame.state
    recorded = frame.recorded()
    if recorded is None:
        due = state.clock.now() + seconds
        frame.record(frame.event(EventKind.STARTED, due=due, details={"seconds": seconds, "ends_at": due}))
        recorded = frame.recorded()
    assert recorded is not None
    while not recorded.status.is_terminal:
        ends_at = recorded.due
        asked_for = recorded.operation_id in state.retry_now
        if state.recorder.completes_waits and ends_at is not None and (ends_at <= state.clock.now() or asked_for):
            state.retry_now.discard(recorded.operation_id)
            state.defer(frame.event(EventKind.SUCCEEDED), frame.scope)
            return
        frame.pause(Wake(at=ends_at))
        recorded = frame.recorded() or recorded


__all__ = ["check_seconds", "wait"]
