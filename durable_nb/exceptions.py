"""The whole error tree. Standard library only, so that anything may import it.

Three families under `DurableExecutionsError`: you called it wrong (`ValidationError`, `InvalidStateError`), history and
code disagree (`NonDeterministicExecutionError`, `StepChangedError`, `StepInterruptedError`), the store failed
(`StoreError`). Only suspension, which user code must not catch, derives from `BaseException`.
"""

from __future__ import annotations


class DurableExecutionsError(Exception):
    """Root of everything durable_nb raises."""


class ValidationError(DurableExecutionsError):
    """Raised when an argument, option or configuration value is wrong."""


class InvalidStateError(DurableExecutionsError):
    """Raised when an object is used in a state that does not allow it."""


# --- The store -------------------------------------------------------------------------------------------------


class StoreError(DurableExecutionsError):
    """Root of what can be wrong with a store."""


class StoreUnreadableError(StoreError):
    """Raised when a store cannot be opened."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(place, why)
        self.place, self.why = place, why

    def __str__(self) -> str:
        return f"cannot open the store {self.place}: {self.why}"


class StoreVersionError(StoreError):
    """Raised when a store was written by a newer durable_nb."""

    def __init__(self, place: str, found: int, known: int) -> None:
        super().__init__(place, found, known)
        self.place, self.found, self.known = place, found, known

    def __str__(self) -> str:
        return (
            f"the store {self.place} has format {self.found}, this durable_nb reads up to {self.known}: "
            "upgrade durable_nb, or name another store"
        )


class JournalConflictError(StoreError):
    """Raised by `Journal.append` when another process wrote to this execution first."""

    def __init__(self, execution_id: str, expected: int, found: int) -> None:
        super().__init__(execution_id, expected, found)
        self.execution_id, self.expected, self.found = execution_id, expected, found

    def __str__(self) -> str:
        return f"execution {self.execution_id!r} is at event {self.found}, not {self.expected}"


class LeaseHeldError(StoreError):
    """Raised by `Journal.acquire` when a live process holds the execution."""

    def __init__(self, execution_id: str, holder: str) -> None:
        super().__init__(execution_id, holder)
        self.execution_id, self.holder = execution_id, holder

    def __str__(self) -> str:
        return f"execution {self.execution_id!r} is held by {self.holder}"


class LeaseLostError(StoreError):
    """Raised by a write whose lease another owner has taken since."""

    def __init__(self, execution_id: str, token: int) -> None:
        super().__init__(execution_id, token)
        self.execution_id, self.token = execution_id, token

    def __str__(self) -> str:
        return f"execution {self.execution_id!r} has another owner now (token {self.token} is no longer valid)"


class MissingBlobError(StoreError):
    """Raised when a checkpoint names bytes that are not in the store."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"blob {self.address[:16]}… is not in the store"


class DamagedBlobError(StoreError):
    """Raised when stored bytes do not match their address."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"blob {self.address[:16]}… is damaged: its bytes do not match its address"


class UntrustedCheckpointError(StoreError):
    """Raised when a checkpoint's signature was not made with a key of this user or team."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where} was not signed with your key: its values are not loaded"


class NotStorableError(DurableExecutionsError):
    """Raised when a value cannot be stored and given back faithfully."""

    def __init__(self, name: str, type_name: str, path: str, why: str) -> None:
        super().__init__(name, type_name, path, why)
        self.name, self.type_name, self.path, self.why = name, type_name, path, why

    def __str__(self) -> str:
        return f"{self.path} ({self.type_name}) cannot be stored: {self.why}"


# --- History and code disagree -----------------------------------------------------------------------------------


class StepChangedError(DurableExecutionsError):
    """Raised when an at-most-once step was completed with other inputs than it has now."""

    def __init__(self, name: str, difference: str) -> None:
        super().__init__(name, difference)
        self.name, self.difference = name, difference

    def __str__(self) -> str:
        return f"step {self.name!r} ran at most once already, with other inputs: {self.difference}"


class StepTimeoutError(DurableExecutionsError):
    """Raised in a step whose attempt exceeded its time-out."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)
        self.name, self.seconds = name, seconds

    def __str__(self) -> str:
        return f"{self.name} took longer than its time-out of {self.seconds:g} s"
