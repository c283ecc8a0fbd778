"""How a command ends: exit codes, and the error that is one line for the user."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Complaint", "ExitCode"]


class ExitCode(IntEnum):
    """What a script that calls us can tell apart."""

    OK = 0
    FAILED = 1
    """A cell failed, the kernel died, or `verify` found damage."""
    USAGE = 2
    """The request itself is wrong: an option, a file, a kernel, a store."""
    DECISION = 3
    """An at-most-once cell was started once and nobody knows how it ended: a person has to say."""
    INTERRUPTED = 130
    """Ctrl-C, as a shell reports it."""


class Complaint(Exception):  # noqa: N818 - it is what the user is told, not a failure of ours
    """Ends the command with one line on stderr."""

    def __init__(self, line: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(line)
        self.line, self.code = line, code
