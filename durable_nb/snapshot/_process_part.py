"""What a part of the process's state is, and how its values are written."""

from __future__ import annotations

import base64
import copy
import hashlib
import operator
import pickle
from typing import Any

from durable_nb.snapshot._digest import content_digest


class Part:
    """One pseudo-name."""

    name: str
    absent = "default"

    def read(self) -> Any:
        """The value now, or None when it is at its default."""
        raise NotImplementedError

    def version(self, value: Any) -> str:
        return content_digest([(self.name, value)]) or pickled_digest(value)

    def delta(self, before: Any, after: Any) -> dict[str, Any]:
        return {"value": packed(after)}

    def write(self, value: Any) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Put back what nobody chose: a cell undid what an earlier one had set."""
        raise NotImplementedError


class Steady(Part):
    """A part that hardly any cell changes: comparing values is quicker than digesting one."""

    def __init__(self) -> None:
        self.last: tuple[Any, str] | None = None

    def version(self, value: Any) -> str:
        if self.last is None or self.last[0] != value:
            self.last = (value, super().version(value))
        return self.last[1]


class Options(Part):
    """Options of a package that differ from its defaults. Every cell asks twice, and hardly any cell sets one."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._copies: list[tuple[Any, Any]] = []
        self._differing: dict[str, Any] | None = None
        self._version: tuple[Any, str] = (None, self.absent)

    def values(self) -> list[Any] | None:
        """All values, in an order that stays; None while the package is not loaded."""
        raise NotImplementedError

    def differing(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        raise NotImplementedError

    def read(self) -> Any:
        values = self.values()
        if values is None:
            return None
        if not self._unmoved(values):
            self._values = values
            self._copies = [(value, copy.copy(value)) for value in values if changes_in_place(value)]
            self._differing = dict(sorted(self.differing().items())) or None
        return self._differing

    def _unmoved(self, values: list[Any]) -> bool:
        """Whether they are the very objects that they were, and as they were."""
        return (
            len(values) == len(self._values)
            and all(map(operator.is_, values, self._values))
            and all(equal(now, then) for now, then in self._copies)
        )

    def version(self, value: Any) -> str:
        if self._version[0] is not value:
            self._version = (value, super().version(value))
        return self._version[1]


def equal(left: Any, right: Any) -> bool:
    """Whether two options are equal; in doubt they are not."""
    try:
        return bool(left is right or (type(left) is type(right) and left == right))
    except (ValueError, TypeError):
        return False


def changes_in_place(value: Any) -> bool:
    """Whether an option's value may change and stay the object that it is: font lists, matplotlib's cycler."""
    return type(value) in (list, dict, set) or type(value).__name__ == "Cycler"


def packed(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value, 5)).decode()


def unpacked(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))  # noqa: S301 - part of a manifest whose signature was checked


def pickled_digest(value: Any) -> str:
    return hashlib.blake2b(pickle.dumps(value, 5), digest_size=16).hexdigest()
