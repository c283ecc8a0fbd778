"""Logging that is silent while the history is replayed.

Each context knows whether it replays. Records carry where they belong as `extra` fields: `executionArn`, `parentId`,
`operationId`, `operationName`, `attempt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from durable_nb.sdk.types import LoggerInterface

if TYPE_CHECKING:
    from durable_nb.sdk.identifier import OperationIdentifier
    from durable_nb.sdk.state import ExecutionState


def _never() -> bool:
    return False


@dataclass(frozen=True)
class LogInfo:
    """Where a log record belongs."""

    execution_state: ExecutionState
    parent_id: str | None = None
    operation_id: str | None = None
    name: str | None = None
    attempt: int | None = None

    @classmethod
    def from_operation_identifier(
        cls, execution_state: ExecutionState, op_id: OperationIdentifier, attempt: int | None = None
    ) -> LogInfo:
        """The place of an operation."""
        return cls(execution_state, op_id.parent_id, op_id.operation_id, op_id.name, attempt)

    def with_parent_id(self, parent_id: str) -> LogInfo:
        """The same below another parent."""
        return replace(self, parent_id=parent_id)

    def extra(self) -> dict[str, object]:
        """The fields of a record."""
        fields: dict[str, object] = {"executionArn": self.execution_state.durable_execution_arn}
        if self.parent_id:
            fields["parentId"] = self.parent_id
        if self.name:
            fields["operationName"] = self.name
        if self.attempt is not None:
            fields["attempt"] = self.attempt
        if self.operation_id:
            fields["operationId"] = self.operation_id
        return fields


class Logger(LoggerInterface):
    """A logger with fixed extra fields that says nothing during a replay."""

    def __init__(
        self,
        logger: LoggerInterface,
        default_extra: Mapping[str, object],
        is_replaying: Callable[[], bool] = _never,
    ) -> None:
        self._logger = logger
        self._default_extra = default_extra
        self._is_replaying = is_replaying

    @classmethod
    def from_log_info(cls, logger: LoggerInterface, info: LogInfo, is_replaying: Callable[[], bool] = _never) -> Logger:
        """A logger for a place."""
        return cls(logger, info.extra(), is_replaying)

    def with_log_info(self, info: LogInfo) -> Logger:
        """The same logger for another place."""
        return _PlacedLogger(self._logger, info, self._is_replaying)

    def of_operation(self, state: ExecutionState, operation: OperationIdentifier, attempt: int | None) -> Logger:
        """The same logger for an attempt of an operation."""
        return _OperationLogger(self._logger, state, operation, attempt, self._is_replaying)

    def with_is_replaying(self, is_replaying: Callable[[], bool]) -> Logger:
        """The same logger, silent when another context replays."""
        return Logger(self._logger, self._default_extra, is_replaying)

    def get_logger(self) -> LoggerInterface:
        """What is behind it."""
        return self._logger

    def debug(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log(self._logger.debug, msg, args, extra)

    def info(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log(self._logger.info, msg, args, extra)

    def warning(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log(self._logger.warning, msg, args, extra)

    def error(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log(self._logger.error, msg, args, extra)

    def exception(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        self._log(self._logger.exception, msg, args, extra)

    def _log(
        self,
        write: Callable[..., None],
        msg: object,
        args: tuple[object, ...],
        extra: Mapping[str, object] | None,
    ) -> None:
        if not self._is_replaying():
            write(msg, *args, extra={**self._default_extra, **(extra or {})})


class _PlacedLogger(Logger):
    """Works out its extra fields when something is logged: most steps log nothing."""

    def __init__(self, logger: LoggerInterface, info: LogInfo, is_replaying: Callable[[], bool]) -> None:
        self._logger = logger
        self._info = info
        self._is_replaying = is_replaying

    @property
    def _default_extra(self) -> Mapping[str, object]:  # type: ignore[override]
        return self._info.extra()


class _OperationLogger(Logger):
    """The same, and its place too: for every step one is made."""

    def __init__(
        self,
        logger: LoggerInterface,
        state: ExecutionState,
        operation: OperationIdentifier,
        attempt: int | None,
        is_replaying: Callable[[], bool],
    ) -> None:
        self._logger = logger
        self._place = (state, operation, attempt)
        self._is_replaying = is_replaying

    @property
    def _default_extra(self) -> Mapping[str, object]:  # type: ignore[override]
        return LogInfo.from_operation_identifier(*self._place).extra()


__all__ = ["LogInfo", "Logger"]
