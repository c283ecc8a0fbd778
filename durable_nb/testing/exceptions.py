"""Errors of the test kit, under the names that the AWS testing package gives them."""

from __future__ import annotations

from typing import Any


class DurableFunctionsLocalRunnerError(Exception):
    """Root of what the runner refuses."""


class DurableFunctionsTestError(Exception):
    """Raised when a test asks for what is not there."""


class AwsApiException(DurableFunctionsLocalRunnerError):  # noqa: N818 - the name of the mirrored interface
    """Root of what the hosted service's API would answer."""

    http_status_code = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def to_dict(self) -> dict[str, Any]:
        """As an API answers it."""
        return {"Type": type(self).__name__, "message": self.message}


class InvalidParameterValueException(AwsApiException):
    """An argument is wrong."""

    http_status_code = 400


class ResourceNotFoundException(AwsApiException):
    """There is no such execution or open callback."""

    http_status_code = 404


class ExecutionAlreadyStartedException(AwsApiException):
    """The name is taken."""

    http_status_code = 409


class IllegalStateException(AwsApiException):
    """Not in this state."""


__all__ = [
    "AwsApiException",
    "DurableFunctionsLocalRunnerError",
    "DurableFunctionsTestError",
    "ExecutionAlreadyStartedException",
    "IllegalStateException",
    "InvalidParameterValueException",
    "ResourceNotFoundException",
]
