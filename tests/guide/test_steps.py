"""The guide's blocks do what the guide says, and its four tests pass as they are written."""

import pytest

from durable_nb.sdk.lambda_service import OperationType
from durable_nb.testing import InvocationStatus

from . import steps


@pytest.mark.durable_execution(handler=steps.handler, lambda_function_name="step_example")
def test_step_basic(durable_runner):
    """The first test of the page."""
    with durable_runner:
        result = durable_runner.run(input={"data": "test"}, timeout=10)

    assert result.status is InvocationStatus.SUCCEEDED
    assert result.result == 8


@pytest.mark.durable_execution(handler=steps.handler, lambda_function_name="step_example")
def test_step_result(durable_runner):
    with durable_runner:
        result = durable_runner.run(input={"data": "test"}, timeout=10)

    step_result = result.get_step("add_numbers")
    assert step_result.result == 8
    assert step_result.status is InvocationStatus.SUCCEEDED


@pytest.mark.durable_execution(handler=steps.retry_handler, lambda_function_name="retry_example")
def test_step_retry(durable_runner):
    with durable_runner:
        result = durable_runner.run(input={"succeed_on": 2}, timeout=30)

    assert result.status is InvocationStatus.SUCCEEDED
    assert result.result == "Operation succeeded"
    assert result.get_step("unreliable_operation").attempt > 1


@pytest.mark.durable_execution(handler=steps.failing_handler, lambda_function_name="error_example")
def test_step_error(durable_runner):
    with durable_runner:
        result = durable_runner.run(input={"data": "test"}, timeout=10)

    assert result.status is InvocationStatus.FAILED
    assert "RuntimeError" in str(result.error)


@pytest.mark.durable_execution(handler=steps.failing_handler)
def test_the_text_of_an_error_is_its_type_and_message(durable_runner):
    result = durable_runner.run()
    assert str(result.error) == "RuntimeError: This step always fails"
    assert result.error.type == "durable_nb.sdk.exceptions.StepError"


@pytest.mark.durable_execution(handler=steps.order_handler)
def test_an_order_is_validated(durable_runner):
    result = durable_runner.run(input={"order_id": "A-1"})
    assert result.result == {"order_id": "A-1", "status": "validated"}
    assert result.get_step("validate_order").operation_type is OperationType.STEP


@pytest.mark.durable_execution(handler=steps.order_handler)
def test_without_a_strategy_the_error_of_a_step_fails_the_execution_at_once(durable_runner):
    result = durable_runner.run(input={"order_id": ""})
    assert result.status is InvocationStatus.FAILED
    assert result.get_step("validate_order").attempt == 1
    assert str(result.error) == "ValueError: Order ID is required"


@pytest.mark.durable_execution(handler=steps.payment_handler)
def test_a_lambda_is_named_by_its_argument(durable_runner):
    result = durable_runner.run(input={"amount": 5})
    assert result.get_step("process_payment").result == {"transaction_id": "txn-123", "amount": 5}


@pytest.mark.durable_execution(handler=steps.retry_handler)
def test_retries_end_after_the_attempts_that_were_asked_for(durable_runner):
    result = durable_runner.run(input={"succeed_on": 9})
    assert result.status is InvocationStatus.FAILED
    assert steps.ATTEMPTS["unreliable"] == 3


@pytest.mark.durable_execution(handler=steps.backoff_handler)
def test_errors_of_the_listed_types_are_retried_with_back_off(durable_runner):
    result = durable_runner.run(input={"fail": "connection"})
    assert result.status is InvocationStatus.FAILED
    assert steps.ATTEMPTS["api"] == 3


@pytest.mark.durable_execution(handler=steps.backoff_handler)
def test_errors_of_other_types_are_not_retried(durable_runner):
    result = durable_runner.run(input={"fail": "value"})
    assert result.status is InvocationStatus.FAILED
    assert steps.ATTEMPTS["api"] == 1


@pytest.mark.durable_execution(handler=steps.charge_handler)
def test_a_card_is_charged_once(durable_runner):
    steps.ATTEMPTS.pop("charge", None)
    result = durable_runner.run(input={"amount": 10.5})
    assert result.result == {"transaction_id": "txn_123", "amount": 10.5, "status": "completed"}
    assert steps.ATTEMPTS["charge"] == 1


@pytest.mark.durable_execution(handler=steps.chain_handler)
def test_three_steps_follow_each_other(durable_runner):
    result = durable_runner.run(input={"user_id": "u1"})
    assert result.result == {"status": "completed", "user_id": "u1", "notification_sent": True}
    assert [one.name for one in result.operations] == ["fetch_user", "validate_user", "send_notification"]
