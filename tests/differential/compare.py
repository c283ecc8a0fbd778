"""Running one case, and what of its outcome is compared. As a program: all cases over one implementation, as JSON.

The AWS runner leaves event loops open, so its side runs in a process of its own.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any

from tests.differential import handlers
from tests.differential.handlers import Case, short

AWS, OURS = "aws_durable_execution_sdk_python", "durable_nb.sdk"


def run(root: str, case: Case) -> Any:
    if root == AWS:
        from aws_durable_execution_sdk_python_testing import DurableFunctionTestRunner
    else:
        from durable_nb.testing import DurableFunctionTestRunner
    names = handlers.namespace(root)
    with DurableFunctionTestRunner(case.handler) as runner:
        for name, function in case.functions.items():
            runner.register_function(name, function)
        for name, function in case.durable.items():
            runner.register_durable_function(name, function)
        text = json.dumps({} if case.input is None else case.input)
        if case.send is None:
            return runner.run(text)
        arn = runner.run_async(text)
        case.send(runner, runner.wait_for_callback(arn, case.callback), names)
        return runner.wait_for_result(arn)


def plain(result: Any, *, ours: bool) -> dict[str, Any]:
    text = result.payload if ours else result.result
    error = result.error
    return {
        "status": result.status.value,
        "result": None if text is None else json.loads(text),
        "error": None if error is None else [error.message, short(error.type), error.data],
        "operations": [node(one, ours=ours) for one in result.operations],
    }


def node(operation: Any, *, ours: bool) -> dict[str, Any]:
    sub_type = operation.sub_type
    seen: dict[str, Any] = {
        "id": operation.operation_id,
        "type": operation.operation_type.value,
        "sub_type": None if sub_type is None else str(getattr(sub_type, "value", sub_type)),
        "name": operation.name,
        "status": operation.status.value,
        "parent": operation.parent_id,
    }
    if getattr(operation, "error", None) is not None:
        seen["error"] = [operation.error.message, short(operation.error.type)]
    if hasattr(operation, "result"):
        seen["result"] = short(operation.payload if ours else operation.result)
    if hasattr(operation, "attempt") and operation.status.value != "STARTED":
        seen["attempt"] = operation.attempt
    if hasattr(operation, "child_operations"):
        children = [node(one, ours=ours) for one in operation.child_operations]
        # Branches run at once: the order in which they reach the history is chance.
        at_once = operation.sub_type in ("Map", "Parallel")
        seen["children"] = sorted(children, key=lambda one: one["id"]) if at_once else children
    return seen


def outcome(root: str, name: str) -> dict[str, Any]:
    """What came of one case."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plain(run(root, handlers.build(root)[name]), ours=root == OURS)
        finally:
            logging.disable(logging.NOTSET)


if __name__ == "__main__":
    json.dump({name: outcome(sys.argv[1], name) for name in handlers.NAMES}, sys.stdout)
