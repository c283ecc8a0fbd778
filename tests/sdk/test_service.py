"""A handler as a platform invokes it: one invocation after another, against a checkpoint service."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from durable_nb.events import OperationType, Status
from durable_nb.sdk import DurableContext, StepContext, durable_execution
from durable_nb.sdk.config import CallbackConfig, Duration, StepConfig, StepSemantics
from durable_nb.sdk.exceptions import CheckpointError, ExecutionError, InvocationError
from durable_nb.sdk.execution import (
    LAMBDA_RESPONSE_SIZE_LIMIT,
    DurableExecutionInvocationInput,
    DurableExecutionInvocationInputWithClient,
    InitialExecutionState,
)
from durable_nb.sdk.lambda_service import (
    CallbackDetails,
    ChainedInvokeDetails,
    CheckpointOutput,
    CheckpointUpdatedExecutionState,
    ContextDetails,
    ExecutionDetails,
    LambdaClient,
    Operation,
    OperationAction,
    OperationUpdate,
    StateOutput,
    StepDetails,
    WaitDetails,
)
from durable_nb.sdk.retries import RetryStrategyConfig, create_retry_strategy

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ARN = "arn:aws:lambda:us-west-2:123456789012:function:fn:$LATEST/durable-execution/name/inv"


@dataclass
class Service:
    """Keeps operations as a service does. Waits and retries are over when `settle` is called."""

    event: Any = None

    def __post_init__(self) -> None:
        text = None if self.event is None else json.dumps(self.event)
        start = Operation("exec", OperationType.EXECUTION, Status.STARTED, execution_details=ExecutionDetails(text))
        self.operations: dict[str, Operation] = {"exec": start}
        self.calls: list[list[OperationUpdate]] = []
        self.tokens: list[str] = []
        self.fails: Exception | None = None

    def checkpoint(
        self, arn: str, token: str, updates: list[OperationUpdate], client_token: str | None
    ) -> CheckpointOutput:
        if self.fails is not None:
            raise self.fails
        assert token == f"t{len(self.tokens)}"
        self.tokens.append(token)
        self.calls.append(updates)
        changed = [self.apply(update) for update in updates]
        return CheckpointOutput(f"t{len(self.tokens)}", CheckpointUpdatedExecutionState(changed))

    def get_execution_state(self, arn: str, token: str, next_marker: str, max_items: int = 1000) -> StateOutput:
        at = int(next_marker)
        page = list(self.operations.values())[at : at + 2]
        return StateOutput(page, str(at + 2) if at + 2 < len(self.operations) else None)

    def apply(self, update: OperationUpdate) -> Operation:
        known = self.operations.get(update.operation_id)
        if known is None:
            known = Operation(
                update.operation_id,
                update.operation_type,
                Status.STARTED,
                update.parent_id,
                update.name,
                NOW,
                sub_type=update.sub_type,
            )
        status = {
            OperationAction.START: Status.STARTED,
            OperationAction.SUCCEED: Status.SUCCEEDED,
            OperationAction.FAIL: Status.FAILED,
            OperationAction.RETRY: Status.PENDING,
        }[update.action]
        kind = update.operation_type
        if kind is OperationType.STEP:
            before = known.step_details or StepDetails()
            attempt = before.attempt + (update.action is not OperationAction.START)
            details: dict[str, Any] = {"step_details": StepDetails(attempt, NOW, update.payload, update.error)}
        elif kind is OperationType.CONTEXT:
            large = update.context_options is not None and update.context_options.replay_children
            details = {"context_details": ContextDetails(large, update.payload, update.error)}
        elif kind is OperationType.WAIT:
            far = NOW + dt.timedelta(days=3650)
            details = {"wait_details": WaitDetails(far)}
        elif kind is OperationType.CALLBACK:
            details = {"callback_details": CallbackDetails(f"callback-{len(self.operations)}")}
        elif kind is OperationType.EXECUTION:
            details = {}
        else:
            details = {"chained_invoke_details": ChainedInvokeDetails()}
        self.operations[update.operation_id] = replace(known, status=status, **details)
        return self.operations[update.operation_id]

    def settle(self) -> None:
        """What a service does between two invocations."""
        for key, one in self.operations.items():
            if one.operation_type is OperationType.WAIT:
                self.operations[key] = replace(one, status=Status.SUCCEEDED)
            if one.status is Status.PENDING:
                self.operations[key] = replace(one, status=Status.READY)

    def invoke(self, handler: Any, *, first_page: int | None = None) -> dict[str, Any]:
        every = list(self.operations.values())
        page = every if first_page is None else every[:first_page]
        marker = "" if first_page is None else str(first_page)
        state = InitialExecutionState(page, marker)
        self.tokens = []
        plain = DurableExecutionInvocationInput(ARN, "t0", state)
        given = DurableExecutionInvocationInputWithClient.from_durable_execution_invocation_input(plain, self)
        return dict(handler(given, SimpleNamespace(aws_request_id="r")))


def test_steps_are_announced_and_the_result_is_json() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return {
            "sum": context.step(lambda _: event["a"] + 1, name="add"),
            "arn": context.execution_context.durable_execution_arn,
        }

    service = Service({"a": 4})
    answer = service.invoke(handler)
    assert answer["Status"] == "SUCCEEDED"
    assert json.loads(answer["Result"]) == {"sum": 5, "arn": ARN}
    actions = [update.action for call in service.calls for update in call]
    assert actions == [OperationAction.START, OperationAction.SUCCEED]


def test_an_absent_input_is_an_empty_object() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return event

    assert Service().invoke(handler) == {"Status": "SUCCEEDED", "Result": "{}"}


def test_a_wait_makes_the_invocation_pending_and_the_next_one_goes_on() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        first = context.step(lambda _: 1)
        context.wait(5, name="pause")
        return first + context.step(lambda _: 2)

    service = Service({})
    assert service.invoke(handler) == {"Status": "PENDING"}
    wait = next(update for call in service.calls for update in call if update.operation_type is OperationType.WAIT)
    assert wait.wait_options is not None
    assert wait.wait_options.wait_seconds == 5
    service.settle()
    service.calls.clear()
    assert service.invoke(handler, first_page=1) == {"Status": "SUCCEEDED", "Result": "3"}
    assert [update.action.value for call in service.calls for update in call] == ["START", "SUCCEED"]


def test_a_retry_is_scheduled_by_the_service_and_its_count_is_the_service_s() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def flaky(step: StepContext) -> int:
            if step.attempt < 2:
                raise OSError("no")
            return step.attempt

        strategy = create_retry_strategy(RetryStrategyConfig(initial_delay=Duration(1)))
        return context.step(flaky, config=StepConfig(strategy))

    service = Service({})
    assert service.invoke(handler) == {"Status": "PENDING"}
    service.settle()
    assert service.invoke(handler) == {"Status": "SUCCEEDED", "Result": "2"}


def test_at_most_once_is_announced_in_a_call_of_its_own() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.step(lambda _: 1, config=StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY))

    service = Service({})
    service.invoke(handler)
    assert [[update.action.value for update in call] for call in service.calls] == [["START"], ["SUCCEED"]]


def test_the_service_names_callbacks() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        callback = context.create_callback("cb", CallbackConfig(timeout=Duration(60), heartbeat_timeout=Duration(5)))
        return [callback.callback_id, callback.result()]

    service = Service({})
    assert service.invoke(handler) == {"Status": "PENDING"}
    options = service.calls[0][0].callback_options
    assert options is not None
    assert (options.timeout_seconds, options.heartbeat_timeout_seconds) == (60, 5)
    key = next(key for key, one in service.operations.items() if one.operation_type is OperationType.CALLBACK)
    done = CallbackDetails("callback-1", result="yes")
    service.operations[key] = replace(service.operations[key], status=Status.SUCCEEDED, callback_details=done)
    assert json.loads(service.invoke(handler)["Result"]) == ["callback-1", "yes"]


def test_branches_share_calls_and_the_tree_is_the_local_one() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.map([1, 2, 3], lambda c, x, i, every: c.step(lambda _: x * 2), name="m").get_results()

    service = Service({})
    assert json.loads(service.invoke(handler)["Result"]) == [2, 4, 6]
    kinds = sorted(str(one.sub_type) for one in service.operations.values() if one.sub_type)
    assert kinds == ["Map", "MapIteration", "MapIteration", "MapIteration", "Step", "Step", "Step"]


def test_a_failed_step_is_told_with_its_type() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.step(lambda _: int("x"))

    answer = Service({}).invoke(handler)
    assert answer["Status"] == "FAILED"
    assert answer["Error"]["ErrorType"] == "durable_nb.sdk.exceptions.StepError"
    assert "invalid literal" in answer["Error"]["ErrorMessage"]


def test_a_large_result_of_a_context_is_replaced_by_its_summary() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return len(context.run_in_child_context(lambda c: "x" * 300_000))

    service = Service({})
    assert service.invoke(handler)["Result"] == "300000"
    end = service.calls[-1][-1]
    assert end.payload == ""
    assert end.context_options is not None
    assert end.context_options.replay_children


def test_a_result_too_large_for_the_reply_is_checkpointed() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return "x" * (LAMBDA_RESPONSE_SIZE_LIMIT + 1)

    service = Service({})
    assert service.invoke(handler) == {"Status": "SUCCEEDED", "Result": ""}
    assert service.calls[-1][-1].operation_type is OperationType.EXECUTION


def test_a_failed_checkpoint_that_may_pass_is_raised_and_user_code_cannot_swallow_it() -> None:
    seen: list[str] = []

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        try:
            context.step(lambda _: 1)
        except Exception as error:
            seen.append(str(error))

    service = Service({})
    service.fails = RuntimeError("connection reset")
    with pytest.raises(CheckpointError, match="connection reset"):
        service.invoke(handler)
    assert seen == []


def test_a_failed_checkpoint_that_will_not_pass_fails_the_execution() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.step(lambda _: 1)

    class ClientError(Exception):
        response = {"Error": {"Code": "ValidationException"}, "ResponseMetadata": {"HTTPStatusCode": 400}}

    service = Service({})
    service.fails = ClientError("bad request")
    assert service.invoke(handler)["Status"] == "FAILED"


def test_an_invocation_error_is_raised_to_the_platform() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        raise InvocationError("again")

    with pytest.raises(InvocationError, match="again"):
        Service({}).invoke(handler)


def test_an_event_that_is_no_durable_invocation_is_refused() -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return 1

    with pytest.raises(ExecutionError, match="DurableExecutionArn"):
        handler({"a": 1}, SimpleNamespace())


def test_a_platform_event_is_served_through_the_given_client() -> None:
    service = Service({"x": 1})
    calls: list[dict[str, Any]] = []

    class Boto:
        def checkpoint_durable_execution(self, **request: Any) -> dict[str, Any]:
            calls.append(request)
            updates = [OperationUpdate.from_dict(item) for item in request["Updates"]]
            changed = [service.apply(update) for update in updates]
            return {"CheckpointToken": "next", "NewExecutionState": {"Operations": [one.to_dict() for one in changed]}}

    @durable_execution(boto3_client=Boto())
    def handler(event: Any, context: DurableContext) -> Any:
        return context.step(lambda _: event["x"])

    state = InitialExecutionState(list(service.operations.values()), "")
    event = DurableExecutionInvocationInput(ARN, "t0", state).to_json_dict()
    assert handler(event, SimpleNamespace()) == {"Status": "SUCCEEDED", "Result": "1"}
    assert calls[0]["CheckpointToken"] == "t0"
    assert [update["Action"] for update in calls[0]["Updates"]] == ["START", "SUCCEED"]
    assert isinstance(LambdaClient(Boto()), LambdaClient)
