"""Helpers that end an invocation until something is due."""

from __future__ import annotations

import datetime as dt
from typing import NoReturn

from durable_nb.exceptions import SuspendExecution, TimedSuspendExecution


def suspend_with_optional_resume_timestamp(msg: str, datetime_timestamp: dt.datetime | None = None) -> NoReturn:
    """Suspend until a moment, or until something from outside arrives."""
    if datetime_timestamp is None:
        raise SuspendExecution(msg)
    raise TimedSuspendExecution.from_datetime(msg, datetime_timestamp)


def suspend_with_optional_resume_delay(msg: str, delay_seconds: int | None = None) -> NoReturn:
    """Suspend for a time, or (None) until something from outside arrives."""
    if delay_seconds is None:
        raise SuspendExecution(msg)
    raise TimedSuspendExecution.from_delay(msg, delay_seconds)


def suspend_until(msg: str, timestamp: float | None) -> NoReturn:
    """Suspend until `timestamp`, in the seconds of the engine's clock; None waits for the outside."""
    if timestamp is None:
        raise SuspendExecution(msg)
    raise TimedSuspendExecution(msg, timestamp)


__all__ = [
    "suspend_until",
    "suspend_with_optional_resume_delay",
    "suspend_with_optional_resume_timestamp",
]
