"""`context.invoke`: run another function, wait for its result.

Only the wish is recorded here. The driver finds it when the handler has suspended, runs the function (a durable one
as an execution of its own), and completes the operation as the outside completes a callback.
"""

from __future__ import annotations

from typing import Any

from durable_nb.events import EventKind, Status
from durable_nb.exceptions import InvokeError, ValidationError
from durable_nb.sdk._codec import ENCODING
from durable_nb.sdk._local import Wake
from durable_nb.sdk.config import InvokeConfig
from durable_nb.sdk.operation._frame import Frame, raise_failure
from durable_nb.sdk.serdes import DEFAULT_JSON_SERDES, SerDes

FUNCTION = "function"
TENANT = "tenant_id"


def invoke(frame: Frame, function_name: str, payload: Any, config: InvokeConfig[Any, Any] | None) -> Any:
    """The result of the function registered under a name."""
    chosen: InvokeConfig[Any, Any] = config or InvokeConfig()
    if not function_name:
        raise ValidationError("invoke needs the name of a function")
    recorded = frame.recorded()
    if recorded is None:
        serdes: SerDes[Any] = chosen.serdes_payload or DEFAULT_JSON_SERDES
        encoded, _ = frame.encode(serdes, payload)
        details: dict[str, Any] = {FUNCTION: function_name}
        if chosen.tenant_id is not None:
            details[TENANT] = chosen.tenant_id
        if encoded.encoding is not None:
            details[ENCODING] = encoded.encoding
        event = frame.event(EventKind.STARTED, payload=encoded.payload, details=details)
        frame.record(event, refs=encoded.refs)
        recorded = frame.recorded()
    if recorded is not None and recorded.status is Status.STARTED and frame.state.modes.on_invoke is not None:
        frame.state.modes.on_invoke(recorded)
    while True:
        if recorded is None or recorded.status is Status.STARTED:
            frame.state.refresh()
            recorded = frame.recorded()
        if recorded is not None and recorded.status is Status.SUCCEEDED:
            return frame.result(chosen.serdes_result or DEFAULT_JSON_SERDES, recorded)
        if recorded is not None and recorded.status.is_terminal:
            raise_failure(InvokeError, recorded)
        frame.pause(Wake(operations=frozenset({frame.identifier.operation_id})))
        recorded = frame.recorded()


__all__ = ["invoke"]
