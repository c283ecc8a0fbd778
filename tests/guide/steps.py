"""The handlers of the developer guide's page on steps, with only the imports changed."""

# ruff: noqa: RET504, G004 - as the page writes them

from durable_nb.sdk import DurableContext, StepContext, durable_execution, durable_step
from durable_nb.sdk.config import StepConfig, StepSemantics
from durable_nb.sdk.retries import RetryPresets, RetryStrategyConfig, create_retry_strategy


@durable_step
def add_numbers(step_context: StepContext, a: int, b: int) -> int:
    return a + b


@durable_execution
def handler(event: dict, context: DurableContext) -> int:
    result = context.step(add_numbers(5, 3))
    return result


@durable_step
def validate_order(step_context: StepContext, order_id: str) -> dict:
    step_context.logger.info(f"Validating order {order_id}")
    if not order_id:
        raise ValueError("Order ID is required")
    return {"order_id": order_id, "status": "validated"}


@durable_execution
def order_handler(event: dict, context: DurableContext) -> dict:
    validation = context.step(validate_order(event["order_id"]))
    return validation


@durable_execution
def payment_handler(event: dict, context: DurableContext) -> dict:
    result = context.step(
        lambda _: {"transaction_id": "txn-123", "amount": event["amount"]},
        name="process_payment",
    )
    return result


ATTEMPTS: dict[str, int] = {}


@durable_step
def unreliable_operation(step_context: StepContext, succeed_on: int) -> str:
    ATTEMPTS["unreliable"] = step_context.attempt
    if step_context.attempt < succeed_on:
        raise RuntimeError("Random error occurred")
    return "Operation succeeded"


@durable_execution
def retry_handler(event: dict, context: DurableContext) -> str:
    retry_config = RetryStrategyConfig(
        max_attempts=3,
        retryable_error_types=[RuntimeError],
    )
    result = context.step(
        unreliable_operation(event.get("succeed_on", 2)),
        config=StepConfig(create_retry_strategy(retry_config)),
    )
    return result


@durable_step
def call_external_api(step_context: StepContext, fail: str) -> dict:
    ATTEMPTS["api"] = step_context.attempt
    if fail == "connection":
        raise ConnectionError("the service is not there")
    if fail == "value":
        raise ValueError("the request is wrong")
    return {"data": "ok"}


@durable_execution
def backoff_handler(event: dict, context: DurableContext) -> dict:
    retry_config = RetryStrategyConfig(
        max_attempts=3,
        initial_delay_seconds=1,
        max_delay_seconds=10,
        backoff_rate=2.0,
        retryable_error_types=[ConnectionError],
    )
    step_config = StepConfig(retry_strategy=create_retry_strategy(retry_config))
    return context.step(call_external_api(event.get("fail", "")), config=step_config)


@durable_step
def charge_credit_card(step_context: StepContext, amount: float) -> dict:
    ATTEMPTS["charge"] = ATTEMPTS.get("charge", 0) + 1
    return {"transaction_id": "txn_123", "amount": amount, "status": "completed"}


@durable_execution
def charge_handler(event: dict, context: DurableContext) -> dict:
    step_config = StepConfig(
        step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY,
        retry_strategy=RetryPresets.none(),
    )
    return context.step(charge_credit_card(event["amount"]), config=step_config)


@durable_step
def fetch_user(step_context: StepContext, user_id: str) -> dict:
    return {"user_id": user_id, "name": "Jane Doe", "email": "jane@example.com"}


@durable_step
def validate_user(step_context: StepContext, user: dict) -> bool:
    return bool(user.get("email"))


@durable_step
def send_notification(step_context: StepContext, user: dict) -> dict:
    return {"sent": True, "email": user["email"]}


@durable_execution
def chain_handler(event: dict, context: DurableContext) -> dict:
    user = context.step(fetch_user(event["user_id"]))
    if not context.step(validate_user(user)):
        return {"status": "failed", "reason": "invalid_user"}
    notification = context.step(send_notification(user))
    return {"status": "completed", "user_id": event["user_id"], "notification_sent": notification["sent"]}


@durable_step
def failing_step(step_context: StepContext) -> str:
    raise RuntimeError("This step always fails")


@durable_execution
def failing_handler(event: dict, context: DurableContext) -> str:
    return context.step(failing_step())
