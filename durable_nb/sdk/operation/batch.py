"""`context.map` and `context.parallel`: branches at once, one result.

The coordinator is the thread that asked for the batch; branches run in threads of the execution's pool. Branch i is a
child context whose id is number i (from 0) below the batch's id.

A branch is *in flight* from its start to its end; at most `max_concurrency` are, and a suspended branch still is. The
coordinator starts branches strictly in order, and goes on until the completion rule says that the batch is over or no
branch is left. While some branch runs, a suspended one is woken in the process when its time comes; when all that are
in flight are suspended, the batch itself suspends, until the earliest of their wake-ups. A branch that is run again
replays its own operations.

When the batch is over, branches that still run are orphans: their scope is closed, so their next record raises
`OrphanedChildException` in their thread. The invocation joins their threads before it ends.

Where the config names an executor, what the branches' operations call runs there (see `_calls`); the branches
themselves stay here. The end of a batch, whatever ends it, cancels what is still there.

Replay. The batch's record holds the whole result, or (above the payload limit) an envelope with the reason and the
indexes of the started branches; then results come from the branches' own records, or from running a branch again over
its children where it has none. Errors keep how to rebuild them beside the payload, under `failures`.
"""

from __future__ import annotations

import json
import logging
import queue
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from durable_nb.events import EventKind, OperationType, Status
from durable_nb.exceptions import (
    ChildContextError,
    NonDeterministicExecutionError,
    OrphanedChildException,
    SuspendExecution,
)
from durable_nb.sdk._engine import executor_for
from durable_nb.sdk._errors import Failure, capture, is_unrecoverable
from durable_nb.sdk._local import POLL_SECONDS, Wake
from durable_nb.sdk._machine import OperationState
from durable_nb.sdk.concurrency.models import BatchItem, BatchResult, CompletionPolicy, CompletionReason
from durable_nb.sdk.config import (
    BatchItemStatus,
    ChildConfig,
    CompletionConfig,
    CompletionDecision,
    CompletionItemStatus,
    NestingType,
)
from durable_nb.sdk.identifier import OperationIdentifier, OperationIdNamespace
from durable_nb.sdk.operation._calls import Calls
from durable_nb.sdk.operation._frame import Frame, failure_of, raise_failure
from durable_nb.sdk.operation.child import REPLAY_CHILDREN, child, shorten
from durable_nb.sdk.serdes import SerDes
from durable_nb.sdk.state import Progress, Scope, suspension, wake_of

if TYPE_CHECKING:
    from durable_nb.sdk.context import DurableContext

logger = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 0.5
"""In a cell, how long a wait for branches may be deaf to an interrupt that arrives without a signal."""

FAILURES = "failures"
DONE = "done"


@dataclass(frozen=True, slots=True)
class Executable:
    """A branch that may be started."""

    index: int
    name: str | None
    func: Callable[[DurableContext], Any]
    alone: Callable[[], Any] | None = None
    """The same without a context, where it uses none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What `map` and `parallel` have in common."""

    kind: str
    """`Map` or `Parallel`: the first word of the summary's type."""
    branch_sub_type: str
    max_concurrency: int | None
    completion: CompletionConfig
    serdes: SerDes[Any] | None
    item_serdes: SerDes[Any] | None
    summary_generator: Callable[[Any], str] | None
    nesting: NestingType
    executor: Any = None
    """Where bodies run; None where those of the batch around run."""


@dataclass(slots=True)
class _Outcome:
    index: int
    value: Any = None
    failure: Failure | None = None
    suspended: Wake | None = None
    orphaned: bool = False
    fatal: BaseException | None = None


@dataclass(slots=True)
class _Flight:
    """Branches by what they do now."""

    running: set[int] = field(default_factory=set)
    suspended: dict[int, Wake] = field(default_factory=dict)
    orphaned: set[int] = field(default_factory=set)
    """Ended without a result, because the batch was over: no longer in flight."""

    def __len__(self) -> int:
        return len(self.running) + len(self.suspended)


