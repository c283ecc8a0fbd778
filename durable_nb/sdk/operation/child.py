"""`context.run_in_child_context`: a group of operations with ids of its own and one recorded result.

A result larger than a checkpoint may be is not kept: the record says so, holds a summary, and a replay runs the body
again over the children's checkpoints. Either way the value went through the serdes, so both give the same value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from durable_nb.events import EventKind, Status
from durable_nb.exceptions import ChildContextError
from durable_nb.sdk._codec import Encoded
from durable_nb.sdk._errors import build, capture, is_unrecoverable
from durable_nb.sdk.config import ChildConfig
from durable_nb.sdk.operation._body import observed
from durable_nb.sdk.operation._frame import Frame, raise_failure

if TYPE_CHECKING:
    from durable_nb.sdk.context import DurableContext

T = TypeVar("T")

REPLAY_CHILDREN = "replay_children"


def child(
    frame: Frame,
    func: Callable[[DurableContext], T],
    make_context: Callable[[], DurableContext],
    config: ChildConfig[Any],
) -> T:
    """Run a child context, or give its recorded result back."""
    recorded = frame.recorded()
    serdes = frame.serdes(config.serdes)
    rebuild = False
    if recorded is not None and recorded.status.is_terminal:
        if recorded.status is not Status.SUCCEEDED:
            raise_failure(ChildContextError, recorded)
        rebuild = bool(recorded.details.get(REPLAY_CHILDREN))
        if not rebuild:
            return cast("T", frame.result(serdes, recorded))
    if recorded is None:
        frame.state.defer(frame.event(EventKind.STARTED), frame.scope)
    context = make_context()
    try:
        raw = observed(frame, lambda: func(context), attempt=None, replay_children=rebuild)
        encoded, result = frame.encode(serdes, raw)
    except Exception as error:
        if rebuild or is_unrecoverable(error):
            raise
        failure = capture(error)
        frame.fail(failure)
        raise build(ChildContextError, failure)  # noqa: B904 - built with its cause
    if not rebuild:
        kept, details = shorten(frame, encoded, lambda: _summary(config, raw))
        frame.succeed(kept, details=details)
    return cast("T", result)


def _summary(config: ChildConfig[Any], raw: Any) -> str:
    return config.summary_generator(raw) if config.summary_generator else ""


def shorten(frame: Frame, encoded: Encoded, summary: Callable[[], str]) -> tuple[Encoded, dict[str, Any]]:
    """The payload to keep: the whole one, or a summary and the mark that replay rebuilds the value."""
    limit = frame.state.modes.payload_limit
    if encoded.encoding is not None or limit is None or len(encoded.payload) <= limit:
        return encoded, {}
    return Encoded(summary().encode("utf-8")), {REPLAY_CHILDREN: True}


def virtual_child(frame: Frame, func: Callable[[DurableContext], T], context: DurableContext) -> T:
    """Run a child context that leaves no operation of its own."""
    frame.recorded()
    try:
        result: T = func(context)
    except Exception as error:
        if is_unrecoverable(error):
            raise
        raise build(ChildContextError, capture(error))  # noqa: B904 - built with its cause
    return result


__all__ = [
    "child",
    "shorten",
    "virtual_child",
]
