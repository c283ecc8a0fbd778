"""`durable-nb resolve`: decide about an at-most-once step, from outside the notebook (for CI, where nobody types)."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from durable_nb.cli._options import EXECUTION_HELP, StoreOption

if TYPE_CHECKING:
    from durable_nb.history import ExecutionView, OperationView
    from durable_nb.runtime import Store

__all__ = ["register", "resolve"]

_MEANS = {
    "keep": "its recorded result stays valid as the cell is now",
    "again": "it runs once more when its cell is run",
    "succeeded": "it counts as done; its cell is not run",
    "failed": "it counts as failed; its cell raises until you decide --again",
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="resolve")(resolve)


def resolve(
    execution: Annotated[str, typer.Argument(metavar="EXECUTION", help=EXECUTION_HELP)],
    step: Annotated[str, typer.Argument(metavar="NAME", help="The step's name.")],
    store: StoreOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the result although the inputs changed.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run it once more.")] = False,
    succeeded: Annotated[bool, typer.Option("--succeeded", help="It happened, though nobody recorded it.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="It did not happen.")] = False,
    result: Annotated[
        str | None, typer.Option("--result", metavar="JSON", help="With --succeeded: what a handler's step returned.")
    ] = None,
) -> int:
    """Decide how an at-most-once step goes on that was interrupted, or was done with other inputs."""
    from durable_nb.cli._exit import Complaint
    from durable_nb.cli._handlers import json_argument
    from durable_nb.cli._places import find_execution, opened, owned
    from durable_nb.history import History
    from durable_nb.sdk._once import resolve as resolve_step

    given = {"keep": keep, "again": again, "succeeded": succeeded, "failed": failed}
    decisions = [decision for decision, is_given in given.items() if is_given]
    if len(decisions) != 1:
        raise Complaint("say one of --keep, --again, --succeeded, --failed")
    decision = decisions[0]
    value = ... if result is None else json_argument(result, "--result")
    with opened(store, execution) as place:
        view = find_execution(History(place.journal), execution)
        found = [op for op in view.operations if op.name == step and op.at_most_once and op.is_cell]
        if found:
            if result is not None:
                raise Complaint("--result is for steps of handlers: a cell's step has names, not one result")
            _resolve_cell(place, view, found[-1], decision)
            meaning = _MEANS[decision]
        else:
            with owned(place.journal, view) as lease:
                meaning = resolve_step(
                    place.journal, view.record.execution_id, step, decision, lease=lease, result=value
                )
    sys.stdout.write(f"{step}: {meaning}\n")
    return 0


def _resolve_cell(place: Store, view: ExecutionView, op: OperationView, decision: str) -> None:
    from durable_nb.cli._places import owned
    from durable_nb.events import Event, EventKind

    _check(op, decision)
    note = Event(
        operation_id=op.operation_id,
        kind=EventKind.NOTE,
        type=op.type,
        sub_type=op.sub_type,
        name=op.name,
        at=time.time(),
        details={"decision": decision},
    )
    with owned(place.journal, view) as lease:
        place.journal.append(view.record.execution_id, [note], lease=lease)


def _check(op: OperationView, decision: str) -> None:
    from durable_nb.cli._exit import Complaint
    from durable_nb.events import Status

    completed = op.status is Status.SUCCEEDED
    if completed and decision in ("succeeded", "failed"):
        raise Complaint(f"step {op.name!r} is completed and needs no such decision: use --keep or --again")
    if not completed and decision == "keep":
        raise Complaint(f"step {op.name!r} has no result to keep: use --succeeded, --failed or --again")