class Batch:
    """One batch in one invocation."""

    def __init__(
        self, context: DurableContext, frame: Frame, executables: Sequence[Executable], options: BatchOptions
    ) -> None:
        self.context = context
        self.frame = frame
        self.executables = executables
        self.options = options
        self.policy = CompletionPolicy.from_config(len(executables), options.completion)
        self.namespace = OperationIdNamespace(frame.identifier.operation_id)
        self.scope = Scope(frame.identifier.operation_id, frame.scope)
        self.serdes: SerDes[Any] = frame.serdes(options.serdes)
        self.items: dict[int, BatchItem[Any]] = {}
        self.failures: dict[int, Failure] = {}
        self.flight = _Flight()
        self.started = 0
        self.decision: CompletionDecision | None = None
        self.outcomes: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
        self.calls = self.calls_of(frame)
        self.stayed = 0
        """Branches that ran to their end and asked for no operation, although there is an executor."""

    # --- entry -----------------------------------------------------------------------------------------------------

    def run(self) -> BatchResult[Any]:
        """The result, from the history or from the branches."""
        recorded = self.frame.recorded()
        if recorded is not None and recorded.status.is_terminal:
            if recorded.status is not Status.SUCCEEDED:
                raise_failure(ChildContextError, recorded)
            return self.replay(recorded)
        if recorded is None:
            self.frame.state.defer(self.frame.event(EventKind.STARTED), self.frame.scope)
        self.report()
        self.frame.state.bell.listeners.add(self.news)
        try:
            self.drive()
        except KeyboardInterrupt:
            # An interrupt ends the cell now. Branches in the middle of a body can write nothing any more.
            self.frame.state.pool.abandon()
            raise
        finally:
            self.scope.close()
            if self.calls is not None:
                self.calls.cancel()
            self.frame.state.bell.listeners.discard(self.news)
        return self.finish()

    def calls_of(self, frame: Frame) -> Calls | None:
        """What runs the bodies of this batch; None runs them here."""
        label = frame.identifier.name or self.options.kind.lower()
        if self.options.executor is not None:
            executor = executor_for(self.options.executor)
            return Calls(executor, label, frame.calls, owns=executor is not self.options.executor)
        return None if frame.calls is None else Calls(frame.calls.executor, label, frame.calls)

    def news(self) -> None:
        """The outside has completed something: look whether a suspended branch waits for it."""
        self.outcomes.put(None)

    def finish(self) -> BatchResult[Any]:
        reason = self.reason()
        self.take_finished()
        for index in (*self.flight.running, *self.flight.suspended, *self.flight.orphaned):
            self.items[index] = BatchItem(index, BatchItemStatus.STARTED)
        result = BatchResult([self.items[index] for index in sorted(self.items)], reason)
        encoded, value = self.frame.encode(self.serdes, result)
        kept, details = shorten(self.frame, encoded, lambda: self.envelope(result))
        details[DONE] = result.success_count + result.failure_count
        if self.failures:
            details[FAILURES] = {str(index): failure.to_json() for index, failure in self.failures.items()}
        self.frame.succeed(kept, details=details)
        self.report(over=True)
        if self.stayed and self.calls is not None and not self.calls.sent:
            logger.warning(
                "%s: nothing ran on %s, since its branches used their context and asked for no step; put the work into "
                "steps, or into a function that leaves its context alone",
                self.calls.label,
                self.calls.executor.place,
            )
        return self.with_failures(value)

    # --- the loop --------------------------------------------------------------------------------------------------

    def drive(self) -> None:
        while not self.is_over():
            self.frame.scope.check(self.frame.identifier.operation_id)
            if self.calls is not None and self.frame.state.cancelled is not None:
                # Nothing runs here that would come to its next record by itself.
                raise OrphanedChildException("the execution was cancelled", self.frame.identifier.operation_id)
            self.start_more()
            if not len(self.flight):
                return
            self.wake_due()
            if self.flight.running:
                self.take(self.next_outcome())
            elif self.flight.suspended:
                self.suspend()

    def is_over(self) -> bool:
        succeeded, failed = self.counts()
        if self.policy.should_complete is None:
            return self.policy.is_complete(succeeded, failed)
        return succeeded + failed >= len(self.executables) or (self.decision is not None and self.decision.complete)

    def counts(self) -> tuple[int, int]:
        failed = len(self.failures)
        return len(self.items) - failed, failed

    def snapshot(self) -> tuple[CompletionItemStatus, ...]:
        def status(index: int) -> BatchItemStatus | None:
            item = self.items.get(index)
            if item is not None:
                return item.status
            return BatchItemStatus.STARTED if index < self.started else None

        return tuple(CompletionItemStatus(one.index, one.name, status(one.index)) for one in self.executables)

    def reason(self) -> CompletionReason:
        succeeded, failed = self.counts()
        if self.policy.should_complete is None:
            return self.policy.reason(succeeded, failed)
        return self.policy.reason(succeeded, failed, self.snapshot(), self.decision)

    def start_more(self) -> None:
        limit = self.options.max_concurrency or len(self.executables)
        while self.started < len(self.executables) and len(self.flight) < limit:
            executable = self.executables[self.started]
            self.started += 1
            if not self.settled(executable):
                self.launch(executable.index)
            elif self.is_over():
                return

    def settled(self, executable: Executable) -> bool:
        """Take the outcome of a branch that has ended in the history, without a thread."""
        if self.options.nesting is NestingType.FLAT:
            return False
        frame = self.branch_frame(executable)
        recorded = frame.recorded()
        if recorded is None or not recorded.status.is_terminal or recorded.details.get(REPLAY_CHILDREN):
            return False
        self.settle(_recorded_outcome(executable.index, frame, recorded, self.item_serdes))
        return True

    def launch(self, index: int) -> None:
        self.flight.running.add(index)
        self.frame.state.pool.submit(lambda: self.outcomes.put(self.branch(self.executables[index])))

    def wake_due(self) -> None:
        state = self.frame.state
        if not state.recorder.completes_waits and any(state.has_come(one) for one in self.flight.suspended.values()):
            state.refresh()
        due = [index for index, wake in self.flight.suspended.items() if state.has_come(wake)]
        for index in due:
            del self.flight.suspended[index]
            self.launch(index)

    def next_outcome(self) -> _Outcome | None:
        """The next branch to end or suspend; None when it may be time to wake one instead."""
        wake = self.joint_wake()
        if wake is None:
            return self.take_outcome(_LOOK_UP_SECONDS if self.frame.state.modes.blocks else None)
        state = self.frame.state
        limits = [POLL_SECONDS if wake.operations else 3600.0]
        if wake.at is not None:
            limits.append(wake.at - state.clock.now())
        if wake.real_at is not None:
            limits.append(wake.real_at - state.clock.real())
        outcome = self.take_outcome(max(0.0, min(limits)))
        if outcome is None and wake.operations:
            state.refresh()
        return outcome

    def take_outcome(self, timeout: float | None) -> _Outcome | None:
        try:
            return self.outcomes.get(timeout=timeout)
        except queue.Empty:
            return None

    def joint_wake(self) -> Wake | None:
        wake: Wake | None = None
        for one in self.flight.suspended.values():
            wake = one if wake is None else wake.join(one)
        return wake

    def suspend(self) -> None:
        wake = self.joint_wake()
        assert wake is not None
        self.frame.state.refresh()
        if any(self.frame.state.has_come(one) for one in self.flight.suspended.values()):
            return
        raise suspension(f"all branches of {self.frame.identifier.name or 'the batch'} wait", wake)

    def take(self, outcome: _Outcome | None) -> None:
        if outcome is None:
            return
        self.flight.running.discard(outcome.index)
        if outcome.fatal is not None:
            raise outcome.fatal
        if outcome.suspended is not None:
            self.flight.suspended[outcome.index] = outcome.suspended
        elif outcome.orphaned:
            self.flight.orphaned.add(outcome.index)
        else:
            self.settle(outcome)
            self.report()

    def take_finished(self) -> None:
        """Branches that ended while the batch came to its end are in its result; only the others are orphans."""
        while True:
            try:
                self.take(self.outcomes.get_nowait())
            except queue.Empty:
                return

    def settle(self, outcome: _Outcome) -> None:
        index, failure = outcome.index, outcome.failure
        if failure is None:
            self.items[index] = BatchItem(index, BatchItemStatus.SUCCEEDED, outcome.value)
        else:
            self.failures[index] = failure
            self.items[index] = BatchItem(index, BatchItemStatus.FAILED, None, failure.to_error_object())
        if self.policy.should_complete is not None:
            self.decision = self.policy.evaluate(*self.counts(), self.snapshot())

    # --- branches --------------------------------------------------------------------------------------------------

    @property
    def item_serdes(self) -> SerDes[Any] | None:
        return self.options.item_serdes

    def branch_frame(self, executable: Executable) -> Frame:
        operation_id = self.namespace.create_id_for_step(executable.index)
        identifier = OperationIdentifier(
            operation_id,
            self.options.branch_sub_type,
            self.frame.identifier.operation_id,
            executable.name,
            operation_type=OperationType.CONTEXT,
        )
        return replace(self.frame, identifier=identifier, scope=self.scope, calls=self.calls)

    def branch(self, executable: Executable) -> _Outcome:
        """Run one branch in this thread; what it raises becomes its outcome."""
        index = executable.index
        try:
            return _Outcome(index, self.call(executable))
        except SuspendExecution as suspended:
            return _Outcome(index, suspended=wake_of(suspended))
        except OrphanedChildException:
            return _Outcome(index, orphaned=True)
        except ChildContextError as error:
            failure: Failure | None = getattr(error, "_durable_failure", None)
            return _Outcome(index, failure=failure or capture(error))
        except Exception as error:  # noqa: BLE001 - the branch's error is its result
            if is_unrecoverable(error):
                return _Outcome(index, fatal=error)
            return _Outcome(index, failure=capture(error))
        except BaseException as error:  # noqa: BLE001 - raised again by the coordinator
            return _Outcome(index, fatal=error)

    def call(self, executable: Executable) -> Any:
        frame = self.branch_frame(executable)
        func = self.function_of(executable, frame)
        if self.options.nesting is NestingType.FLAT:
            context = self.context.branch_context(frame, self.frame)
            raw = func(context)
            return frame.encode(frame.serdes(self.item_serdes), raw)[1]

        def make() -> DurableContext:
            return self.context.branch_context(frame, None)

        config: ChildConfig[Any] = ChildConfig(serdes=self.item_serdes)
        return child(frame, func, make, config)

    def function_of(self, executable: Executable, frame: Frame) -> Callable[[DurableContext], Any]:
        """What the branch calls: its function, or what runs all of it on the executor."""
        calls, alone = self.calls, executable.alone
        if calls is None:
            return executable.func
        if alone is not None:
            given = re.fullmatch(r"(map-item|parallel-branch)-\d+", executable.name or "")
            name = calls.label if given else executable.name
            return lambda _: calls.prepare(frame, alone, name=name)()

        def stays(context: DurableContext) -> Any:
            value = executable.func(context)
            self.stayed += not context.asked
            return value

        return stays

    # --- replay ----------------------------------------------------------------------------------------------------

    def replay(self, recorded: OperationState) -> BatchResult[Any]:
        failures = recorded.details.get(FAILURES) or {}
        self.failures = {
            int(index): Failure.from_json(data, trusted=recorded.trusted) for index, data in failures.items()
        }
        self.report_replayed(recorded)
        if not recorded.details.get(REPLAY_CHILDREN):
            return self.with_failures(self.frame.result(self.serdes, recorded))
        envelope = json.loads((recorded.payload or b"{}").decode("utf-8"))
        reason = CompletionReason(envelope["completionReason"])
        unfinished = _indexes(envelope)
        items = [self.replay_item(index, unfinished) for index in range(int(envelope["totalCount"]))]
        result = BatchResult(items, reason)
        # As on the first run: what comes back has been through the serdes.
        return self.with_failures(self.frame.encode(self.serdes, result)[1])

    def replay_item(self, index: int, unfinished: frozenset[int]) -> BatchItem[Any]:
        if index in unfinished:
            return BatchItem(index, BatchItemStatus.STARTED)
        if index >= len(self.executables):
            raise NonDeterministicExecutionError(
                f"the recorded batch had a branch {index}, the code asks for {len(self.executables)}",
                self.frame.identifier.operation_id,
            )
        failure = self.failures.get(index)
        if failure is not None:
            return BatchItem(index, BatchItemStatus.FAILED, None, failure.to_error_object())
        outcome = self.branch(self.executables[index])
        if outcome.fatal is not None:
            raise outcome.fatal
        if outcome.suspended is not None or outcome.orphaned or outcome.failure is not None:
            raise NonDeterministicExecutionError(
                f"branch {index} had a result, and does not reach it when it is run over its history",
                self.branch_frame(self.executables[index]).identifier.operation_id,
            )
        return BatchItem(index, BatchItemStatus.SUCCEEDED, outcome.value)

    def envelope(self, result: BatchResult[Any]) -> str:
        """What is kept of a result that is too large. An index list instead of a count: any branch may be
        unfinished.
        """
        started = [item.index for item in result.started()]
        facts: dict[str, Any] = {
            "type": f"{self.options.kind}Result",
            "totalCount": result.total_count,
            "completionReason": result.completion_reason.value,
            "startedIndexes": started,
            "startedCount": len(started),
            "successCount": result.success_count,
            "failureCount": result.failure_count,
            "status": result.status.value,
        }
        if self.options.summary_generator is not None:
            facts["summary"] = self.options.summary_generator(result)
        return json.dumps(facts)

    def with_failures(self, value: Any) -> BatchResult[Any]:
        """Give failed items back how to rebuild their errors, which no serdes carries."""
        result: BatchResult[Any] = value  # or whatever a serdes of the user makes of it
        if not self.failures or not isinstance(value, BatchResult):
            return result
        items = [
            replace(item, error=self.failures[item.index].to_error_object())
            if item.index in self.failures and item.error is not None
            else item
            for item in value.all
        ]
        return replace(value, all=items)

    # --- around ----------------------------------------------------------------------------------------------------

    def report(self, *, over: bool = False) -> None:
        ended = sum(item.status is not BatchItemStatus.STARTED for item in self.items.values())
        self.tell(ended, len(self.failures), over=over)

    def report_replayed(self, recorded: OperationState) -> None:
        self.tell(int(recorded.details.get(DONE, 0)), len(self.failures), over=True)

    def tell(self, done: int, failed: int, *, over: bool) -> None:
        tell = self.frame.state.modes.on_progress
        if tell is not None:
            who = self.frame.identifier
            tell(Progress(who.operation_id, who.name, str(who.sub_type), len(self.executables), done, failed, over))


def _recorded_outcome(index: int, frame: Frame, recorded: OperationState, serdes: SerDes[Any] | None) -> _Outcome:
    if recorded.status is Status.SUCCEEDED:
        return _Outcome(index, frame.result(frame.serdes(serdes), recorded))
    return _Outcome(index, failure=failure_of(recorded))


def _indexes(envelope: dict[str, Any]) -> frozenset[int]:
    if "startedIndexes" in envelope:
        return frozenset(envelope["startedIndexes"])
    completed = frozenset(envelope.get("completedIndexes", ()))
    return frozenset(range(int(envelope["totalCount"]))) - completed


__all__ = ["Batch", "BatchOptions", "Executable"]
