"""Handlers of loggers for the body of a cell elsewhere: what is logged to a stream here is logged to one there."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence

Handler = tuple[str, str, int, str | None, str | None]
"""Logger, `stdout` or `stderr`, level, format and format of dates (None: the default)."""


def _loggers() -> Iterator[tuple[str, logging.Logger]]:
    yield "", logging.root
    for name, logger in sorted(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield name, logger


def present() -> list[logging.Handler]:
    """The handlers that there are now."""
    return [handler for _, logger in _loggers() for handler in logger.handlers]


def described(without: Sequence[logging.Handler]) -> tuple[list[Handler], list[str]]:
    """The handlers that can be made again elsewhere, and in words those that cannot.

    Args:
        without: handlers that are the kernel's own.
    """
    found: list[Handler] = []
    others: list[str] = []
    for name, logger in _loggers():
        for handler in logger.handlers:
            if isinstance(handler, logging.NullHandler) or any(handler is one for one in without):
                continue
            one = _described(name, handler)
            if one is not None:
                found.append(one)
            else:
                others.append(f"{type(handler).__name__} of {name or 'the root logger'}")
    return found, others


def _described(name: str, handler: logging.Handler) -> Handler | None:
    written = handler.formatter
    if type(handler) is not logging.StreamHandler or handler.filters:
        return None
    if written is not None and (
        type(written) is not logging.Formatter or type(written._style) is not logging.PercentStyle
    ):
        return None
    stream = next((each for each in ("stdout", "stderr") if getattr(sys, each) is handler.stream), None)
    if stream is None:
        return None
    fmt = None if written is None else written._fmt
    return name, stream, handler.level, fmt, None if written is None else written.datefmt


def make_handlers(handlers: Iterable[Handler]) -> None:
    """Give the loggers of this process these handlers as well."""
    for name, stream, level, fmt, dates in handlers:
        handler = logging.StreamHandler(getattr(sys, stream))
        handler.setLevel(level)
        if fmt is not None or dates is not None:
            handler.setFormatter(logging.Formatter(fmt, dates))
        logging.getLogger(name or None).addHandler(handler)


def in_words(others: Iterable[str]) -> str:
    """What stays, for people."""
    return ", ".join(dict.fromkeys(others))


__all__ = ["Handler", "described", "in_words", "make_handlers", "present"]
